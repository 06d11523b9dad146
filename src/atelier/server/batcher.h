#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "atelier/server/generator.h"
#include "atelier/server/http.h"

namespace atelier::server {

class Metrics;
class ModelCache;
struct Job;

/// The result of an accepted job.
struct Outcome {
    enum class Status { drawn, failed, late };
    Status status = Status::drawn;
    std::vector<GeneratedImage> images;  // as many as requested, if `drawn`
    std::exception_ptr problem;          // if `failed`
    Clock::duration queued{}, engine{};  // until its first batch began; summed over its batches
    std::size_t batch = 0;               // images in the last of its batches
};

/// The queue of one student, with its jobs in order of arrival.
struct StudentQueue {
    std::shared_ptr<const Generator> generator;
    std::string model;
    std::int64_t student = 0;
    std::size_t max_concurrent_batches = 1;  // limit of this student

private:
    friend class Batcher;
    bool empty() const { return jobs.empty() && active_batches == 0; }

    std::deque<std::shared_ptr<Job>> jobs;
    std::size_t waiting = 0;         // images of `jobs` that are not in a batch yet
    std::size_t active_batches = 0;  // batches of this student in the engine
    double seconds_per_image = 0;
};

/// The images that one request asks of one student.
struct Job {
    std::shared_ptr<StudentQueue> queue;
    std::vector<Draw> draws;
    Clock::time_point arrived, deadline;
    /// Called once, from any thread, unless the job is cancelled first.
    std::function<void(Outcome)> on_finished;

private:
    friend class Batcher;
    std::size_t batched = 0, completed = 0;  // draws put into a batch; draws that returned
    bool cancelled = false;
    Outcome outcome;
};

/// Groups the jobs of each student into batches, which worker threads run. The student whose oldest
/// job has waited longest is served next.
class Batcher {
public:
    struct Options {
        std::size_t max_batch = 16;
        Clock::duration max_wait{};   // for more requests while a batch is not full
        std::size_t max_queue = 256;  // images per student
        int workers = 1;
    };

    Batcher(const Options& options, ModelCache& cache, Metrics& metrics);
    /// Waits for running batches; queued jobs are dropped.
    ~Batcher();
    Batcher(const Batcher&) = delete;
    Batcher& operator=(const Batcher&) = delete;

    /// Returns false without keeping the job if its student's queue is full.
    bool submit(const std::shared_ptr<Job>& job);
    /// Removes a job; the rest of its batch still runs. The job may have finished already.
    void cancel(const std::shared_ptr<Job>& job);

    /// From now on batches start without waiting for more requests.
    void drain();

    std::size_t waiting(const StudentQueue& queue) const;
    /// Estimated seconds until everything queued is done.
    double seconds_until_empty() const;

private:
    struct BatchItem {
        std::shared_ptr<Job> job;
        std::size_t index;
    };
    struct ItemResult {
        GeneratedImage image;
        std::exception_ptr problem;  // null on success
    };
    using Completions = std::vector<std::pair<std::function<void(Outcome)>, Outcome>>;

    void work();
    StudentQueue* next_queue(Clock::time_point now, Clock::time_point& wake_at);
    std::vector<BatchItem> take_batch(StudentQueue& queue, Clock::time_point now,
                                      Completions& completions);
    void draw_batch(StudentQueue& queue, const std::vector<BatchItem>& batch,
                    std::unique_lock<std::mutex>& lock, Completions& completions);
    std::vector<ItemResult> draw(const StudentQueue& queue, std::span<const BatchItem> batch);
    void complete(const BatchItem& item, ItemResult& result, Completions& completions);
    void remove(StudentQueue& queue, const std::shared_ptr<Job>& job);
    void remove_idle_queues();

    const Options options_;
    ModelCache& cache_;
    Metrics& metrics_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<std::shared_ptr<StudentQueue>> queues_;  // non-empty ones
    bool draining_ = false, stopping_ = false;
    std::vector<std::thread> workers_;
};

}  // namespace atelier::server
