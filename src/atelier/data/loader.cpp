#include "atelier/data/loader.h"

#include <algorithm>

#include "atelier/core/error.h"
#include "atelier/core/random_streams.h"

namespace atelier::data {

namespace {

double seconds_between(std::chrono::steady_clock::time_point from, std::chrono::steady_clock::time_point to) { return std::chrono::duration<double>(to - from).count(); }

/// Mirrors each image [C,H,W] of the batch with probability 1/2.
Tensor flipped_by_chance(const Tensor& images, core::RandomStream stream) {
    Tensor chosen = at::empty({images.size(0)}, at::kBool);
    bool* out = chosen.mutable_data_ptr<bool>();
    for (std::int64_t i = 0; i < images.size(0); ++i) out[i] = stream.below(2) == 1;
    return at::where(chosen.view({-1, 1, 1, 1}), images.flip({3}), images);
}

void check(const Dataset& dataset, const LoaderOptions& options) {
    if (options.batch < 1) core::fail("a batch of {} samples is not possible; it needs at least 1", options.batch);
    if (dataset.size() < 1) core::fail("the data set holds no samples, so there are no batches");
    if (options.horizontal_flips && dataset.form().kind != models::DataForm::Kind::image) {
        core::fail("only images can be flipped; set horizontal flips to false for this data");
    }
    for (const std::int64_t i : options.indices) {
        if (i < 0 || i >= dataset.size()) core::fail("sample {} is to be loaded, the data set has {}", i, dataset.size());
    }
}

}  // namespace

Loader::Loader(std::shared_ptr<const Dataset> dataset, LoaderOptions options)
    : dataset_(std::move(dataset)), options_(std::move(options)) {
    check(*dataset_, options_);
    thread_ = std::thread([this] { read_ahead(); });
}

Loader::~Loader() {
    {
        const std::lock_guard lock(mutex_);
        closing_ = true;
    }
    changed_.notify_all();
    thread_.join();
}

std::shared_ptr<const Loader::Order> Loader::order_of(std::int64_t epoch) const {
    const std::lock_guard lock(order_mutex_);
    if (epoch_ == epoch) return order_;
    const auto count = options_.indices.empty() ? dataset_->size() : static_cast<std::int64_t>(options_.indices.size());
    core::RandomStream stream(options_.seed, options_.stream + "/order", static_cast<std::uint64_t>(epoch));
    Order order = stream.permutation(count);
    if (!options_.indices.empty()) {
        for (std::int64_t& i : order) i = options_.indices[static_cast<std::size_t>(i)];
    }
    order_ = std::make_shared<const Order>(std::move(order));
    epoch_ = epoch;
    return order_;
}

std::vector<std::int64_t> Loader::indices_at(std::int64_t step) const {
    if (step < 0) core::fail("there is no batch {}; steps begin at 0", step);
    const auto count = options_.indices.empty() ? dataset_->size() : static_cast<std::int64_t>(options_.indices.size());
    std::vector<std::int64_t> indices;
    indices.reserve(static_cast<std::size_t>(options_.batch));
    std::int64_t epoch = step * options_.batch / count, place = step * options_.batch % count;
    for (; static_cast<std::int64_t>(indices.size()) < options_.batch; ++epoch, place = 0) {
        const auto order = order_of(epoch);
        const std::int64_t taken = std::min(count - place, options_.batch - static_cast<std::int64_t>(indices.size()));
        indices.insert(indices.end(), order->begin() + place, order->begin() + place + taken);
    }
    return indices;
}

Batch Loader::read(std::int64_t step) const {
    const auto indices = indices_at(step);
    Batch batch{dataset_->samples(indices), {}};
    if (options_.horizontal_flips) {
        batch.samples =
            flipped_by_chance(batch.samples, {options_.seed, options_.stream + "/flip", static_cast<std::uint64_t>(step)});
    }
    if (!dataset_->labels().empty()) {
        for (const std::int64_t i : indices) batch.labels.push_back(dataset_->labels()[static_cast<std::size_t>(i)]);
    }
    return batch;
}

Batch Loader::at(std::int64_t step) {
    if (step < 0) core::fail("there is no batch {}; steps begin at 0", step);
    const auto asked = Clock::now();
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return wanted_ != step || ready_ == step; });
    const bool read_already = wanted_ == step;
    Batch batch = read_already ? std::move(next_) : Batch{};
    const std::exception_ptr trouble = read_already ? std::exchange(trouble_, nullptr) : nullptr;
    wanted_ = trouble ? -1 : step + 1;
    ready_ = -1;
    lock.unlock();
    changed_.notify_all();
    if (trouble) std::rethrow_exception(trouble);
    if (!read_already) batch = read(step);
    count_use(asked);
    return batch;
}

void Loader::count_use(Clock::time_point asked) {
    const std::lock_guard lock(mutex_);
    if (pace_.batches++ == 0) {
        first_asked_ = Clock::now();  // the first batch could not be read ahead
        return;
    }
    pace_.samples_used += static_cast<double>(options_.batch);
    pace_.waited_seconds += seconds_between(asked, Clock::now());
}

Pace Loader::pace() const {
    const std::lock_guard lock(mutex_);
    Pace pace = pace_;
    if (pace.batches > 0) pace.seconds = seconds_between(first_asked_, Clock::now());
    return pace;
}

void Loader::read_ahead() {
    std::unique_lock lock(mutex_);
    for (;;) {
        changed_.wait(lock, [&] { return closing_ || wanted_ != ready_; });
        if (closing_) return;
        const std::int64_t step = wanted_;
        lock.unlock();
        const auto began = Clock::now();
        Batch batch;
        std::exception_ptr trouble;
        try {
            batch = read(step);
        } catch (...) {
            trouble = std::current_exception();
        }
        lock.lock();
        pace_.samples_read += static_cast<double>(options_.batch);
        pace_.reading_seconds += seconds_between(began, Clock::now());
        if (wanted_ != step) continue;  // somebody jumped to another step meanwhile
        next_ = std::move(batch);
        trouble_ = trouble;
        ready_ = step;
        changed_.notify_all();
    }
}

}  // namespace atelier::data
