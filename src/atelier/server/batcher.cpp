#include "atelier/server/batcher.h"

#include <algorithm>
#include <utility>

#include "atelier/server/metrics.h"
#include "atelier/server/residents.h"

namespace atelier::server {

Batcher::Batcher(const Options& options, Residents& residents, Metrics& metrics) : options_(options), residents_(residents), metrics_(metrics) {
    for (int i = 0; i < options.workers; ++i) workers_.emplace_back([this] { work(); });
}

Batcher::~Batcher() {
    {
        const std::lock_guard lock(mutex_);
        draining_ = stopping_ = true;
    }
    changed_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    for (const auto& lane : lanes_) lane->jobs.clear();  // jobs know their lane
}

bool Batcher::submit(const std::shared_ptr<Job>& job) {
    {
        const std::lock_guard lock(mutex_);
        Lane& lane = *job->lane;
        if (lane.waiting + job->draws.size() > options_.longest_queue) return false;
        if (std::ranges::find(lanes_, job->lane) == lanes_.end()) lanes_.push_back(job->lane);
        lane.jobs.push_back(job);
        lane.waiting += job->draws.size();
    }
    changed_.notify_one();
    return true;
}

void Batcher::cancel(const std::shared_ptr<Job>& job) {
    const std::lock_guard lock(mutex_);
    job->cancelled = true;
    remove(*job->lane, job);
}

void Batcher::remove(Lane& lane, const std::shared_ptr<Job>& job) {
    if (std::erase(lane.jobs, job) > 0) lane.waiting -= job->draws.size() - job->begun;
}

void Batcher::drain() {
    {
        const std::lock_guard lock(mutex_);
        draining_ = true;
    }
    changed_.notify_all();
}

std::size_t Batcher::waiting(const Lane& lane) const {
    const std::lock_guard lock(mutex_);
    return lane.waiting;
}

double Batcher::seconds_until_empty() const {
    const std::lock_guard lock(mutex_);
    double sum = 0;
    for (const auto& lane : lanes_) sum += static_cast<double>(lane->waiting) * lane->seconds_a_picture;
    return sum / options_.workers;
}

void Batcher::forget_idle_lanes() {
    std::erase_if(lanes_, [](const auto& lane) { return lane->empty(); });
}

/// The lane to draw for now, or null and when to look again.
Lane* Batcher::next(Clock::time_point now, Clock::time_point& look_again) {
    Lane* chosen = nullptr;
    for (const auto& lane : lanes_) {
        if (lane->drawing == lane->at_once || lane->jobs.empty()) continue;
        const Clock::time_point ripe = lane->jobs.front()->arrived + options_.longest_wait;
        if (lane->waiting < options_.largest_batch && ripe > now && !draining_) look_again = std::min(look_again, ripe);
        else if (chosen == nullptr || lane->jobs.front()->arrived < chosen->jobs.front()->arrived) chosen = lane.get();
    }
    return chosen;
}

/// Jobs whose time is over are finished instead.
std::vector<Batcher::Piece> Batcher::take_batch(Lane& lane, Clock::time_point now, Finished& finished) {
    std::vector<Piece> batch;
    while (!lane.jobs.empty() && batch.size() < options_.largest_batch) {
        const std::shared_ptr<Job> job = lane.jobs.front();
        if (job->begun == 0) {
            job->outcome.queued = now - job->arrived;
            if (now >= job->deadline) {
                remove(lane, job);
                job->cancelled = true;
                finished.emplace_back(std::move(job->finished), Outcome{.end = Outcome::End::late, .queued = job->outcome.queued});
                continue;
            }
        }
        for (; job->begun < job->draws.size() && batch.size() < options_.largest_batch; ++job->begun, --lane.waiting) batch.push_back({job, job->begun});
        if (job->begun == job->draws.size()) lane.jobs.pop_front();
    }
    return batch;
}

/// A picture or a problem for each piece. When the whole batch fails each job is tried alone, so that one cannot spoil another; a refusal is no matter
/// of what is in the batch.
std::vector<Batcher::Drawn> Batcher::draw(const Lane& lane, std::span<const Piece> batch) {
    std::vector<Draw> draws;
    Clock::time_point until{};
    for (const Piece& piece : batch) {
        draws.push_back(piece.job->draws[piece.index]);
        until = std::max(until, piece.job->deadline);
    }
    std::vector<Drawn> drawn(batch.size());
    try {
        auto pictures = residents_.of(lane)->generate(draws, until);
        for (std::size_t i = 0; i < batch.size(); ++i) drawn[i].picture = std::move(pictures.at(i));
        return drawn;
    } catch (const Refusal&) {
        for (Drawn& one : drawn) one.problem = std::current_exception();
        return drawn;
    } catch (const std::exception&) {
        const auto other = std::ranges::find_if(batch, [&](const Piece& piece) { return piece.job != batch[0].job; });
        if (other == batch.end()) {
            for (Drawn& one : drawn) one.problem = std::current_exception();
            return drawn;
        }
        const auto first_jobs = static_cast<std::size_t>(other - batch.begin());
        drawn = draw(lane, batch.first(first_jobs));
        std::ranges::move(draw(lane, batch.subspan(first_jobs)), std::back_inserter(drawn));
        return drawn;
    }
}

void Batcher::hand_over(const Piece& piece, Drawn& drawn, Finished& finished) {
    Job& job = *piece.job;
    if (job.cancelled) return;
    if (drawn.problem) {
        remove(*job.lane, piece.job);
        job.cancelled = true;
        job.outcome.end = Outcome::End::failed;
        job.outcome.problem = std::move(drawn.problem);
    } else {
        job.outcome.pictures.resize(job.draws.size());
        job.outcome.pictures[piece.index] = std::move(drawn.picture);  // its batches may come back in any order
        if (++job.done < job.draws.size()) return;
    }
    finished.emplace_back(std::move(job.finished), std::move(job.outcome));
}

/// `lock` is held before and after, and not while drawing.
void Batcher::draw_batch(Lane& lane, const std::vector<Piece>& batch, std::unique_lock<std::mutex>& lock, Finished& finished) {
    ++lane.drawing;
    lock.unlock();
    changed_.notify_one();  // another worker may draw what is left
    const Clock::time_point start = Clock::now();
    std::vector<Drawn> drawn = draw(lane, batch);
    const Clock::duration took = Clock::now() - start;
    metrics_.observe("atelier_engine_seconds", student_labels(lane.model, lane.student), seconds(took));
    metrics_.observe("atelier_batch_size", student_labels(lane.model, lane.student), static_cast<double>(batch.size()));
    lock.lock();
    --lane.drawing;
    const double each = seconds(took) / static_cast<double>(batch.size());
    lane.seconds_a_picture = lane.seconds_a_picture == 0 ? each : 0.9 * lane.seconds_a_picture + 0.1 * each;
    for (std::size_t i = 0; i < batch.size(); ++i) {
        if (i == 0 || batch[i].job != batch[i - 1].job) batch[i].job->outcome.engine += took;
        batch[i].job->outcome.batch = batch.size();
        hand_over(batch[i], drawn[i], finished);
    }
}

void Batcher::work() {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
        const Clock::time_point now = Clock::now();
        Clock::time_point look_again = now + std::chrono::hours(1);
        Lane* lane = next(now, look_again);
        if (lane == nullptr) {
            changed_.wait_until(lock, look_again);
            continue;
        }
        Finished finished;
        const std::vector<Piece> batch = take_batch(*lane, now, finished);
        if (!batch.empty()) draw_batch(*lane, batch, lock, finished);
        forget_idle_lanes();
        lock.unlock();
        changed_.notify_one();  // the lane has room for another worker
        for (auto& [tell, outcome] : finished) tell(std::move(outcome));
        finished.clear();
        lock.lock();
    }
}

}  // namespace atelier::server
