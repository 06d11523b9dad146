#include "atelier/parallel/buckets.h"

namespace atelier::parallel {

Buckets buckets_of(std::vector<std::int64_t> order, const std::vector<std::int64_t>& sizes,
                   std::int64_t bytes) {
    constexpr std::int64_t per_element = 8;
    Buckets buckets{std::move(order)};
    std::int64_t first = 0, held = 0, place = 0;
    for (const std::int64_t tensor : buckets.order) {
        const std::int64_t more = per_element * sizes[static_cast<std::size_t>(tensor)];
        if (place > first && held + more > bytes) {
            buckets.ranges.emplace_back(first, place);
            first = place;
            held = 0;
        }
        held += more;
        ++place;
    }
    if (place > first) buckets.ranges.emplace_back(first, place);
    return buckets;
}

}  // namespace atelier::parallel
