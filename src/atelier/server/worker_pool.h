#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "atelier/server/generator.h"

namespace atelier::server {

/// The workers (servers behind a router) of one ensemble: which students each has, and which worker
/// is used next. Each is health-checked every second by its own thread.
class WorkerPool {
public:
    /// Checks all workers once before it returns; an unreachable one does not block the others.
    /// `model`: the ensemble's id on the workers; `key`: API key for all of them, or "". A worker
    /// is used only if it serves `model` with the same partition hash.
    WorkerPool(const std::vector<std::string>& urls, const std::string& key, std::string model,
               Description description);
    ~WorkerPool();
    WorkerPool(const WorkerPool&) = delete;
    WorkerPool& operator=(const WorkerPool&) = delete;

    /// Student k: parameters as its workers report them, available if a worker has it.
    StudentFacts facts(std::int64_t k) const;

    /// Generates images on one of the workers that have student k: the least busy one, ties round
    /// robin. An unreachable worker is backed off and the next one tried, each within an equal
    /// part of the remaining time. A worker that responds with anything but these images is backed
    /// off only if a second one succeeds: if two fail the request is at fault, and no third is
    /// tried. Throws HttpError if no worker succeeded: 429 if busy, 502 for an invalid response,
    /// 504 at `deadline`, else 503; core::Error if the worker reported that generation failed.
    std::vector<GeneratedImage> draw(std::int64_t k, std::span<const Draw> draws,
                                     Clock::time_point deadline);

    void measure(Metrics& metrics, const std::string& model) const;

private:
    struct Worker;
    enum class Outcome { drawn, busy, failed };

    void run_health_checks(Worker& worker);
    void health_check(Worker& worker);
    void log_state(Worker& worker, const std::string& state);
    std::vector<Worker*> workers_with(std::int64_t k) const;
    Worker* pick_worker(std::int64_t k, const std::vector<Worker*>& tried,
                        Clock::time_point& deadline);
    std::vector<GeneratedImage> request_images(Worker& worker, std::int64_t k,
                                               std::span<const Draw> draws,
                                               Clock::time_point deadline);
    void finish(Worker& worker, Outcome outcome);
    void back_off(Worker& worker);

    const std::string model_;
    const Description description_;
    const std::string hash_;
    mutable std::mutex mutex_;  // guards the state of the workers
    std::condition_variable changed_;
    bool stopping_ = false;
    std::uint64_t picks_ = 0;
    std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace atelier::server
