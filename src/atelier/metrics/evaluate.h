#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "atelier/conditions/partition.h"
#include "atelier/data/dataset.h"
#include "atelier/metrics/distances.h"
#include "atelier/metrics/evaluation_parts.h"
#include "atelier/metrics/features.h"

namespace atelier::metrics {

/// Samples of a model, in model space [N,shape...], and the requested class of each (empty when
/// unconditional).
struct Samples {
    Tensor model_space;
    std::vector<std::int64_t> labels;
    // Instead of `model_space`, for samples that exceed memory: their number, and a function that
    // returns rows first..first+n-1. Each row is read once, in order.
    std::int64_t count = 0;
    std::function<Tensor(std::int64_t first, std::int64_t n)> read{};
    // Further questions about the rows: `ask` returns tensors [n,...] about samples [n,...], and
    // `hear` receives them in order, with the number of the first row.
    std::function<backends::Parameters(const Tensor& samples)> ask{};
    std::function<void(std::int64_t first, const backends::Parameters& answers)> hear{};

    std::int64_t size() const { return read ? count : model_space.size(0); }
    Tensor rows(std::int64_t first, std::int64_t n) const {
        return read ? read(first, n) : model_space.narrow(0, first, n);
    }
};

/// Draws `count` samples; must depend on (count, seed) only.
using SampleSource = std::function<Samples(std::int64_t count, std::uint64_t seed)>;

/// How a model is evaluated; recorded in the result.
struct Protocol {
    std::int64_t count = 10000;  // samples per seed
    std::vector<std::uint64_t> seeds{
        0};  // metrics are means over seeds; spread is the sample standard deviation
    std::string reference_path;    // where the reference data came from
    std::string program;           // name and version of this program
    std::string name = "atelier";  // of the protocol (protocols.h)
    std::string class_draws;  // description of how the samples' classes were drawn; may be empty
    conditions::Partition
        partition;  // of the classes, for rows by cell; of fewer than two students: none
    // Images.
    std::int64_t side = 0;  // images were resized to side x side; 0: not resized
    std::int64_t kernel_subsets = 100, kernel_subset_size = 1000;
    std::int64_t kept_features = 50000;  // features of each set kept in memory, for metrics that
                                         // need more than means and covariances
    std::int64_t monge_directions = 1000;
    std::int64_t manifold_limit =
        10000;  // samples of each set used for precision, recall, density and coverage
    std::int64_t precision_neighbours = 3, coverage_neighbours = 5;
    std::int64_t score_splits = 10;  // of the Inception Score
    // Points, in the user's space.
    std::int64_t directions = 256;
    std::vector<std::array<double, 2>>
        centres;         // of the modes, if known; empty: each class is a mode
    double std_dev = 0;  // of a mode, in each dimension
};

/// Mean, spread and values of each metric over several draws, which must have the same metrics in
/// the same order.
nlohmann::json summaries(const std::vector<const distillation::Metrics*>& draws);

/// Throws core::Error when samples [n,...] cannot be compared with a reference of `spec`.
void check_samples(const Tensor& samples, const data::SampleSpec& spec);

/// A model under evaluation.
struct EvaluationTarget {
    SampleSource draw;
    std::string hash;              // of its weights
    nlohmann::json description{};  // other facts for the result: path, sampler, steps, evaluations
};

/// Metrics of one draw.
struct EvaluationResult {
    distillation::Metrics overall;
    std::vector<distillation::Metrics>
        classes;  // one row per class; NaN where a class has too few samples
    std::vector<distillation::Metrics> cells{};  // one row per cell of the partition, likewise
};

/// Metrics of samples against reference data; implemented for images and for points. They are
/// computed from what `measured` makes of rows of samples, [n,...] by name, which may lie in files
/// that several processes wrote.
class SampleMetrics {
public:
    /// What `measured` made of rows first..first+n-1.
    using Measured = std::function<backends::Parameters(std::int64_t first, std::int64_t n)>;

    virtual ~SampleMetrics() = default;
    /// How many of `count` rows are measured together.
    virtual std::int64_t rows_together(std::int64_t count) const = 0;
    virtual backends::Parameters measured(const Tensor& samples) const = 0;
    /// The reference's rows that must be measured; 0 where it is known without.
    virtual std::int64_t reference_rows() const { return 0; }
    virtual Tensor reference_samples(std::int64_t first, std::int64_t n) const { return {}; }
    /// Reads the reference once, before `compute` and `reference_statistics`.
    virtual void read_reference(const Measured& rows) {}
    /// Reads each of `count` samples' rows once, in order. `labels`: their classes, or empty.
    virtual EvaluationResult compute(const std::vector<std::int64_t>& labels, std::int64_t count,
                                     std::uint64_t seed, const Measured& rows) const = 0;
    /// Adds its settings to a result's protocol.
    virtual void describe(nlohmann::json& protocol) const = 0;
    /// Mean and covariance of the reference's features; null for points.
    virtual const Statistics* reference_statistics() const { return nullptr; }
};

/// The spaces in which images are compared. The first is the main one, whose features also give
/// precision, recall, density, coverage, and what its kind has beside; the others only distances.
using FeatureSpaces = std::vector<const FeatureSpace*>;

/// Image metrics. On classifier features: feature_distance (Frechet), kernel_feature_distance,
/// monge_feature_distance, precision, recall, density, coverage and class_agreement; per class:
/// count, reference_count, the three distances to the class's own reference, and class_agreement.
/// On Inception features the distances are named fid, kid and mind, and inception_score with its
/// standard deviation over the splits replaces class_agreement; on others as frechet_name and the
/// like say. With `protocol.partition`, cells have rows as classes have. Samples are quantised to 8
/// bits first. Means and covariances are accumulated over all samples; all other metrics use
/// `protocol.kept_features` features of each set and space, a seeded sample stratified by class.
/// `spaces`, one at least, must outlive the result.
std::unique_ptr<SampleMetrics> image_metrics(std::shared_ptr<const data::Dataset> reference,
                                             FeatureSpaces spaces, const Protocol& protocol);

/// Only the Frechet distance (and the Inception Score), against statistics of images of `spec`.
std::unique_ptr<SampleMetrics> image_metrics(Statistics reference, data::SampleSpec spec,
                                             const FeatureSpace& space, const Protocol& protocol);

/// Point metrics: sliced_wasserstein, mmd_squared, modes_reached (fraction of all modes),
/// worst_mode (the smallest ratio of a mode's share to its reference share), strays and
/// class_agreement; per class: count, sliced_wasserstein to the class's own reference, and
/// class_agreement.
std::unique_ptr<SampleMetrics> point_metrics(const data::Dataset& reference,
                                             const Protocol& protocol);

/// Evaluates models against one reference, whose features are computed once.
class Evaluator {
public:
    /// `space` is required for images (null for points) and must outlive this. With `parts`, what
    /// is measured comes from files: call `share` for every target and read_reference before the
    /// other functions. Throws core::Error when the space is missing or expects images of another
    /// shape.
    Evaluator(std::shared_ptr<const data::Dataset> reference, const FeatureSpace* space,
              Protocol protocol, std::shared_ptr<EvaluationParts> parts = nullptr);
    /// In several spaces.
    Evaluator(std::shared_ptr<const data::Dataset> reference, FeatureSpaces spaces,
              Protocol protocol, std::shared_ptr<EvaluationParts> parts = nullptr);

    /// Against statistics of images of `spec`; `hash` identifies them.
    Evaluator(const Statistics& reference, const std::string& hash, const data::SampleSpec& spec,
              const FeatureSpace& space, Protocol protocol,
              std::shared_ptr<EvaluationParts> parts = nullptr);

    /// Measures this process's parts of the reference, or of the target's samples of every seed.
    void share_reference() const;
    void share(const EvaluationTarget& target) const;

    /// Reads all parts of the reference.
    void read_reference();

    /// {"kind", "protocol": {...}, "metrics": {name: {"mean", "spread", "values"}}, "classes":
    /// [{"class", "name", name: {...}}]}, and with a partition "cells": [{"cell", "classes", name:
    /// {...}}] and "partition", its hash. Undefined metrics are null. Throws core::Error when the
    /// target returns other samples than requested.
    nlohmann::json evaluate(const EvaluationTarget& target) const;

    /// The "protocol" entry of a result.
    nlohmann::json protocol_of(const EvaluationTarget& target) const;

    /// Mean and covariance of the reference's features; null for points.
    const Statistics* reference_statistics() const { return metrics_->reference_statistics(); }

private:
    Samples draw(const EvaluationTarget& target, std::uint64_t seed) const;
    backends::Parameters measure(const Samples& samples, std::int64_t first, std::int64_t n) const;
    std::string set_of(const EvaluationTarget& target, std::uint64_t seed) const;
    nlohmann::json class_rows(const std::vector<EvaluationResult>& draws) const;
    nlohmann::json cell_rows(const std::vector<EvaluationResult>& draws) const;

    data::SampleSpec spec_;
    std::int64_t classes_ = 0, reference_count_ = 0;
    std::string reference_hash_;
    Protocol protocol_;
    std::unique_ptr<SampleMetrics> metrics_;
    std::shared_ptr<EvaluationParts> parts_;
};

/// Real samples drawn at random without replacement: the scores of a perfect model.
SampleSource real_samples(std::shared_ptr<const data::Dataset> dataset);

/// Rows of `samples` whose label is `label`.
Tensor rows_of_class(const Tensor& samples, const std::vector<std::int64_t>& labels,
                     std::int64_t label);

/// The fraction of positions at which the two agree.
double agreement(const std::vector<std::int64_t>& expected, const std::vector<std::int64_t>& found);

/// The same within each class of `expected`; NaN for a class that was not requested.
std::vector<double> agreement_by_class(const std::vector<std::int64_t>& expected,
                                       const std::vector<std::int64_t>& found,
                                       std::int64_t classes);

}  // namespace atelier::metrics
