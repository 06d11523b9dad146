#pragma once

#include <cstdint>
#include <functional>

#include <nlohmann/json.hpp>

namespace atelier::evaluation {

struct Latency {
    double median = 0, least = 0, most = 0;  // seconds
    std::int64_t runs = 0;
};

/// As result files have it, of one sample at a time in LibTorch's present number of threads.
nlohmann::json to_json(const Latency& latency);

/// Runs `work` `warmup` times unmeasured, then `runs` (at least 1) times by the steady clock. `work` must wait for its own
/// device. The median of an even number of runs is the mean of the middle two.
Latency median_seconds(const std::function<void()>& work, std::int64_t warmup = 5, std::int64_t runs = 20);

}  // namespace atelier::evaluation
