#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace atelier::server {

/// The labels of one series, in their order.
using Labels = std::vector<std::pair<std::string, std::string>>;

inline Labels student_labels(const std::string& model, std::int64_t student) { return {{"model", model}, {"student", std::to_string(student)}}; }

/// Numbers about the server in Prometheus' text format. Any thread.
class Metrics {
public:
    /// Adds to a counter.
    void count(const std::string& name, const Labels& labels, std::uint64_t by = 1);
    /// A histogram is there before its first value.
    void begin(const std::string& name, const Labels& labels);
    void set(const std::string& name, const Labels& labels, double value);
    /// Puts a value into a histogram.
    void observe(const std::string& name, const Labels& labels, double value);

    std::uint64_t counted(const std::string& name, const Labels& labels) const;

    /// Version 0.0.4 of the text format.
    std::string text() const;

private:
    struct Histogram {
        std::vector<std::uint64_t> counts;  // a bucket each, and one beyond the last
        double sum = 0;
    };

    mutable std::mutex mutex_;
    std::map<std::string, std::map<std::string, std::uint64_t>> counters_;  // name -> labels -> value
    std::map<std::string, std::map<std::string, double>> gauges_;
    std::map<std::string, std::map<std::string, Histogram>> histograms_;
};

/// Resident memory of this process in bytes, 0 where the system does not say.
std::uint64_t resident_bytes();

}  // namespace atelier::server
