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
#include "atelier/evaluation/evaluate.h"
#include "atelier/evaluation/nearest.h"

namespace atelier::evaluation {

namespace {

constexpr std::int64_t reading_block = 2000;

/// Features of some samples of a set, and their labels.
struct Kept {
    Tensor features;
    std::vector<std::int64_t> labels;
};

/// Keeps the features of the samples at `places`, which increase, as batches of them go by.
class Keeping {
public:
    explicit Keeping(std::vector<std::int64_t> places) : places_(std::move(places)) {}

    void see(std::int64_t first, const Tensor& features) {
        std::vector<std::int64_t> rows;
        for (; next_ < places_.size() && places_[next_] < first + features.size(0); ++next_)
            rows.push_back(places_[next_] - first);
        if (static_cast<std::int64_t>(rows.size()) == features.size(0)) parts_.push_back(features);
        else if (!rows.empty())
            parts_.push_back(features.index_select(0, at::tensor(rows, at::kLong)));
    }

    Kept kept(const std::vector<std::int64_t>& labels) const {
        Kept all{at::cat(parts_), {}};
        if (!labels.empty()) {
            for (const std::int64_t place : places_)
                all.labels.push_back(labels[static_cast<std::size_t>(place)]);
        }
        return all;
    }

private:
    std::vector<std::int64_t> places_;
    std::size_t next_ = 0;
    std::vector<Tensor> parts_;
};

/// Against data: every figure. Against statistics alone: what means and covariances tell.
class ImageMeasures : public Measures {
public:
    ImageMeasures(const data::Dataset& reference, const FeatureSpace& space,
                  const Protocol& protocol)
        : space_(space),
          protocol_(protocol),
          form_(reference.form()),
          classes_(reference.classes()) {
        check_enough(reference.size(), "real images",
                     std::max(protocol_.precision_neighbours, protocol_.coverage_neighbours));
        check_enough(protocol_.count, "samples", protocol_.precision_neighbours);
        const auto block = [&](std::int64_t first, std::int64_t count) {
            return reference.samples(data::consecutive(first, count));
        };
        FeatureStatistics statistics(space.width());
        Keeping keeping(
            data::seeded_sample(reference, protocol_.kept_features, 0, "kept/reference"));
        see("features of the reference", reference.size(), block,
            [&](std::int64_t first, const Features& found) {
                statistics.add(found.features);
                keeping.see(first, found.features);
            });
        statistics_ = statistics.finish();
        reference_ = keeping.kept(reference.labels());
        manifold_ = some_of(reference_.features, 0);
        precision_radii_ = neighbour_radii(manifold_, protocol_.precision_neighbours);
        coverage_radii_ = neighbour_radii(manifold_, protocol_.coverage_neighbours);
    }

    ImageMeasures(Statistics reference, models::DataForm form, const FeatureSpace& space, const Protocol& protocol)
        : space_(space), protocol_(protocol), form_(std::move(form)), statistics_(std::move(reference)) {}

    Measured measure(const Samples& samples, std::uint64_t seed) const override {
        const std::int64_t count = samples.size();
        const bool by_class = !samples.labels.empty() && classes_ > 0;
        FeatureStatistics statistics(space_.width());
        Keeping keeping(data::spread_sample(samples.labels, count, protocol_.kept_features, seed,
                                            "kept/samples"));
        std::optional<InceptionScore> score;
        if (space_.kind() == FeatureSpace::Kind::inception)
            score.emplace(count, std::min(protocol_.score_splits, count), seed);
        std::vector<std::int64_t> named;
        see(
            "features of the samples", count,
            [&](std::int64_t first, std::int64_t n) { return samples.rows(first, n); },
            [&](std::int64_t first, const Features& found) {
                statistics.add(found.features);
                keeping.see(first, found.features);
                if (score) score->add(first, found.logits);
                if (!by_class || space_.kind() != FeatureSpace::Kind::classifier) return;
                const std::vector<std::int64_t> some = predicted_classes(found.logits);
                named.insert(named.end(), some.begin(), some.end());
            });
        const Kept kept = keeping.kept(samples.labels);
        Measured measured{distances(statistics.finish(), kept.features, seed), {}};
        if (score) {
            const MeanAndDeviation of_parts = score->finish();
            measured.overall.emplace_back("inception_score", of_parts.mean);
            measured.overall.emplace_back("inception_score_deviation", of_parts.deviation);
        }
        if (!by_class) return measured;
        if (!named.empty()) measured.overall.emplace_back("class_agreement", agreement(samples.labels, named));
        measured.classes = rows(samples.labels, named, kept);
        return measured;
    }

    void describe(nlohmann::json& protocol) const override {
        static constexpr const char* kinds[]{"classifier", "inception", "pixels"};
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
        if (!reference_.features.defined()) return;
        protocol["kept"] = {{"reference", reference_.features.size(0)},
                            {"samples", std::min(protocol_.kept_features, protocol_.count)}};
        protocol["kernel"] = {
            {"polynomial", "(x.y/F + 1)^3"},
            {"subsets", protocol_.kernel_subsets},
            {"subset_size", std::min({protocol_.kernel_subset_size, protocol_.count,
                                      reference_.features.size(0)})}};
        protocol["manifold"] = {{"samples", std::min(protocol_.manifold_limit, protocol_.count)},
                                {"reference", manifold_.size(0)},
                                {"precision_neighbours", protocol_.precision_neighbours},
                                {"coverage_neighbours", protocol_.coverage_neighbours}};
    }

    const Statistics* reference_statistics() const override { return &statistics_; }

private:
    using Block = std::function<Tensor(std::int64_t first, std::int64_t count)>;

    /// Features of what a user would see, the 8-bit pictures, of `count` images that `block` hands
    /// out from `first` on; `visit` gets them block by block.
    void see(const std::string& label, std::int64_t count, const Block& block,
             const std::function<void(std::int64_t first, const Features&)>& visit) const {
        core::Progress progress(label, count, "images");
        const std::int64_t together = data::samples_together(form_.shape, reading_block);
        for (std::int64_t first = 0; first < count; first += together) {
            if (core::stop_requested()) throw core::Interrupted("interrupted while measuring; nothing was written");
            const std::int64_t n = std::min(together, count - first);
            const Tensor samples = block(first, n);
            check_samples(samples, form_);
            visit(first, space_.features(
                             models::to_model_space(form_, models::to_user_space(form_, samples))));
            progress.update(first + n);
        }
    }

    /// Before anything is looked at: balls of precision, recall and coverage reach to a neighbour
    /// that must be there.
    static void check_enough(std::int64_t count, const char* what, std::int64_t neighbours) {
        if (count <= neighbours)
            core::fail(
                "evaluation: {} {} are too few for {} neighbours each, which precision and "
                "coverage look at; at least {} are needed",
                count, what, neighbours, neighbours + 1);
    }

    Tensor some_of(const Tensor& rows, std::uint64_t seed) const {
        if (rows.size(0) <= protocol_.manifold_limit) return rows;
        std::vector<std::int64_t> order = core::RandomStream(seed, "manifold").permutation(rows.size(0));
        order.resize(static_cast<std::size_t>(protocol_.manifold_limit));
        return rows.index_select(0, at::tensor(order));
    }

    distillation::Metrics distances(const Statistics& statistics, const Tensor& kept,
                                    std::uint64_t seed) const {
        distillation::Metrics metrics{
            {frechet_name(space_.kind()), frechet_distance(statistics_, statistics)}};
        if (!reference_.features.defined()) return metrics;
        const Tensor fake = some_of(kept, seed);
        const KernelDistance kernel{protocol_.kernel_subsets, protocol_.kernel_subset_size, seed};
        const PrecisionRecall shape = precision_recall(manifold_, precision_radii_, fake, protocol_.precision_neighbours);
        const DensityCoverage cover = density_coverage(manifold_, coverage_radii_, fake, protocol_.coverage_neighbours);
        const std::initializer_list<std::pair<std::string, double>> more{
            {kernel_name(space_.kind()), kernel_distance(reference_.features, kept, kernel)},
            {"precision", shape.precision}, {"recall", shape.recall}, {"density", cover.density}, {"coverage", cover.coverage}};
        metrics.insert(metrics.end(), more);
        return metrics;
    }

    /// A row per class. Class by class, so that no more than two classes' features are looked at
    /// together.
    std::vector<distillation::Metrics> rows(const std::vector<std::int64_t>& labels,
                                            const std::vector<std::int64_t>& named,
                                            const Kept& kept) const {
        constexpr double nothing = std::numeric_limits<double>::quiet_NaN();
        const std::vector<double> agreements = named.empty() ? std::vector<double>{} : agreement_by_class(labels, named, classes_);
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
                 {frechet_name(space_.kind()), enough ? frechet_distance(real, fake) : nothing},
                 {kernel_name(space_.kind()),
                  enough ? whole_kernel_distance(few(real), few(fake)) : nothing}});
            if (!agreements.empty()) all.back().emplace_back("class_agreement", agreements[static_cast<std::size_t>(label)]);
            progress.update(label + 1);
        }
        warn_of_few(fewest);
        return all;
    }

    /// Rows of a class, which come in random order only by chance, for a kernel's matrix.
    Tensor few(const Tensor& rows) const {
        if (rows.size(0) <= protocol_.kernel_subset_size) return rows;
        std::vector<std::int64_t> order =
            core::RandomStream(0, "classes").permutation(rows.size(0));
        order.resize(static_cast<std::size_t>(protocol_.kernel_subset_size));
        return rows.index_select(0, at::tensor(order));
    }

    /// Once: a Frechet distance of fewer samples than features is mostly the bias of few samples.
    void warn_of_few(std::int64_t fewest) const {
        if (fewest >= space_.width() || warned_.exchange(true)) return;
        core::log::warning(
            "{} per class is taken from as few as {} images with {} features each, so most of it "
            "is bias; compare {} per class, which has none",
            frechet_name(space_.kind()), fewest, space_.width(), kernel_name(space_.kind()));
    }

    const FeatureSpace& space_;
    Protocol protocol_;
    models::DataForm form_;
    std::int64_t classes_ = 0;
    Kept reference_;
    Tensor manifold_, precision_radii_, coverage_radii_;
    Statistics statistics_;
    mutable std::atomic<bool> warned_ = false;
};

}  // namespace

std::unique_ptr<Measures> image_measures(const data::Dataset& reference, const FeatureSpace& space, const Protocol& protocol) {
    return std::make_unique<ImageMeasures>(reference, space, protocol);
}

std::unique_ptr<Measures> image_measures(Statistics reference, models::DataForm form, const FeatureSpace& space, const Protocol& protocol) {
    return std::make_unique<ImageMeasures>(std::move(reference), std::move(form), space, protocol);
}

}  // namespace atelier::evaluation
