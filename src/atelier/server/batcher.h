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
class Residents;
struct Job;

/// What became of an accepted job.
struct Outcome {
    enum class End { drawn, failed, late };
    End end = End::drawn;
    std::vector<Picture> pictures;  // as many as were asked for, where `drawn`
    std::exception_ptr problem;     // where `failed`
    Clock::duration queued{}, engine{};  // until its first batch began; in batches that drew for it
    std::size_t batch = 0;          // pictures in the last of them
};

/// A student's queue.
struct Lane {
    std::shared_ptr<const Generator> generator;
    std::string model;
    std::int64_t student = 0;
    std::size_t at_once = 1;  // batches that may be drawn at the same time

private:
    friend class Batcher;
    bool empty() const { return jobs.empty() && drawing == 0; }

    std::deque<std::shared_ptr<Job>> jobs;
    std::size_t waiting = 0;  // pictures of `jobs` that no batch holds
    std::size_t drawing = 0;  // workers that draw for it
    double seconds_a_picture = 0;
};

/// Some pictures that one client asked of one student.
struct Job {
    std::shared_ptr<Lane> lane;
    std::vector<Draw> draws;
    Clock::time_point arrived, deadline;
    /// Called once, by any thread, unless the job is cancelled before.
    std::function<void(Outcome)> finished;

private:
    friend class Batcher;
    std::size_t begun = 0, done = 0;  // draws that were put into a batch; that came back
    bool cancelled = false;
    Outcome outcome;
};

/// Puts the jobs of each student together into batches, which workers draw. The student whose oldest job has waited longest is next.
class Batcher {
public:
    struct Options {
        std::size_t largest_batch = 16;
        Clock::duration longest_wait{};       // for more to come, where a batch is not full
        std::size_t longest_queue = 256;      // pictures a student
        int workers = 1;
    };

    Batcher(const Options& options, Residents& residents, Metrics& metrics);
    /// Waits for the batches being drawn; what waits is dropped.
    ~Batcher();
    Batcher(const Batcher&) = delete;
    Batcher& operator=(const Batcher&) = delete;

    /// False, and the job not kept, when its student's queue is full.
    bool submit(const std::shared_ptr<Job>& job);
    /// Takes a job out; the rest of its batch is drawn all the same. It may have just finished.
    void cancel(const std::shared_ptr<Job>& job);

    /// From now on no batch waits for more to come.
    void drain();

    std::size_t waiting(const Lane& lane) const;
    /// An estimate of how long all that waits will take.
    double seconds_until_empty() const;

private:
    struct Piece {
        std::shared_ptr<Job> job;
        std::size_t index;
    };
    struct Drawn {
        Picture picture;
        std::exception_ptr problem;  // null: there was none
    };
    using Finished = std::vector<std::pair<std::function<void(Outcome)>, Outcome>>;

    void work();
    Lane* next(Clock::time_point now, Clock::time_point& look_again);
    std::vector<Piece> take_batch(Lane& lane, Clock::time_point now, Finished& finished);
    void draw_batch(Lane& lane, const std::vector<Piece>& batch, std::unique_lock<std::mutex>& lock, Finished& finished);
    std::vector<Drawn> draw(const Lane& lane, std::span<const Piece> batch);
    void hand_over(const Piece& piece, Drawn& drawn, Finished& finished);
    void remove(Lane& lane, const std::shared_ptr<Job>& job);
    void forget_idle_lanes();

    const Options options_;
    Residents& residents_;
    Metrics& metrics_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<std::shared_ptr<Lane>> lanes_;  // those that are not empty
    bool draining_ = false, stopping_ = false;
    std::vector<std::thread> workers_;
};

}  // namespace atelier::server
