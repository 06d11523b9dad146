#include <algorithm>
#include <limits>
#include <numeric>

#include "atelier/core/random_streams.h"
#include "atelier/evaluation/evaluate.h"
#include "atelier/evaluation/nearest.h"

namespace atelier::evaluation {

namespace {

constexpr std::int64_t reading_block = 2000;

/// Statistics of each class; those of a class with fewer than two rows have count 0.
std::vector<Statistics> class_statistics(const Tensor& features, const std::vector<std::int64_t>& labels, std::int64_t classes) {
    std::vector<Statistics> all;
    for (std::int64_t label = 0; label < classes; ++label) {
        const Tensor rows = rows_of_class(features, labels, label);
        all.push_back(rows.size(0) < 2 ? Statistics{} : statistics_of(rows));
    }
    return all;
}

class ImageMeasures : public Measures {
public:
    ImageMeasures(const data::Dataset& reference, const FeatureExtractor& extractor, const Protocol& protocol)
        : extractor_(extractor), protocol_(protocol), form_(reference.form()), classes_(reference.classes()) {
        std::vector<Tensor> blocks;
        for (std::int64_t first = 0; first < reference.size(); first += reading_block) {
            std::vector<std::int64_t> indices(static_cast<std::size_t>(std::min(reading_block, reference.size() - first)));
            std::iota(indices.begin(), indices.end(), first);
            blocks.push_back(seen(reference.samples(indices)).features);
        }
        features_ = at::cat(blocks);
        statistics_ = statistics_of(features_);
        manifold_ = some_of(features_, 0);
        precision_radii_ = neighbour_radii(manifold_, protocol_.precision_neighbours);
        coverage_radii_ = neighbour_radii(manifold_, protocol_.coverage_neighbours);
        if (classes_ > 0) by_class_ = class_statistics(features_, reference.labels(), classes_);
    }

    Measured measure(const Samples& samples, std::uint64_t seed) const override {
        const Features found = seen(samples.model_space);
        Measured measured{distances(found.features, seed), {}};
        if (samples.labels.empty()) return measured;
        const std::vector<std::int64_t> named = predicted_classes(found.logits);
        measured.overall.emplace_back("class_agreement", agreement(samples.labels, named));
        measured.classes = rows(samples.labels, named, class_statistics(found.features, samples.labels, classes_));
        return measured;
    }

    void describe(nlohmann::json& protocol) const override {
        protocol["classifier"] = extractor_.hash();
        protocol["features"] = extractor_.config().features;
        protocol["quantisation"] = "clamp(x*127.5+128, 0, 255) to uint8";
        protocol["kernel"] = {{"polynomial", "(x.y/F + 1)^3"},
                              {"subsets", protocol_.kernel_subsets},
                              {"subset_size", std::min({protocol_.kernel_subset_size, protocol_.count, features_.size(0)})}};
        protocol["manifold"] = {{"samples", std::min(protocol_.manifold_limit, protocol_.count)},
                                {"reference", manifold_.size(0)},
                                {"precision_neighbours", protocol_.precision_neighbours},
                                {"coverage_neighbours", protocol_.coverage_neighbours}};
    }

private:
    /// Features of what a user would see: the 8-bit picture.
    Features seen(const Tensor& model_space) const {
        return extractor_.features(models::to_model_space(form_, models::to_user_space(form_, model_space)));
    }

    Tensor some_of(const Tensor& rows, std::uint64_t seed) const {
        if (rows.size(0) <= protocol_.manifold_limit) return rows;
        std::vector<std::int64_t> order = core::RandomStream(seed, "manifold").permutation(rows.size(0));
        order.resize(static_cast<std::size_t>(protocol_.manifold_limit));
        return rows.index_select(0, at::tensor(order));
    }

    distillation::Metrics distances(const Tensor& features, std::uint64_t seed) const {
        const Tensor fake = some_of(features, seed);
        const KernelDistance kernel{protocol_.kernel_subsets, protocol_.kernel_subset_size, seed};
        const double frechet = frechet_distance(statistics_, statistics_of(features));
        const PrecisionRecall shape = precision_recall(manifold_, precision_radii_, fake, protocol_.precision_neighbours);
        const DensityCoverage cover = density_coverage(manifold_, coverage_radii_, fake, protocol_.coverage_neighbours);
        return {{"feature_distance", frechet},  {"kernel_feature_distance", kernel_distance(features_, features, kernel)},
                {"precision", shape.precision}, {"recall", shape.recall},
                {"density", cover.density},     {"coverage", cover.coverage}};
    }

    std::vector<distillation::Metrics> rows(const std::vector<std::int64_t>& labels, const std::vector<std::int64_t>& named,
                                            const std::vector<Statistics>& statistics) const {
        const std::vector<double> agreements = agreement_by_class(labels, named, classes_);
        std::vector<distillation::Metrics> all;
        for (std::size_t i = 0; i < statistics.size(); ++i) {
            const bool enough = statistics[i].count > 0 && by_class_[i].count > 0;
            const auto count = std::ranges::count(labels, static_cast<std::int64_t>(i));
            all.push_back({{"count", static_cast<double>(count)},
                           {"feature_distance",
                            enough ? frechet_distance(by_class_[i], statistics[i]) : std::numeric_limits<double>::quiet_NaN()},
                           {"class_agreement", agreements[i]}});
        }
        return all;
    }

    const FeatureExtractor& extractor_;
    Protocol protocol_;
    models::DataForm form_;
    std::int64_t classes_;
    Tensor features_, manifold_, precision_radii_, coverage_radii_;
    Statistics statistics_;
    std::vector<Statistics> by_class_;
};

}  // namespace

std::unique_ptr<Measures> image_measures(const data::Dataset& reference, const FeatureExtractor& extractor,
                                         const Protocol& protocol) {
    return std::make_unique<ImageMeasures>(reference, extractor, protocol);
}

}  // namespace atelier::evaluation
