#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace atelier::server {

/// The labels of one series, in order.
using Labels = std::vector<std::pair<std::string, std::string>>;

inline Labels student_labels(const std::string& model, std::int64_t student) {
    return {{"model", model}, {"student", std::to_string(student)}};
}

/// Counters, gauges and histograms in Prometheus' text format. Any thread.
class Metrics {
public:
    /// Adds to a counter.
    void count(const std::string& name, const Labels& labels, std::uint64_t by = 1);
    /// Creates an empty histogram, so that it is listed before its first value.
    void init_histogram(const std::string& name, const Labels& labels);
    void set(const std::string& name, const Labels& labels, double value);
    /// Adds a value to a histogram.
    void observe(const std::string& name, const Labels& labels, double value);

    /// The value of a counter, 0 if it does not exist.
    std::uint64_t counter_value(const std::string& name, const Labels& labels) const;

    /// All series in version 0.0.4 of the text format.
    std::string text() const;

private:
    struct Histogram {
        std::vector<std::uint64_t> counts;  // one per bucket, and one beyond the last bound
        double sum = 0;
    };

    mutable std::mutex mutex_;
    std::map<std::string, std::map<std::string, std::uint64_t>>
        counters_;  // name -> labels -> value
    std::map<std::string, std::map<std::string, double>> gauges_;
    std::map<std::string, std::map<std::string, Histogram>> histograms_;
};

/// Resident memory of this process in bytes, 0 if unknown.
std::uint64_t resident_bytes();

}  // namespace atelier::server
