#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>

#include "atelier/server/generator.h"

namespace atelier::server {

class Metrics;
struct StudentQueue;

/// The students in memory. When another one is needed and the budget is exceeded, the least
/// recently used ones are evicted.
class ModelCache {
public:
    /// `budget`: in bytes, counted by StudentFacts::bytes; 0: unlimited. A student larger than the
    /// budget is loaded alone.
    ModelCache(std::int64_t budget, Metrics& metrics);

    /// The queue's student, loaded if it is not in memory. Any thread; one load at a time. Throws
    /// core::Error if it cannot be loaded.
    std::shared_ptr<Student> get(const StudentQueue& queue);

    bool loaded(const StudentQueue& queue) const;
    /// Evicts every student of `generator`.
    void evict(const Generator& generator);
    std::int64_t bytes() const;
    std::int64_t budget() const { return budget_; }

private:
    struct Entry {
        std::shared_ptr<const Generator> generator;
        std::int64_t k = 0, bytes = 0;
        std::string model;
        std::shared_ptr<Student> student;
    };

    std::list<Entry>::const_iterator find(const StudentQueue& queue) const;
    std::shared_ptr<Student> lookup(const StudentQueue& queue);
    std::int64_t total_bytes() const;
    void evict_for(std::int64_t bytes);

    const std::int64_t budget_;
    Metrics& metrics_;
    std::mutex loading_;
    mutable std::mutex mutex_;  // guards entries_
    std::list<Entry> entries_;  // most recently used first
};

}  // namespace atelier::server
