#include "atelier/pipeline/preflight.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <numeric>

#include <fmt/ranges.h>

#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/data/pair_store.h"
#include "atelier/data/toy_points.h"
#include "atelier/metrics/caption_measuring.h"
#include "atelier/metrics/features.h"
#include "atelier/metrics/measuring.h"
#include "atelier/models/diffusers_directory.h"
#include "atelier/models/latent_model.h"
#include "atelier/pipeline/caption_table.h"
#include "atelier/pipeline/latent_data.h"
#include "atelier/pipeline/make_stages.h"
#include "atelier/pipeline/pair_losses.h"

namespace atelier::pipeline {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t inspected_samples = 64;  // samples of held-out data that are compared
constexpr double largest_usual_rate = 0.1;  // AdamW moves every weight by about its rate in a step
constexpr const char* how_to_train =
    "train one: atelier classifier configs/classifier.toml data.path=DATA output=FOLDER, and name "
    "FOLDER";

using Warnings = std::vector<std::string>;

[[noreturn]] void reject_run(const std::string& what) { throw core::UsageError(what); }

std::shared_ptr<const data::Dataset> held_out(const RunConfig& config, std::int64_t limit) {
    return data::open_dataset(
        {.path = config.test_path.empty() ? config.data_path : config.test_path,
         .split = "test",
         .limit = limit});
}

std::string describe(const data::Dataset& data) {
    const std::string classes = !data.captions().empty() ? "with captions"
                                : data.classes() == 0
                                    ? "unlabelled"
                                    : fmt::format("in {} classes", data.classes());
    return fmt::format("{} {}", core::to_string(data.spec().shape), classes);
}

void check_held_out(const RunConfig& config, const data::Dataset& raw, Warnings& warnings) {
    const std::string key = config.test_path.empty() ? "data.path" : "data.test_path",
                      path = config.test_path.empty() ? config.data_path : config.test_path;
    const auto test = held_out(config, inspected_samples);
    const data::SampleSpec &spec = test->spec(), &expected = raw.spec();
    // Where only some images are grey, the first few are not conclusive.
    const bool same_size =
        spec.kind == expected.kind && spec.shape.size() == expected.shape.size() &&
        std::equal(spec.shape.begin() + 1, spec.shape.end(), expected.shape.begin() + 1);
    const bool same_shape = spec.shape == expected.shape ||
                            (same_size && held_out(config, 0)->spec().shape == expected.shape);
    const bool captions = !raw.captions().empty(),
               same_classes = captions
                                  ? !test->captions().empty()
                                  : test->captions().empty() && test->classes() == raw.classes();
    if (!same_shape || !same_classes) {
        reject_run(
            fmt::format("{}: held-out samples ({}) are {}, those of {} are {}; name data of the "
                        "same kind, made in the same way",
                        path, key, describe(*test), config.data_path, describe(raw)));
    }
    if (!captions && !spec.class_names.empty() && !expected.class_names.empty() &&
        spec.class_names != expected.class_names) {
        reject_run(
            fmt::format("{}: its classes are {}, those of {} are {}; a class must have the same "
                        "name and index in both",
                        path, fmt::join(spec.class_names, ", "), config.data_path,
                        fmt::join(expected.class_names, ", ")));
    }
    if (is_training_data(config)) {
        warnings.push_back(
            fmt::format("{}: there are no held-out data, so the models are measured against the "
                        "training data; keep some apart and name them with data.test_path",
                        config.data_path));
    }
}

/// Why a classifier cannot evaluate these images; empty where it can.
std::string problem_with(const std::string& directory, const data::Dataset& raw) {
    try {
        const metrics::FeatureExtractor extractor{fs::path(directory)};
        const networks::ClassifierConfig& config = extractor.config();
        const std::vector<std::int64_t> reads{config.channels, config.resolution,
                                              config.resolution};
        if (raw.spec().shape != reads)
            return fmt::format("{}: it reads images {}, the data's are {}", directory,
                               core::to_string(reads), core::to_string(raw.spec().shape));
        if (raw.captions().empty() && raw.classes() > 0 && raw.classes() != config.classes) {
            return fmt::format("{}: it knows {} classes, the data have {}", directory,
                               config.classes, raw.classes());
        }
    } catch (const core::Error& error) {
        return error.what();
    }
    return "";
}

/// Why the attributes of captions cannot be measured; empty where they can.
std::string problem_with_attributes(const std::string& file, const data::Dataset& raw) {
    try {
        const metrics::EvaluationConfig evaluation{.attributes = file};
        const metrics::CaptionAttributes named = metrics::attributes_of(evaluation);
        for (const metrics::CaptionAttribute& attribute : named.attributes) {
            if (!fs::exists(attribute.classifier / "config.json"))
                return attribute.classifier.string() +
                       ": there is no classifier here; each attribute of captions is judged by one "
                       "(configs/captions-classifier.toml, docs/captions.md)";
            metrics::open_attribute_classifier(attribute, raw.spec(), at::kCPU);
        }
    } catch (const core::Error& error) {
        return error.what();
    }
    return "";
}

void choose_attributes(LoadedConfig& loaded, const data::Dataset& raw, Warnings& warnings) {
    std::string& attributes = loaded.config.evaluation.attributes;
    if (attributes.empty()) return;
    std::string problem = raw.captions().empty()
                              ? fmt::format(
                                    "{} has no captions that attributes could describe; "
                                    "set evaluate.attributes=\"\"",
                                    loaded.config.data_path)
                              : problem_with_attributes(attributes, raw);
    if (!problem.empty() && loaded.attributes_are_explicit)
        reject_run(fmt::format("evaluate.attributes: {}", problem));
    if (loaded.attributes_are_explicit) return;
    if (problem.empty()) problem = attributes + ": they are the config's, for other data";
    attributes.clear();
    warnings.push_back(
        fmt::format("evaluate.attributes is left out ({}): whether images show what their captions "
                    "say is not measured",
                    problem));
}

void choose_classifier(LoadedConfig& loaded, const data::Dataset& raw, Warnings& warnings) {
    std::string& classifier = loaded.config.evaluation.classifier;
    const bool captions = !raw.captions().empty();
    if (!classifier.empty()) {
        std::string problem = problem_with(classifier, raw);
        if (!problem.empty() && loaded.classifier_is_explicit)
            reject_run(fmt::format(
                "evaluate.classifier: {}; {}, or set evaluate.classifier=\"\" to do without",
                problem, how_to_train));
        if (problem.empty() && captions && !loaded.classifier_is_explicit)
            problem = classifier + ": it is the config's, for other data";
        if (!problem.empty()) {
            classifier.clear();
            warnings.push_back(
                fmt::format("evaluate.classifier is left out ({}): images are compared by their "
                            "pixels alone, and students end with their last weights",
                            problem));
        }
    }
    const std::string& probe = loaded.config.probe.classifier;
    if (probe.empty()) return;
    if (const std::string problem = problem_with(probe, raw); !problem.empty())
        reject_run(fmt::format("probe.classifier: {}; {}", problem, how_to_train));
}

/// Weights and real images that cannot measure these samples are found before anything is trained.
void check_measures(const EvaluationConfig& evaluation, const data::Dataset& raw) {
    const bool points = raw.spec().kind != data::SampleSpec::Kind::image;
    const auto check = [&](const char* key, const std::string& value, const auto& open) {
        if (value.empty()) return;
        if (points)
            reject_run(fmt::format("{} is for images, and the data are points; leave it out", key));
        try {
            open();
        } catch (const core::Error& error) {
            reject_run(fmt::format("{}: {}", key, error.what()));
        }
    };
    // Each alone, so that the message names its key.
    const auto opens = [&](metrics::EvaluationConfig config) {
        return [&raw, config] { metrics::open_spaces(config, raw.spec().shape.at(0)); };
    };
    check("evaluate.inception", evaluation.inception, opens({.inception = evaluation.inception}));
    check("evaluate.dinov2", evaluation.dinov2, opens({.dinov2 = evaluation.dinov2}));
    check("evaluate.clip_features", evaluation.clip_features,
          opens({.clip_features = evaluation.clip_features}));
    check("evaluate.real", evaluation.real, [&] {
        if (!raw.captions().empty())
            core::fail("of captioned data, real pictures are measured without; leave it out");
        const auto real = metrics::open_real({.real = evaluation.real});
        metrics::check_shape(*real, raw.spec(), evaluation.real);
        if (real->size() < evaluation.count)
            core::fail("{}: has {} images, and evaluate.count is {}; give more, or a lower count",
                       evaluation.real, real->size(), evaluation.count);
    });
}

/// The sizes of the teacher's network, from its config files alone.
nlohmann::json teacher_json_of(const RunConfig& config, const data::Dataset& raw) {
    if (draws_latents(config)) return latent_teacher_card(config).config;
    if (!config.teacher.path.empty()) return models::read_card(config.teacher.path).config;
    return teacher_json(config, raw.spec(), label_width(config, raw));
}

/// Throws core::Error where an existing teacher cannot be read, or is not supported.
void check_given_teacher(const std::string& path) {
    if (models::is_diffusers_directory(path)) {
        const models::DiffusersDirectory directory{path};
        models::card_of(directory);
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
        reject_run(
            fmt::format("students.start: {} has no model.safetensors; name a finished stage of a "
                        "run's student, e.g. runs/one/students/0/dm",
                        start.string()));
    }
    const backends::Parameters weights =
        backends::map_parameters(std::make_shared<const core::SafetensorsFile>(file));
    for (std::int64_t k = 0; k < config.partition.students; ++k) {
        const nlohmann::json student = student_config(teacher, config.students, k);
        backends::check_against(
            weights,
            networks::trace(networks::make_network(core::JsonObject(student, "students")))
                .parameters,
            "students.start: " + file.string());
    }
}

void check_given_pairs(const RunConfig& config) {
    if (config.pairs.path.empty()) return;
    const fs::path manifest = fs::path(config.pairs.path) / "manifest.json";
    if (!fs::exists(manifest))
        reject_run(
            fmt::format("pairs.path: {}: there are no finished pairs here (no manifest.json); make "
                        "them with: atelier pairs CONFIG",
                        config.pairs.path));
    const nlohmann::json json = core::read_json(manifest);
    if (config.teacher.path.empty() || models::is_diffusers_directory(config.teacher.path)) return;
    const std::string teacher =
        backends::hash_of(models::read_model(config.teacher.path, at::kCPU).parameters);
    if (json.value("teacher_hash", "") != teacher)
        reject_run(
            fmt::format("{}: these pairs were drawn by another teacher than {}; make new ones, or "
                        "name that one",
                        manifest.string(), config.teacher.path));
}

void check_rates(const RunConfig& config, Warnings& warnings) {
    const bool teacher = config.teacher.path.empty();
    const std::vector<std::tuple<const char*, double, bool>> rates{
        {"teacher.lr", config.teacher.training.optimization.lr, teacher},
        {"tsm.lr", config.tsm.optimization.lr, config.tsm.steps > 0},
        {"dm.lr", config.dm.student.lr, config.dm.steps > 0},
        {"dm.fake_lr", config.dm.fake.lr, config.dm.steps > 0},
        {"adm.lr", config.adm.student.lr, config.adm.steps > 0},
        {"adm.fake_lr", config.adm.fake.lr, config.adm.steps > 0}};
    for (const auto& [key, rate, used] : rates) {
        if (used && rate > largest_usual_rate) {
            warnings.push_back(fmt::format(
                "{} = {} is far above what AdamW trains with (1e-5 to 1e-2): every weight moves by "
                "about that much per step, and nothing is likely to be learned",
                key, rate));
        }
    }
}

}  // namespace

std::optional<conditions::Partition> known_partition(const RunConfig& config,
                                                     const data::Dataset& raw) {
    const fs::path made = fs::path(config.output) / "partition.json";
    if (fs::exists(made)) {
        const nlohmann::json json = core::read_json(made);
        if (json.contains("owner")) return conditions::partition_from_json(json, made.string());
    }
    if (conditions::is_of_teacher(conditions::needs_of(config.partition.method)))
        return std::nullopt;
    return conditions::partition_classes({.method = config.partition.method,
                                          .students = config.partition.students,
                                          .classes = std::max<std::int64_t>(1, raw.classes()),
                                          .seed = static_cast<std::uint64_t>(config.seed),
                                          .embeddings = {},
                                          .difficulty = {},
                                          .file = config.partition.file});
}

void check_output_folder(const fs::path& path) {
    fs::path here = fs::absolute(path).lexically_normal();
    if (fs::exists(here) && !fs::is_directory(here))
        core::fail("{}: is not a folder; name another one", path.string());
    while (!here.empty() && !fs::exists(here)) {
        if (here == here.parent_path()) break;
        here = here.parent_path();
    }
    if (!fs::is_directory(here))
        core::fail("{}: cannot be created, since {} is not a folder", path.string(), here.string());
    std::string probe = (here / ".atelier-XXXXXX").string();
    if (::mkdtemp(probe.data()) == nullptr)
        core::fail("{}: cannot be written ({}: {}); name another folder, or fix its permissions",
                   path.string(), here.string(), std::strerror(errno));
    ::rmdir(probe.c_str());
}

bool is_training_data(const RunConfig& config) {
    if (data::is_toy(config.data_path) && config.test_path.empty()) return false;
    const auto hash = [&](const std::string& path, const char* split, std::int64_t limit) {
        return data::open_dataset({.path = path, .split = split, .limit = limit})->hash();
    };
    const std::string test = config.test_path.empty() ? config.data_path : config.test_path;
    if (hash(test, "test", inspected_samples) != hash(config.data_path, "train", inspected_samples))
        return false;
    std::error_code none;
    return config.test_path.empty() || fs::equivalent(test, config.data_path, none) ||
           hash(test, "test", 0) == hash(config.data_path, "train", 0);
}

void check_cells(const RunConfig& config, const conditions::Partition& partition,
                 const data::Dataset& raw) {
    const conditions::Prior prior = data::prior_of(raw);
    const auto name = [&](std::int64_t c) {
        if (!raw.captions().empty())
            return fmt::format("\"{}\"", raw.captions()[static_cast<std::size_t>(c)]);
        const auto& names = raw.spec().class_names;
        return names.empty() ? fmt::format("class {}", c) : names[static_cast<std::size_t>(c)];
    };
    const bool needs = (config.dm.steps > 0 && config.dm.uses_pairs()) ||
                       (config.adm.steps > 0 && config.adm.uses_pairs());
    const bool of_cell = needs && config.pairs.filter == "cell";
    std::vector<std::int64_t> pairs(static_cast<std::size_t>(partition.students));
    if (of_cell) {
        const bool given = !config.pairs.path.empty();
        for (const std::int64_t label :
             given ? data::PairStore(config.pairs.path, "").labels() : pair_labels(config, prior)) {
            if (label >= 0 && label < partition.classes())
                ++pairs[static_cast<std::size_t>(partition.owner[static_cast<std::size_t>(label)])];
        }
    }
    for (std::int64_t k = 0; k < partition.students; ++k) {
        double images = 0, all = 0;
        std::vector<std::string> names;
        for (const std::int64_t c : partition.cell(k))
            images += prior.weights[static_cast<std::size_t>(c)],
                names.size() < 3 ? names.push_back(name(c)) : void();
        for (const double weight : prior.weights) all += weight;
        const std::string cell = fmt::format("student {} (its cell has {} of {})", k,
                                             fmt::join(names, ", "), partition.cell(k).size());
        if (images <= 0)
            reject_run(
                fmt::format("{}: {} would have no sample to learn from; take fewer students, "
                            "another partition, or data of these classes",
                            config.data_path, cell));
        if (of_cell && pairs[static_cast<std::size_t>(k)] == 0) {
            const std::string what = config.pairs.path.empty()
                                         ? fmt::format("pairs.count = {}", config.pairs.count)
                                         : config.pairs.path;
            reject_run(fmt::format(
                "{}: no pair would belong to the cell of student {} ({} % of the data: {}); set "
                "pairs.count to {} or more, or pairs.filter = \"all\"",
                what, k, fmt::format("{:.2g}", 100 * images / all), fmt::join(names, ", "),
                static_cast<std::int64_t>(std::ceil(16 * all / images))));
        }
    }
}

namespace {

/// What in a run was made from other settings or inputs than now, one line each, and the folders to
/// delete.
struct Stale {
    std::vector<std::string> lines, folders;
};

Stale stale_stages(RunContext& context) {
    const fs::path& output = context.output();
    const std::string teacher = stage_path(StageKind::teacher);
    Stale stale;
    const training::StageIdentity of_teacher = context.identity(StageKind::teacher);
    const auto mark = [&](const std::string& folder, const std::string& why,
                          const std::string& to_delete) {
        stale.lines.push_back(fmt::format("{}: {}", folder, why));
        if (std::ranges::find(stale.folders, to_delete) == stale.folders.end())
            stale.folders.push_back(to_delete);
    };
    for (const std::string& line :
         training::StageFolder::differences(context.path_of(StageKind::teacher), of_teacher))
        mark(teacher, line, teacher);
    const bool grows = stale.lines.empty() &&
                       training::StageFolder(context.path_of(StageKind::teacher), of_teacher)
                           .extended_from()
                           .has_value();
    const auto check_stage = [&](StageKind stage, std::optional<std::int64_t> student,
                                 const std::string& to_delete) {
        const std::string folder = stage_path(stage, student);
        if (!training::StageFolder::is_begun(output / folder)) return;
        const training::StageIdentity identity = context.identity(stage, student);
        if (grows && identity.contents.contains("teacher"))
            return mark(folder,
                        "was made from the teacher before its training continues (teacher.steps)",
                        to_delete);
        for (const std::string& line :
             training::StageFolder::differences(output / folder, identity))
            mark(folder, line, to_delete);
    };
    for (const StageKind stage : {StageKind::partition, StageKind::pairs})
        check_stage(stage, std::nullopt, stage_path(stage));
    if (context.config().trunk.exists()) {
        for (const StageKind stage : student_stage_kinds)
            check_stage(stage, trunk, students_folder(trunk));
    }
    for (std::int64_t k = 0; k < context.config().partition.students; ++k) {
        for (const StageKind stage : student_stage_kinds) check_stage(stage, k, students_folder());
    }
    return stale;
}

/// The stale folders and everything that depends on them, as far as it exists.
std::vector<std::string> folders_to_delete(const fs::path& output,
                                           const std::vector<std::string>& stale) {
    const std::string teacher = stage_path(StageKind::teacher),
                      partition = stage_path(StageKind::partition), students = students_folder(),
                      of_trunk = students_folder(trunk);
    const auto has = [&](const std::string& folder) {
        return std::ranges::find(stale, folder) != stale.end();
    };
    std::vector<std::string> folders = stale;
    if (has(teacher))
        folders = {teacher, partition, stage_path(StageKind::pairs), of_trunk, students};
    if (has(stage_path(StageKind::pairs))) folders.push_back(of_trunk);
    if (has(of_trunk)) folders.push_back(students);
    if (has(teacher) || has(partition))
        folders.insert(folders.end(), {"partition.json", "centroids.safetensors", students});
    folders.push_back(stage_path(StageKind::ensemble));
    std::vector<std::string> there;
    for (const std::string& folder : folders) {
        const std::string path = (output / folder).string();
        if (fs::exists(path) && std::ranges::find(there, path) == there.end())
            there.push_back(path);
    }
    return there;
}

}  // namespace

void check_stages(RunContext& context) {
    Stale stale = stale_stages(context);
    if (stale.folders.empty()) return;
    constexpr std::size_t max_lines = 12;
    const std::size_t more = stale.lines.size() - std::min(stale.lines.size(), max_lines);
    stale.lines.resize(stale.lines.size() - more);
    if (more > 0) stale.lines.push_back(fmt::format("and {} more", more));
    reject_run(
        fmt::format("{}: was made with other settings:\n  {}\nTake the old values again, give "
                    "another output=, or delete these to make them again: rm -r {}",
                    context.output().string(), fmt::join(stale.lines, "\n  "),
                    fmt::join(folders_to_delete(context.output(), stale.folders), " ")));
}

void warn_of_stale_stages(RunContext& context) {
    const Stale stale = stale_stages(context);
    if (stale.folders.empty()) return;
    core::log::warning(
        "what was made from another teacher than this one is no longer used; delete it to make it "
        "again: rm -r {}",
        fmt::join(folders_to_delete(context.output(), stale.folders), " "));
}

std::vector<std::string> check_before_training(LoadedConfig& loaded, const data::Dataset* raw) {
    RunConfig& config = loaded.config;
    Warnings warnings;
    check_output_folder(config.output);
    check_rates(config, warnings);
    if (!config.teacher.path.empty() && (raw || fs::exists(config.teacher.path)))
        check_given_teacher(config.teacher.path);
    if (!raw) return warnings;
    if (config.students.budget == Budget::difficulty && !raw->has_samples())
        reject_run(
            fmt::format("students.budget = \"difficulty\" measures the teacher on samples, and {} "
                        "has only prompts; set it to prior or equal",
                        config.data_path));
    const bool images = raw->spec().kind == data::SampleSpec::Kind::image && raw->has_samples() &&
                        !draws_latents(config);
    choose_attributes(loaded, *raw, warnings);
    if (images) choose_classifier(loaded, *raw, warnings);
    check_measures(config.evaluation, *raw);
    constexpr auto perceptual = distillation::PairLoss::perceptual;
    if ((config.dm.uses_pairs(perceptual) || config.adm.uses_pairs(perceptual)) &&
        config.evaluation.classifier.empty() && config.probe.classifier.empty()) {
        reject_run(
            fmt::format("regression = \"perceptual\" compares images by a classifier's features, "
                        "and there is none; {} (probe.classifier), or take \"pseudo_huber\"",
                        how_to_train));
    }
    if (!draws_latents(config)) check_held_out(config, *raw, warnings);
    if (config.uses_lpips()) lpips_loss(config.lpips, at::kCPU);  // throws unless its weights fit
    check_start(config, teacher_json_of(config, *raw));
    check_given_pairs(config);
    if (raw->captions().empty()) {
        if (const auto partition = known_partition(config, *raw))
            check_cells(config, *partition, *raw);
    }
    return warnings;
}

}  // namespace atelier::pipeline
