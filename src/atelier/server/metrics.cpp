#include "atelier/server/metrics.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <span>

#include <fmt/format.h>

namespace atelier::server {

namespace {

struct Family {
    std::string_view name, help;
};

constexpr Family families[] = {
    {"atelier_requests_total", "HTTP requests answered, by route and status."},
    {"atelier_routed_total", "Image requests sent to each student."},
    {"atelier_images_total", "Pictures drawn by each student."},
    {"atelier_rejected_total", "Image requests not answered with pictures, by reason: full, late, left, failed, draining, unavailable."},
    {"atelier_request_seconds", "From an image request's arrival to its answer."},
    {"atelier_reading_seconds", "From a request's arrival until its prompt was read."},
    {"atelier_queue_seconds", "From a request's arrival to its first picture's batch."},
    {"atelier_engine_seconds", "One batch through a student's network."},
    {"atelier_batch_size", "Pictures drawn together."},
    {"atelier_queue_depth", "Pictures waiting for a student."},
    {"atelier_student_here", "1 where a student is asked here; in a router, where a server behind it has the student."},
    {"atelier_upstream_up", "1 where a server behind this router may be asked."},
    {"atelier_upstream_requests_total", "Batches that this router sent to a server, by outcome: drawn, busy, failed."},
    {"atelier_student_loaded", "1 where a student is in memory."},
    {"atelier_student_loads_total", "Times that a student was read into memory."},
    {"atelier_student_unloads_total", "Times that a student was put out of memory for others."},
    {"atelier_reloads_total", "Models read again while serving, by outcome."},
    {"atelier_connections", "Open connections."},
    {"atelier_student_bytes", "Memory of the loaded students, estimated."},
    {"atelier_memory_budget_bytes", "Most memory that loaded students may take; 0: any."},
    {"atelier_ready", "1 when requests are answered without loading first and none are refused for draining."},
    {"atelier_engine_info", "Who computes, by model."},
    {"process_resident_memory_bytes", "Resident memory."},
};

std::string_view help_of(const std::string& name) {
    const auto* found = std::ranges::find(families, name, &Family::name);
    return found == std::end(families) ? std::string_view("") : found->help;
}

constexpr double second_bounds[] = {0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30};
constexpr double size_bounds[] = {1, 2, 4, 8, 16, 32, 64, 128};

std::span<const double> bounds_of(std::string_view name) {
    if (name.ends_with("_seconds")) return second_bounds;
    return size_bounds;
}

std::string escaped(std::string_view value) {
    std::string out;
    for (const char c : value) {
        if (c == '\\' || c == '"') out += '\\';
        if (c == '\n') out += "\\n";
        else out += c;
    }
    return out;
}

/// `name="value",...` without braces.
std::string words_of(const Labels& labels) {
    std::string words;
    for (const auto& [name, value] : labels) words += fmt::format("{}{}=\"{}\"", words.empty() ? "" : ",", name, escaped(value));
    return words;
}

std::string in_braces(const std::string& words) { return words.empty() ? "" : "{" + words + "}"; }

void head(std::string& out, const std::string& name, std::string_view kind) {
    out += fmt::format("# HELP {0} {1}\n# TYPE {0} {2}\n", name, help_of(name), kind);
}

}  // namespace

void Metrics::count(const std::string& name, const Labels& labels, std::uint64_t by) {
    const std::lock_guard lock(mutex_);
    counters_[name][words_of(labels)] += by;
}

void Metrics::set(const std::string& name, const Labels& labels, double value) {
    const std::lock_guard lock(mutex_);
    gauges_[name][words_of(labels)] = value;
}

void Metrics::begin(const std::string& name, const Labels& labels) {
    const std::size_t buckets = bounds_of(name).size() + 1;
    const std::lock_guard lock(mutex_);
    histograms_[name][words_of(labels)].counts.resize(buckets);
}

void Metrics::observe(const std::string& name, const Labels& labels, double value) {
    const auto bounds = bounds_of(name);
    const std::lock_guard lock(mutex_);
    Histogram& histogram = histograms_[name][words_of(labels)];
    histogram.counts.resize(bounds.size() + 1);
    ++histogram.counts[static_cast<std::size_t>(std::ranges::lower_bound(bounds, value) - bounds.begin())];
    histogram.sum += value;
}

std::uint64_t Metrics::counted(const std::string& name, const Labels& labels) const {
    const std::lock_guard lock(mutex_);
    const auto family = counters_.find(name);
    if (family == counters_.end()) return 0;
    const auto series = family->second.find(words_of(labels));
    return series == family->second.end() ? 0 : series->second;
}

std::string Metrics::text() const {
    const std::lock_guard lock(mutex_);
    std::string out;
    for (const auto& [name, series] : counters_) {
        head(out, name, "counter");
        for (const auto& [labels, value] : series) out += fmt::format("{}{} {}\n", name, in_braces(labels), value);
    }
    for (const auto& [name, series] : gauges_) {
        head(out, name, "gauge");
        for (const auto& [labels, value] : series) out += fmt::format("{}{} {}\n", name, in_braces(labels), value);
    }
    for (const auto& [name, series] : histograms_) {
        head(out, name, "histogram");
        const auto bounds = bounds_of(name);
        for (const auto& [labels, histogram] : series) {
            const std::string before = labels.empty() ? "" : labels + ",";
            std::uint64_t below = 0;
            for (std::size_t i = 0; i < bounds.size(); ++i) {
                below += histogram.counts[i];
                out += fmt::format("{}_bucket{{{}le=\"{}\"}} {}\n", name, before, bounds[i], below);
            }
            below += histogram.counts.back();
            out += fmt::format("{0}_bucket{{{1}le=\"+Inf\"}} {2}\n{0}_sum{3} {4}\n{0}_count{3} {2}\n", name, before, below, in_braces(labels), histogram.sum);
        }
    }
    return out;
}

std::uint64_t resident_bytes() {
    std::ifstream file("/proc/self/statm");
    std::uint64_t all = 0, resident = 0;
    file >> all >> resident;
    return resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

}  // namespace atelier::server
