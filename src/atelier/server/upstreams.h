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

/// The servers behind a router, for one ensemble: who has which of its students, and who is asked next. Each is looked at every second, by a thread of
/// its own.
class Upstreams {
public:
    /// Looks at all of them once before it returns; one that is not there does not keep the others from being asked. `model`: what the ensemble is called
    /// there; `key`: for all of them, or "". `model` and the partition's hash must be theirs, too.
    Upstreams(const std::vector<std::string>& urls, std::string key, std::string model, Description description);
    ~Upstreams();
    Upstreams(const Upstreams&) = delete;
    Upstreams& operator=(const Upstreams&) = delete;

    /// Of student k: parameters as its servers say, present where one has it.
    StudentFacts facts(std::int64_t k) const;

    /// Pictures by one of those who have student k: the least busy one, else they take turns. One
    /// that cannot be reached is left in peace for a while and the next one is asked, within a
    /// share of the time that is left. One that answers with something else than these pictures is
    /// left in peace only where a second one has drawn them: where two cannot, it is the request's
    /// fault, and nobody else is asked. Throws a Refusal when none answered with pictures: 429
    /// where it is busy, 502 for an answer that is none, 504 at `until`, else 503; core::Error
    /// where it said that it could not draw.
    std::vector<Picture> draw(std::int64_t k, std::span<const Draw> draws, Clock::time_point until);

    void measure(Metrics& metrics, const std::string& model) const;

private:
    struct Upstream;
    enum class Outcome { drawn, busy, failed };

    void look_on(Upstream& upstream);
    void look(Upstream& upstream);
    void note(Upstream& upstream, const std::string& state);
    std::vector<Upstream*> those_with(std::int64_t k) const;
    Upstream* next(std::int64_t k, const std::vector<Upstream*>& asked, Clock::time_point& until);
    std::vector<Picture> ask(Upstream& upstream, std::int64_t k, std::span<const Draw> draws, Clock::time_point until);
    void finish(Upstream& upstream, Outcome outcome);
    void leave_alone(Upstream& upstream);

    const std::string model_;
    const Description description_;
    const std::string hash_;
    mutable std::mutex mutex_;  // of what the upstreams are known to be
    std::condition_variable changed_;
    bool stopping_ = false;
    std::uint64_t turns_ = 0;
    std::vector<std::unique_ptr<Upstream>> upstreams_;
};

}  // namespace atelier::server
