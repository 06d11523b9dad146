#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "atelier/data/dataset.h"

namespace atelier::data {

struct Batch {
    Tensor samples;                    // [n, shape...]
    std::vector<std::int64_t> labels;  // n, empty when unlabelled
};

struct LoaderOptions {
    std::int64_t batch = 64;
    bool horizontal_flips = false;  // each image mirrored with probability 1/2
    std::uint64_t seed = 0;
    std::string stream = "data";        // names the order's random stream
    std::vector<std::int64_t> indices;  // the samples to use; empty: all
};

/// How a loader kept up with those who used its batches.
struct Pace {
    std::int64_t batches = 0;                        // used
    double samples_used = 0, seconds = 0;            // since the first one was asked for
    double waited_seconds = 0;                       // that users waited
    double samples_read = 0, reading_seconds = 0;    // by the thread that reads ahead
};

/// Shuffled batches, read ahead by one thread. Batch number `step` is a function of (options, step) alone: the samples come in
/// the seeded order of their epoch, epochs follow each other without a gap (also within a batch), so that a resumed run sees what
/// an undisturbed one sees.
class Loader {
public:
    /// Throws core::Error when the batch is empty, an index is out of range, or points are to be flipped.
    Loader(std::shared_ptr<const Dataset> dataset, LoaderOptions options);
    ~Loader();
    Loader(const Loader&) = delete;
    Loader& operator=(const Loader&) = delete;

    /// Batch number `step` (0 or more): fast with consecutive steps, right with any. Rethrows what went wrong while reading.
    Batch at(std::int64_t step);

    Pace pace() const;

    /// The samples' numbers in batch `step`.
    std::vector<std::int64_t> indices_at(std::int64_t step) const;

private:
    using Clock = std::chrono::steady_clock;
    using Order = std::vector<std::int64_t>;

    std::shared_ptr<const Order> order_of(std::int64_t epoch) const;
    Batch read(std::int64_t step) const;
    void count_use(Clock::time_point asked);
    void read_ahead();

    std::shared_ptr<const Dataset> dataset_;
    LoaderOptions options_;
    mutable std::mutex order_mutex_;
    mutable std::int64_t epoch_ = -1;  // whose order_ was computed last
    mutable std::shared_ptr<const Order> order_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    Pace pace_;
    Clock::time_point first_asked_{};
    std::int64_t wanted_ = -1, ready_ = -1;
    Batch next_;
    std::exception_ptr trouble_;
    bool closing_ = false;
    std::thread thread_;
};

}  // namespace atelier::data
