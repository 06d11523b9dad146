#include "atelier/metrics/evaluate.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/progress.h"
#include "atelier/core/random_streams.h"

namespace atelier::metrics {

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

nlohmann::json number_or_null(double value) {
    return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json(nullptr);
}

/// Mean, sample standard deviation and the individual values.
nlohmann::json summary(const std::vector<double>& values) {
    double sum = 0, squares = 0;
    for (const double value : values) sum += value;
    const double n = static_cast<double>(values.size()), mean = sum / n;
    for (const double value : values) squares += (value - mean) * (value - mean);
    nlohmann::json json{
        {"mean", number_or_null(mean)},
        {"spread", number_or_null(n > 1 ? std::sqrt(squares / (n - 1)) : not_a_number)}};
    for (const double value : values) json["values"].push_back(number_or_null(value));
    return json;
}

void check(const Protocol& protocol) {
    if (protocol.seeds.empty() || protocol.count < 1)
        core::fail("evaluation: no samples to measure; give a count and a seed");
}

constexpr const char* reference_set = "reference";

std::unique_ptr<SampleMetrics> metrics_for(std::shared_ptr<const data::Dataset> reference,
                                           FeatureSpaces spaces, const Protocol& protocol) {
    check(protocol);
    if (reference->spec().kind == data::SampleSpec::Kind::points)
        return point_metrics(*reference, protocol);
    if (spaces.empty())
        core::fail("evaluation: image metrics need a feature space; name a classifier's directory");
    return image_metrics(std::move(reference), std::move(spaces), protocol);
}

/// Calls `visit` for the rows that are measured together.
void for_each_part(const SampleMetrics& metrics, const std::string& label, std::int64_t count,
                   const std::function<void(std::int64_t first, std::int64_t n)>& visit) {
    const std::int64_t together = metrics.rows_together(count);
    core::Progress progress(label, count, "samples");
    for (std::int64_t first = 0; first < count; first += together) {
        const std::int64_t n = std::min(together, count - first);
        visit(first, n);
        progress.update(first + n);
    }
}

}  // namespace

void check_samples(const Tensor& samples, const data::SampleSpec& spec) {
    std::vector<std::int64_t> expected{samples.size(0)};
    expected.insert(expected.end(), spec.shape.begin(), spec.shape.end());
    if (samples.sizes().vec() == expected) return;
    core::fail(
        "evaluation: expected {} samples of shape {}, got {}; is the reference the data that the "
        "model was trained on?",
        samples.size(0), core::to_string(spec.shape), core::to_string(samples.sizes().vec()));
}

nlohmann::json summaries(const std::vector<const distillation::Metrics*>& draws) {
    nlohmann::json json = nlohmann::json::object();
    for (std::size_t i = 0; i < draws.front()->size(); ++i) {
        std::vector<double> values;
        for (const distillation::Metrics* draw : draws) values.push_back((*draw)[i].second);
        json[draws.front()->at(i).first] = summary(values);
    }
    return json;
}

Evaluator::Evaluator(std::shared_ptr<const data::Dataset> reference, const FeatureSpace* space,
                     Protocol protocol, std::shared_ptr<EvaluationParts> parts)
    : Evaluator(std::move(reference), space ? FeatureSpaces{space} : FeatureSpaces{},
                std::move(protocol), std::move(parts)) {}

Evaluator::Evaluator(std::shared_ptr<const data::Dataset> reference, FeatureSpaces spaces,
                     Protocol protocol, std::shared_ptr<EvaluationParts> parts)
    : spec_(reference->spec()),
      classes_(reference->classes()),
      reference_count_(reference->size()),
      reference_hash_(reference->hash()),
      protocol_(std::move(protocol)),
      metrics_(metrics_for(std::move(reference), std::move(spaces), protocol_)),
      parts_(std::move(parts)) {
    if (!parts_) read_reference();
}

Evaluator::Evaluator(const Statistics& reference, const std::string& hash,
                     const data::SampleSpec& spec, const FeatureSpace& space, Protocol protocol,
                     std::shared_ptr<EvaluationParts> parts)
    : spec_(spec),
      reference_count_(reference.count),
      reference_hash_(hash),
      protocol_(std::move(protocol)),
      parts_(std::move(parts)) {
    check(protocol_);
    metrics_ = image_metrics(reference, spec, space, protocol_);
}

void Evaluator::share_reference() const {
    for_each_part(*metrics_, "parts of the reference", metrics_->reference_rows(),
                  [&](std::int64_t first, std::int64_t n) {
                      parts_->make(reference_set, first, [&] {
                          return metrics_->measured(metrics_->reference_samples(first, n));
                      });
                  });
}

void Evaluator::share(const EvaluationTarget& target) const {
    for (const std::uint64_t seed : protocol_.seeds) {
        const Samples samples = draw(target, seed);
        const std::string set = set_of(target, seed);
        for_each_part(*metrics_, "parts of the samples", protocol_.count,
                      [&](std::int64_t first, std::int64_t n) {
                          parts_->make(set, first, [&] { return measure(samples, first, n); });
                      });
    }
}

void Evaluator::read_reference() {
    metrics_->read_reference([&](std::int64_t first, std::int64_t n) {
        return parts_ ? parts_->read(reference_set, first, n)
                      : metrics_->measured(metrics_->reference_samples(first, n));
    });
}

/// What is kept of rows of samples.
backends::Parameters Evaluator::measure(const Samples& samples, std::int64_t first,
                                        std::int64_t n) const {
    const Tensor rows = samples.rows(first, n);
    check_samples(rows, spec_);
    backends::Parameters kept = metrics_->measured(rows);
    if (samples.ask) kept.merge(samples.ask(rows), "");
    return kept;
}

/// The name of a draw's parts: of the model and how it is sampled, and of the seed.
std::string Evaluator::set_of(const EvaluationTarget& target, std::uint64_t seed) const {
    constexpr std::size_t letters = 16;
    return fmt::format("{}-{}", core::sha256(protocol_of(target).dump()).substr(0, letters), seed);
}

nlohmann::json Evaluator::evaluate(const EvaluationTarget& target) const {
    std::vector<EvaluationResult> draws;
    for (const std::uint64_t seed : protocol_.seeds) {
        const Samples samples = draw(target, seed);
        const std::string set = parts_ ? set_of(target, seed) : "";
        const SampleMetrics::Measured rows = [&](std::int64_t first, std::int64_t n) {
            backends::Parameters kept =
                parts_ ? parts_->read(set, first, n) : measure(samples, first, n);
            if (samples.hear) samples.hear(first, kept);
            return kept;
        };
        draws.push_back(metrics_->compute(samples.labels, protocol_.count, seed, rows));
    }
    std::vector<const distillation::Metrics*> overall;
    for (const EvaluationResult& draw : draws) overall.push_back(&draw.overall);
    nlohmann::json result{
        {"kind", spec_.kind == data::SampleSpec::Kind::image ? "image" : "points"},
        {"protocol", protocol_of(target)},
        {"metrics", summaries(overall)},
        {"classes", class_rows(draws)}};
    if (!draws.front().cells.empty()) {
        result["cells"] = cell_rows(draws);
        result["partition"] = protocol_.partition.hash();
    }
    return result;
}

Samples Evaluator::draw(const EvaluationTarget& target, std::uint64_t seed) const {
    Samples samples = target.draw(protocol_.count, seed);
    if (samples.size() != protocol_.count)
        core::fail("evaluation: requested {} samples, got {}", protocol_.count, samples.size());
    if (!samples.read) check_samples(samples.model_space, spec_);
    if (classes_ == 0) samples.labels.clear();
    if (!samples.labels.empty() &&
        static_cast<std::int64_t>(samples.labels.size()) != protocol_.count) {
        core::fail("evaluation: {} samples came with {} labels", protocol_.count,
                   samples.labels.size());
    }
    for (const std::int64_t label : samples.labels) {
        if (label < 0 || label >= classes_) {
            core::fail("evaluation: a sample's class is {}, the reference has classes 0..{}", label,
                       classes_ - 1);
        }
    }
    return samples;
}

nlohmann::json Evaluator::protocol_of(const EvaluationTarget& target) const {
    nlohmann::json model =
        target.description.is_object() ? target.description : nlohmann::json::object();
    model["hash"] = target.hash;
    nlohmann::json protocol{{"count", protocol_.count},
                            {"seeds", protocol_.seeds},
                            {"reference",
                             {{"path", protocol_.reference_path},
                              {"hash", reference_hash_},
                              {"count", reference_count_}}},
                            {"model", model},
                            {"name", protocol_.name},
                            {"program", protocol_.program}};
    if (!protocol_.class_draws.empty() && classes_ > 0) protocol["classes"] = protocol_.class_draws;
    metrics_->describe(protocol);
    return protocol;
}

nlohmann::json Evaluator::class_rows(const std::vector<EvaluationResult>& draws) const {
    nlohmann::json rows = nlohmann::json::array();
    const std::vector<std::string>& names = spec_.class_names;
    for (std::size_t i = 0; i < draws.front().classes.size(); ++i) {
        std::vector<const distillation::Metrics*> of_class;
        for (const EvaluationResult& draw : draws) of_class.push_back(&draw.classes[i]);
        nlohmann::json row = summaries(of_class);
        row["class"] = i;
        row["name"] = i < names.size() ? names[i] : std::to_string(i);
        rows.push_back(row);
    }
    return rows;
}

nlohmann::json Evaluator::cell_rows(const std::vector<EvaluationResult>& draws) const {
    nlohmann::json rows = nlohmann::json::array();
    for (std::size_t k = 0; k < draws.front().cells.size(); ++k) {
        std::vector<const distillation::Metrics*> of_cell;
        for (const EvaluationResult& draw : draws) of_cell.push_back(&draw.cells[k]);
        nlohmann::json row = summaries(of_cell);
        row["cell"] = k;
        row["classes"] = protocol_.partition.cell(static_cast<std::int64_t>(k));
        rows.push_back(row);
    }
    return rows;
}

SampleSource real_samples(std::shared_ptr<const data::Dataset> dataset) {
    return [dataset = std::move(dataset)](std::int64_t count, std::uint64_t seed) {
        if (count > dataset->size())
            core::fail("evaluation: {} real samples requested, the data set has {}", count,
                       dataset->size());
        std::vector<std::int64_t> order =
            core::RandomStream(seed, "real_samples").permutation(dataset->size());
        order.resize(static_cast<std::size_t>(count));
        Samples samples{dataset->samples(order), {}};
        if (dataset->labels().empty()) return samples;
        for (const std::int64_t index : order)
            samples.labels.push_back(dataset->labels()[static_cast<std::size_t>(index)]);
        return samples;
    };
}

Tensor rows_of_class(const Tensor& samples, const std::vector<std::int64_t>& labels,
                     std::int64_t label) {
    std::vector<std::int64_t> rows;
    for (std::size_t i = 0; i < labels.size(); ++i) {
        if (labels[i] == label) rows.push_back(static_cast<std::int64_t>(i));
    }
    return samples.index_select(0, at::tensor(rows, at::kLong));
}

double agreement(const std::vector<std::int64_t>& expected,
                 const std::vector<std::int64_t>& found) {
    std::size_t same = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) same += expected[i] == found[i];
    return static_cast<double>(same) / static_cast<double>(expected.size());
}

std::vector<double> agreement_by_class(const std::vector<std::int64_t>& expected,
                                       const std::vector<std::int64_t>& found,
                                       std::int64_t classes) {
    std::vector<double> same(static_cast<std::size_t>(classes)),
        all(static_cast<std::size_t>(classes));
    for (std::size_t i = 0; i < expected.size(); ++i) {
        const auto label = static_cast<std::size_t>(expected[i]);
        ++all[label];
        same[label] += expected[i] == found[i];
    }
    for (std::size_t i = 0; i < all.size(); ++i)
        same[i] = all[i] > 0 ? same[i] / all[i] : not_a_number;
    return same;
}

}  // namespace atelier::metrics
