#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>

#include "atelier/backends/torch/accelerator.h"
#include "atelier/cli/commands.h"
#include "atelier/cli/with_ranks.h"
#include "atelier/core/error.h"
#include "atelier/core/heap.h"
#include "atelier/core/log.h"
#include "atelier/core/processors.h"
#include "atelier/core/progress.h"
#include "atelier/core/schema.h"
#include "atelier/core/signals.h"
#include "atelier/data/loader.h"
#include "atelier/inference/device.h"
#include "atelier/metrics/features.h"
#include "atelier/training/loop.h"
#include "atelier/training/run_directory.h"

namespace atelier::cli {

namespace {

struct ClassifierRun {
    std::int64_t seed = 0, threads = 2, batch = 128, width = 32, features = 128;
    std::string output, data_path, test_path, device = "cpu";
    metrics::ClassificationSettings training;
};

core::Schema schema_of(ClassifierRun& run) {
    core::Schema schema;
    schema.number("seed", &run.seed, "every random number follows from it", {.min = 0});
    schema.number("threads", &run.threads,
                  "CPU threads; 0: as many as there are processors, and never more",
                  {.min = 0, .affects_result = false});
    schema.text("output", &run.output, "where training goes and the classifier ends up", {}, false);
    schema.text("device", &run.device, "cpu, cuda or cuda:N", {}, false);
    schema.text("data.path", &run.data_path, "labelled images");
    schema.text("data.test_path", &run.test_path,
                "held-out images to try it on; empty: the test split of data.path", {}, false);
    schema.number("width", &run.width, "channels of the first layer", {.min = 4});
    schema.number("features", &run.features, "length of the feature vector", {.min = 4});
    schema.number("batch", &run.batch, "images a step", {.min = 1});
    schema.number("steps", &run.training.steps, "training steps", {.min = 1});
    schema.number("lr", &run.training.optimization.lr, "AdamW learning rate", {.min = 1e-12});
    schema.number("shift", &run.training.shift, "images are shifted by up to this many pixels",
                  {.min = 0});
    schema.flag("bfloat16", &run.training.bfloat16,
                "compute in bfloat16; weights and losses stay float32");
    schema.number("label_smoothing", &run.training.label_smoothing,
                  "share of the target spread over all classes", {.min = 0, .max = 1});
    return schema;
}

void train(const std::string& path, const std::vector<std::string>& overrides) {
    core::end_after_stop(10, core::resumable_message);
    ClassifierRun run;
    core::Schema schema = schema_of(run);
    const nlohmann::json defaults = schema.values();
    schema.read(path, overrides);
    if (run.output.empty() || run.data_path.empty())
        throw core::UsageError("output and data.path must be given");
    const at::Device device = inference::device_of(run.device);
    if (!device.is_cpu()) backends::configure_accelerators({});
    at::set_num_threads(static_cast<int>(core::threads_within(run.threads, "threads")));
    core::keep_freed_memory();
    const auto data = data::open_dataset({.path = run.data_path, .split = "train", .limit = 0});
    const auto test =
        data::open_dataset({.path = run.test_path.empty() ? run.data_path : run.test_path,
                            .split = "test",
                            .limit = 0});
    const std::string tried_on =
        test->hash() == data->hash() ? "training" : "test";  // an archive has no split
    if (!data->captions().empty()) {
        throw core::UsageError(
            run.data_path +
            ": has captions, no classes, and a classifier learns classes; name class folders of "
            "such images, or do without a classifier (evaluate.classifier=\"\")");
    }
    if (data->classes() < 2 || data->spec().shape.size() != 3)
        core::fail("{}: a classifier needs images in at least two classes", run.data_path);

    const training::StageFolder stage(
        run.output, training::StageIdentity{.settings = schema.values(true),
                                            .contents = {{"data.path", data->hash()}},
                                            .defaults = defaults});
    if (stage.finished()) return;
    stage.begin();
    const networks::ClassifierConfig config{data->spec().shape[1], data->spec().shape[0],
                                            data->classes(), run.width, run.features};
    backends::Parameters parameters =
        metrics::init_classifier(config, static_cast<std::uint64_t>(run.seed)).to(device);
    data::Loader loader(data, {.batch = run.batch,
                               .horizontal_flips = false,
                               .seed = static_cast<std::uint64_t>(run.seed),
                               .stream = "classifier/data",
                               .indices = {}});
    run.training.seed = static_cast<std::uint64_t>(run.seed);
    metrics::Classification classification(
        config, parameters,
        [&](std::int64_t step) {
            const data::Batch batch = loader.at(step);
            return distillation::LabelledBatch{batch.samples, batch.labels};
        },
        run.training);
    training::LoopSettings settings;
    settings.label = "classifier";
    settings.folder = stage.path() / "training";
    const auto result = training::run_stage(classification, settings);
    const metrics::FeatureExtractor extractor(config, result.weights);
    const double right = metrics::accuracy(extractor, *test);
    metrics::write_classifier(stage.path(), config, result.weights,
                              {{tried_on + "_accuracy", right},
                               {"seed", run.seed},
                               {"data", data->hash()},
                               {"steps", run.training.steps}});
    stage.finish({{"seconds", result.seconds}, {tried_on + "_accuracy", right}});
    core::log::info("classifier: {:.2f} % of the {} images right, after {}", 100 * right, tried_on,
                    core::format_duration(result.seconds));
}

}  // namespace

void add_classifier_command(CLI::App& app) {
    auto path = std::make_shared<std::string>();
    auto overrides = std::make_shared<std::vector<std::string>>();
    CLI::App* command =
        app.add_subcommand("classifier", "Train the classifier whose features measure images");
    command->add_option("CONFIG", *path, "a TOML file, e.g. configs/classifier.toml")->required();
    command->add_option("overrides", *overrides, "key=value pairs");
    command->footer(
        "Examples:\n  atelier classifier configs/classifier.toml output=runs/classifier\n"
        "  atelier classifier configs/classifier.toml data.path=mine.zip "
        "data.test_path=mine-test.zip output=runs/classifier");
    command->callback([path, overrides] { by_first_rank([&] { train(*path, *overrides); }); });
}

}  // namespace atelier::cli
