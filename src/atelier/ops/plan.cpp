#include "atelier/ops/plan.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace atelier::ops {

namespace {

constexpr std::int64_t line = 16;  // numbers of a line of the cache

std::int64_t whole_lines(std::int64_t numbers) { return (numbers + line - 1) / line * line; }

}  // namespace

Plan::Slot Plan::place(std::int64_t each, std::int64_t fixed) {
    places_.push_back({whole_lines(each), whole_lines(fixed), 0, 0, steps_.size(), steps_.size()});
    return places_.size() - 1;
}

void Plan::step(std::vector<Slot> reads, Step step) {
    for (const Slot slot : reads) places_[slot].until = std::max(places_[slot].until, steps_.size());
    steps_.push_back(std::move(step));
}

void Plan::keep(Slot slot) { places_[slot].until = std::numeric_limits<std::size_t>::max(); }

/// The largest places first, each at the lowest begin at which no other is alive at the same time. Numbers a sample and fixed ones each lie in a part of their own, for both
/// grow apart.
void Plan::finish() {
    const auto lay_out = [&](auto size, auto begin) {
        std::vector<Slot> order(places_.size());
        std::iota(order.begin(), order.end(), Slot{0});
        std::ranges::stable_sort(order, [&](Slot a, Slot b) { return places_[a].*size > places_[b].*size; });
        std::vector<Slot> placed;
        std::int64_t total = 0;
        for (const Slot slot : order) {
            Place& mine = places_[slot];
            if (mine.*size == 0) continue;
            std::int64_t at = 0;
            for (const Slot other : placed) {  // by their begins
                const Place& theirs = places_[other];
                if (theirs.from > mine.until || theirs.until < mine.from || theirs.*begin + theirs.*size <= at) continue;
                if (theirs.*begin >= at + mine.*size) break;
                at = theirs.*begin + theirs.*size;
            }
            mine.*begin = at;
            total = std::max(total, at + mine.*size);
            placed.insert(std::ranges::upper_bound(placed, at, {}, [&](Slot one) { return places_[one].*begin; }), slot);
        }
        return total;
    };
    each_ = lay_out(&Place::each, &Place::each_before);
    fixed_ = lay_out(&Place::fixed, &Place::fixed_before);
}

void Plan::run(const Run& run) {
    for (const Step& step : run.plan.steps_) {
        step(run);
        run.wait();
    }
}

}  // namespace atelier::ops
