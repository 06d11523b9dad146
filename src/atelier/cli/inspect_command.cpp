#include <CLI/CLI.hpp>
#include <iostream>
#include <set>

#include <fmt/ranges.h>

#include "atelier/cli/commands.h"
#include "atelier/conditions/prompt_partition.h"
#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/core/image_file.h"
#include "atelier/core/json_file.h"
#include "atelier/core/lower_case.h"
#include "atelier/core/npz.h"
#include "atelier/core/text_encoding.h"
#include "atelier/data/captioned_images.h"
#include "atelier/data/dataset.h"
#include "atelier/data/pair_store.h"
#include "atelier/data/prompt_list.h"
#include "atelier/data/toy_points.h"
#include "atelier/metrics/features.h"
#include "atelier/models/checksums.h"
#include "atelier/models/diffusers_directory.h"
#include "atelier/models/ensemble.h"
#include "atelier/models/identify_path.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

bool ends_with(const fs::path& path, const char* ending) {
    return core::lower_case(path.extension().string()) == ending;
}

/// Verifies the weights against their stored checksums; throws when a file differs.
void add_checksums(nlohmann::json& about, const fs::path& path) {
    const models::Verified verified = models::verify_checksums(path);
    std::string text = verified.compared == 0
                           ? "none kept (written before checksums were)"
                           : fmt::format("{} files as they were written", verified.compared);
    if (verified.compared > 0 && verified.without > 0)
        text += fmt::format(", {} without a checksum", verified.without);
    about["checksums"] = text;
}

nlohmann::json of_model(const fs::path& path) {
    const models::Model model = models::read_model(path);
    nlohmann::json about{{"kind", model.is_student() ? "student" : "model"},
                         {"architecture", model.network.architecture},
                         {"parameters", model.parameter_count()},
                         {"flops_an_evaluation", networks::trace(model.network).flops},
                         {"data_shape", model.network.data_shape},
                         {"hash", backends::hash_of(model.parameters)}};
    if (model.reads_text())
        about.update({{"condition", "text"}, {"text_width", model.network.label_dim}});
    else about["classes"] = model.network.label_dim;
    if (!model.spec.class_names.empty()) about["class_names"] = model.spec.class_names;
    const nlohmann::json card = models::json_of(model);
    for (const char* key : {"place", "provenance"}) {
        if (card.contains(key)) about[key] = card.at(key);
    }
    add_checksums(about, path);
    return about;
}

nlohmann::json of_ensemble(const fs::path& path) {
    const models::Ensemble ensemble = models::read_ensemble(path);
    nlohmann::json students = nlohmann::json::array();
    for (std::int64_t k = 0; k < ensemble.partition.students; ++k) {
        const models::Model student = models::read_student(ensemble, k);
        students.push_back({{"student", k},
                            {"parameters", student.parameter_count()},
                            {"hash", backends::hash_of(student.parameters)}});
        if (ensemble.prompts) continue;
        students.back()["cell"] = ensemble.partition.cell(k);
        if (ensemble.spec.class_names.empty()) continue;
        for (const std::int64_t id : ensemble.partition.cell(k))
            students.back()["class_names"].push_back(
                ensemble.spec.class_names[static_cast<std::size_t>(id)]);
    }
    nlohmann::json about{
        {"kind", "ensemble"},
        {"K", ensemble.partition.students},
        {"condition", ensemble.prompts ? "text" : "class"},
        {"partition", ensemble.prompts ? ensemble.prompts->method : ensemble.partition.method},
        {"partition_hash", ensemble.partition_hash()},
        {"data_shape", ensemble.spec.shape},
        {"students", students}};
    if (!ensemble.prompts) about["classes"] = ensemble.partition.classes();
    if (!ensemble.spec.class_names.empty() && !ensemble.prompts)
        about["class_names"] = ensemble.spec.class_names;
    add_checksums(about, path);
    return about;
}

nlohmann::json of_classifier(const fs::path& path) {
    const metrics::FeatureExtractor extractor(path);
    nlohmann::json about{{"kind", "classifier"},
                         {"classes", extractor.config().classes},
                         {"features", extractor.config().features},
                         {"hash", extractor.hash()}};
    add_checksums(about, path);
    return about;
}

nlohmann::json of_run(const fs::path& path) {
    nlohmann::json stages = nlohmann::json::object();
    for (const auto& entry : fs::recursive_directory_iterator(path)) {
        if (entry.path().filename() == "stage.json") {
            stages[entry.path().parent_path().lexically_relative(path).string()] =
                core::read_json(entry.path()).value("status", "?");
        }
    }
    return {{"kind", "run"},
            {"stages", stages},
            {"ensemble", models::is_ensemble_directory(path / "ensemble")}};
}

nlohmann::json of_prompt_partition(const fs::path& path) {
    const conditions::PromptPartition partition = conditions::read_prompt_partition(path);
    return {{"kind", "partition of prompts"},
            {"K", partition.students()},
            {"numbers_an_embedding", partition.centroids[0].size()},
            {"method", partition.method},
            {"encoder", partition.encoder},
            {"null_owner", partition.null_owner},
            {"partition_hash", partition.hash()}};
}

nlohmann::json of_data(const fs::path& path) {
    const auto data =
        data::open_dataset({.path = path, .split = "train", .limit = 0, .gaps = true});
    if (!data->captions().empty()) {
        return {
            {"kind", "captioned data set"},
            {"samples", data->size()},
            {"shape", data->spec().shape},
            {"captions", data->captions().size()},
            {"first_caption", data->captions()[static_cast<std::size_t>(data->labels().front())]},
            {"hash", data->hash()}};
    }
    nlohmann::json histogram = nlohmann::json::object();
    const auto prior = data::prior_of(*data);
    const auto& names = data->spec().class_names;
    std::int64_t empty = 0;
    for (std::int64_t c = 0; c < data->classes(); ++c) {
        const auto i = static_cast<std::size_t>(c);
        if (prior.weights[i] == 0) ++empty;
        else
            histogram[names.empty() ? std::to_string(c) : names[i]] =
                static_cast<std::int64_t>(prior.weights[i]);
    }
    nlohmann::json about{{"kind", "data set"},          {"samples", data->size()},
                         {"shape", data->spec().shape}, {"classes", data->classes()},
                         {"histogram", histogram},      {"hash", data->hash()}};
    if (empty > 0) about["classes_without_samples"] = empty;  // no data to learn from
    return about;
}

/// Derives the kind from the description: "is an image (WebP)" becomes "image (WebP)".
nlohmann::json of_finding(const models::PathInfo& found) {
    std::string kind = found.description;
    for (const char* begin : {"is the ", "is an ", "is a ", "is ", "holds "}) {
        if (!kind.starts_with(begin)) continue;
        kind.erase(0, std::string(begin).size());
        break;
    }
    nlohmann::json about{{"kind", kind}};
    if (!found.suggestion.empty()) about["next"] = found.suggestion;
    return about;
}

nlohmann::json of_image(const fs::path& path, const models::PathInfo& found) {
    if (found.description.find("PNG") == std::string::npos &&
        found.description.find("JPEG") == std::string::npos &&
        found.description.find("WebP") == std::string::npos)
        return of_finding(found);
    const core::Image image = core::read_image(path);
    nlohmann::json about{{"kind", "image"},
                         {"width", image.width},
                         {"height", image.height},
                         {"channels", image.channels}};
    if (core::read_text(path).starts_with("\x89PNG")) {
        for (const auto& [key, text] : core::read_png_text(path)) about["text"][key] = text;
    }
    return about;
}

/// For tensor files: the number of tensors and values, and the types.
nlohmann::json of_tensors(const fs::path& path, const models::PathInfo& found) {
    nlohmann::json about = of_finding(found);
    const core::SafetensorsFile file(path);
    std::int64_t values = 0;
    std::set<std::string> types;
    for (const auto& [name, entry] : file.entries()) {
        values += graph::elements(entry.shape);
        types.insert(core::name_of(entry.dtype));
    }
    for (const auto& [name, type] : file.unsupported()) types.insert(type);
    about.update({{"tensors", file.entries().size() + file.unsupported().size()},
                  {"values", values},
                  {"stored_as", types}});
    return about;
}

nlohmann::json of_arrays(const fs::path& path, const models::PathInfo& found) {
    if (ends_with(path, ".safetensors")) return of_tensors(path, found);
    nlohmann::json about = of_finding(found);
    if (!ends_with(path, ".npz")) return about;
    for (const auto& [name, array] : core::read_npz(path))
        about["arrays"][name] =
            fmt::format("{} {}", core::name_of(array.dtype), core::to_string(array.shape));
    return about;
}

nlohmann::json about(const fs::path& given) {
    using Kind = models::PathInfo::Kind;
    const fs::path path = models::located(given);
    if (data::is_toy(path) || data::is_captioned(path) || data::is_prompt_list(path))
        return of_data(path);
    const models::PathInfo found = models::identify_path(path);
    switch (found.kind) {
        case Kind::nothing:
            core::fail("{}: there is nothing at this path; {}", path.string(), found.suggestion);
        case Kind::diffusers:
            return models::DiffusersDirectory(path).about();
        case Kind::diffusers_network:
            return models::DiffusersPart(path).about();
        case Kind::ensemble:
            return of_ensemble(path);
        case Kind::classifier:
            return of_classifier(path);
        case Kind::model:
            return of_model(path);
        case Kind::pairs:
            return {{"kind", "pairs"},
                    {"count", data::PairStore(path, "").size()},
                    {"manifest", core::read_json(path / "manifest.json")}};
        case Kind::prompt_partition:
            return of_prompt_partition(path);
        case Kind::run:
            return of_run(path);
        case Kind::image:
            return of_image(path, found);
        case Kind::data_set:
        case Kind::unknown_folder:  // opening it says what was looked for
            return of_data(path);
        case Kind::stable_diffusion_file:
        case Kind::low_rank_file:
        case Kind::safetensors:
            return ends_with(path, ".safetensors") && !fs::is_directory(path)
                       ? of_tensors(path, found)
                       : of_finding(found);
        case Kind::arrays:
            return of_arrays(path, found);
        case Kind::several_models:
        case Kind::exported:
        case Kind::config:
        case Kind::diffusers_part:
        case Kind::pickle:
        case Kind::text:
            return of_finding(found);
        case Kind::other:
            break;
    }
    models::reject_as_model(path);
}

/// For a terminal, which control characters of other people's files must not reach.
std::string text_of(const nlohmann::json& entry) {
    return core::printable(entry.is_string() ? entry.get<std::string>() : core::json_text(entry));
}

void print(const nlohmann::json& value, const std::string& indent) {
    constexpr std::size_t widest = 90;
    if (value.is_object() && value.contains("kind"))
        std::cout << indent << "kind: " << text_of(value["kind"]) << "\n";
    for (const auto& [key, entry] : value.items()) {
        if (value.is_object() && key == "kind") continue;
        const bool list = entry.is_object() ||
                          (entry.is_array() && !entry.empty() && entry.front().is_structured());
        if (key == "histogram" || (list && text_of(entry).size() > widest)) {
            std::cout << indent << core::printable(key) << ":\n";
            print(entry, indent + "  ");
        } else if (entry.is_array() && !entry.empty() && entry.front().is_string()) {
            std::vector<std::string> joined;
            for (const auto& one : entry) joined.push_back(text_of(one));
            std::cout << indent << core::printable(key) << ": "
                      << fmt::format("{}", fmt::join(joined, ", ")) << "\n";
        } else {
            std::cout << indent << core::printable(key) << ": " << text_of(entry) << "\n";
        }
    }
}

}  // namespace

void add_inspect_command(CLI::App& app) {
    auto path = std::make_shared<std::string>();
    auto json = std::make_shared<bool>(false);
    CLI::App* command =
        app.add_subcommand("inspect",
                           "Say what lies at a path (model, ensemble, run, data set, image, "
                           "foreign checkpoint, ...), and whether it is intact");
    command->add_option("PATH", *path, "a directory or file")->required();
    command->add_flag("--json", *json, "as JSON");
    command->footer(
        "Examples:\n  atelier inspect models/fashion-mnist/k4\n  atelier inspect "
        "/usr/share/datasets/fashion-mnist\n  atelier inspect toy:ring");
    command->callback([path, json] {
        const nlohmann::json what = about(*path);
        if (*json) std::cout << text_of(what) << std::endl;
        else print(what, "");
    });
}

}  // namespace atelier::cli
