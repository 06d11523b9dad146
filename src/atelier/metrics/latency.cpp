#include "atelier/metrics/latency.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "atelier/core/error.h"

namespace atelier::metrics {

Latency median_seconds(const std::function<void()>& work, std::int64_t warmup, std::int64_t runs) {
    if (runs < 1) core::fail("latency: {} timed runs; at least 1 is needed", runs);
    for (std::int64_t i = 0; i < warmup; ++i) work();
    std::vector<double> seconds;
    for (std::int64_t i = 0; i < runs; ++i) {
        const auto start = std::chrono::steady_clock::now();
        work();
        seconds.push_back(
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    std::ranges::sort(seconds);
    const std::size_t middle = seconds.size() / 2;
    const double median =
        seconds.size() % 2 ? seconds[middle] : (seconds[middle - 1] + seconds[middle]) / 2;
    return {median, seconds.front(), seconds.back(), runs};
}

nlohmann::json to_json(const Latency& latency) {
    return {{"median_seconds", latency.median},
            {"least_seconds", latency.least},
            {"most_seconds", latency.most},
            {"runs", latency.runs},
            {"batch", 1},
            {"threads", at::get_num_threads()}};
}

}  // namespace atelier::metrics
