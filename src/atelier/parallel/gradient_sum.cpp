#include "atelier/parallel/gradient_sum.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <numeric>
#include <optional>
#include <thread>

#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>

#include "atelier/backends/torch/transfer.h"
#include "atelier/core/error.h"
#include "atelier/parallel/flat.h"

namespace atelier::parallel {

namespace {

constexpr double infinite = std::numeric_limits<double>::infinity();
constexpr int no_unit = std::numeric_limits<int>::max();
constexpr int headroom = 14;  // bits by which later micro-batches may exceed the first
constexpr int sum_bits = 62;  // of int64, with one to spare
constexpr std::int64_t grain = 32768;
// Of a float64, by its bits.
constexpr std::int64_t fraction_bits = 52, exponent_bias = 1023, exponent_mask = 0x7ff;

int ceil_log2(std::int64_t value) {
    return static_cast<int>(std::bit_width(static_cast<std::uint64_t>(value - 1)));
}

/// The least e with |value| < 2^e.
int exponent_above(double value) {
    int exponent = 0;
    std::frexp(value, &exponent);
    return exponent;
}

/// The same of positive float64 `values`, as int64; exact on every device.
Tensor exponents_above(const Tensor& values) {
    const Tensor bits = values.view(at::kLong);
    return at::bitwise_right_shift(bits, fraction_bits).bitwise_and(exponent_mask) -
           (exponent_bias - 1);
}

/// 2^exponents as float64, exact on every device; of exponents beyond its range, anything.
Tensor powers_of_two(const Tensor& exponents) {
    return at::bitwise_left_shift(exponents + exponent_bias, fraction_bits).view(at::kDouble);
}

/// `gradient` in the memory layout of `parameter`, float32.
Tensor laid_out(const Tensor& gradient, const Tensor& parameter) {
    if (gradient.strides() == parameter.strides() && gradient.is_non_overlapping_and_dense() &&
        gradient.scalar_type() == at::kFloat)
        return gradient;
    return at::empty_like(parameter, parameter.options().dtype(at::kFloat)).copy_(gradient);
}

double finite_or_infinite(double value) { return std::isfinite(value) ? value : infinite; }

/// max |g| of a tensor on the CPU. Without their signs, floats are ordered like their bits, with
/// those that are not finite last.
double largest_on_cpu(const Tensor& gradient) {
    const auto* bits = reinterpret_cast<const std::uint32_t*>(gradient.const_data_ptr<float>());
    const std::uint32_t most = at::parallel_reduce(
        0, gradient.numel(), grain, std::uint32_t{0},
        [bits](std::int64_t begin, std::int64_t end, std::uint32_t found) {
            for (std::int64_t i = begin; i < end; ++i)
                found = std::max(found, bits[i] & 0x7fffffffU);
            return found;
        },
        [](std::uint32_t a, std::uint32_t b) { return std::max(a, b); });
    return finite_or_infinite(std::bit_cast<float>(most));
}

/// sums += round(gradient / 2^unit) on the CPU, to even in ties.
void add_rounded_on_cpu(const Tensor& sums, const Tensor& gradient, int unit) {
    const double per_unit = std::ldexp(1.0, -unit);
    auto* to = sums.mutable_data_ptr<std::int64_t>();
    const auto* from = gradient.const_data_ptr<float>();
    at::parallel_for(0, gradient.numel(), grain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i)
            to[i] += std::llrint(static_cast<double>(from[i]) * per_unit);
    });
}

std::vector<double> doubles_of(const std::string& bytes) {
    std::vector<double> values(bytes.size() / sizeof(double));
    std::memcpy(values.data(), bytes.data(), values.size() * sizeof(double));
    return values;
}

std::vector<double> doubles_of(const Tensor& on_device) {
    const Tensor here = on_device.to(at::kCPU);
    const auto* values = here.const_data_ptr<double>();
    return {values, values + here.numel()};
}

template <class Value>
Tensor tensor_of(const std::vector<Value>& values, at::ScalarType type) {
    const Tensor tensor = at::empty({static_cast<std::int64_t>(values.size())}, type);
    std::memcpy(tensor.mutable_data_ptr(), values.data(), values.size() * sizeof(Value));
    return tensor;
}

}  // namespace

/// The thread that sums complete buckets over ranks, in their order. On an accelerator it works on
/// a stream of its own, which waits for what the bucket was computed by.
class GradientSum::Sender {
public:
    explicit Sender(GradientSum& sum) : sum_(sum), device_(sum.parameters_.front().device()) {
        for (const Range& range : sum.buckets_) missing_.push_back(range.count());
        computed_.resize(missing_.size());
        thread_ = std::thread([this] { run(); });
    }
    ~Sender() { join(); }
    Sender(const Sender&) = delete;
    Sender& operator=(const Sender&) = delete;

    /// A tensor of a bucket has come; returns whether it was the last.
    bool arrived(std::size_t bucket) { return --missing_[bucket] == 0; }

    /// The bucket can be sent, with what was queued on this thread's stream until now.
    void send(std::size_t bucket) {
        std::optional<c10::Event> computed;
        if (!device_.is_cpu()) {
            computed.emplace(device_.type());
            computed->record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
        }
        const std::lock_guard lock(mutex_);
        computed_[bucket] = {true, std::move(computed)};
        changed_.notify_all();
    }

    /// Waits until all are summed. Throws what kept them from being.
    void wait() {
        thread_.join();
        if (error_) std::rethrow_exception(error_);
        if (done_) done_->block(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
    }

private:
    struct Computed {
        bool all = false;
        std::optional<c10::Event> event;
    };

    void join() {
        if (!thread_.joinable()) return;
        {
            const std::lock_guard lock(mutex_);
            closing_ = true;
        }
        changed_.notify_all();
        thread_.join();
    }

    void run() {
        try {
            at::NoGradGuard no_gradients;
            if (device_.is_cpu()) return sum_all(std::nullopt);
            const c10::impl::VirtualGuardImpl devices(device_.type());
            const c10::Stream stream = devices.getStreamFromGlobalPool(device_);
            const c10::StreamGuard guard(stream);
            sum_all(stream);
            done_.emplace(device_.type());
            done_->record(stream);
        } catch (...) {
            error_ = std::current_exception();
        }
    }

    void sum_all(const std::optional<c10::Stream>& stream) {
        for (std::size_t bucket = 0; bucket < missing_.size(); ++bucket) {
            {
                std::unique_lock lock(mutex_);
                changed_.wait(lock, [&] { return closing_ || computed_[bucket].all; });
                if (closing_) return;
            }
            if (stream) computed_[bucket].event->block(*stream);
            sum_.sum_bucket(bucket);
        }
    }

    GradientSum& sum_;
    const at::Device device_;
    std::vector<std::int64_t> missing_;
    std::vector<Computed> computed_;
    std::optional<c10::Event> done_;
    std::exception_ptr error_;
    bool closing_ = false;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::thread thread_;
};

GradientSum::GradientSum(Ranks& ranks, Reduction reduction, std::vector<Tensor> parameters,
                         std::int64_t micro_batches, const Buckets* buckets)
    : ranks_(ranks),
      reduction_(reduction),
      parameters_(std::move(parameters)),
      micro_batches_(micro_batches),
      capacity_(sum_bits - ceil_log2(micro_batches)),
      units_(parameters_.size(), no_unit),
      largest_(parameters_.size(), 0) {
    if (buckets) {
        order_ = buckets->order;
        for (const auto& [first, end] : buckets->ranges) buckets_.push_back({first, end});
    } else {
        order_.resize(parameters_.size());
        std::iota(order_.begin(), order_.end(), std::int64_t{0});
    }
    begins_.push_back(0);
    for (std::size_t place = 0; place < order_.size(); ++place)
        begins_.push_back(begins_.back() +
                          parameters_[tensor_at(static_cast<std::int64_t>(place))].numel());
    if (!exact() || on_cpu()) return;
    const auto count = static_cast<std::int64_t>(parameters_.size());
    const at::TensorOptions options(parameters_.front().device());
    device_units_ = at::full({count}, no_unit, options.dtype(at::kLong));
    device_largest_ = at::zeros({count}, options.dtype(at::kDouble));
}

GradientSum::~GradientSum() = default;

Tensor GradientSum::slice(const Range& range) const {
    const auto at = [this](std::int64_t place) { return begins_[static_cast<std::size_t>(place)]; };
    return whole_.narrow(0, at(range.first), at(range.end) - at(range.first));
}

Tensor GradientSum::slice(std::int64_t place) const { return slice({place, place + 1}); }

void GradientSum::allocate() {
    if (whole_.defined()) return;
    const at::TensorOptions options = parameters_.front().options();
    whole_ = exact() ? at::zeros({begins_.back()}, options.dtype(at::kLong))
                     : at::empty({begins_.back()}, options.dtype(at::kFloat));
}

void GradientSum::add(std::vector<Tensor> gradients) {
    at::NoGradGuard no_gradients;
    if (!exact()) {
        for (std::size_t i = 0; i < gradients.size(); ++i) add_floats(i, std::move(gradients[i]));
        return;
    }
    allocate();
    found_.assign(parameters_.size(), Tensor());
    for (std::size_t i = 0; i < gradients.size(); ++i) {
        if (gradients[i].defined())
            found_[i] = in_memory_order(laid_out(gradients[i], parameters_[i]));
    }
    add_exactly({0, static_cast<std::int64_t>(order_.size())});
    found_.clear();
}

void GradientSum::add_floats(std::size_t index, Tensor gradient) {
    sums_.resize(parameters_.size());
    Tensor& sum = sums_[index];
    // Not in place: autograd may return one tensor as the gradient of several parameters.
    if (sum.defined() && gradient.defined()) sum = sum + gradient;
    else if (gradient.defined()) sum = std::move(gradient);
}

/// Adds the gradients that were found for the tensors of a range. An operation of all ranks, unless
/// the units are known.
void GradientSum::add_exactly(const Range& range) {
    const Largest largest = largest_of(range);
    if (!again_) {
        if (!on_cpu() && ranks_.is_alone()) choose_units_on_device(range, largest.device);
        else if (!units_known(range)) choose_units(range, on_host(largest));
    }
    add_rounded(range, largest);
}

bool GradientSum::units_known(const Range& range) const {
    return std::none_of(units_.begin() + range.first, units_.begin() + range.end,
                        [](int unit) { return unit == no_unit; });
}

/// max |g| of each tensor, 0 for undefined ones, infinity where a number is not finite.
GradientSum::Largest GradientSum::largest_of(const Range& range) {
    Largest largest;
    if (on_cpu()) {
        for (std::int64_t place = range.first; place < range.end; ++place) {
            const Tensor& gradient = found_[tensor_at(place)];
            largest.host.push_back(gradient.defined() ? largest_on_cpu(gradient) : 0);
            double& most = largest_[static_cast<std::size_t>(place)];
            most = std::max(most, largest.host.back());
        }
        return largest;
    }
    std::vector<Tensor> defined;
    for (std::int64_t place = range.first; place < range.end; ++place) {
        const Tensor& gradient = found_[tensor_at(place)];
        if (gradient.defined() && gradient.numel() > 0) defined.push_back(gradient);
    }
    std::vector<Tensor> norms;
    if (!defined.empty()) norms = at::_foreach_norm(defined, infinite);
    Tensor none;
    std::vector<Tensor> all;
    auto next = norms.begin();
    for (std::int64_t place = range.first; place < range.end; ++place) {
        const Tensor& gradient = found_[tensor_at(place)];
        const bool counts = gradient.defined() && gradient.numel() > 0;
        if (!counts && !none.defined())
            none = at::zeros({}, parameters_.front().options().dtype(at::kFloat));
        all.push_back(counts ? *next++ : none);
    }
    const Tensor found = at::stack(all).to(at::kDouble);
    largest.device = found.masked_fill(at::isfinite(found).logical_not(), infinite);
    const Tensor most = device_largest_.narrow(0, range.first, range.count());
    most.copy_(at::maximum(most, largest.device));
    return largest;
}

/// On other devices than the CPU they are read back together.
std::vector<double> GradientSum::on_host(const Largest& largest) const {
    return on_cpu() ? largest.host : doubles_of(largest.device);
}

/// Gives units to the tensors of a range that have none yet, from the first micro-batch of this
/// round with anything to go by. All ranks know the same maxima, and so choose the same units.
void GradientSum::choose_units(const Range& range, const std::vector<double>& largest) {
    const Tensor rows = ranks_.gather(tensor_of(largest, at::kDouble));
    const auto* values = rows.const_data_ptr<double>();
    const auto count = static_cast<std::size_t>(range.count());
    for (std::size_t i = 0; i < count; ++i) {
        int& unit = units_[static_cast<std::size_t>(range.first) + i];
        for (int rank = 0; rank < ranks_.world() && unit == no_unit; ++rank) {
            const double most = values[static_cast<std::size_t>(rank) * count + i];
            if (most > 0)
                unit = std::isfinite(most) ? exponent_above(most) + headroom - capacity_ : 0;
        }
    }
    if (!on_cpu()) upload_units(range);
}

/// The same of a process that is alone, on its accelerator.
void GradientSum::choose_units_on_device(const Range& range, const Tensor& largest) {
    const Tensor units = device_units_.narrow(0, range.first, range.count()),
                 chosen = (exponents_above(largest) + (headroom - capacity_))
                              .masked_fill(largest.eq(infinite), 0);
    units.copy_(at::where(units.eq(no_unit).logical_and(largest.gt(0)), chosen, units));
}

void GradientSum::upload_units(const Range& range) {
    const std::vector<std::int64_t> units(units_.begin() + range.first, units_.begin() + range.end);
    device_units_.narrow(0, range.first, range.count())
        .copy_(backends::to_device(tensor_of(units, at::kLong), device_units_.device()));
}

/// What does not fit is not added, and makes complete() ask for all micro-batches once more.
void GradientSum::add_rounded(const Range& range, const Largest& largest) {
    if (on_cpu()) {
        for (std::int64_t place = range.first; place < range.end; ++place) {
            const double most = largest.host[static_cast<std::size_t>(place - range.first)];
            const int unit = units_[static_cast<std::size_t>(place)];
            if (most > 0 && most <= std::ldexp(1.0, unit + capacity_))
                add_rounded_on_cpu(slice(place), found_[tensor_at(place)], unit);
        }
        return;
    }
    const Tensor units = device_units_.narrow(0, range.first, range.count()),
                 fits = largest.device.gt(0).logical_and(largest.device <=
                                                         powers_of_two(units + capacity_));
    // Where a number is not finite, 0 times it is not either, and becomes any whole number: of a
    // sum that complete() gives up.
    const std::vector<Tensor> per_unit =
        powers_of_two(-units).masked_fill(fits.logical_not(), 0.0).unbind();
    for (std::int64_t place = range.first; place < range.end; ++place) {
        const Tensor& gradient = found_[tensor_at(place)];
        if (!gradient.defined()) continue;
        const Tensor& factor = per_unit[static_cast<std::size_t>(place - range.first)];
        slice(place).add_((gradient.to(at::kDouble) * factor).round_().to(at::kLong));
    }
}

void GradientSum::begin() {
    at::NoGradGuard no_gradients;
    allocate();
    if (exact()) found_.assign(parameters_.size(), Tensor());
    else sums_.resize(parameters_.size());
    came_.assign(parameters_.size(), false);
    early_ = 0;
    finishing_ = false;
    places_.resize(order_.size());
    for (std::size_t place = 0; place < order_.size(); ++place)
        places_[tensor_at(static_cast<std::int64_t>(place))] = static_cast<std::int64_t>(place);
    sender_ = std::make_unique<Sender>(*this);
}

void GradientSum::ready(std::size_t index, Tensor gradient) {
    at::NoGradGuard no_gradients;
    const std::int64_t place = places_[index];
    came_[index] = true;
    if (exact()) {
        if (gradient.defined())
            found_[index] = in_memory_order(laid_out(gradient, parameters_[index]));
    } else {
        add_floats(index, std::move(gradient));
        const Tensor to = slice(place), sum = std::exchange(sums_[index], Tensor());
        if (sum.defined()) to.copy_(in_memory_order(laid_out(sum, parameters_[index])));
        else to.zero_();
    }
    const auto bucket = static_cast<std::size_t>(
        std::ranges::upper_bound(buckets_, place, {}, &Range::first) - buckets_.begin() - 1);
    if (!sender_->arrived(bucket)) return;
    if (!finishing_) ++early_;
    // Otherwise the sender does, since ranks choose the units together.
    if (exact() && knows_units(bucket)) {
        const Range& range = buckets_[bucket];
        add_exactly(range);
        for (std::int64_t each = range.first; each < range.end; ++each)
            found_[tensor_at(each)] = Tensor();
    }
    sender_->send(bucket);
}

/// Whether the units of a bucket are known before its last gradients come. The same on all ranks.
bool GradientSum::knows_units(std::size_t bucket) const {
    return again_ || units_known(buckets_[bucket]);
}

void GradientSum::sum_bucket(std::size_t bucket) {
    const Range& range = buckets_[bucket];
    if (exact() && !knows_units(bucket)) add_exactly(range);
    Tensor numbers = slice(range);
    if (micro_batches_ == 1) ranks_.broadcast(numbers);
    else ranks_.sum(numbers);
}

void GradientSum::finish(std::vector<Tensor> rest) {
    finishing_ = true;
    rest.resize(parameters_.size());
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
        if (!came_[i]) ready(i, std::move(rest[i]));
    }
    sender_->wait();
    sender_.reset();
    found_.clear();
    sums_.clear();
    sent_ = true;
}

std::string GradientSum::report() {
    if (!exact()) return "";
    if (!on_cpu()) {
        const auto count = static_cast<std::ptrdiff_t>(units_.size());
        const std::vector<double> read =
            doubles_of(at::cat({device_largest_, device_units_.to(at::kDouble)}));
        largest_.assign(read.begin(), read.begin() + count);
        for (std::size_t i = 0; i < units_.size(); ++i)
            units_[i] = static_cast<int>(read[units_.size() + i]);
    }
    std::string bytes(largest_.size() * sizeof(double), '\0');
    std::memcpy(bytes.data(), largest_.data(), bytes.size());
    return bytes;
}

bool GradientSum::complete(const std::vector<std::string>& reports) {
    at::NoGradGuard no_gradients;
    if (exact()) return complete_exactly(reports);
    if (ranks_.is_alone()) return true;
    if (!std::exchange(sent_, false)) {
        allocate();
        for (std::int64_t place = 0; place < static_cast<std::int64_t>(order_.size()); ++place) {
            const std::size_t i = tensor_at(place);
            const Tensor to = slice(place);
            if (!sums_.empty() && sums_[i].defined())
                to.copy_(in_memory_order(laid_out(sums_[i], parameters_[i])));
            else to.zero_();
        }
        if (micro_batches_ == 1) ranks_.broadcast(whole_);  // nothing is summed or rounded
        else ranks_.sum(whole_);
    }
    take_apart();
    return true;
}

bool GradientSum::complete_exactly(const std::vector<std::string>& reports) {
    const bool sent = std::exchange(sent_, false);
    std::vector<double> largest(parameters_.size(), 0);
    for (const std::string& report : reports) {
        const std::vector<double> of_rank = doubles_of(report);
        for (std::size_t i = 0; i < largest.size(); ++i)
            largest[i] = std::max(largest[i], of_rank.at(i));
    }
    finite_ = std::ranges::find(largest, infinite) == largest.end();
    if (!finite_) {
        whole_ = Tensor();
        return true;
    }
    bool fits = true;
    for (std::size_t i = 0; i < largest.size(); ++i) {
        if (largest[i] > 0 && largest[i] > std::ldexp(1.0, units_[i] + capacity_)) {
            units_[i] = exponent_above(largest[i]) - capacity_;
            fits = false;
        }
    }
    if (!fits) {
        again_ = true;
        whole_ = Tensor();
        if (!on_cpu()) upload_units({0, static_cast<std::int64_t>(order_.size())});
        return false;
    }
    if (!sent) ranks_.sum(whole_);
    take_apart();
    return true;
}

/// The sums as tensors like the parameters.
void GradientSum::take_apart() {
    sums_.assign(parameters_.size(), Tensor());
    for (std::int64_t place = 0; place < static_cast<std::int64_t>(order_.size()); ++place) {
        const std::size_t i = tensor_at(place);
        sums_[i] = at::empty_like(parameters_[i], parameters_[i].options().dtype(at::kFloat));
        const Tensor from = slice(place), to = in_memory_order(sums_[i]);
        if (!exact()) {
            to.copy_(from);
            continue;
        }
        const int unit = units_[static_cast<std::size_t>(place)];
        to.copy_(from.to(at::kDouble) * std::ldexp(1.0, unit == no_unit ? 0 : unit));
    }
    whole_ = Tensor();
}

std::vector<Tensor> GradientSum::take() { return std::move(sums_); }

}  // namespace atelier::parallel
