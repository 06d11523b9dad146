#include "atelier/parallel/shares.h"

#include <algorithm>
#include <numeric>

#include "atelier/parallel/flat.h"

namespace atelier::parallel {

namespace {

constexpr std::int64_t sent_together = std::int64_t{8} << 20;  // elements, unless one has more

std::vector<std::int64_t> elements_of(const std::vector<std::int64_t>& sizes,
                                      const std::vector<int>& owners, int ranks) {
    std::vector<std::int64_t> elements(static_cast<std::size_t>(ranks), 0);
    for (std::size_t i = 0; i < sizes.size(); ++i)
        elements[static_cast<std::size_t>(owners[i])] += sizes[i];
    return elements;
}

}  // namespace

std::vector<int> owners_of(const std::vector<std::int64_t>& sizes, int ranks) {
    std::vector<std::size_t> order(sizes.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::stable_sort(order, std::greater<>(), [&](std::size_t i) { return sizes[i]; });
    std::vector<std::int64_t> elements(static_cast<std::size_t>(ranks), 0);
    std::vector<int> owners(sizes.size(), 0);
    for (const std::size_t i : order) {
        const auto least = std::ranges::min_element(elements);
        owners[i] = static_cast<int>(least - elements.begin());
        *least += sizes[i];
    }
    return owners;
}

double largest_share(const std::vector<std::int64_t>& sizes, int ranks) {
    const std::vector<std::int64_t> elements = elements_of(sizes, owners_of(sizes, ranks), ranks);
    const auto all = std::accumulate(elements.begin(), elements.end(), std::int64_t{0});
    return all == 0 ? 1
                    : static_cast<double>(std::ranges::max(elements)) / static_cast<double>(all);
}

Shares::Shares(Ranks& ranks, const std::vector<std::int64_t>& sizes) {
    if (ranks.is_alone()) return;
    ranks_ = &ranks;
    owners_ = owners_of(sizes, ranks.world());
    sizes_ = sizes;
}

std::vector<Shares::Group> Shares::groups() const {
    std::vector<Group> all;
    for (int owner = 0; owner < ranks_->world(); ++owner) {
        bool begun = false;
        for (std::size_t i = 0; i < sizes_.size(); ++i) {
            if (owners_[i] != owner || sizes_[i] == 0) continue;
            if (!begun || all.back().elements + sizes_[i] > sent_together) all.push_back({owner});
            begun = true;
            all.back().indices.push_back(i);
            all.back().elements += sizes_[i];
        }
    }
    return all;
}

void Shares::spread(const std::vector<Tensor>& tensors) const {
    if (!divided()) return;
    at::NoGradGuard no_gradients;
    for (const Group& group : groups()) {
        std::vector<Tensor> flat;
        for (const std::size_t i : group.indices) flat.push_back(in_memory_order(tensors[i]));
        const bool here = group.owner == ranks_->rank();
        Tensor values =
            here ? at::cat(flat) : at::empty({group.elements}, tensors.front().options());
        ranks_->broadcast(values, group.owner);
        if (here) continue;
        std::int64_t first = 0;
        for (const Tensor& to : flat) {
            to.copy_(values.narrow(0, first, to.numel()));
            first += to.numel();
        }
    }
}

void Shares::to_leader(const std::function<Tensor(std::size_t)>& mine,
                       const std::function<void(std::size_t, const Tensor&)>& take) const {
    if (!divided()) return;
    at::NoGradGuard no_gradients;
    for (const Group& group : groups()) {
        if (group.owner == 0) continue;
        Tensor values;
        if (group.owner == ranks_->rank()) {
            std::vector<Tensor> flat;
            for (const std::size_t i : group.indices)
                flat.push_back(in_memory_order(mine(i)).to(at::kCPU));
            values = at::cat(flat);
        } else {
            values = at::empty({group.elements}, at::kFloat);
        }
        ranks_->broadcast(values, group.owner);
        std::int64_t first = 0;
        for (const std::size_t i : group.indices) {
            if (ranks_->leads()) take(i, values.narrow(0, first, sizes_[i]));
            first += sizes_[i];
        }
    }
}

}  // namespace atelier::parallel
