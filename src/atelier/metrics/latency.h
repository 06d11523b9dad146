#pragma once

#include <cstdint>
#include <functional>

#include <nlohmann/json.hpp>

namespace atelier::metrics {

struct Latency {
    double median = 0, least = 0, most = 0;  // seconds
    std::int64_t runs = 0;
};

/// The format of result files: one sample per batch, with LibTorch's current number of threads.
nlohmann::json to_json(const Latency& latency);

/// Runs `work` `warmup` times untimed, then times `runs` (at least 1) runs with the steady clock.
/// `work` must synchronise its device itself. The median of an even number of runs is the mean of
/// the middle two.
Latency median_seconds(const std::function<void()>& work, std::int64_t warmup = 5,
                       std::int64_t runs = 20);

}  // namespace atelier::metrics
