#include <algorithm>
#include <atomic>
#include <limits>
#include <optional>

#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/core/progress.h"
#include "atelier/core/random_streams.h"
#include "atelier/core/signals.h"
#include "atelier/data/sampling.h"
#include "atelier/metrics/evaluate.h"
#include "atelier/metrics/nearest.h"
#include "atelier/metrics/sample_counts.h"

namespace atelier::metrics {

namespace {

constexpr std::int64_t block_samples = 2000;

/// Features of a subset of samples, and their labels.
struct KeptFeatures {
    Tensor features;
    std::vector<std::int64_t> labels;
};

/// Collects the features of the samples at `indices` (ascending) from consecutive batches.
class FeatureCollector {
public:
    explicit FeatureCollector(std::vector<std::int64_t> indices) : indices_(std::move(indices)) {}

    void add(std::int64_t first, const Tensor& features) {
        std::vector<std::int64_t> rows;
        for (; next_ < indices_.size() && indices_[next_] < first + features.size(0); ++next_)
            rows.push_back(indices_[next_] - first);
        if (static_cast<std::int64_t>(rows.size()) == features.size(0)) parts_.push_back(features);
        else if (!rows.empty())
            parts_.push_back(features.index_select(0, at::tensor(rows, at::kLong)));
    }

    KeptFeatures kept(const std::vector<std::int64_t>& labels) const {
        KeptFeatures all{at::cat(parts_), {}};
        if (!labels.empty()) {
            for (const std::int64_t index : indices_)
                all.labels.push_back(labels[static_cast<std::size_t>(index)]);
        }
        return all;
    }

private:
    std::vector<std::int64_t> indices_;
    std::size_t next_ = 0;
    std::vector<Tensor> parts_;
};

/// Against data: all metrics. Against statistics: only those of means and covariances.
class ImageMetrics : public SampleMetrics {
public:
    ImageMetrics(std::shared_ptr<const data::Dataset> reference, const FeatureSpace& space,
                 const Protocol& protocol)
        : space_(space),
          protocol_(protocol),
          spec_(reference->spec()),
          classes_(reference->classes()),
          data_(std::move(reference)),
          kept_(data::seeded_sample(*data_, protocol_.kept_features, 0, "kept/reference")) {
        check_enough(data_->size(), "real images",
                     std::max(protocol_.precision_neighbours, protocol_.coverage_neighbours));
        check_enough(protocol_.count, "samples", protocol_.precision_neighbours);
        warn_of_counts(data_->size());
    }

    ImageMetrics(Statistics reference, data::SampleSpec spec, const FeatureSpace& space,
                 const Protocol& protocol)
        : space_(space),
          protocol_(protocol),
          spec_(std::move(spec)),
          statistics_(std::move(reference)) {
        warn_of_counts(statistics_.count);
    }

    std::int64_t rows_together(std::int64_t) const override {
        return data::samples_per_batch(spec_.shape, block_samples);
    }

    /// Samples are quantised to 8 bits as a user would see them.
    backends::Parameters measured(const Tensor& samples) const override {
        const Features batch =
            space_.features(data::to_model_space(spec_, data::to_user_space(spec_, samples)));
        backends::Parameters rows({{"features", batch.features}});
        if (batch.logits.numel() > 0) rows.set("logits", batch.logits);
        return rows;
    }

    std::int64_t reference_rows() const override { return data_ ? data_->size() : 0; }

    Tensor reference_samples(std::int64_t first, std::int64_t n) const override {
        return data_->samples(data::consecutive(first, n));
    }

    void read_reference(const Measured& rows) override {
        if (!data_) return;
        FeatureStatistics statistics(space_.width());
        FeatureCollector collector(kept_);
        for_each_batch("features of the reference", data_->size(), rows,
                       [&](std::int64_t first, const backends::Parameters& batch) {
                           statistics.add(batch.at("features"));
                           collector.add(first, batch.at("features"));
                       });
        statistics_ = statistics.finish();
        reference_ = collector.kept(data_->labels());
        manifold_ = manifold_subset(reference_.features, 0);
        precision_radii_ = neighbour_radii(manifold_, protocol_.precision_neighbours);
        coverage_radii_ = neighbour_radii(manifold_, protocol_.coverage_neighbours);
    }

    EvaluationResult compute(const std::vector<std::int64_t>& labels, std::int64_t count,
                             std::uint64_t seed, const Measured& rows) const override {
        const bool by_class = !labels.empty() && classes_ > 0;
        FeatureStatistics statistics(space_.width());
        FeatureCollector collector(
            data::stratified_sample(labels, count, protocol_.kept_features, seed, "kept/samples"));
        std::optional<InceptionScore> score;
        if (space_.kind() == FeatureSpace::Kind::inception)
            score.emplace(count, std::min(protocol_.score_splits, count), seed);
        std::vector<std::int64_t> predicted;
        for_each_batch("features of the samples", count, rows,
                       [&](std::int64_t first, const backends::Parameters& batch) {
                           statistics.add(batch.at("features"));
                           collector.add(first, batch.at("features"));
                           if (score) score->add(first, batch.at("logits"));
                           if (!by_class || space_.kind() != FeatureSpace::Kind::classifier) return;
                           const std::vector<std::int64_t> classes =
                               predicted_classes(batch.at("logits"));
                           predicted.insert(predicted.end(), classes.begin(), classes.end());
                       });
        const KeptFeatures kept = collector.kept(labels);
        EvaluationResult result{distances(statistics.finish(), kept.features, seed), {}};
        if (score) {
            const MeanAndStd of_parts = score->finish();
            result.overall.emplace_back("inception_score", of_parts.mean);
            result.overall.emplace_back("inception_score_deviation", of_parts.std_dev);
        }
        if (!by_class) return result;
        if (!predicted.empty())
            result.overall.emplace_back("class_agreement", agreement(labels, predicted));
        result.classes = class_rows(labels, predicted, kept);
        return result;
    }

    void describe(nlohmann::json& protocol) const override {
        static constexpr const char* kinds[]{"classifier", "inception", "pixels", "dinov2",
                                             "clip_features"};
        protocol[kinds[static_cast<std::size_t>(space_.kind())]] = space_.hash();
        protocol["features"] = space_.width();
        protocol["quantisation"] = "clamp(x*127.5+128, 0, 255) to uint8";
        if (protocol_.side > 0)
            protocol["size"] = fmt::format("middle square, Lanczos to {0}x{0}", protocol_.side);
        if (!space_.resizing().empty()) protocol["resize"] = space_.resizing();
        if (space_.kind() == FeatureSpace::Kind::inception) {
            protocol["score_splits"] = protocol_.score_splits;
            protocol["score_order"] = "random";
        }
        if (!data_) return;
        const auto kept_reference = static_cast<std::int64_t>(kept_.size());
        protocol["kept"] = {{"reference", kept_reference},
                            {"samples", std::min(protocol_.kept_features, protocol_.count)}};
        protocol["kernel"] = {{"polynomial", "(x.y/F + 1)^3"},
                              {"subsets", protocol_.kernel_subsets},
                              {"subset_size", std::min({protocol_.kernel_subset_size,
                                                        protocol_.count, kept_reference})}};
        protocol["monge"] = {
            {"directions", protocol_.monge_directions},
            {"samples", std::min({protocol_.kept_features, protocol_.count, kept_reference})}};
        protocol["manifold"] = {{"samples", std::min(protocol_.manifold_limit, protocol_.count)},
                                {"reference", std::min(protocol_.manifold_limit, kept_reference)},
                                {"precision_neighbours", protocol_.precision_neighbours},
                                {"coverage_neighbours", protocol_.coverage_neighbours}};
    }

    const Statistics* reference_statistics() const override { return &statistics_; }

private:
    /// Calls `visit` with what was measured of `count` images, batch by batch.
    void for_each_batch(
        const std::string& label, std::int64_t count, const Measured& rows,
        const std::function<void(std::int64_t first, const backends::Parameters&)>& visit) const {
        core::Progress progress(label, count, "images");
        const std::int64_t batch = rows_together(count);
        for (std::int64_t first = 0; first < count; first += batch) {
            if (core::stop_requested())
                throw core::Interrupted("interrupted while measuring; nothing was written");
            const std::int64_t n = std::min(batch, count - first);
            visit(first, rows(first, n));
            progress.update(first + n);
        }
    }

    /// Precision, recall and coverage need more samples than neighbours; checked before anything is
    /// computed.
    static void check_enough(std::int64_t count, const char* what, std::int64_t neighbours) {
        if (count <= neighbours)
            core::fail(
                "evaluation: {} {} are too few for {} neighbours each, which precision and "
                "coverage look at; at least {} are needed",
                count, what, neighbours, neighbours + 1);
    }

    void warn_of_counts(std::int64_t reference) const {
        for (const std::string& line : too_few_for(space_, protocol_, reference))
            core::log::warning("{}", line);
    }

    Tensor manifold_subset(const Tensor& rows, std::uint64_t seed) const {
        if (rows.size(0) <= protocol_.manifold_limit) return rows;
        std::vector<std::int64_t> order =
            core::RandomStream(seed, "manifold").permutation(rows.size(0));
        order.resize(static_cast<std::size_t>(protocol_.manifold_limit));
        return rows.index_select(0, at::tensor(order));
    }

    distillation::Metrics distances(const Statistics& statistics, const Tensor& kept,
                                    std::uint64_t seed) const {
        distillation::Metrics metrics{
            {frechet_name(space_.kind()), frechet_distance(statistics_, statistics)}};
        if (!data_) return metrics;
        const Tensor fake = manifold_subset(kept, seed);
        const KernelDistance kernel{protocol_.kernel_subsets, protocol_.kernel_subset_size, seed};
        const PrecisionRecall shape =
            precision_recall(manifold_, precision_radii_, fake, protocol_.precision_neighbours);
        const DensityCoverage cover =
            density_coverage(manifold_, coverage_radii_, fake, protocol_.coverage_neighbours);
        const std::initializer_list<std::pair<std::string, double>> more{
            {kernel_name(space_.kind()), kernel_distance(reference_.features, kept, kernel)},
            {monge_name(space_.kind()),
             monge_distance(reference_.features, kept, protocol_.monge_directions, seed)},
            {"precision", shape.precision},
            {"recall", shape.recall},
            {"density", cover.density},
            {"coverage", cover.coverage}};
        metrics.insert(metrics.end(), more);
        return metrics;
    }

    /// One row per class, computed one class at a time to bound memory.
    std::vector<distillation::Metrics> class_rows(const std::vector<std::int64_t>& labels,
                                                  const std::vector<std::int64_t>& predicted,
                                                  const KeptFeatures& kept) const {
        constexpr double undefined = std::numeric_limits<double>::quiet_NaN();
        const std::vector<double> agreements =
            predicted.empty() ? std::vector<double>{}
                              : agreement_by_class(labels, predicted, classes_);
        std::vector<double> counts(static_cast<std::size_t>(classes_));
        for (const std::int64_t label : labels) ++counts[static_cast<std::size_t>(label)];
        std::vector<distillation::Metrics> all;
        std::int64_t fewest = std::numeric_limits<std::int64_t>::max();
        core::Progress progress("classes", classes_, "classes");
        for (std::int64_t label = 0; label < classes_; ++label) {
            const Tensor real = rows_of_class(reference_.features, reference_.labels, label),
                         fake = rows_of_class(kept.features, kept.labels, label);
            const bool enough = real.size(0) >= 2 && fake.size(0) >= 2;
            if (enough) fewest = std::min({fewest, real.size(0), fake.size(0)});
            all.push_back(
                {{"count", counts[static_cast<std::size_t>(label)]},
                 {"reference_count", static_cast<double>(real.size(0))},
                 {frechet_name(space_.kind()), enough ? frechet_distance(real, fake) : undefined},
                 {kernel_name(space_.kind()),
                  enough ? whole_kernel_distance(kernel_subset(real), kernel_subset(fake))
                         : undefined},
                 {monge_name(space_.kind()),
                  enough ? monge_distance(real, fake, protocol_.monge_directions, 0) : undefined}});
            if (!agreements.empty())
                all.back().emplace_back("class_agreement",
                                        agreements[static_cast<std::size_t>(label)]);
            progress.update(label + 1);
        }
        warn_of_few(fewest);
        return all;
    }

    /// At most `kernel_subset_size` random rows of a class, to bound the kernel matrix.
    Tensor kernel_subset(const Tensor& rows) const {
        if (rows.size(0) <= protocol_.kernel_subset_size) return rows;
        std::vector<std::int64_t> order =
            core::RandomStream(0, "classes").permutation(rows.size(0));
        order.resize(static_cast<std::size_t>(protocol_.kernel_subset_size));
        return rows.index_select(0, at::tensor(order));
    }

    /// Warns once: a Frechet distance of fewer samples than features is mostly bias.
    void warn_of_few(std::int64_t fewest) const {
        if (fewest >= space_.width() || warned_.exchange(true)) return;
        core::log::warning(
            "{} per class is taken from as few as {} images with {} features each, so most of it "
            "is bias; compare {} per class, which has none",
            frechet_name(space_.kind()), fewest, space_.width(), kernel_name(space_.kind()));
    }

    const FeatureSpace& space_;
    Protocol protocol_;
    data::SampleSpec spec_;
    std::int64_t classes_ = 0;
    std::shared_ptr<const data::Dataset> data_;  // null: only statistics are known
    std::vector<std::int64_t> kept_;             // whose features are kept
    KeptFeatures reference_;
    Tensor manifold_, precision_radii_, coverage_radii_;
    Statistics statistics_;
    mutable std::atomic<bool> warned_ = false;
};

}  // namespace

std::unique_ptr<SampleMetrics> image_metrics(std::shared_ptr<const data::Dataset> reference,
                                             const FeatureSpace& space, const Protocol& protocol) {
    return std::make_unique<ImageMetrics>(std::move(reference), space, protocol);
}

std::unique_ptr<SampleMetrics> image_metrics(Statistics reference, data::SampleSpec spec,
                                             const FeatureSpace& space, const Protocol& protocol) {
    return std::make_unique<ImageMetrics>(std::move(reference), std::move(spec), space, protocol);
}

}  // namespace atelier::metrics
