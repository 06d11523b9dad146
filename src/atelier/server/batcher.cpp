#include "atelier/server/batcher.h"

#include <algorithm>
#include <utility>

#include "atelier/server/metrics.h"
#include "atelier/server/model_cache.h"

namespace atelier::server {

Batcher::Batcher(const Options& options, ModelCache& cache, Metrics& metrics)
    : options_(options), cache_(cache), metrics_(metrics) {
    for (int i = 0; i < options.workers; ++i) workers_.emplace_back([this] { work(); });
}

Batcher::~Batcher() {
    {
        const std::lock_guard lock(mutex_);
        draining_ = stopping_ = true;
    }
    changed_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    for (const auto& queue : queues_) queue->jobs.clear();  // breaks the reference cycle
}

bool Batcher::submit(const std::shared_ptr<Job>& job) {
    {
        const std::lock_guard lock(mutex_);
        StudentQueue& queue = *job->queue;
        if (queue.waiting + job->draws.size() > options_.max_queue) return false;
        if (std::ranges::find(queues_, job->queue) == queues_.end()) queues_.push_back(job->queue);
        queue.jobs.push_back(job);
        queue.waiting += job->draws.size();
    }
    changed_.notify_one();
    return true;
}

void Batcher::cancel(const std::shared_ptr<Job>& job) {
    const std::lock_guard lock(mutex_);
    job->cancelled = true;
    remove(*job->queue, job);
}

void Batcher::remove(StudentQueue& queue, const std::shared_ptr<Job>& job) {
    if (std::erase(queue.jobs, job) > 0) queue.waiting -= job->draws.size() - job->batched;
}

void Batcher::drain() {
    {
        const std::lock_guard lock(mutex_);
        draining_ = true;
    }
    changed_.notify_all();
}

std::size_t Batcher::waiting(const StudentQueue& queue) const {
    const std::lock_guard lock(mutex_);
    return queue.waiting;
}

double Batcher::seconds_until_empty() const {
    const std::lock_guard lock(mutex_);
    double sum = 0;
    for (const auto& queue : queues_)
        sum += static_cast<double>(queue->waiting) * queue->seconds_per_image;
    return sum / options_.workers;
}

void Batcher::remove_idle_queues() {
    std::erase_if(queues_, [](const auto& queue) { return queue->empty(); });
}

/// The queue to serve now, or null and the time to check again in `wake_at`.
StudentQueue* Batcher::next_queue(Clock::time_point now, Clock::time_point& wake_at) {
    StudentQueue* chosen = nullptr;
    for (const auto& queue : queues_) {
        if (queue->active_batches == queue->max_concurrent_batches || queue->jobs.empty()) continue;
        const Clock::time_point ready_at = queue->jobs.front()->arrived + options_.max_wait;
        if (queue->waiting < options_.max_batch && ready_at > now && !draining_)
            wake_at = std::min(wake_at, ready_at);
        else if (chosen == nullptr || queue->jobs.front()->arrived < chosen->jobs.front()->arrived)
            chosen = queue.get();
    }
    return chosen;
}

/// Jobs whose deadline has passed are finished as late instead.
std::vector<Batcher::BatchItem> Batcher::take_batch(StudentQueue& queue, Clock::time_point now,
                                                    Completions& completions) {
    std::vector<BatchItem> batch;
    while (!queue.jobs.empty() && batch.size() < options_.max_batch) {
        const std::shared_ptr<Job> job = queue.jobs.front();
        if (job->batched == 0) {
            job->outcome.queued = now - job->arrived;
            if (now >= job->deadline) {
                remove(queue, job);
                job->cancelled = true;
                completions.emplace_back(
                    std::move(job->on_finished),
                    Outcome{.status = Outcome::Status::late, .queued = job->outcome.queued});
                continue;
            }
        }
        for (; job->batched < job->draws.size() && batch.size() < options_.max_batch;
             ++job->batched, --queue.waiting)
            batch.push_back({job, job->batched});
        if (job->batched == job->draws.size()) queue.jobs.pop_front();
    }
    return batch;
}

/// One image or exception per item. If a batch fails, each of its jobs is run alone, so that one
/// cannot fail another; an HttpError does not depend on the batch's contents and goes to all.
std::vector<Batcher::ItemResult> Batcher::draw(const StudentQueue& queue,
                                               std::span<const BatchItem> batch) {
    std::vector<Draw> draws;
    Clock::time_point deadline{};
    for (const BatchItem& item : batch) {
        draws.push_back(item.job->draws[item.index]);
        deadline = std::max(deadline, item.job->deadline);
    }
    std::vector<ItemResult> results(batch.size());
    try {
        auto images = cache_.get(queue)->generate(draws, deadline);
        for (std::size_t i = 0; i < batch.size(); ++i) results[i].image = std::move(images.at(i));
        return results;
    } catch (const HttpError&) {
        for (ItemResult& one : results) one.problem = std::current_exception();
        return results;
    } catch (const std::exception&) {
        const auto other = std::ranges::find_if(
            batch, [&](const BatchItem& item) { return item.job != batch[0].job; });
        if (other == batch.end()) {
            for (ItemResult& one : results) one.problem = std::current_exception();
            return results;
        }
        const auto first_jobs = static_cast<std::size_t>(other - batch.begin());
        results = draw(queue, batch.first(first_jobs));
        std::ranges::move(draw(queue, batch.subspan(first_jobs)), std::back_inserter(results));
        return results;
    }
}

void Batcher::complete(const BatchItem& item, ItemResult& result, Completions& completions) {
    Job& job = *item.job;
    if (job.cancelled) return;
    if (result.problem) {
        remove(*job.queue, item.job);
        job.cancelled = true;
        job.outcome.status = Outcome::Status::failed;
        job.outcome.problem = std::move(result.problem);
    } else {
        job.outcome.images.resize(job.draws.size());
        job.outcome.images[item.index] =
            std::move(result.image);  // a job's batches may finish in any order
        if (++job.completed < job.draws.size()) return;
    }
    completions.emplace_back(std::move(job.on_finished), std::move(job.outcome));
}

/// `lock` is held on entry and exit, and released while the engine runs.
void Batcher::draw_batch(StudentQueue& queue, const std::vector<BatchItem>& batch,
                         std::unique_lock<std::mutex>& lock, Completions& completions) {
    ++queue.active_batches;
    lock.unlock();
    changed_.notify_one();  // another worker may take the rest
    const Clock::time_point start = Clock::now();
    std::vector<ItemResult> results = draw(queue, batch);
    const Clock::duration elapsed = Clock::now() - start;
    metrics_.observe("atelier_engine_seconds", student_labels(queue.model, queue.student),
                     seconds(elapsed));
    metrics_.observe("atelier_batch_size", student_labels(queue.model, queue.student),
                     static_cast<double>(batch.size()));
    lock.lock();
    --queue.active_batches;
    const double each = seconds(elapsed) / static_cast<double>(batch.size());
    queue.seconds_per_image =
        queue.seconds_per_image == 0 ? each : 0.9 * queue.seconds_per_image + 0.1 * each;
    for (std::size_t i = 0; i < batch.size(); ++i) {
        if (i == 0 || batch[i].job != batch[i - 1].job) batch[i].job->outcome.engine += elapsed;
        batch[i].job->outcome.batch = batch.size();
        complete(batch[i], results[i], completions);
    }
}

void Batcher::work() {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
        const Clock::time_point now = Clock::now();
        Clock::time_point wake_at = now + std::chrono::hours(1);
        StudentQueue* queue = next_queue(now, wake_at);
        if (queue == nullptr) {
            changed_.wait_until(lock, wake_at);
            continue;
        }
        Completions completions;
        const std::vector<BatchItem> batch = take_batch(*queue, now, completions);
        if (!batch.empty()) draw_batch(*queue, batch, lock, completions);
        remove_idle_queues();
        lock.unlock();
        changed_.notify_one();  // the queue may take another worker
        for (auto& [notify, outcome] : completions) notify(std::move(outcome));
        completions.clear();
        lock.lock();
    }
}

}  // namespace atelier::server
