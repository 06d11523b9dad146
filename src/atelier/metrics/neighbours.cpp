#include "atelier/metrics/neighbours.h"

#include <algorithm>

#include "atelier/core/error.h"
#include "atelier/data/sampling.h"

namespace atelier::metrics {

namespace {

constexpr std::int64_t training_batch = 4096;

/// The k nearest of both sets of candidates.
Nearest merge(const Nearest& a, const Nearest& b, std::int64_t k) {
    const Tensor distances = at::cat({a.distances, b.distances}, 1),
                 indices = at::cat({a.indices, b.indices}, 1);
    const auto [values, order] =
        distances.topk(std::min(k, distances.size(1)), 1, /*largest=*/false, /*sorted=*/true);
    return {values, indices.gather(1, order)};
}

double quantile_of(const Tensor& values, double share) {
    const Tensor sorted = std::get<0>(values.sort());
    return sorted[static_cast<std::int64_t>(share * static_cast<double>(sorted.numel() - 1))]
        .item<double>();
}

}  // namespace

Nearest nearest_in(const Tensor& samples, const data::Dataset& training, std::int64_t k) {
    if (k < 1 || training.size() < k)
        core::fail("nearest neighbours: {} requested of {} training samples", k, training.size());
    const Tensor rows = samples.flatten(1);
    Nearest best{at::zeros({rows.size(0), 0}, at::kDouble),
                 at::zeros({rows.size(0), 0}, at::kLong)};
    const std::int64_t batch =
        std::max(k, data::samples_per_batch(training.spec().shape, training_batch));
    for (std::int64_t first = 0; first < training.size(); first += batch) {
        const Tensor block =
            training.samples(data::consecutive(first, std::min(batch, training.size() - first)))
                .flatten(1);
        const Nearest found = nearest(rows, block, std::min(k, block.size(0)));
        best = merge(best, {found.distances, found.indices + first}, k);
    }
    return best;
}

CopyReport copying(const Tensor& generated, const Tensor& held_out, const data::Dataset& training,
                   std::int64_t k) {
    CopyReport report{nearest_in(generated, training, k), nearest_in(held_out, training, k)};
    const Tensor generated_distances = report.generated.distances.select(1, 0),
                 held_out_distances = report.held_out.distances.select(1, 0);
    report.generated_median = quantile_of(generated_distances, 0.5);
    report.held_out_median = quantile_of(held_out_distances, 0.5);
    report.closest_limit = quantile_of(held_out_distances, 0.01);
    report.suspicious =
        (generated_distances < report.closest_limit).to(at::kDouble).mean().item<double>();
    return report;
}

}  // namespace atelier::metrics
