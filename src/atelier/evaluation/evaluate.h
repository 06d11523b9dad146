#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "atelier/data/dataset.h"
#include "atelier/evaluation/distances.h"
#include "atelier/evaluation/features.h"

namespace atelier::evaluation {

/// What a model drew: samples in model space [N,shape...] and the class asked for each (empty when unconditional).
struct Samples {
    Tensor model_space;
    std::vector<std::int64_t> labels;
    // In place of `model_space`, samples that are too many for memory: how many, and rows
    // first..first+n-1 of them. Each row is asked for once, in order.
    std::int64_t count = 0;
    std::function<Tensor(std::int64_t first, std::int64_t n)> read{};

    std::int64_t size() const { return read ? count : model_space.size(0); }
    Tensor rows(std::int64_t first, std::int64_t n) const { return read ? read(first, n) : model_space.narrow(0, first, n); }
};

/// Draws `count` samples; a function of the two numbers alone.
using SampleSource = std::function<Samples(std::int64_t count, std::uint64_t seed)>;

/// How a model is measured; all of it is written into the result.
struct Protocol {
    std::int64_t count = 10000;           // samples a seed
    std::vector<std::uint64_t> seeds{0};  // figures are means over them, with their sample standard deviation as spread
    std::string reference_path;           // where the reference data came from
    std::string program;                  // name and version of this program
    std::string name = "atelier";         // of the protocol (protocols.h)
    std::string
        class_draws;  // how the samples' classes were drawn, in words; empty: nothing to say
    // Images.
    std::int64_t side = 0;  // of the squares that they were brought to; 0: as they are
    std::int64_t kernel_subsets = 100, kernel_subset_size = 1000;
    std::int64_t kept_features = 50000;   // of either set, whose features stay in memory for what
                                          // needs more than means and covariances
    std::int64_t manifold_limit = 10000;  // samples of either set that precision, recall, density and coverage see
    std::int64_t precision_neighbours = 3, coverage_neighbours = 5;
    std::int64_t score_splits = 10;       // of the Inception Score
    // Points, in the user's space.
    std::int64_t directions = 256;
    std::vector<std::array<double, 2>> centres;  // of the modes where they are known; empty: each class is a mode
    double deviation = 0;                        // of a mode, in each dimension
};

/// Mean, spread and values of each metric over several draws, which have the same metrics in the same order.
nlohmann::json summaries(const std::vector<const distillation::Metrics*>& draws);

/// Throws core::Error when samples [n,...] are not what a reference of `form` can be compared with.
void check_samples(const Tensor& samples, const models::DataForm& form);

/// A model under measurement.
struct Subject {
    SampleSource draw;
    std::string hash;              // of its weights
    nlohmann::json description{};  // anything else that the result should say of it: path, sampler, steps, evaluations
};

/// Figures of one draw.
struct Measured {
    distillation::Metrics overall;
    std::vector<distillation::Metrics> classes;  // a row a class; not a number where a class has too few samples
};

/// Compares samples with reference data; one for images and one for points.
class Measures {
public:
    virtual ~Measures() = default;
    virtual Measured measure(const Samples& samples, std::uint64_t seed) const = 0;
    /// Adds what it did to a result's protocol.
    virtual void describe(nlohmann::json& protocol) const = 0;
    /// Mean and covariance of the reference's features; null where there are none (points).
    virtual const Statistics* reference_statistics() const { return nullptr; }
};

/// feature_distance (Frechet) and kernel_feature_distance on the classifier's features, precision,
/// recall, density, coverage, class_agreement; per class: count, reference_count, both distances
/// against the class's own reference, class_agreement. On Inception's features the two distances
/// are called fid and kid, and there are inception_score and its deviation over the splits instead
/// of class_agreement; on pixels pixel_distance and kernel_pixel_distance. Samples are quantised to
/// 8 bits before anything is measured. Means and covariances are gathered batch by batch over all
/// samples; of features, `protocol.kept_features` of either set stay in memory, a seeded sample
/// with each class by its share, and everything else is taken from those. `space` must outlive the
/// result.
std::unique_ptr<Measures> image_measures(const data::Dataset& reference, const FeatureSpace& space, const Protocol& protocol);

/// The Frechet distance (and the Inception Score) alone, against statistics that were taken of images of that form.
std::unique_ptr<Measures> image_measures(Statistics reference, models::DataForm form, const FeatureSpace& space, const Protocol& protocol);

/// sliced_wasserstein, mmd_squared, modes_reached (as a share of all modes), worst_mode (the least share over reference share),
/// strays, class_agreement; per class: count, sliced_wasserstein against the class's own reference, class_agreement.
std::unique_ptr<Measures> point_measures(const data::Dataset& reference, const Protocol& protocol);

/// Measures models against one reference, whose features are computed once.
class Evaluator {
public:
    /// `space` is needed for images (null for points) and must outlive this. Throws core::Error when it is missing or reads
    /// other images.
    Evaluator(std::shared_ptr<const data::Dataset> reference, const FeatureSpace* space, Protocol protocol);

    /// Against statistics of images of `form`; `hash` says which.
    Evaluator(const Statistics& reference, const std::string& hash, const models::DataForm& form, const FeatureSpace& space, Protocol protocol);

    /// {"kind", "protocol": {...}, "metrics": {name: {"mean", "spread", "values"}}, "classes": [{"class", "name", name: {...}}]}.
    /// Figures that could not be taken are null. Throws core::Error when the subject draws something else than was asked.
    nlohmann::json evaluate(const Subject& subject) const;

    /// What a result says of how it came about.
    nlohmann::json protocol_of(const Subject& subject) const;

    /// Of the reference's features; null for points.
    const Statistics* reference_statistics() const { return measures_->reference_statistics(); }

private:
    Samples draw(const Subject& subject, std::uint64_t seed) const;
    nlohmann::json class_rows(const std::vector<Measured>& draws) const;

    models::DataForm form_;
    std::int64_t classes_ = 0, reference_count_ = 0;
    std::string reference_hash_;
    Protocol protocol_;
    std::unique_ptr<Measures> measures_;
};

/// Real samples drawn at random without replacement, as a yardstick: what a perfect model would score.
SampleSource real_samples(std::shared_ptr<const data::Dataset> dataset);

/// Rows of `samples` whose label is `label`.
Tensor rows_of_class(const Tensor& samples, const std::vector<std::int64_t>& labels, std::int64_t label);

/// Share of positions at which the two agree.
double agreement(const std::vector<std::int64_t>& wanted, const std::vector<std::int64_t>& found);

/// The same within each class of `wanted`; not a number for a class that was not asked for.
std::vector<double> agreement_by_class(const std::vector<std::int64_t>& wanted, const std::vector<std::int64_t>& found,
                                       std::int64_t classes);

}  // namespace atelier::evaluation
