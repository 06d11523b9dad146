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
    std::string stream = "data";        // prefix of the names of its random streams
    std::vector<std::int64_t> indices;  // the samples to use; empty: all
};

/// How fast batches were read and used.
struct Throughput {
    std::int64_t batches = 0;                      // used
    double samples_used = 0, seconds = 0;          // since the first batch was requested
    double waited_seconds = 0;                     // by users, for a batch
    double samples_read = 0, reading_seconds = 0;  // by the thread that reads ahead
};

/// Shuffled batches, read ahead by one thread. Batch `step` is a function of (options, step) alone:
/// the samples come in the seeded order of their epoch, and epochs follow each other without a gap
/// (also within a batch), so that a resumed run sees the same batches as an uninterrupted one.
class Loader {
public:
    /// Throws core::Error when the batch size is below 1, an index is out of range, or flips are
    /// requested for points.
    Loader(std::shared_ptr<const Dataset> dataset, LoaderOptions options);
    ~Loader();
    Loader(const Loader&) = delete;
    Loader& operator=(const Loader&) = delete;

    /// Batch `step` (0 or more): fast for consecutive steps, correct for any. Rethrows an exception
    /// of the reading thread.
    Batch at(std::int64_t step);

    Throughput throughput() const;

    /// Indices of the samples in batch `step`.
    std::vector<std::int64_t> indices_at(std::int64_t step) const;

private:
    using Clock = std::chrono::steady_clock;
    using Order = std::vector<std::int64_t>;

    std::shared_ptr<const Order> epoch_order(std::int64_t epoch) const;
    Batch read(std::int64_t step) const;
    void count_use(Clock::time_point requested_at);
    void read_ahead();

    std::shared_ptr<const Dataset> dataset_;
    LoaderOptions options_;
    mutable std::mutex order_mutex_;
    mutable std::int64_t epoch_ = -1;  // whose order_ was computed last
    mutable std::shared_ptr<const Order> order_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    Throughput throughput_;
    Clock::time_point first_request_{};
    std::int64_t requested_step_ = -1, ready_step_ = -1;
    Batch next_;
    std::exception_ptr error_;
    bool closing_ = false;
    std::thread thread_;
};

}  // namespace atelier::data
