#include "atelier/models/identify_path.h"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <iterator>
#include <optional>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "atelier/core/compression.h"
#include "atelier/core/error.h"
#include "atelier/core/installed_data.h"
#include "atelier/core/json_file.h"
#include "atelier/core/log.h"
#include "atelier/core/lower_case.h"
#include "atelier/core/safetensors.h"
#include "atelier/core/schema.h"
#include "atelier/data/data_form.h"
#include "atelier/data/image_layout.h"
#include "atelier/models/diffusers_directory.h"
#include "atelier/models/ensemble.h"

namespace atelier::models {

namespace {

namespace fs = std::filesystem;
using Kind = PathInfo::Kind;

constexpr const char* sd_download =
    "huggingface-cli download stable-diffusion-v1-5/stable-diffusion-v1-5 --local-dir "
    "stable-diffusion-v1-5";

/// How to convert a single-file Stable Diffusion checkpoint with diffusers.
std::string from_single_file(const std::string& path) {
    return fmt::format(
        "make a folder of it with diffusers: python -c \"from diffusers import "
        "StableDiffusionPipeline as P; P.from_single_file('{}').save_pretrained('DIR')\", then "
        "name DIR",
        path);
}

bool is_file(const fs::path& path) {
    std::error_code ignored;
    return fs::is_regular_file(path, ignored);
}

bool is_folder_at(const fs::path& path) {
    std::error_code ignored;
    return fs::is_directory(path, ignored);
}

PathInfo data_info(const fs::path& path, const std::string& what) {
    return {Kind::data_set, what,
            "train on it with: atelier run CONFIG data.path=" + path.string()};
}

/// Entries of a folder except hidden ones, sorted, up to a limit.
std::vector<fs::path> entries_of(const fs::path& folder) {
    constexpr std::size_t limit = 2000;
    std::vector<fs::path> found;
    std::error_code problem;
    for (fs::directory_iterator entry(folder, problem), end;
         !problem && entry != end && found.size() < limit; entry.increment(problem)) {
        if (!entry->path().filename().string().starts_with('.')) found.push_back(entry->path());
    }
    std::ranges::sort(found);
    return found;
}

std::string ending_of(const fs::path& path) { return core::lower_case(path.extension().string()); }

std::string first_bytes(const fs::path& path, std::size_t count = 600) {
    std::string bytes(count, '\0');
    std::ifstream file(path, std::ios::binary);
    file.read(bytes.data(), static_cast<std::streamsize>(count));
    bytes.resize(static_cast<std::size_t>(file.gcount()));
    return bytes;
}

bool any_starts_with(const core::SafetensorsFile& file,
                     std::initializer_list<std::string_view> beginnings) {
    return std::ranges::any_of(file.entries(), [&](const auto& entry) {
        return std::ranges::any_of(
            beginnings, [&](std::string_view begin) { return entry.first.starts_with(begin); });
    });
}

bool any_contains(const core::SafetensorsFile& file,
                  std::initializer_list<std::string_view> parts) {
    return std::ranges::any_of(file.entries(), [&](const auto& entry) {
        return std::ranges::any_of(parts, [&](std::string_view part) {
            return entry.first.find(part) != entry.first.npos;
        });
    });
}

bool is_low_rank(const core::SafetensorsFile& file) {
    return any_starts_with(file, {"lora_unet_", "lora_te"}) ||
           any_contains(file, {".lora_A.", ".lora_B.", ".lora_down.", ".lora_up.", ".lora.down.",
                               ".lora.up.", "_lora.down."});
}

PathInfo low_rank_info() {
    return {
        Kind::low_rank_file,
        "holds low-rank deltas of Stable Diffusion (LoRA), which are no model by themselves",
        "draw with them on their model, with: atelier sample DIR --lora FILE, or merge them into "
        "it, with: atelier convert DIR NEW --to diffusers --lora FILE"};
}

PathInfo safetensors_info(const fs::path& path, const core::SafetensorsFile& file) {
    const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
    if (is_low_rank(file)) return low_rank_info();
    if (any_starts_with(file, {"model.diffusion_model."}))
        return {Kind::stable_diffusion_file, "is Stable Diffusion in one file",
                from_single_file(path.string())};
    if (file.contains("embeddings"))
        return {Kind::arrays, "holds embeddings of prompts",
                "split them with: atelier partition " + path.string() + " --out DIR"};
    if (data::is_data_set(path)) return data_info(path, "is a data set of points");
    if (is_file(folder / "config.json"))
        return {Kind::safetensors, "holds the weights of " + folder.string(),
                "name that directory"};
    return {Kind::safetensors, "is a state dictionary without its network's config",
            "make a model directory of it with: atelier convert " + path.string() +
                " DIR --config config.json"};
}

/// The name of a zip archive's first entry.
std::string first_entry(const std::string& bytes) {
    if (bytes.size() < 30) return "";
    const std::size_t length =
        static_cast<unsigned char>(bytes[26]) + 256U * static_cast<unsigned char>(bytes[27]);
    return bytes.substr(30, length);
}

/// Tensor names appear uncompressed near the beginning of both formats that torch.save writes.
PathInfo pickle_info(const fs::path& path) {
    constexpr std::size_t searched_bytes = std::size_t{4} << 20;
    const std::string beginning = first_bytes(path, searched_bytes);
    const auto holds = [&](std::string_view text) {
        return beginning.find(text) != beginning.npos;
    };
    if (holds("model.diffusion_model."))
        return {Kind::stable_diffusion_file,
                "is Stable Diffusion in one file, a checkpoint of PyTorch's",
                from_single_file(path.string())};
    if (holds("lora_unet_") || holds(".lora_A.") || holds(".lora.down.") || holds("_lora.down."))
        return low_rank_info();
    if (ending_of(path) == ".ckpt")
        return {Kind::pickle,
                "is a checkpoint of PyTorch's (a pickle), of Stable Diffusion by its name",
                from_single_file(path.string())};
    return {Kind::pickle, "is a checkpoint of PyTorch's (a pickle)",
            fmt::format("make a model directory of it with: atelier convert {} DIR, and --config "
                        "config.json where it is a state dictionary",
                        path.string())};
}

std::optional<PathInfo> image_info(const std::string& bytes) {
    static const std::vector<std::pair<std::string_view, const char*>> signatures{
        {"\x89PNG\r\n", "PNG"}, {"\xff\xd8\xff", "JPEG"}, {"GIF8", "GIF"},
        {"BM", "BMP"},          {"II*", "TIFF"},          {"MM\0*", "TIFF"}};
    for (const auto& [begin, name] : signatures) {
        if (bytes.starts_with(begin))
            return PathInfo{Kind::image, fmt::format("is an image ({})", name),
                            "name a model directory"};
    }
    if (bytes.starts_with("RIFF") && bytes.substr(8, 4) == "WEBP")
        return PathInfo{Kind::image, "is an image (WebP)", "name a model directory"};
    return std::nullopt;
}

PathInfo array_info(const fs::path& path) {
    if (ending_of(path) == ".npy")
        return {Kind::arrays, "holds an array (numpy), embeddings of prompts for instance",
                "split those with: atelier partition " + path.string() + " --out DIR"};
    if (data::is_data_set(path))
        return {Kind::data_set, "holds images (numpy), a data set",
                fmt::format("train on it with: atelier run CONFIG data.path={0}, or measure it "
                            "with: atelier evaluate {0}",
                            path.string())};
    return {Kind::arrays, "holds arrays (numpy), statistics for instance",
            "atelier evaluate takes statistics with --reference"};
}

bool is_web_page(const std::string& bytes) {
    const std::size_t first = bytes.find_first_not_of(" \t\r\n");
    const std::string begin = core::lower_case(bytes.substr(std::min(first, bytes.size()), 32));
    return begin.starts_with("<!doctype html") || begin.starts_with("<html");
}

bool is_text(const std::string& bytes) {
    return std::ranges::none_of(bytes, [](char c) {
        return static_cast<unsigned char>(c) < 9 || (static_cast<unsigned char>(c) > 13 &&
                                                     static_cast<unsigned char>(c) < 32 && c != 27);
    });
}

PathInfo file_info(const fs::path& path) {
    const std::string bytes = first_bytes(path), ending = ending_of(path);
    if (const auto image = image_info(bytes)) return *image;
    if (bytes.starts_with("\x93NUMPY") || ending == ".npz") return array_info(path);
    const bool pickled = bytes.size() > 2 && bytes[0] == '\x80' && bytes[1] >= 2 && bytes[1] <= 5;
    const bool zip = bytes.starts_with("PK\3\4");
    if (pickled || (zip && (first_entry(bytes).ends_with("/data.pkl") || ending == ".ckpt" ||
                            ending == ".pt" || ending == ".pth" || ending == ".bin")))
        return pickle_info(path);
    const bool safetensors =
        ending == ".safetensors" ||
        (bytes.size() > 8 && bytes[8] == '{' && bytes.substr(4, 4) == std::string(4, '\0'));
    if (!safetensors && data::is_data_set(path))
        return data_info(path, "is an archive, of images for instance");
    if (safetensors) {
        try {
            return safetensors_info(path, core::SafetensorsFile(path));
        } catch (const core::Error& error) {
            const std::string why = error.what(), where = path.string() + ": ";
            return {Kind::other,
                    fmt::format("is no sound safetensors file ({})",
                                why.starts_with(where) ? why.substr(where.size()) : why),
                    "copy it again"};
        }
    }
    if (ending == ".toml")
        return {Kind::config, "is the config of a run",
                fmt::format("train what it describes with: atelier run {}", path.string())};
    if (ending == ".onnx" || ending == ".xml")
        return {Kind::exported, "is a model exported for other runtimes",
                "name the model directory that it was made of"};
    const bool idx = path.filename().string().find("-ubyte") != std::string::npos;
    if (const auto compression = core::compression_of(bytes); !idx && !compression.empty())
        return {Kind::other, fmt::format("is compressed ({})", compression),
                fmt::format("unpack it, e.g. with: {}, and name what was in it",
                            core::how_to_unpack(compression, path.string()))};
    if (ending == ".gz" || idx) return {Kind::other, "is a file of a data set", "name its folder"};
    if (ending == ".json")
        return {Kind::other, "is a JSON file", "name the directory that it lies in"};
    if (bytes.empty()) return {Kind::other, "is an empty file", "name a model directory"};
    // What a server answered in place of a file, for instance.
    const bool page = is_web_page(bytes);
    if (page || (is_text(bytes) && data::is_image_name(path.filename().string())))
        return {Kind::text,
                fmt::format("is a {}{}", page ? "web page (HTML)" : "text file",
                            ending == ".html" || ending == ".htm" || ending.empty()
                                ? ""
                                : fmt::format(", though its name ends in {}", ending)),
                page ? "if it was downloaded, fetch it again: this is what the server answered with"
                     : "give it the ending that it should have, or fetch it again"};
    if (is_text(bytes))
        return {Kind::text, "is a text file, of prompts or captions for instance",
                "name a model directory; atelier embed reads prompts"};
    return {Kind::other, "is a file of a kind that atelier does not know",
            "name a model directory"};
}

/// Whether `text` may name a repository on huggingface.co: OWNER/NAME, with no local folder OWNER.
bool looks_like_hub_id(const std::string& text) {
    const std::size_t slash = text.find('/');
    if (slash == text.npos || slash == 0 || slash + 1 == text.size() ||
        text.find('/', slash + 1) != text.npos || text.find("..") != text.npos)
        return false;
    const bool fits = std::ranges::all_of(text, [](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '/' || c == '-' ||
               c == '_' || c == '.';
    });
    static const std::vector<std::string> ours{"runs",   "models",  "data",        "configs", "out",
                                               "output", "outputs", "checkpoints", "tmp"};
    return fits && text.front() != '.' &&
           std::ranges::find(ours, text.substr(0, slash)) == ours.end() &&
           !is_folder_at(text.substr(0, slash));
}

/// The folder next to a missing path with the most similar name, or empty.
std::string similar_path(const fs::path& path) {
    const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
    std::vector<std::string> names;
    for (const fs::path& entry : entries_of(folder)) {
        if (is_folder_at(entry)) names.push_back(entry.filename().string());
    }
    const std::string nearest = core::nearest_word(path.filename().string(), names);
    return nearest.empty()
               ? ""
               : (path.has_parent_path() ? folder / nearest : fs::path(nearest)).string();
}

PathInfo missing_info(const fs::path& path) {
    const std::string text = path.string();
    const std::string lower = core::lower_case(text);
    if (text.find("://") != text.npos)
        return {Kind::nothing, "is an address; atelier reads files",
                "download it and name the folder"};
    const bool stable_diffusion =
        lower.find("stable-diffusion") != lower.npos || lower.find("sd-v1") != lower.npos;
    if (text == "runwayml/stable-diffusion-v1-5" ||
        (stable_diffusion && !looks_like_hub_id(text))) {
        return {
            Kind::nothing, "is not there",
            fmt::format(
                "Stable Diffusion 1.5 is downloaded with: {} (pip install huggingface_hub; 5 GB)",
                sd_download)};
    }
    if (looks_like_hub_id(text)) {
        return {Kind::nothing, "is not there",
                fmt::format("where that is a model's name on huggingface.co, download it with: "
                            "huggingface-cli download {} --local-dir {}, then name {}",
                            text, path.filename().string(), path.filename().string())};
    }
    if (const std::string near = similar_path(path); !near.empty())
        return {Kind::nothing, "there is no such model", fmt::format("did you mean {}?", near)};
    return {Kind::nothing, "there is no such model", "name a model or ensemble directory"};
}

bool has_graphs(const fs::path& folder) {
    return std::ranges::any_of(entries_of(folder), [](const fs::path& entry) {
        return ending_of(entry) == ".onnx" ||
               (ending_of(entry) == ".xml" && is_file(fs::path(entry).replace_extension(".bin")));
    });
}

PathInfo exported_info() {
    return {Kind::exported, "is a model exported for other runtimes (ONNX or OpenVINO)",
            "name the directory that it was made of; other programs run this one"};
}

/// Identifies a folder by its config.json.
PathInfo config_info(const fs::path& folder) {
    nlohmann::json config;
    try {
        config = core::read_json(folder / "config.json");
    } catch (const core::Error&) {
        return {Kind::model, "is a model", ""};  // reading it reports the error
    }
    if (!config.is_object()) return {Kind::model, "is a model", ""};
    const auto text = [&](const char* key) {
        return config.contains(key) && config[key].is_string() ? config[key].get<std::string>()
                                                               : std::string();
    };
    if (text("architecture") == "classifier")
        return {Kind::classifier, "is a classifier, which measures images",
                "name it with --classifier, or as evaluate.classifier"};
    if (!text("_class_name").empty() || config.contains("architectures")) {
        const fs::path whole = fs::weakly_canonical(folder).parent_path();
        const bool weights = std::ranges::any_of(entries_of(folder), [](const fs::path& entry) {
            return ending_of(entry) == ".safetensors";
        });
        if (!is_file(whole / "model_index.json") && weights && is_diffusers_part(folder)) {
            const bool autoencoder = text("_class_name").starts_with("Autoencoder");
            return {Kind::diffusers_network,
                    fmt::format("is {} of diffusers' alone ({})",
                                autoencoder ? "an autoencoder" : "a network", text("_class_name")),
                    fmt::format("evaluate it with: atelier forward {}{}; to draw, name the folder "
                                "that holds model_index.json and all parts",
                                folder.string(), autoencoder ? " --part vae" : "")};
        }
        const std::string what =
            text("_class_name").empty()
                ? "a network of transformers'"
                : fmt::format("one part of a diffusers directory ({})", text("_class_name"));
        return {Kind::diffusers_part, "is " + what,
                is_file(whole / "model_index.json")
                    ? "name the whole: " + whole.string()
                    : "name the folder that holds model_index.json and all parts"};
    }
    if (has_graphs(folder)) return exported_info();
    if (text("architecture").empty() && !is_file(folder / "model.safetensors"))
        return {Kind::other, "holds a config.json that is not of a model of atelier's",
                "name a model directory"};
    return {Kind::model, "is a model", ""};
}

std::vector<std::string> models_below(const fs::path& folder, int depth = 1) {
    std::vector<std::string> names;
    constexpr std::size_t searched = 100, named = 8;
    const std::vector<fs::path> entries = entries_of(folder);
    for (const fs::path& entry : entries) {
        if (names.size() >= named) break;
        const bool classifier = is_file(entry / "classifier.safetensors");
        if (!classifier && (is_ensemble_directory(entry) || is_model_directory(entry) ||
                            is_diffusers_directory(entry)))
            names.push_back(entry.string());
        else if (depth > 0 && entries.size() <= searched && is_folder_at(entry))
            std::ranges::copy(models_below(entry, depth - 1), std::back_inserter(names));
    }
    return names;
}

PathInfo run_info(const fs::path& folder) {
    const fs::path ensemble = folder / "ensemble", teacher = folder / "teacher";
    if (is_ensemble_directory(ensemble))
        return {Kind::run, "is the directory of a run",
                "its students together are " + ensemble.string()};
    if (is_model_directory(teacher))
        return {Kind::run, "is the directory of a run whose students are not finished",
                fmt::format("continue with atelier run CONFIG, or name its teacher: {}",
                            teacher.string())};
    return {Kind::run, "is the directory of a run that has no model yet",
            "continue with: atelier run CONFIG"};
}

/// Whether a folder is a run that has barely begun.
bool is_run(const fs::path& folder) {
    return is_file(folder / "partition.json") ||
           (is_folder_at(folder / "students") && is_folder_at(folder / "teacher"));
}

PathInfo folder_info(const fs::path& folder) {
    if (is_diffusers_directory(folder)) {
        if (has_graphs(folder / "unet")) return exported_info();
        return {Kind::diffusers, "is a diffusers directory", ""};
    }
    if (is_ensemble_directory(folder)) {
        if (!is_folder_at(folder / "students") && has_graphs(folder)) return exported_info();
        return {Kind::ensemble, "is an ensemble", ""};
    }
    if (is_file(folder / "config.json")) return config_info(folder);
    if (is_file(folder / "manifest.json"))
        return {Kind::pairs, "is a store of pairs",
                "name a model directory; pairs.path takes this one"};
    if (is_file(folder / "teacher" / "stage.json") || is_ensemble_directory(folder / "ensemble"))
        return run_info(folder);
    if (is_file(folder / "centroids.safetensors"))
        return {Kind::prompt_partition, "is a partition of prompts",
                "name a model directory; atelier route takes this one with --embeddings"};
    if (is_run(folder)) return run_info(folder);
    if (is_file(folder / "stage.json"))
        return {Kind::other, "is a stage of a run that is not finished",
                "continue with: atelier run CONFIG"};
    const std::vector<fs::path> entries = entries_of(folder);
    if (entries.empty()) return {Kind::other, "is an empty folder", "name a model directory"};
    if (const auto below = models_below(folder); !below.empty())
        return {Kind::several_models, "is a folder of models",
                fmt::format("name one of them: {}", fmt::join(below, ", "))};
    if (is_folder_at(folder / "snapshots")) {
        const auto snapshots = entries_of(folder / "snapshots");
        return {
            Kind::other, "is a folder of Hugging Face's cache",
            "name the one below it: " +
                (snapshots.empty() ? folder / "snapshots" / "..." : snapshots.front()).string()};
    }
    if (has_graphs(folder)) return exported_info();
    for (const fs::path& entry : entries) {
        if (ending_of(entry) != ".safetensors" && ending_of(entry) != ".ckpt") continue;
        const PathInfo inside = file_info(entry);
        if (inside.kind == Kind::stable_diffusion_file || inside.kind == Kind::low_rank_file ||
            inside.kind == Kind::pickle)
            return {inside.kind,
                    fmt::format("holds {} alone, and that {}", entry.filename().string(),
                                inside.description),
                    inside.suggestion};
    }
    if (data::is_data_set(folder)) return data_info(folder, "is a folder of images, a data set");
    return {Kind::unknown_folder, "there is no model here (no config.json)",
            "name a model directory"};
}

}  // namespace

PathInfo identify_path(const fs::path& path) {
    std::error_code ignored;
    if (!fs::exists(path, ignored)) return missing_info(path);
    if (fs::is_directory(path, ignored)) return folder_info(path);
    if (!fs::is_regular_file(path, ignored))
        return {Kind::other, "is neither a file nor a folder", "name a model directory"};
    return file_info(path);
}

void reject_as_model(const fs::path& path) {
    const PathInfo found = identify_path(path);
    if (found.suggestion.empty())
        core::fail("{}: {}, and this needs something else; atelier inspect {} says more",
                   path.string(), found.description, path.string());
    core::fail("{}: {}; {}", path.string(), found.description, found.suggestion);
}

fs::path located(const fs::path& path) {
    std::error_code ignored;
    if (path.empty() || path.is_absolute() || fs::exists(path, ignored)) return path;
    const fs::path data = core::installed_data();
    return !data.empty() && fs::exists(data / path, ignored) ? data / path : path;
}

fs::path model_at(const fs::path& given) {
    const fs::path path = located(given);
    const PathInfo found = identify_path(path);
    if (found.kind == Kind::model || found.kind == Kind::ensemble || found.kind == Kind::diffusers)
        return path;
    if (found.kind == Kind::run && is_ensemble_directory(path / "ensemble")) {
        core::log::info("{}: {}; taking its ensemble, {}", path.string(), found.description,
                        (path / "ensemble").string());
        return path / "ensemble";
    }
    reject_as_model(path);
}

}  // namespace atelier::models
