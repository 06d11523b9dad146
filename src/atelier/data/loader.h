#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
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
    int threads = 1;                    // that read ahead, each a batch; at least 1
};

/// How fast batches were read and used.
struct Throughput {
    std::int64_t batches = 0;                      // used
    double samples_used = 0, seconds = 0;          // since the first batch was requested
    double waited_seconds = 0;                     // by users, for a batch
    double samples_read = 0, reading_seconds = 0;  // by the threads that read ahead
};

/// Shuffled batches. Each of some threads reads one ahead, so that as many are ready or being read
/// before they are asked for; they are handed over as they were read. Batch `step` is a function of
/// (options, step) alone: the samples come in the seeded order of their epoch, and epochs follow
/// each other without a gap (also within a batch), so that a resumed run sees the same batches as
/// an uninterrupted one, with any number of threads.
class Loader {
public:
    /// Throws core::Error when the batch size or the number of threads is below 1, an index is out
    /// of range, or flips are requested for points.
    Loader(std::shared_ptr<const Dataset> dataset, LoaderOptions options);
    /// Waits for the batches that are being read; no other is begun.
    ~Loader();
    Loader(const Loader&) = delete;
    Loader& operator=(const Loader&) = delete;

    /// Batch `step` (0 or more): fast for consecutive steps, correct for any. Rethrows an exception
    /// of a reading thread.
    Batch at(std::int64_t step);

    Throughput throughput() const;

    /// Indices of the samples in batch `step`.
    std::vector<std::int64_t> indices_at(std::int64_t step) const;

private:
    using Clock = std::chrono::steady_clock;
    using Order = std::vector<std::int64_t>;

    /// A batch that is being read ahead, or was.
    struct Ahead {
        Batch batch;
        std::exception_ptr error;
        bool is_read = false;
    };

    std::shared_ptr<const Order> epoch_order(std::int64_t epoch) const;
    Batch read(std::int64_t step) const;
    void go_on_at(std::int64_t step);
    void count_use(Clock::time_point requested_at);
    void read_ahead();

    std::shared_ptr<const Dataset> dataset_;
    LoaderOptions options_;
    mutable std::mutex order_mutex_;
    mutable std::map<std::int64_t, std::shared_ptr<const Order>> orders_;  // of the last epochs
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    Throughput throughput_;
    Clock::time_point first_request_{};
    // Steps from next_ on are read ahead, up to as many as there are threads; -1: none.
    std::int64_t next_ = -1;
    std::map<std::int64_t, std::shared_ptr<Ahead>> ahead_;
    bool closing_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace atelier::data
