#include <algorithm>
#include <limits>
#include <numeric>

#include "atelier/core/error.h"
#include "atelier/core/progress.h"
#include "atelier/core/random_streams.h"
#include "atelier/core/signals.h"
#include "atelier/evaluation/evaluate.h"
#include "atelier/evaluation/nearest.h"

namespace atelier::evaluation {

namespace {

constexpr std::int64_t reading_block = 2000;

/// Against data: every figure. Against statistics alone: what means and covariances tell.
class ImageMeasures : public Measures {
public:
    ImageMeasures(const data::Dataset& reference, const FeatureSpace& space, const Protocol& protocol)
        : space_(space), protocol_(protocol), form_(reference.form()), classes_(reference.classes()), labels_(reference.labels()) {
        const auto block = [&](std::int64_t first, std::int64_t count) {
            std::vector<std::int64_t> indices(static_cast<std::size_t>(count));
            std::iota(indices.begin(), indices.end(), first);
            return reference.samples(indices);
        };
        features_ = seen("features of the reference", reference.size(), block).features;
        FeatureStatistics statistics(space.width());
        for (const Tensor& rows : features_.split(reading_block)) statistics.add(rows);
        statistics_ = statistics.finish();
        manifold_ = some_of(features_, 0);
        precision_radii_ = neighbour_radii(manifold_, protocol_.precision_neighbours);
        coverage_radii_ = neighbour_radii(manifold_, protocol_.coverage_neighbours);
    }

    ImageMeasures(Statistics reference, models::DataForm form, const FeatureSpace& space, const Protocol& protocol)
        : space_(space), protocol_(protocol), form_(std::move(form)), statistics_(std::move(reference)) {}

    Measured measure(const Samples& samples, std::uint64_t seed) const override {
        const Features found = seen("features of the samples", samples.size(), [&](std::int64_t first, std::int64_t count) { return samples.rows(first, count); });
        Measured measured{distances(found.features, seed), {}};
        if (space_.is_inception()) {
            const MeanAndDeviation score = inception_score(found.logits, std::min<std::int64_t>(protocol_.score_splits, found.logits.size(0)));
            measured.overall.emplace_back("inception_score", score.mean);
            measured.overall.emplace_back("inception_score_deviation", score.deviation);
        }
        if (samples.labels.empty() || classes_ == 0) return measured;
        const std::vector<std::int64_t> named = space_.is_inception() ? std::vector<std::int64_t>{} : predicted_classes(found.logits);
        if (!named.empty()) measured.overall.emplace_back("class_agreement", agreement(samples.labels, named));
        measured.classes = rows(samples.labels, named, found.features);
        return measured;
    }

    void describe(nlohmann::json& protocol) const override {
        protocol[space_.is_inception() ? "inception" : "classifier"] = space_.hash();
        protocol["features"] = space_.width();
        protocol["quantisation"] = "clamp(x*127.5+128, 0, 255) to uint8";
        if (space_.is_inception()) {
            protocol["resize"] = "bilinear to 299x299, TensorFlow 1, no antialiasing";
            protocol["score_splits"] = protocol_.score_splits;
        }
        if (!features_.defined()) return;
        protocol["kernel"] = {{"polynomial", "(x.y/F + 1)^3"},
                              {"subsets", protocol_.kernel_subsets},
                              {"subset_size", std::min({protocol_.kernel_subset_size, protocol_.count, features_.size(0)})}};
        protocol["manifold"] = {{"samples", std::min(protocol_.manifold_limit, protocol_.count)},
                                {"reference", manifold_.size(0)},
                                {"precision_neighbours", protocol_.precision_neighbours},
                                {"coverage_neighbours", protocol_.coverage_neighbours}};
    }

    const Statistics* reference_statistics() const override { return &statistics_; }

private:
    /// Features of what a user would see, the 8-bit pictures, of `count` images that `block` hands out from `first` on.
    Features seen(const std::string& label, std::int64_t count, const std::function<Tensor(std::int64_t first, std::int64_t count)>& block) const {
        core::Progress progress(label, count, "images");
        std::vector<Tensor> features, logits;
        for (std::int64_t first = 0; first < count; first += reading_block) {
            if (core::stop_requested()) throw core::Interrupted("interrupted while measuring; nothing was written");
            const std::int64_t n = std::min(reading_block, count - first);
            Features part = space_.features(models::to_model_space(form_, models::to_user_space(form_, block(first, n))));
            features.push_back(std::move(part.features));
            logits.push_back(std::move(part.logits));
            progress.update(first + n);
        }
        return {at::cat(features), at::cat(logits)};
    }

    std::string frechet_name() const { return space_.is_inception() ? "fid" : "feature_distance"; }

    Tensor some_of(const Tensor& rows, std::uint64_t seed) const {
        if (rows.size(0) <= protocol_.manifold_limit) return rows;
        std::vector<std::int64_t> order = core::RandomStream(seed, "manifold").permutation(rows.size(0));
        order.resize(static_cast<std::size_t>(protocol_.manifold_limit));
        return rows.index_select(0, at::tensor(order));
    }

    distillation::Metrics distances(const Tensor& features, std::uint64_t seed) const {
        distillation::Metrics metrics{{frechet_name(), frechet_distance(statistics_, statistics_of(features))}};
        if (!features_.defined()) return metrics;
        const Tensor fake = some_of(features, seed);
        const KernelDistance kernel{protocol_.kernel_subsets, protocol_.kernel_subset_size, seed};
        const PrecisionRecall shape = precision_recall(manifold_, precision_radii_, fake, protocol_.precision_neighbours);
        const DensityCoverage cover = density_coverage(manifold_, coverage_radii_, fake, protocol_.coverage_neighbours);
        const std::initializer_list<std::pair<std::string, double>> more{
            {space_.is_inception() ? "kid" : "kernel_feature_distance", kernel_distance(features_, features, kernel)},
            {"precision", shape.precision}, {"recall", shape.recall}, {"density", cover.density}, {"coverage", cover.coverage}};
        metrics.insert(metrics.end(), more);
        return metrics;
    }

    /// A row a class. Class by class, so that no more than two classes' features are looked at together.
    std::vector<distillation::Metrics> rows(const std::vector<std::int64_t>& labels, const std::vector<std::int64_t>& named, const Tensor& features) const {
        const std::vector<double> agreements = named.empty() ? std::vector<double>{} : agreement_by_class(labels, named, classes_);
        std::vector<distillation::Metrics> all;
        core::Progress progress("classes", classes_, "classes");
        for (std::int64_t label = 0; label < classes_; ++label) {
            const Tensor real = rows_of_class(features_, labels_, label), fake = rows_of_class(features, labels, label);
            const bool enough = real.size(0) >= 2 && fake.size(0) >= 2;
            all.push_back({{"count", static_cast<double>(fake.size(0))},
                           {frechet_name(), enough ? frechet_distance(real, fake) : std::numeric_limits<double>::quiet_NaN()}});
            if (!agreements.empty()) all.back().emplace_back("class_agreement", agreements[static_cast<std::size_t>(label)]);
            progress.update(label + 1);
        }
        return all;
    }

    const FeatureSpace& space_;
    Protocol protocol_;
    models::DataForm form_;
    std::int64_t classes_ = 0;
    std::vector<std::int64_t> labels_;  // of the reference
    Tensor features_, manifold_, precision_radii_, coverage_radii_;
    Statistics statistics_;
};

}  // namespace

std::unique_ptr<Measures> image_measures(const data::Dataset& reference, const FeatureSpace& space, const Protocol& protocol) {
    return std::make_unique<ImageMeasures>(reference, space, protocol);
}

std::unique_ptr<Measures> image_measures(Statistics reference, models::DataForm form, const FeatureSpace& space, const Protocol& protocol) {
    return std::make_unique<ImageMeasures>(std::move(reference), std::move(form), space, protocol);
}

}  // namespace atelier::evaluation
