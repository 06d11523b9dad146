#include "atelier/server/model_registry.h"

#include <algorithm>
#include <ctime>
#include <utility>

#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/server/metrics.h"
#include "atelier/server/model_cache.h"

namespace atelier::server {

namespace {

std::shared_ptr<const LoadedModel> open_model(const ModelSource& source) {
    auto served = std::make_shared<LoadedModel>();
    served->id = source.id;
    served->generator = source.open();
    served->created = std::time(nullptr);
    served->partition_hash = served->description().partition_hash();
    for (const std::int64_t k : served->description().served_students) {
        auto queue = std::make_shared<StudentQueue>();
        queue->generator = served->generator;
        queue->model = source.id;
        queue->student = k;
        queue->max_concurrent_batches = served->generator->facts(k).max_concurrent_batches;
        served->queues.push_back(std::move(queue));
    }
    return served;
}

}  // namespace

std::shared_ptr<StudentQueue> LoadedModel::queue(std::int64_t student) const {
    const auto found =
        std::ranges::find(queues, student, [](const auto& queue) { return queue->student; });
    return found == queues.end() ? nullptr : *found;
}

ModelRegistry::ModelRegistry(std::vector<ModelSource> sources, ModelCache& cache, Metrics& metrics)
    : cache_(cache), metrics_(metrics) {
    for (ModelSource& source : sources) {
        if (find(source.id) != nullptr) {
            throw core::UsageError(fmt::format(
                "two models would be called \"{}\"; give one another name: NAME=PATH", source.id));
        }
        const std::string stamp = source.stamp();
        auto served = open_model(source);
        entries_.push_back({std::move(source), stamp, stamp, std::move(served)});
    }
}

std::vector<std::shared_ptr<const LoadedModel>> ModelRegistry::all() const {
    const std::lock_guard lock(mutex_);
    std::vector<std::shared_ptr<const LoadedModel>> served;
    for (const Entry& entry : entries_) served.push_back(entry.served);
    return served;
}

std::shared_ptr<const LoadedModel> ModelRegistry::find(const std::string& id) const {
    const std::lock_guard lock(mutex_);
    const auto found = std::ranges::find_if(
        entries_, [&](const Entry& entry) { return id.empty() || entry.served->id == id; });
    return found == entries_.end() ? nullptr : found->served;
}

void ModelRegistry::warm_up() {
    for (const auto& served : all()) {
        for (const auto& queue : served->queues) {
            const std::int64_t bytes = served->generator->facts(queue->student).bytes;
            if (cache_.budget() == 0 || cache_.bytes() + bytes <= cache_.budget())
                cache_.get(*queue);
        }
    }
    for (const auto& served : all()) prepare(*served);
}

void ModelRegistry::prepare(const LoadedModel& served) {
    for (const auto& queue : served.queues) {
        if (cache_.loaded(*queue)) cache_.get(*queue)->prepare();
    }
}

void ModelRegistry::reload(Entry& entry) {
    try {
        entry.stamp = entry.last_stamp = entry.source.stamp();
        const auto reloaded = open_model(entry.source);
        const auto old = entry.served;
        for (const auto& queue : reloaded->queues) {
            const auto before = old->queue(queue->student);
            if (before && cache_.loaded(*before)) cache_.get(*queue);
        }
        prepare(*reloaded);
        {
            const std::lock_guard lock(mutex_);
            entry.served = reloaded;
        }
        retired_.push_back(old);
        metrics_.count("atelier_reloads_total", {{"model", entry.source.id}, {"outcome", "done"}});
        core::log::info("{}: reloaded", entry.source.id);
    } catch (const std::exception& error) {
        metrics_.count("atelier_reloads_total",
                       {{"model", entry.source.id}, {"outcome", "failed"}});
        core::log::warning("{}: cannot be reloaded and stays as it was: {}", entry.source.id,
                           error.what());
    }
}

void ModelRegistry::reload() {
    for (Entry& entry : entries_) reload(entry);
}

/// Requests in flight hold their retired model; its students must not be evicted before they end.
void ModelRegistry::release_retired() {
    std::erase_if(retired_, [&](const std::shared_ptr<const LoadedModel>& old) {
        if (old.use_count() > 1) return false;
        cache_.evict(*old->generator);
        return true;
    });
}

void ModelRegistry::reload_changed() {
    release_retired();
    for (Entry& entry : entries_) {
        const std::string now = entry.source.stamp();
        const bool unchanged = now == std::exchange(entry.last_stamp, now);
        if (unchanged && now != entry.stamp) reload(entry);
    }
}

}  // namespace atelier::server
