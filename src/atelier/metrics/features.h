#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "atelier/backends/torch/parameters.h"
#include "atelier/data/dataset.h"
#include "atelier/distillation/stage.h"
#include "atelier/networks/classifier.h"

namespace atelier::metrics {

struct Features {
    Tensor features;  // [N,F] float32, CPU
    Tensor logits;    // [N,classes] float32, CPU
};

/// Maps images to the feature vectors that they are compared by.
class FeatureSpace {
public:
    /// Distances on Inception features are FID and KID; a classifier's logits predict the data
    /// set's classes; pixels need no network.
    enum class Kind {
        classifier,
        inception,
        pixels,
        dinov2,
        clip,
    };

    virtual ~FeatureSpace() = default;

    /// Features of model-space images [N,C,H,W], computed in batches. Throws core::Error on
    /// unsupported shapes.
    virtual Features features(const Tensor& images) const = 0;
    virtual std::int64_t width() const = 0;  // features per image
    /// backends::hash_of the weights.
    virtual const std::string& hash() const = 0;
    virtual Kind kind() const = 0;
    /// How images are resized, for a result's protocol; empty where kind and hash determine it.
    virtual std::string resizing() const { return ""; }
};

inline constexpr FeatureSpace::Kind feature_space_kinds[]{
    FeatureSpace::Kind::inception, FeatureSpace::Kind::dinov2, FeatureSpace::Kind::clip,
    FeatureSpace::Kind::classifier, FeatureSpace::Kind::pixels};

/// Names of the distances in results: "fid" and "kid", "feature_distance" and
/// "kernel_feature_distance"; of pixels, DINOv2 and CLIP "pixel_distance" and
/// "kernel_pixel_distance" and so on.
std::string frechet_name(FeatureSpace::Kind kind);
std::string kernel_name(FeatureSpace::Kind kind);
/// "mind" on Inception's features, else "monge_feature_distance" and so on.
std::string monge_name(FeatureSpace::Kind kind);

/// Pixels averaged over an 8x8 grid: layout and colour, no content. Needs no weights, so images
/// of any data set can be compared without a classifier.
class Thumbnails : public FeatureSpace {
public:
    explicit Thumbnails(std::int64_t channels) : channels_(channels) {}

    Features features(const Tensor& images) const override;
    std::int64_t width() const override { return channels_ * side * side; }
    const std::string& hash() const override;
    Kind kind() const override { return Kind::pixels; }

private:
    static constexpr std::int64_t side = 8;
    std::int64_t channels_;
};

/// Features of a classifier trained by this program, the default for image metrics.
class FeatureExtractor : public FeatureSpace {
public:
    /// Reads a classifier's model directory. Throws core::Error naming the missing or mismatched
    /// file.
    explicit FeatureExtractor(const std::filesystem::path& directory, at::Device device = at::kCPU);
    FeatureExtractor(const networks::ClassifierConfig& config, backends::Parameters parameters);

    /// Takes images [N,channels,resolution,resolution] only.
    Features features(const Tensor& images) const override;

    const networks::ClassifierConfig& config() const { return config_; }
    std::int64_t width() const override { return config_.features; }
    const std::string& hash() const override { return hash_; }
    Kind kind() const override { return Kind::classifier; }

private:
    networks::ClassifierConfig config_;
    graph::Graph graph_;
    backends::Parameters parameters_;
    std::string hash_;
};

/// The class with the largest logit for each row of [N,classes].
std::vector<std::int64_t> predicted_classes(const Tensor& logits);

/// Top-1 accuracy on the data set, 0..1. Throws core::Error when the data are unlabelled.
double accuracy(const FeatureExtractor& extractor, const data::Dataset& dataset);

/// Randomly initialised weights; each tensor is a function of the seed and its name.
backends::Parameters init_classifier(const networks::ClassifierConfig& config, std::uint64_t seed);

/// Writes config.json (sizes, then `provenance`'s keys) and classifier.safetensors, each
/// atomically, config.json last.
void write_classifier(const std::filesystem::path& directory,
                      const networks::ClassifierConfig& config,
                      const backends::Parameters& parameters, const nlohmann::json& provenance);

struct ClassificationSettings {
    std::int64_t steps = 4000;
    distillation::Optimization optimization{
        .lr = 2e-3, .warmup = 100, .decay_from = 0.3, .ema_decay = 0.99};
    std::int64_t shift =
        2;  // images are shifted by up to this many pixels in each direction, border replicated
    double label_smoothing = 0.0;  // fraction of the target spread over all classes
    bool bfloat16 = false;
    std::uint64_t seed = 0;
    std::string stream = "classifier";  // name of the shifts' random stream
};

/// Trains a classifier by cross-entropy on randomly shifted images.
class Classification : public distillation::Stage {
public:
    /// `parameters` must outlive the stage. Batches of `real` must be labelled.
    Classification(const networks::ClassifierConfig& config, backends::Parameters& parameters,
                   distillation::BatchSource real, ClassificationSettings settings);

    std::int64_t steps() const override { return settings_.steps; }
    /// One learner, "model".
    std::vector<distillation::Learner> learners() override;
    /// Metrics: loss, and accuracy on the batch.
    distillation::Loss loss(std::size_t index, std::int64_t step, std::int64_t inner_step,
                            std::int64_t micro_batch) override;
    /// Returns `noise`: a classifier generates no samples.
    Tensor sample(const backends::Parameters& weights, const Tensor& noise,
                  const diffusion::Condition& condition) const override;

private:
    networks::ClassifierConfig config_;
    graph::Graph graph_;
    backends::Parameters& parameters_;
    distillation::BatchSource real_;
    ClassificationSettings settings_;
};

/// Each image of [N,C,H,W] shifted by up to `shift` pixels in each direction with replicated
/// border; a function of (seed, stream, step).
Tensor randomly_shifted(const Tensor& images, std::int64_t shift, std::uint64_t seed,
                        const std::string& stream, std::int64_t step);

}  // namespace atelier::metrics
