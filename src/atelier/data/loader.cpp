#include "atelier/data/loader.h"

#include <algorithm>

#include "atelier/core/error.h"
#include "atelier/core/random_streams.h"

namespace atelier::data {

namespace {

double seconds_between(std::chrono::steady_clock::time_point from,
                       std::chrono::steady_clock::time_point to) {
    return std::chrono::duration<double>(to - from).count();
}

/// Mirrors each image [C,H,W] of the batch with probability 1/2.
Tensor randomly_flipped(const Tensor& images, core::RandomStream stream) {
    Tensor chosen = at::empty({images.size(0)}, at::kBool);
    bool* out = chosen.mutable_data_ptr<bool>();
    for (std::int64_t i = 0; i < images.size(0); ++i) out[i] = stream.below(2) == 1;
    return at::where(chosen.view({-1, 1, 1, 1}), images.flip({3}), images);
}

void check(const Dataset& dataset, const LoaderOptions& options) {
    if (options.batch < 1)
        core::fail("a batch of {} samples is not possible; it needs at least 1", options.batch);
    if (options.threads < 1)
        core::fail("{} threads cannot read ahead; it takes at least 1", options.threads);
    if (dataset.size() < 1) core::fail("the data set holds no samples, so there are no batches");
    if (options.horizontal_flips && dataset.spec().kind != data::SampleSpec::Kind::image) {
        core::fail("only images can be flipped; set horizontal flips to false for this data");
    }
    for (const std::int64_t i : options.indices) {
        if (i < 0 || i >= dataset.size())
            core::fail("sample {} is to be loaded, the data set has {}", i, dataset.size());
    }
}

}  // namespace

Loader::Loader(std::shared_ptr<const Dataset> dataset, LoaderOptions options)
    : dataset_(std::move(dataset)), options_(std::move(options)) {
    check(*dataset_, options_);
    for (int i = 0; i < options_.threads; ++i) threads_.emplace_back([this] { read_ahead(); });
}

Loader::~Loader() {
    {
        const std::lock_guard lock(mutex_);
        closing_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
}

std::shared_ptr<const Loader::Order> Loader::epoch_order(std::int64_t epoch) const {
    const std::lock_guard lock(order_mutex_);
    if (const auto known = orders_.find(epoch); known != orders_.end()) return known->second;
    const auto count = options_.indices.empty()
                           ? dataset_->size()
                           : static_cast<std::int64_t>(options_.indices.size());
    core::RandomStream stream(options_.seed, options_.stream + "/order",
                              static_cast<std::uint64_t>(epoch));
    Order order = stream.permutation(count);
    if (!options_.indices.empty()) {
        for (std::int64_t& i : order) i = options_.indices[static_cast<std::size_t>(i)];
    }
    // Batches at the end of an epoch are read beside those of the next one.
    constexpr std::size_t kept = 2;
    if (orders_.size() >= kept) orders_.erase(orders_.begin());
    return orders_[epoch] = std::make_shared<const Order>(std::move(order));
}

std::vector<std::int64_t> Loader::indices_at(std::int64_t step) const {
    if (step < 0) core::fail("there is no batch {}; steps begin at 0", step);
    const auto count = options_.indices.empty()
                           ? dataset_->size()
                           : static_cast<std::int64_t>(options_.indices.size());
    std::vector<std::int64_t> indices;
    indices.reserve(static_cast<std::size_t>(options_.batch));
    std::int64_t epoch = step * options_.batch / count, position = step * options_.batch % count;
    for (; static_cast<std::int64_t>(indices.size()) < options_.batch; ++epoch, position = 0) {
        const auto order = epoch_order(epoch);
        const std::int64_t taken =
            std::min(count - position, options_.batch - static_cast<std::int64_t>(indices.size()));
        indices.insert(indices.end(), order->begin() + position, order->begin() + position + taken);
    }
    return indices;
}

Batch Loader::read(std::int64_t step) const {
    const auto indices = indices_at(step);
    Batch batch{dataset_->samples(indices), {}};
    if (options_.horizontal_flips) {
        batch.samples = randomly_flipped(batch.samples, {options_.seed, options_.stream + "/flip",
                                                         static_cast<std::uint64_t>(step)});
    }
    if (!dataset_->labels().empty()) {
        for (const std::int64_t i : indices)
            batch.labels.push_back(dataset_->labels()[static_cast<std::size_t>(i)]);
    }
    return batch;
}

/// Reads ahead from `step` on, -1: nothing, and forgets all others.
void Loader::go_on_at(std::int64_t step) {
    next_ = step;
    std::erase_if(ahead_, [&](const auto& entry) {
        return step < 0 || entry.first < step || entry.first >= step + options_.threads;
    });
    changed_.notify_all();
}

Batch Loader::at(std::int64_t step) {
    if (step < 0) core::fail("there is no batch {}; steps begin at 0", step);
    const auto requested_at = Clock::now();
    std::unique_lock lock(mutex_);
    std::shared_ptr<Ahead> found;
    changed_.wait(lock, [&] {
        if (next_ < 0 || step < next_ || step >= next_ + options_.threads) return true;
        const auto entry = ahead_.find(step);
        if (entry == ahead_.end() || !entry->second->is_read) return false;
        found = entry->second;
        return true;
    });
    go_on_at(found && found->error ? -1 : step + 1);
    lock.unlock();
    if (found && found->error) std::rethrow_exception(found->error);
    Batch batch = found ? std::move(found->batch) : read(step);
    count_use(requested_at);
    return batch;
}

void Loader::count_use(Clock::time_point requested_at) {
    const std::lock_guard lock(mutex_);
    if (throughput_.batches++ == 0) {
        first_request_ = Clock::now();  // the first batch could not be read ahead
        return;
    }
    throughput_.samples_used += static_cast<double>(options_.batch);
    throughput_.waited_seconds += seconds_between(requested_at, Clock::now());
}

Throughput Loader::throughput() const {
    const std::lock_guard lock(mutex_);
    Throughput throughput = throughput_;
    if (throughput.batches > 0) throughput.seconds = seconds_between(first_request_, Clock::now());
    return throughput;
}

void Loader::read_ahead() {
    std::unique_lock lock(mutex_);
    for (;;) {
        std::int64_t step = 0;
        changed_.wait(lock, [&] {
            if (closing_) return true;
            if (next_ < 0) return false;
            for (step = next_; ahead_.contains(step);) ++step;
            return step < next_ + options_.threads;
        });
        if (closing_) return;
        const std::shared_ptr<Ahead> mine = ahead_[step] = std::make_shared<Ahead>();
        lock.unlock();
        const auto began = Clock::now();
        Batch batch;
        std::exception_ptr error;
        try {
            batch = read(step);
        } catch (...) {
            error = std::current_exception();
        }
        lock.lock();
        throughput_.samples_read += static_cast<double>(options_.batch);
        // So many batches are read in this time.
        throughput_.reading_seconds += seconds_between(began, Clock::now()) / options_.threads;
        mine->batch = std::move(batch);
        mine->error = error;
        mine->is_read = true;
        changed_.notify_all();
    }
}

}  // namespace atelier::data
