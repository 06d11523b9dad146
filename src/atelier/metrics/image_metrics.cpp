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

/// What is gathered of a set's features in one space.
struct GatheredFeatures {
    FeatureStatistics statistics;
    FeatureCollector collector;

    void add(std::int64_t first, const Tensor& features) {
        statistics.add(features);
        collector.add(first, features);
    }
};

/// The reference as one space sees it.
struct ComparedSpace {
    const FeatureSpace* space;
    Statistics statistics{};
    KeptFeatures kept{};

    FeatureSpace::Kind kind() const { return space->kind(); }
};

/// What a result's protocol and the measured rows call a space.
const char* space_name(FeatureSpace::Kind kind) {
    switch (kind) {
        case FeatureSpace::Kind::classifier:
            return "classifier";
        case FeatureSpace::Kind::inception:
            return "inception";
        case FeatureSpace::Kind::pixels:
            return "pixels";
        case FeatureSpace::Kind::dinov2:
            return "dinov2";
        case FeatureSpace::Kind::clip:
            return "clip_features";
    }
    core::fail("there is no such feature space");
}

/// Against data: all metrics. Against statistics: only those of means and covariances.
class ImageMetrics : public SampleMetrics {
public:
    ImageMetrics(std::shared_ptr<const data::Dataset> reference, const FeatureSpaces& spaces,
                 const Protocol& protocol)
        : compared_(compared_in(spaces)),
          space_(*spaces.front()),
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
        : compared_(compared_in({&space})),
          space_(space),
          protocol_(protocol),
          spec_(std::move(spec)) {
        compared_.front().statistics = std::move(reference);
        warn_of_counts(compared_.front().statistics.count);
    }

    std::int64_t rows_together(std::int64_t) const override {
        return data::samples_per_batch(spec_.shape, block_samples);
    }

    /// Samples are quantised to 8 bits as a user would see them.
    backends::Parameters measured(const Tensor& samples) const override {
        const Tensor images = data::to_model_space(spec_, data::to_user_space(spec_, samples));
        backends::Parameters rows;
        for (std::size_t s = 0; s < compared_.size(); ++s) {
            const Features batch = compared_[s].space->features(images);
            rows.set(row_name(s), batch.features);
            if (s == 0 && batch.logits.numel() > 0) rows.set("logits", batch.logits);
        }
        return rows;
    }

    std::int64_t reference_rows() const override { return data_ ? data_->size() : 0; }

    Tensor reference_samples(std::int64_t first, std::int64_t n) const override {
        return data_->samples(data::consecutive(first, n));
    }

    void read_reference(const Measured& rows) override {
        if (!data_) return;
        std::vector<GatheredFeatures> gathered = gather(kept_);
        for_each_batch("features of the reference", data_->size(), rows,
                       [&](std::int64_t first, const backends::Parameters& batch) {
                           add_to(gathered, first, batch);
                       });
        for (std::size_t s = 0; s < compared_.size(); ++s) {
            compared_[s].statistics = gathered[s].statistics.finish();
            compared_[s].kept = gathered[s].collector.kept(data_->labels());
        }
        manifold_ = manifold_subset(compared_.front().kept.features, 0);
        precision_radii_ = neighbour_radii(manifold_, protocol_.precision_neighbours);
        coverage_radii_ = neighbour_radii(manifold_, protocol_.coverage_neighbours);
    }

    EvaluationResult compute(const std::vector<std::int64_t>& labels, std::int64_t count,
                             std::uint64_t seed, const Measured& rows) const override {
        const bool by_class = !labels.empty() && classes_ > 0;
        std::vector<GatheredFeatures> gathered = gather(
            data::stratified_sample(labels, count, protocol_.kept_features, seed, "kept/samples"));
        std::optional<InceptionScore> score;
        if (space_.kind() == FeatureSpace::Kind::inception)
            score.emplace(count, std::min(protocol_.score_splits, count), seed);
        std::vector<std::int64_t> predicted;
        for_each_batch("features of the samples", count, rows,
                       [&](std::int64_t first, const backends::Parameters& batch) {
                           add_to(gathered, first, batch);
                           if (score) score->add(first, batch.at("logits"));
                           if (!by_class || space_.kind() != FeatureSpace::Kind::classifier) return;
                           const std::vector<std::int64_t> classes =
                               predicted_classes(batch.at("logits"));
                           predicted.insert(predicted.end(), classes.begin(), classes.end());
                       });
        std::vector<KeptFeatures> kept;
        EvaluationResult result;
        for (std::size_t s = 0; s < compared_.size(); ++s) {
            kept.push_back(gathered[s].collector.kept(labels));
            add_distances(result.overall, s, gathered[s].statistics.finish(), kept[s].features,
                          seed);
        }
        if (score) {
            const MeanAndStd of_parts = score->finish();
            result.overall.emplace_back("inception_score", of_parts.mean);
            result.overall.emplace_back("inception_score_deviation", of_parts.std_dev);
        }
        if (!by_class) return result;
        if (!predicted.empty())
            result.overall.emplace_back("class_agreement", agreement(labels, predicted));
        result.classes = class_rows(labels, predicted, kept);
        if (has_cells()) result.cells = cell_rows(labels, predicted, kept);
        return result;
    }

    void describe(nlohmann::json& protocol) const override {
        protocol[space_name(space_.kind())] = space_.hash();
        protocol["features"] = space_.width();
        for (std::size_t s = 1; s < compared_.size(); ++s) {
            const FeatureSpace& space = *compared_[s].space;
            protocol[space_name(space.kind())] = space.hash();
            protocol["further_spaces"].push_back({{"space", space_name(space.kind())},
                                                  {"features", space.width()},
                                                  {"resize", space.resizing()}});
        }
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

    const Statistics* reference_statistics() const override {
        return &compared_.front().statistics;
    }

private:
    static std::vector<ComparedSpace> compared_in(const FeatureSpaces& spaces) {
        std::vector<ComparedSpace> all;
        for (const FeatureSpace* space : spaces) all.push_back({space});
        return all;
    }

    /// The name of a space's features among the measured rows.
    std::string row_name(std::size_t space) const {
        return space == 0 ? "features"
                          : std::string(space_name(compared_[space].kind())) + "/features";
    }

    std::vector<GatheredFeatures> gather(const std::vector<std::int64_t>& kept) const {
        std::vector<GatheredFeatures> all;
        for (const ComparedSpace& compared : compared_)
            all.push_back({FeatureStatistics(compared.space->width()), FeatureCollector(kept)});
        return all;
    }

    void add_to(std::vector<GatheredFeatures>& gathered, std::int64_t first,
                const backends::Parameters& batch) const {
        for (std::size_t s = 0; s < gathered.size(); ++s)
            gathered[s].add(first, batch.at(row_name(s)));
    }

    bool has_cells() const {
        return protocol_.partition.students > 1 && protocol_.partition.classes() == classes_;
    }

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
        for (const ComparedSpace& compared : compared_) {
            for (const std::string& line : too_few_for(*compared.space, protocol_, reference))
                core::log::warning("{}", line);
        }
    }

    Tensor manifold_subset(const Tensor& rows, std::uint64_t seed) const {
        if (rows.size(0) <= protocol_.manifold_limit) return rows;
        std::vector<std::int64_t> order =
            core::RandomStream(seed, "manifold").permutation(rows.size(0));
        order.resize(static_cast<std::size_t>(protocol_.manifold_limit));
        return rows.index_select(0, at::tensor(order));
    }

    void add_distances(distillation::Metrics& metrics, std::size_t s, const Statistics& statistics,
                       const Tensor& kept, std::uint64_t seed) const {
        const ComparedSpace& compared = compared_[s];
        metrics.emplace_back(frechet_name(compared.kind()),
                             frechet_distance(compared.statistics, statistics));
        if (!data_) return;
        const Tensor& real = compared.kept.features;
        metrics.emplace_back(
            kernel_name(compared.kind()),
            kernel_distance(real, kept,
                            {protocol_.kernel_subsets, protocol_.kernel_subset_size, seed}));
        metrics.emplace_back(monge_name(compared.kind()),
                             monge_distance(real, kept, protocol_.monge_directions, seed));
        if (s > 0) return;
        const Tensor fake = manifold_subset(kept, seed);
        const PrecisionRecall shape =
            precision_recall(manifold_, precision_radii_, fake, protocol_.precision_neighbours);
        const DensityCoverage cover =
            density_coverage(manifold_, coverage_radii_, fake, protocol_.coverage_neighbours);
        const std::initializer_list<std::pair<std::string, double>> more{
            {"precision", shape.precision},
            {"recall", shape.recall},
            {"density", cover.density},
            {"coverage", cover.coverage}};
        metrics.insert(metrics.end(), more);
    }

    /// One row per class, computed one class at a time to bound memory.
    std::vector<distillation::Metrics> class_rows(const std::vector<std::int64_t>& labels,
                                                  const std::vector<std::int64_t>& predicted,
                                                  const std::vector<KeptFeatures>& kept) const {
        return group_rows(
            "class", labels, predicted, classes_, [](std::int64_t label) { return label; }, kept,
            [this](const Tensor& real, const Tensor& fake) {
                return whole_kernel_distance(kernel_subset(real), kernel_subset(fake));
            });
    }

    /// The same per cell of the partition, which has samples enough for kernel distances of
    /// subsets.
    std::vector<distillation::Metrics> cell_rows(const std::vector<std::int64_t>& labels,
                                                 const std::vector<std::int64_t>& predicted,
                                                 const std::vector<KeptFeatures>& kept) const {
        const auto cell_of = [this](std::int64_t label) {
            return protocol_.partition.owner[static_cast<std::size_t>(label)];
        };
        return group_rows("cell", labels, predicted, protocol_.partition.students, cell_of, kept,
                          [this](const Tensor& real, const Tensor& fake) {
                              return kernel_distance(
                                  real, fake,
                                  {protocol_.kernel_subsets, protocol_.kernel_subset_size, 0});
                          });
    }

    /// Samples of each group against the reference's of the same group: `group_of` a label. NaN
    /// where a group has fewer than two samples of either.
    std::vector<distillation::Metrics> group_rows(
        const char* what, const std::vector<std::int64_t>& labels,
        const std::vector<std::int64_t>& predicted, std::int64_t groups,
        const std::function<std::int64_t(std::int64_t)>& group_of,
        const std::vector<KeptFeatures>& kept,
        const std::function<double(const Tensor& real, const Tensor& fake)>& kernel) const {
        constexpr double undefined = std::numeric_limits<double>::quiet_NaN();
        const auto groups_of = [&](const std::vector<std::int64_t>& all) {
            std::vector<std::int64_t> mapped;
            for (const std::int64_t label : all) mapped.push_back(group_of(label));
            return mapped;
        };
        const std::vector<std::int64_t> of_samples = groups_of(labels),
                                        of_kept = groups_of(kept.front().labels),
                                        of_reference = groups_of(compared_.front().kept.labels);
        // By the class itself, not its group: a picture of another class of the cell is wrong.
        std::vector<double> counts(static_cast<std::size_t>(groups)), agreeing(counts);
        for (std::size_t i = 0; i < of_samples.size(); ++i) {
            const auto group = static_cast<std::size_t>(of_samples[i]);
            ++counts[group];
            if (!predicted.empty()) agreeing[group] += labels[i] == predicted[i];
        }
        std::vector<Tensor> directions;
        for (const ComparedSpace& compared : compared_)
            directions.push_back(
                monge_directions(compared.space->width(), protocol_.monge_directions, 0));
        std::vector<distillation::Metrics> all;
        std::int64_t fewest = std::numeric_limits<std::int64_t>::max();
        const std::string unit = std::string(what) == "cell" ? "cells" : "classes";
        core::Progress progress(unit, groups, unit);
        for (std::int64_t group = 0; group < groups; ++group) {
            if (core::stop_requested())
                throw core::Interrupted("interrupted while measuring; nothing was written");
            const double count = counts[static_cast<std::size_t>(group)];
            distillation::Metrics row{{"count", count}};
            for (std::size_t s = 0; s < compared_.size(); ++s) {
                const FeatureSpace::Kind kind = compared_[s].kind();
                const Tensor real = rows_of_class(compared_[s].kept.features, of_reference, group),
                             fake = rows_of_class(kept[s].features, of_kept, group);
                const bool enough = real.size(0) >= 2 && fake.size(0) >= 2;
                if (enough) fewest = std::min({fewest, real.size(0), fake.size(0)});
                if (s == 0) row.emplace_back("reference_count", static_cast<double>(real.size(0)));
                row.emplace_back(frechet_name(kind),
                                 enough ? frechet_distance(real, fake) : undefined);
                row.emplace_back(kernel_name(kind), enough ? kernel(real, fake) : undefined);
                row.emplace_back(monge_name(kind),
                                 enough ? monge_distance(real, fake, directions[s], 0) : undefined);
            }
            if (!predicted.empty())
                row.emplace_back(
                    "class_agreement",
                    count > 0 ? agreeing[static_cast<std::size_t>(group)] / count : undefined);
            all.push_back(row);
            progress.update(group + 1);
        }
        warn_of_few(what, fewest);
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

    /// Warns once per kind of group: a Frechet distance of fewer samples than features is mostly
    /// bias, and a Monge distance of few is well above 0.
    void warn_of_few(const std::string& what, std::int64_t fewest) const {
        std::string biased, unbiased;
        std::int64_t widest = 0;
        for (const ComparedSpace& compared : compared_) {
            if (fewest >= compared.space->width()) continue;
            widest = std::max(widest, compared.space->width());
            biased += (biased.empty() ? "" : ", ") + frechet_name(compared.kind());
            unbiased += (unbiased.empty() ? "" : ", ") + kernel_name(compared.kind());
        }
        if (biased.empty() || (what == "cell" ? warned_of_cells_ : warned_).exchange(true)) return;
        core::log::warning(
            "{} per {} is taken from as few as {} images with {} features each, so most of it "
            "is bias; compare {} per {}, which has none",
            biased, what, fewest, widest, unbiased, what);
    }

    std::vector<ComparedSpace> compared_;  // the first is of space_
    const FeatureSpace& space_;
    Protocol protocol_;
    data::SampleSpec spec_;
    std::int64_t classes_ = 0;
    std::shared_ptr<const data::Dataset> data_;  // null: only statistics are known
    std::vector<std::int64_t> kept_;             // whose features are kept
    Tensor manifold_, precision_radii_, coverage_radii_;
    mutable std::atomic<bool> warned_ = false, warned_of_cells_ = false;
};

}  // namespace

std::unique_ptr<SampleMetrics> image_metrics(std::shared_ptr<const data::Dataset> reference,
                                             FeatureSpaces spaces, const Protocol& protocol) {
    return std::make_unique<ImageMetrics>(std::move(reference), spaces, protocol);
}

std::unique_ptr<SampleMetrics> image_metrics(Statistics reference, data::SampleSpec spec,
                                             const FeatureSpace& space, const Protocol& protocol) {
    return std::make_unique<ImageMetrics>(std::move(reference), std::move(spec), space, protocol);
}

}  // namespace atelier::metrics
