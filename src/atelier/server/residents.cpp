#include "atelier/server/residents.h"

#include <algorithm>

#include "atelier/server/batcher.h"
#include "atelier/server/metrics.h"

namespace atelier::server {

Residents::Residents(std::int64_t budget, Metrics& metrics) : budget_(budget), metrics_(metrics) {}

std::list<Residents::Resident>::const_iterator Residents::find(const Lane& lane) const {
    return std::ranges::find_if(residents_, [&](const Resident& resident) { return resident.generator == lane.generator && resident.k == lane.student; });
}

std::int64_t Residents::held() const {
    std::int64_t sum = 0;
    for (const Resident& resident : residents_) sum += resident.bytes;
    return sum;
}

void Residents::make_room(std::int64_t bytes) {
    while (budget_ > 0 && !residents_.empty() && held() + bytes > budget_) {
        metrics_.count("atelier_student_unloads_total", student_labels(residents_.back().model, residents_.back().k));
        residents_.pop_back();
    }
}

/// Null when it is not in memory.
std::shared_ptr<Student> Residents::resident(const Lane& lane) {
    const std::lock_guard lock(mutex_);
    const auto found = find(lane);
    if (found == residents_.end()) return nullptr;
    residents_.splice(residents_.begin(), residents_, found);
    return residents_.front().student;
}

std::shared_ptr<Student> Residents::of(const Lane& lane) {
    if (auto student = resident(lane)) return student;
    const std::lock_guard one_at_a_time(loading_);
    if (auto student = resident(lane)) return student;
    const std::int64_t bytes = lane.generator->facts(lane.student).bytes;
    {
        const std::lock_guard lock(mutex_);
        make_room(bytes);
    }
    std::shared_ptr<Student> student = lane.generator->load(lane.student);
    metrics_.count("atelier_student_loads_total", student_labels(lane.model, lane.student));
    const std::lock_guard lock(mutex_);
    residents_.push_front({lane.generator, lane.student, bytes, lane.model, student});
    return student;
}

bool Residents::loaded(const Lane& lane) const {
    const std::lock_guard lock(mutex_);
    return find(lane) != residents_.end();
}

void Residents::forget(const Generator& generator) {
    const std::lock_guard lock(mutex_);
    residents_.remove_if([&](const Resident& resident) { return resident.generator.get() == &generator; });
}

std::int64_t Residents::bytes() const {
    const std::lock_guard lock(mutex_);
    return held();
}

}  // namespace atelier::server
