#include "atelier/server/library.h"

#include <algorithm>
#include <ctime>
#include <utility>

#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/server/metrics.h"
#include "atelier/server/residents.h"

namespace atelier::server {

namespace {

std::shared_ptr<const Served> opened(const Source& source) {
    auto served = std::make_shared<Served>();
    served->id = source.id;
    served->generator = source.open();
    served->since = std::time(nullptr);
    served->partition_hash = served->description().partition_hash();
    for (const std::int64_t k : served->description().here) {
        auto lane = std::make_shared<Lane>();
        lane->generator = served->generator;
        lane->model = source.id;
        lane->student = k;
        lane->at_once = served->generator->facts(k).at_once;
        served->lanes.push_back(std::move(lane));
    }
    return served;
}

}  // namespace

std::shared_ptr<Lane> Served::lane(std::int64_t student) const {
    const auto found = std::ranges::find(lanes, student, [](const auto& lane) { return lane->student; });
    return found == lanes.end() ? nullptr : *found;
}

Library::Library(std::vector<Source> sources, Residents& residents, Metrics& metrics) : residents_(residents), metrics_(metrics) {
    for (Source& source : sources) {
        if (find(source.id) != nullptr) {
            throw core::UsageError(fmt::format("two models would be called \"{}\"; give one another name: NAME=PATH", source.id));
        }
        const std::string stamp = source.stamp();
        auto served = opened(source);
        shelves_.push_back({std::move(source), stamp, stamp, std::move(served)});
    }
}

std::vector<std::shared_ptr<const Served>> Library::all() const {
    const std::lock_guard lock(mutex_);
    std::vector<std::shared_ptr<const Served>> served;
    for (const Shelf& shelf : shelves_) served.push_back(shelf.served);
    return served;
}

std::shared_ptr<const Served> Library::find(const std::string& id) const {
    const std::lock_guard lock(mutex_);
    const auto found = std::ranges::find_if(shelves_, [&](const Shelf& shelf) { return id.empty() || shelf.served->id == id; });
    return found == shelves_.end() ? nullptr : found->served;
}

void Library::warm_up() {
    for (const auto& served : all()) {
        for (const auto& lane : served->lanes) {
            const std::int64_t bytes = served->generator->facts(lane->student).bytes;
            if (residents_.budget() == 0 || residents_.bytes() + bytes <= residents_.budget()) residents_.of(*lane);
        }
    }
    for (const auto& served : all()) prepare(*served);
}

void Library::prepare(const Served& served) {
    for (const auto& lane : served.lanes) {
        if (residents_.loaded(*lane)) residents_.of(*lane)->prepare();
    }
}

void Library::reload(Shelf& shelf) {
    try {
        shelf.stamp = shelf.seen = shelf.source.stamp();
        const auto fresh = opened(shelf.source);
        const auto old = shelf.served;
        for (const auto& lane : fresh->lanes) {
            const auto before = old->lane(lane->student);
            if (before && residents_.loaded(*before)) residents_.of(*lane);
        }
        prepare(*fresh);
        {
            const std::lock_guard lock(mutex_);
            shelf.served = fresh;
        }
        retired_.push_back(old);
        metrics_.count("atelier_reloads_total", {{"model", shelf.source.id}, {"outcome", "done"}});
        core::log::info("{}: read anew", shelf.source.id);
    } catch (const std::exception& error) {
        metrics_.count("atelier_reloads_total", {{"model", shelf.source.id}, {"outcome", "failed"}});
        core::log::warning("{}: stays as it was, for it cannot be read anew: {}", shelf.source.id, error.what());
    }
}

void Library::reload() {
    for (Shelf& shelf : shelves_) reload(shelf);
}

/// Whoever waits for a picture of a retired model holds it; its students must not be put out before.
void Library::forget_retired() {
    std::erase_if(retired_, [&](const std::shared_ptr<const Served>& old) {
        if (old.use_count() > 1) return false;
        residents_.forget(*old->generator);
        return true;
    });
}

void Library::look_after() {
    forget_retired();
    for (Shelf& shelf : shelves_) {
        const std::string now = shelf.source.stamp();
        const bool settled = now == std::exchange(shelf.seen, now);
        if (settled && now != shelf.stamp) reload(shelf);
    }
}

}  // namespace atelier::server
