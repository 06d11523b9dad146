#include "atelier/metrics/features.h"

#include <algorithm>
#include <numeric>

#include "atelier/backends/torch/torch_ops.h"
#include "atelier/backends/torch/transfer.h"
#include "atelier/core/error.h"
#include "atelier/core/random_streams.h"
#include "atelier/models/checksums.h"

namespace atelier::metrics {

namespace {

constexpr std::int64_t batch_size = 250;

Features classify(const graph::Graph& graph, const backends::Parameters& parameters,
                  const Tensor& images) {
    auto out = backends::TorchOps(parameters).run(graph, std::span(&images, 1));
    return {std::move(out[0]), std::move(out[1])};
}

void check_images(const Tensor& images, const networks::ClassifierConfig& config) {
    if (images.dim() == 4 && images.size(1) == config.channels &&
        images.size(2) == config.resolution && images.size(3) == config.resolution) {
        return;
    }
    core::fail(
        "classifier: it reads images [{0},{1},{1}], these samples are {2}; use a classifier "
        "trained on this data set",
        config.channels, config.resolution,
        core::to_string(core::Shape(images.sizes().begin() + 1, images.sizes().end())));
}

}  // namespace

std::string frechet_name(FeatureSpace::Kind kind) {
    switch (kind) {
        case FeatureSpace::Kind::classifier:
            return "feature_distance";
        case FeatureSpace::Kind::inception:
            return "fid";
        case FeatureSpace::Kind::pixels:
            return "pixel_distance";
        case FeatureSpace::Kind::dinov2:
            return "dinov2_distance";
        case FeatureSpace::Kind::clip:
            return "clip_distance";
    }
    core::fail("there is no such feature space");
}

std::string kernel_name(FeatureSpace::Kind kind) {
    return kind == FeatureSpace::Kind::inception ? "kid" : "kernel_" + frechet_name(kind);
}

std::string monge_name(FeatureSpace::Kind kind) {
    return kind == FeatureSpace::Kind::inception ? "mind" : "monge_" + frechet_name(kind);
}

Features Thumbnails::features(const Tensor& images) const {
    if (images.dim() != 4 || images.size(1) != channels_) {
        core::fail("pixels: expected images of {} channels, these samples are {}", channels_,
                   core::to_string(images.sizes().vec()));
    }
    const Tensor pixels = images.to(at::kCPU, at::kFloat);
    return {at::adaptive_avg_pool2d(pixels, {side, side}).flatten(1),
            at::zeros({images.size(0), 0})};
}

const std::string& Thumbnails::hash() const {
    static const std::string description = "averages over 8x8 areas";
    return description;
}

FeatureExtractor::FeatureExtractor(const std::filesystem::path& directory, at::Device device) {
    const auto description = directory / "config.json",
               weights = directory / "classifier.safetensors";
    if (!std::filesystem::exists(description)) {
        core::fail(
            "{}: there is no classifier here (no config.json); name the directory of a trained one",
            directory.string());
    }
    const nlohmann::json json = core::read_json(description);
    config_ = networks::read_classifier_config(core::JsonObject(json, description.string()));
    parameters_ = backends::read_parameters(weights);
    graph_ = networks::classifier_graph(config_);
    backends::check_against(parameters_, graph_.parameters, weights.string());
    if (!parameters_.all_finite())
        core::fail("{}: holds values that are not finite; the file is damaged", weights.string());
    hash_ = backends::hash_of(parameters_);
    if (device != at::kCPU) parameters_ = parameters_.to(device);
}

FeatureExtractor::FeatureExtractor(const networks::ClassifierConfig& config,
                                   backends::Parameters parameters)
    : config_(config),
      graph_(networks::classifier_graph(config)),
      parameters_(std::move(parameters)),
      hash_(backends::hash_of(parameters_)) {
    backends::check_against(parameters_, graph_.parameters, "classifier");
}

Features FeatureExtractor::features(const Tensor& images) const {
    check_images(images, config_);
    at::NoGradGuard no_gradients;
    const at::Device device = parameters_.list().front().device();
    std::vector<Tensor> features, logits;
    for (std::int64_t first = 0; first < images.size(0); first += batch_size) {
        const Tensor batch = images.narrow(0, first, std::min(batch_size, images.size(0) - first));
        const Features part = classify(graph_, parameters_, batch.to(device, at::kFloat));
        features.push_back(part.features.to(at::kCPU, at::kFloat));
        logits.push_back(part.logits.to(at::kCPU, at::kFloat));
    }
    if (features.empty())
        return {at::zeros({0, config_.features}, at::kFloat),
                at::zeros({0, config_.classes}, at::kFloat)};
    return {at::cat(features), at::cat(logits)};
}

std::vector<std::int64_t> predicted_classes(const Tensor& logits) {
    const Tensor classes = logits.argmax(1).contiguous();
    return {classes.const_data_ptr<std::int64_t>(),
            classes.const_data_ptr<std::int64_t>() + classes.numel()};
}

double accuracy(const FeatureExtractor& extractor, const data::Dataset& dataset) {
    const std::vector<std::int64_t>& labels = dataset.labels();
    if (labels.empty())
        core::fail("accuracy: the data set has no labels; give one with a class for every sample");
    std::int64_t correct = 0;
    for (std::int64_t first = 0; first < dataset.size(); first += batch_size) {
        std::vector<std::int64_t> indices(
            static_cast<std::size_t>(std::min(batch_size, dataset.size() - first)));
        std::iota(indices.begin(), indices.end(), first);
        const std::vector<std::int64_t> predicted =
            predicted_classes(extractor.features(dataset.samples(indices)).logits);
        for (std::size_t i = 0; i < predicted.size(); ++i)
            correct += predicted[i] == labels[static_cast<std::size_t>(indices[i])];
    }
    return static_cast<double>(correct) / static_cast<double>(dataset.size());
}

backends::Parameters init_classifier(const networks::ClassifierConfig& config, std::uint64_t seed) {
    return backends::initialise(networks::classifier_graph(config).parameters, seed);
}

void write_classifier(const std::filesystem::path& directory,
                      const networks::ClassifierConfig& config,
                      const backends::Parameters& parameters, const nlohmann::json& provenance) {
    nlohmann::json json{{"architecture", "classifier"}, {"resolution", config.resolution},
                        {"channels", config.channels},  {"classes", config.classes},
                        {"width", config.width},        {"features", config.features}};
    if (provenance.is_object()) json.update(provenance);
    backends::write_parameters(directory / "classifier.safetensors", parameters);
    json[models::checksums_key] = models::checksums_of(directory, {"classifier.safetensors"});
    core::write_json(directory / "config.json", json);
}

Classification::Classification(const networks::ClassifierConfig& config,
                               backends::Parameters& parameters, distillation::BatchSource real,
                               ClassificationSettings settings)
    : config_(config),
      graph_(networks::classifier_graph(config)),
      parameters_(parameters),
      real_(std::move(real)),
      settings_(std::move(settings)) {}

std::vector<distillation::Learner> Classification::learners() {
    return {{"model", &parameters_, settings_.optimization, 1}};
}

distillation::Loss Classification::loss(std::size_t, std::int64_t step, std::int64_t,
                                        std::int64_t) {
    const distillation::LabelledBatch batch = real_(step);
    if (batch.labels.empty())
        core::fail(
            "classifier: the training data have no labels; give one with a class for every sample");
    check_images(batch.samples, config_);
    const at::Device device = parameters_.list().front().device();
    const Tensor images =
        backends::to_device(randomly_shifted(batch.samples, settings_.shift, settings_.seed,
                                             settings_.stream + "/shift", step),
                            device);
    const Tensor labels = backends::to_device(at::tensor(batch.labels), device);
    Tensor logits;
    {
        const backends::LowPrecision compute(
            device.type(), settings_.bfloat16 ? std::optional(at::kBFloat16) : std::nullopt);
        logits = classify(graph_, parameters_, images).logits.to(at::kFloat);
    }
    const Tensor value = at::cross_entropy_loss(logits, labels, {}, at::Reduction::Mean, -100,
                                                settings_.label_smoothing);
    const Tensor correct = logits.argmax(1).eq(labels).to(at::kDouble).mean();
    return {value, {{"loss", value}, {"accuracy", correct}}};
}

Tensor Classification::sample(const backends::Parameters&, const Tensor& noise,
                              const diffusion::Condition&) const {
    return noise;
}

Tensor randomly_shifted(const Tensor& images, std::int64_t shift, std::uint64_t seed,
                        const std::string& stream, std::int64_t step) {
    if (shift == 0) return images;
    core::RandomStream offsets(seed, stream, static_cast<std::uint64_t>(step));
    const Tensor padded = at::replication_pad2d(images, {shift, shift, shift, shift});
    const auto span = static_cast<std::uint64_t>(2 * shift + 1);
    std::vector<Tensor> shifted;
    for (std::int64_t i = 0; i < images.size(0); ++i) {
        const auto dy = static_cast<std::int64_t>(offsets.below(span)),
                   dx = static_cast<std::int64_t>(offsets.below(span));
        shifted.push_back(padded[i].narrow(1, dy, images.size(2)).narrow(2, dx, images.size(3)));
    }
    return at::stack(shifted);
}

}  // namespace atelier::metrics
