#include "atelier/cli/preflight.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <numeric>

#include <fmt/ranges.h>

#include "atelier/cli/caption_table.h"
#include "atelier/cli/latent_data.h"
#include "atelier/cli/perception.h"
#include "atelier/cli/stages.h"
#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/data/caption_grammar.h"
#include "atelier/data/captioned_images.h"
#include "atelier/data/pair_store.h"
#include "atelier/data/toy_points.h"
#include "atelier/evaluation/features.h"
#include "atelier/models/diffusers_directory.h"
#include "atelier/models/latent_model.h"

namespace atelier::cli {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t looked_at = 64;        // samples of held-out data that say what they are
constexpr double largest_usual_rate = 0.1;    // AdamW moves every weight by about its rate in a step
constexpr const char* how_to_train = "train one: atelier classifier configs/classifier.toml data.path=DATA output=FOLDER, and name FOLDER";

using Remarks = std::vector<std::string>;

[[noreturn]] void refuse_run(const std::string& what) { throw core::UsageError(what); }

std::shared_ptr<const data::Dataset> held_out(const RunConfig& config, std::int64_t limit) {
    return data::open_dataset({.path = config.test_path.empty() ? config.data_path : config.test_path, .split = "test", .limit = limit});
}

std::string what_they_are(const data::Dataset& data) {
    const std::string classes = !data.captions().empty() ? "with captions" : data.classes() == 0 ? "unlabelled" : fmt::format("in {} classes", data.classes());
    return fmt::format("{} {}", core::to_string(data.form().shape), classes);
}

void check_held_out(const RunConfig& config, const data::Dataset& raw, Remarks& remarks) {
    const std::string key = config.test_path.empty() ? "data.path" : "data.test_path", path = config.test_path.empty() ? config.data_path : config.test_path;
    const auto test = held_out(config, looked_at);
    const models::DataForm &form = test->form(), &wanted = raw.form();
    // Of images that are partly grey the first few may not tell.
    const bool same_size = form.kind == wanted.kind && form.shape.size() == wanted.shape.size() && std::equal(form.shape.begin() + 1, form.shape.end(), wanted.shape.begin() + 1);
    const bool same_shape = form.shape == wanted.shape || (same_size && held_out(config, 0)->form().shape == wanted.shape);
    const bool captions = !raw.captions().empty(), same_classes = captions ? !test->captions().empty() : test->captions().empty() && test->classes() == raw.classes();
    if (!same_shape || !same_classes) {
        refuse_run(fmt::format("{}: held-out samples ({}) are {}, those of {} are {}; name data of the same kind, made in the same way", path, key, what_they_are(*test),
                               config.data_path, what_they_are(raw)));
    }
    if (!captions && !form.class_names.empty() && !wanted.class_names.empty() && form.class_names != wanted.class_names) {
        refuse_run(fmt::format("{}: its classes are {}, those of {} are {}; a class must have the same name and place in both", path, fmt::join(form.class_names, ", "),
                               config.data_path, fmt::join(wanted.class_names, ", ")));
    }
    if (is_training_data(config)) {
        remarks.push_back(fmt::format("{}: there are no held-out data, so the models are measured against the training data; keep some apart and name them with data.test_path",
                                      config.data_path));
    }
}

/// Why a classifier cannot measure these images; empty where it can.
std::string trouble_with(const std::string& directory, const data::Dataset& raw) {
    try {
        const evaluation::FeatureExtractor extractor{fs::path(directory)};
        const networks::ClassifierConfig& config = extractor.config();
        const std::vector<std::int64_t> reads{config.channels, config.resolution, config.resolution};
        if (raw.form().shape != reads) return fmt::format("{}: it reads images {}, the data's are {}", directory, core::to_string(reads), core::to_string(raw.form().shape));
        if (raw.captions().empty() && raw.classes() > 0 && raw.classes() != config.classes) {
            return fmt::format("{}: it knows {} classes, the data have {}", directory, config.classes, raw.classes());
        }
    } catch (const core::Error& error) {
        return error.what();
    }
    return "";
}

/// Pictures that the program composes are judged by a classifier for each attribute of their captions.
std::string trouble_with_attributes(const std::string& directory) {
    for (const data::Attribute& attribute : data::attributes()) {
        const fs::path other = fs::path(directory).parent_path() / attribute.name;
        if (!fs::exists(other / "config.json")) return other.string() + ": there is no classifier here; composed captions are judged by one for each attribute (configs/captions-classifier.toml)";
    }
    return "";
}

void choose_classifier(LoadedConfig& loaded, const data::Dataset& raw, Remarks& remarks) {
    std::string& classifier = loaded.config.evaluation.classifier;
    const bool captions = !raw.captions().empty(), composed = captions && data::is_composed(loaded.config.data_path);
    if (!classifier.empty()) {
        std::string trouble = trouble_with(classifier, raw);
        if (trouble.empty() && composed) trouble = trouble_with_attributes(classifier);
        if (!trouble.empty() && loaded.classifier_is_meant) refuse_run(fmt::format("evaluate.classifier: {}; {}, or set evaluate.classifier=\"\" to do without", trouble, how_to_train));
        if (trouble.empty() && captions && !composed && !loaded.classifier_is_meant) trouble = classifier + ": it is the config's, for other data";
        if (!trouble.empty()) {
            classifier.clear();
            remarks.push_back(fmt::format("evaluate.classifier is left out ({}): pictures are compared by their pixels alone, and students end with their last weights", trouble));
        }
    }
    const std::string& probe = loaded.config.probe.classifier;
    if (probe.empty()) return;
    if (const std::string trouble = trouble_with(probe, raw); !trouble.empty()) refuse_run(fmt::format("probe.classifier: {}; {}", trouble, how_to_train));
}

/// What the teacher is called in config.json, without a file being read but its configs.
nlohmann::json teacher_json_of(const RunConfig& config, const data::Dataset& raw) {
    if (draws_latents(config)) return latent_teacher_json(config);
    if (!config.teacher.path.empty()) return models::read_model_config(config.teacher.path).config;
    return network_json(config.network, raw.form(), label_width(config, raw));
}

/// A teacher that is there can be read, and this program can compute it.
void check_given_teacher(const std::string& path) {
    if (models::is_diffusers_directory(path)) {
        const models::DiffusersDirectory directory{path};
        const nlohmann::json json = models::model_config_of(directory);
        const core::JsonObject config(json, directory.scheduler_file().string());
        networks::make_network(config);
        diffusion::read_scheme(config);
        directory.unet_weights();
        directory.vae_weights();
        directory.text_weights();
        return;
    }
    models::read_model(path, at::kCPU, models::Weights::mapped);
}

void check_start(const RunConfig& config, const nlohmann::json& teacher) {
    const fs::path start = config.students.start, file = start / "model.safetensors";
    if (start.empty()) return;
    if (!fs::exists(file)) {
        refuse_run(fmt::format("students.start: {} has no model.safetensors; name a finished stage of a run's student, e.g. runs/one/students/0/dm", start.string()));
    }
    const ops::Parameters weights = ops::map_parameters(std::make_shared<const core::SafetensorsFile>(file));
    for (std::int64_t k = 0; k < config.partition.students; ++k) {
        const nlohmann::json student = sized(teacher, config.students, k);
        ops::check_against(weights, networks::trace(networks::make_network(core::JsonObject(student, "students"))).parameters, "students.start: " + file.string());
    }
}

void check_given_pairs(const RunConfig& config) {
    if (config.pairs.path.empty()) return;
    const fs::path manifest = fs::path(config.pairs.path) / "manifest.json";
    if (!fs::exists(manifest)) refuse_run(fmt::format("pairs.path: {}: there are no finished pairs here (no manifest.json); make them with: atelier pairs CONFIG", config.pairs.path));
    const nlohmann::json json = core::read_json(manifest);
    if (config.teacher.path.empty() || models::is_diffusers_directory(config.teacher.path)) return;
    const std::string teacher = ops::hash_of(models::read_model(config.teacher.path, at::kCPU).parameters);
    if (json.value("teacher_hash", "") != teacher) refuse_run(fmt::format("{}: these pairs were drawn by another teacher than {}; make new ones, or name that one", manifest.string(), config.teacher.path));
}

void check_rates(const RunConfig& config, Remarks& remarks) {
    const bool teacher = config.teacher.path.empty();
    const std::vector<std::tuple<const char*, double, bool>> rates{{"teacher.lr", config.teacher.optimization.lr, teacher}, {"tsm.lr", config.tsm.optimization.lr, config.tsm.steps > 0},
        {"dm.lr", config.dm.student.lr, config.dm.steps > 0}, {"dm.fake_lr", config.dm.fake.lr, config.dm.steps > 0},
        {"adm.lr", config.adm.student.lr, config.adm.steps > 0}, {"adm.fake_lr", config.adm.fake.lr, config.adm.steps > 0}};
    for (const auto& [key, rate, used] : rates) {
        if (used && rate > largest_usual_rate) {
            remarks.push_back(fmt::format("{} = {} is far above what AdamW trains with (1e-5 to 1e-2): every weight moves by about so much in a step, and nothing is likely to be learned", key, rate));
        }
    }
}

/// Where the partition does not hang on the teacher, or is there already.
std::optional<conditions::Partition> known_partition(const RunConfig& config, const data::Dataset& raw) {
    const fs::path made = fs::path(config.output) / "partition.json";
    if (fs::exists(made)) {
        const nlohmann::json json = core::read_json(made);
        if (json.contains("owner")) return conditions::partition_from_json(json, made.string());
    }
    if (config.partition.method == "kmeans" || config.partition.method == "balanced") return std::nullopt;
    return conditions::make_partition({.method = config.partition.method, .students = config.partition.students, .classes = std::max<std::int64_t>(1, raw.classes()),
                                       .seed = static_cast<std::uint64_t>(config.seed), .embeddings = {}, .difficulty = {}, .file = config.partition.file});
}

}  // namespace

void check_output_folder(const fs::path& path) {
    fs::path here = fs::absolute(path).lexically_normal();
    if (fs::exists(here) && !fs::is_directory(here)) core::fail("{}: is no folder; name another one", path.string());
    while (!here.empty() && !fs::exists(here)) {
        if (here == here.parent_path()) break;
        here = here.parent_path();
    }
    if (!fs::is_directory(here)) core::fail("{}: cannot be made, since {} is no folder", path.string(), here.string());
    std::string probe = (here / ".atelier-XXXXXX").string();
    if (::mkdtemp(probe.data()) == nullptr) core::fail("{}: cannot be written ({}: {}); name another folder, or see to the permissions", path.string(), here.string(), std::strerror(errno));
    ::rmdir(probe.c_str());
}

bool is_training_data(const RunConfig& config) {
    if (data::is_toy(config.data_path) && config.test_path.empty()) return false;
    const auto hash = [&](const std::string& path, const char* split, std::int64_t limit) { return data::open_dataset({.path = path, .split = split, .limit = limit})->hash(); };
    const std::string test = config.test_path.empty() ? config.data_path : config.test_path;
    if (hash(test, "test", looked_at) != hash(config.data_path, "train", looked_at)) return false;
    std::error_code none;
    return config.test_path.empty() || fs::equivalent(test, config.data_path, none) || hash(test, "test", 0) == hash(config.data_path, "train", 0);
}

void check_cells(const RunConfig& config, const conditions::Partition& partition, const data::Dataset& raw) {
    const conditions::Prior prior = data::prior_of(raw);
    const auto name = [&](std::int64_t c) {
        if (!raw.captions().empty()) return fmt::format("\"{}\"", raw.captions()[static_cast<std::size_t>(c)]);
        const auto& names = raw.form().class_names;
        return names.empty() ? fmt::format("class {}", c) : names[static_cast<std::size_t>(c)];
    };
    const bool needs = (config.dm.steps > 0 && config.dm.regression != "none") || (config.adm.steps > 0 && config.adm.regression != "none");
    const bool of_cell = needs && config.pairs.filter == "cell";
    std::vector<std::int64_t> pairs(static_cast<std::size_t>(partition.students));
    if (of_cell) {
        const bool given = !config.pairs.path.empty();
        for (const std::int64_t label : given ? data::PairStore(config.pairs.path, "").labels() : pair_labels(config, prior)) {
            if (label >= 0 && label < partition.classes()) ++pairs[static_cast<std::size_t>(partition.owner[static_cast<std::size_t>(label)])];
        }
    }
    for (std::int64_t k = 0; k < partition.students; ++k) {
        double images = 0, all = 0;
        std::vector<std::string> names;
        for (const std::int64_t c : partition.cell(k)) images += prior.weights[static_cast<std::size_t>(c)], names.size() < 3 ? names.push_back(name(c)) : void();
        for (const double weight : prior.weights) all += weight;
        const std::string cell = fmt::format("student {} (its cell has {} of {})", k, fmt::join(names, ", "), partition.cell(k).size());
        if (images <= 0) refuse_run(fmt::format("{}: {} would have no sample to learn from; take fewer students, another partition, or data of these classes", config.data_path, cell));
        if (of_cell && pairs[static_cast<std::size_t>(k)] == 0) {
            const std::string what = config.pairs.path.empty() ? fmt::format("pairs.count = {}", config.pairs.count) : config.pairs.path;
            refuse_run(fmt::format("{}: no pair would belong to the cell of student {} ({} % of the data: {}); set pairs.count to {} or more, or pairs.filter = \"all\"", what, k, fmt::format("{:.2g}", 100 * images / all), fmt::join(names, ", "), static_cast<std::int64_t>(std::ceil(16 * all / images))));
        }
    }
}

namespace {

/// What in a run was made otherwise than it would be now: a line each, and the folders that hang on it.
struct Stale {
    std::vector<std::string> lines, folders;
};

Stale stale_stages(Workshop& workshop) {
    const fs::path& output = workshop.output();
    Stale stale;
    const training::StageIdentity of_teacher = workshop.identity("teacher");
    const auto mark = [&](const std::string& folder, const std::string& why, const std::string& to_delete) {
        stale.lines.push_back(fmt::format("{}: {}", folder, why));
        if (std::ranges::find(stale.folders, to_delete) == stale.folders.end()) stale.folders.push_back(to_delete);
    };
    for (const std::string& line : training::StageFolder::differences(output / "teacher", of_teacher)) mark("teacher", line, "teacher");
    const bool grows = stale.lines.empty() && training::StageFolder(output / "teacher", of_teacher).grown_from().has_value();
    const auto look = [&](const std::string& stage, const std::string& folder, const std::string& to_delete) {
        if (!training::StageFolder::is_begun(output / folder)) return;
        const training::StageIdentity identity = workshop.identity(stage);
        if (grows && identity.contents.contains("teacher")) return mark(folder, "was made from the teacher as it is before it goes on (teacher.steps)", to_delete);
        for (const std::string& line : training::StageFolder::differences(output / folder, identity)) mark(folder, line, to_delete);
    };
    look("partition", "partition", "partition");
    look("pairs", "pairs", "pairs");
    for (std::int64_t k = 0; k < workshop.config().partition.students; ++k) {
        for (const char* stage : {"tsm", "dm", "adm"}) look(stage, fmt::format("students/{}/{}", k, stage), "students");
    }
    return stale;
}

/// With all that hangs on them, as far as it is there.
std::vector<std::string> to_be_deleted(const fs::path& output, const std::vector<std::string>& stale) {
    const auto has = [&](const char* folder) { return std::ranges::find(stale, folder) != stale.end(); };
    std::vector<std::string> folders = stale;
    if (has("teacher")) folders = {"teacher", "partition", "pairs", "students"};
    if (has("teacher") || has("partition")) folders.insert(folders.end(), {"partition.json", "centroids.safetensors", "students"});
    folders.push_back("ensemble");
    std::vector<std::string> there;
    for (const std::string& folder : folders) {
        const std::string path = (output / folder).string();
        if (fs::exists(path) && std::ranges::find(there, path) == there.end()) there.push_back(path);
    }
    return there;
}

}  // namespace

void check_stages(Workshop& workshop) {
    Stale stale = stale_stages(workshop);
    if (stale.folders.empty()) return;
    constexpr std::size_t most_lines = 12;
    const std::size_t more = stale.lines.size() - std::min(stale.lines.size(), most_lines);
    stale.lines.resize(stale.lines.size() - more);
    if (more > 0) stale.lines.push_back(fmt::format("and {} more", more));
    refuse_run(fmt::format("{}: was made with other settings:\n  {}\nTake the old values again, give another output=, or have these made again: rm -r {}", workshop.output().string(),
                           fmt::join(stale.lines, "\n  "), fmt::join(to_be_deleted(workshop.output(), stale.folders), " ")));
}

void warn_of_stale_stages(Workshop& workshop) {
    const Stale stale = stale_stages(workshop);
    if (stale.folders.empty()) return;
    core::log::warning("what was made from another teacher than this one is not used any more; have it made again: rm -r {}",
                       fmt::join(to_be_deleted(workshop.output(), stale.folders), " "));
}

std::vector<std::string> check_before_training(LoadedConfig& loaded, const data::Dataset* raw) {
    RunConfig& config = loaded.config;
    Remarks remarks;
    check_output_folder(config.output);
    check_rates(config, remarks);
    if (!config.teacher.path.empty() && (raw || fs::exists(config.teacher.path))) check_given_teacher(config.teacher.path);
    if (!raw) return remarks;
    const bool images = raw->form().kind == models::DataForm::Kind::image && raw->has_samples() && !draws_latents(config);
    if (images) choose_classifier(loaded, *raw, remarks);
    const bool perceptual = config.dm.regression == "perceptual" || config.adm.regression == "perceptual";
    if (perceptual && config.evaluation.classifier.empty() && config.probe.classifier.empty()) {
        refuse_run(fmt::format("regression = \"perceptual\" compares images by a classifier's features, and there is none; {} (probe.classifier), or take \"pseudo_huber\"", how_to_train));
    }
    if (!draws_latents(config)) check_held_out(config, *raw, remarks);
    if (config.uses_lpips()) lpips_loss(config.lpips, at::kCPU);  // the weights are there, and fit
    check_start(config, teacher_json_of(config, *raw));
    check_given_pairs(config);
    if (raw->captions().empty()) {
        if (const auto partition = known_partition(config, *raw)) check_cells(config, *partition, *raw);
    }
    return remarks;
}

}  // namespace atelier::cli
