#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>

#include "atelier/server/generator.h"

namespace atelier::server {

class Metrics;
struct Lane;

/// The students in memory. Within a budget, those used longest ago go when another one is needed.
class Residents {
public:
    /// `budget`: bytes, by the estimates of their descriptions; 0: any. A student larger than the budget is loaded alone.
    Residents(std::int64_t budget, Metrics& metrics);

    /// The lane's student, loaded when it is not there. Any thread; loads wait for each other. Throws core::Error when it cannot be loaded.
    std::shared_ptr<Student> of(const Lane& lane);

    bool loaded(const Lane& lane) const;
    /// Puts every student of `generator` out.
    void forget(const Generator& generator);
    std::int64_t bytes() const;
    std::int64_t budget() const { return budget_; }

private:
    struct Resident {
        std::shared_ptr<const Generator> generator;
        std::int64_t k = 0, bytes = 0;
        std::string model;
        std::shared_ptr<Student> student;
    };

    std::list<Resident>::const_iterator find(const Lane& lane) const;
    std::shared_ptr<Student> resident(const Lane& lane);
    std::int64_t held() const;
    void make_room(std::int64_t bytes);

    const std::int64_t budget_;
    Metrics& metrics_;
    std::mutex loading_;
    mutable std::mutex mutex_;       // of the list
    std::list<Resident> residents_;  // used last: first
};

}  // namespace atelier::server
