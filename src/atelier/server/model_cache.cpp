#include "atelier/server/model_cache.h"

#include <algorithm>

#include "atelier/server/batcher.h"
#include "atelier/server/metrics.h"

namespace atelier::server {

ModelCache::ModelCache(std::int64_t budget, Metrics& metrics)
    : budget_(budget), metrics_(metrics) {}

std::list<ModelCache::Entry>::const_iterator ModelCache::find(const StudentQueue& queue) const {
    return std::ranges::find_if(entries_, [&](const Entry& entry) {
        return entry.generator == queue.generator && entry.k == queue.student;
    });
}

std::int64_t ModelCache::total_bytes() const {
    std::int64_t sum = 0;
    for (const Entry& entry : entries_) sum += entry.bytes;
    return sum;
}

void ModelCache::evict_for(std::int64_t bytes) {
    while (budget_ > 0 && !entries_.empty() && total_bytes() + bytes > budget_) {
        metrics_.count("atelier_student_unloads_total",
                       student_labels(entries_.back().model, entries_.back().k));
        entries_.pop_back();
    }
}

/// Null if it is not in memory.
std::shared_ptr<Student> ModelCache::lookup(const StudentQueue& queue) {
    const std::lock_guard lock(mutex_);
    const auto found = find(queue);
    if (found == entries_.end()) return nullptr;
    entries_.splice(entries_.begin(), entries_, found);
    return entries_.front().student;
}

std::shared_ptr<Student> ModelCache::get(const StudentQueue& queue) {
    if (auto student = lookup(queue)) return student;
    const std::lock_guard one_at_a_time(loading_);
    if (auto student = lookup(queue)) return student;
    const std::int64_t bytes = queue.generator->facts(queue.student).bytes;
    {
        const std::lock_guard lock(mutex_);
        evict_for(bytes);
    }
    std::shared_ptr<Student> student = queue.generator->load(queue.student);
    metrics_.count("atelier_student_loads_total", student_labels(queue.model, queue.student));
    const std::lock_guard lock(mutex_);
    entries_.push_front({queue.generator, queue.student, bytes, queue.model, student});
    return student;
}

bool ModelCache::loaded(const StudentQueue& queue) const {
    const std::lock_guard lock(mutex_);
    return find(queue) != entries_.end();
}

void ModelCache::evict(const Generator& generator) {
    const std::lock_guard lock(mutex_);
    entries_.remove_if([&](const Entry& entry) { return entry.generator.get() == &generator; });
}

std::int64_t ModelCache::bytes() const {
    const std::lock_guard lock(mutex_);
    return total_bytes();
}

}  // namespace atelier::server
