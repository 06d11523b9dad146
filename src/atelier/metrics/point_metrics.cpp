#include <algorithm>
#include <limits>
#include <numeric>

#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/metrics/evaluate.h"
#include "atelier/metrics/sample_counts.h"
#include "atelier/metrics/two_d.h"

namespace atelier::metrics {

namespace {

class PointMetrics : public SampleMetrics {
public:
    PointMetrics(const data::Dataset& reference, const Protocol& protocol)
        : protocol_(protocol),
          spec_(reference.spec()),
          labels_(reference.labels()),
          classes_(reference.classes()),
          reference_(all_points(reference)),
          support_(reference_, labels_, classes_) {
        if (knows_centres() && !(protocol.std_dev > 0 && reference_.size(1) == 2)) {
            core::fail(
                "evaluation: known centres need points of 2 dimensions and a standard deviation, "
                "got {} "
                "dimensions and standard deviation {}",
                reference_.size(1), protocol.std_dev);
        }
        const std::int64_t count = knows_centres() ? std::ssize(protocol_.centres) : classes_;
        for (const std::string& line : too_few_for_modes(protocol_, count))
            core::log::warning("{}", line);
    }

    std::int64_t rows_together(std::int64_t count) const override { return count; }

    backends::Parameters measured(const Tensor& samples) const override {
        return backends::Parameters({{"points", data::to_user_space(spec_, samples)}});
    }

    EvaluationResult compute(const std::vector<std::int64_t>& labels, std::int64_t count,
                             std::uint64_t seed, const Measured& measured_rows) const override {
        const Tensor points = measured_rows(0, count).at("points");
        const Tensor directions = random_directions(protocol_.directions, points.size(1), seed);
        const std::vector<std::int64_t> regions = support_.classes_of(points);
        EvaluationResult result{overall(points, regions, directions, seed), {}};
        if (labels.empty()) return result;
        result.overall.emplace_back("class_agreement", agreement(labels, regions));
        result.classes = rows(points, labels, regions, directions);
        return result;
    }

    void describe(nlohmann::json& protocol) const override {
        protocol["quantisation"] = "none";
        protocol["directions"] = protocol_.directions;
        protocol["mmd"] =
            "Gaussian kernels of 1/8, 1/4, 1/2 and 1 median distances, 2000 points of each set";
        if (knows_centres()) {
            protocol["modes"] = {{"count", protocol_.centres.size()},
                                 {"deviation", protocol_.std_dev},
                                 {"stray", "4 deviations or more from every centre"}};
        } else {
            protocol["modes"] = {{"count", std::max<std::int64_t>(classes_, 1)},
                                 {"stray_distance", support_.stray_distance()},
                                 {"stray",
                                  "farther from its nearest reference point than 2 times the 99.9 "
                                  "% quantile of held-out ones"}};
        }
    }

private:
    bool knows_centres() const { return !protocol_.centres.empty(); }

    Tensor centre_rows() const {
        std::vector<double> values;
        for (const auto& centre : protocol_.centres)
            values.insert(values.end(), centre.begin(), centre.end());
        return at::tensor(values).reshape({-1, 2});
    }

    Tensor all_points(const data::Dataset& dataset) const {
        std::vector<std::int64_t> indices(static_cast<std::size_t>(dataset.size()));
        std::iota(indices.begin(), indices.end(), std::int64_t{0});
        return data::to_user_space(spec_, dataset.samples(indices));
    }

    distillation::Metrics overall(const Tensor& points, const std::vector<std::int64_t>& regions,
                                  const Tensor& directions, std::uint64_t seed) const {
        const ModeReport found = knows_centres()
                                     ? modes(points, reference_, centre_rows(), protocol_.std_dev)
                                     : support_.modes(regions);
        const double all = static_cast<double>(found.shares.size());
        return {{"sliced_wasserstein", sliced_wasserstein(points, reference_, directions)},
                {"mmd_squared", mmd_squared(points, reference_, {.seed = seed})},
                {"modes_reached", static_cast<double>(found.reached) / all},
                {"worst_mode", found.worst},
                {"strays", found.strays}};
    }

    std::vector<distillation::Metrics> rows(const Tensor& points,
                                            const std::vector<std::int64_t>& labels,
                                            const std::vector<std::int64_t>& regions,
                                            const Tensor& directions) const {
        const std::vector<double> agreements = agreement_by_class(labels, regions, classes_);
        std::vector<distillation::Metrics> all;
        for (std::int64_t label = 0; label < classes_; ++label) {
            const Tensor class_points = rows_of_class(points, labels, label),
                         class_reference = rows_of_class(reference_, labels_, label);
            const bool enough = class_points.size(0) > 0 && class_reference.size(0) > 0;
            all.push_back({{"count", static_cast<double>(class_points.size(0))},
                           {"sliced_wasserstein",
                            enough ? sliced_wasserstein(class_points, class_reference, directions)
                                   : std::numeric_limits<double>::quiet_NaN()},
                           {"class_agreement", agreements[static_cast<std::size_t>(label)]}});
        }
        return all;
    }

    Protocol protocol_;
    data::SampleSpec spec_;
    std::vector<std::int64_t> labels_;
    std::int64_t classes_;
    Tensor reference_;
    Support support_;
};

}  // namespace

std::unique_ptr<SampleMetrics> point_metrics(const data::Dataset& reference,
                                             const Protocol& protocol) {
    return std::make_unique<PointMetrics>(reference, protocol);
}

}  // namespace atelier::metrics
