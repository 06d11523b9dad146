#include "atelier/parallel/gradient_sum.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "atelier/core/error.h"
#include "atelier/parallel/flat.h"

namespace atelier::parallel {

namespace {

constexpr double infinite = std::numeric_limits<double>::infinity();
constexpr int no_unit = std::numeric_limits<int>::max();
constexpr int headroom = 14;  // bits by which later micro-batches may exceed the first
constexpr int sum_bits = 62;  // of int64, with one to spare
constexpr std::int64_t grain = 32768;

int ceil_log2(std::int64_t value) {
    return static_cast<int>(std::bit_width(static_cast<std::uint64_t>(value - 1)));
}

/// The least e with |value| < 2^e.
int exponent_above(double value) {
    int exponent = 0;
    std::frexp(value, &exponent);
    return exponent;
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
double largest_of(const Tensor& gradient) {
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

/// max |g| of each tensor, 0 for undefined ones, infinity where a number is not finite. On other
/// devices than the CPU they are read back together.
std::vector<double> largest_of(const std::vector<Tensor>& gradients, std::size_t count) {
    std::vector<double> largest(count, 0);
    std::vector<Tensor> elsewhere;
    std::vector<std::size_t> indices;
    for (std::size_t i = 0; i < gradients.size(); ++i) {
        if (!gradients[i].defined() || gradients[i].numel() == 0) continue;
        if (gradients[i].is_cpu()) {
            largest[i] = largest_of(gradients[i]);
            continue;
        }
        elsewhere.push_back(gradients[i]);
        indices.push_back(i);
    }
    if (elsewhere.empty()) return largest;
    const Tensor found =
        at::stack(at::_foreach_norm(elsewhere, infinite)).to(at::kCPU, at::kDouble);
    for (std::size_t k = 0; k < indices.size(); ++k)
        largest[indices[k]] = finite_or_infinite(found.const_data_ptr<double>()[k]);
    return largest;
}

/// sums += round(gradient / 2^unit), to even in ties.
void add_rounded(const Tensor& sums, const Tensor& gradient, int unit) {
    const double per_unit = std::ldexp(1.0, -unit);
    if (!gradient.is_cpu()) {
        sums.add_((gradient.to(at::kDouble) * per_unit).round_().to(at::kLong));
        return;
    }
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

}  // namespace

GradientSum::GradientSum(Ranks& ranks, Reduction reduction, std::vector<Tensor> parameters,
                         std::int64_t micro_batches)
    : ranks_(ranks),
      reduction_(reduction),
      parameters_(std::move(parameters)),
      micro_batches_(micro_batches),
      capacity_(sum_bits - ceil_log2(micro_batches)),
      units_(parameters_.size(), no_unit),
      largest_(parameters_.size(), 0) {}

void GradientSum::add(std::vector<Tensor> gradients) {
    at::NoGradGuard no_gradients;
    if (micro_batches_ > 1 && reduction_ == Reduction::exact) return add_exactly(gradients);
    if (gradients.empty()) return;
    if (sums_.empty()) {
        sums_ = std::move(gradients);
        return;
    }
    for (std::size_t i = 0; i < sums_.size(); ++i) {
        // Not in place: autograd may return one tensor as the gradient of several parameters.
        if (sums_[i].defined() && gradients[i].defined()) sums_[i] = sums_[i] + gradients[i];
        else if (gradients[i].defined()) sums_[i] = gradients[i];
        gradients[i] = Tensor();
    }
}

void GradientSum::add_exactly(const std::vector<Tensor>& gradients) {
    std::vector<Tensor> found(gradients.size());
    for (std::size_t i = 0; i < gradients.size(); ++i) {
        if (gradients[i].defined())
            found[i] = in_memory_order(laid_out(gradients[i], parameters_[i]));
    }
    const std::vector<double> largest = largest_of(found, parameters_.size());
    for (std::size_t i = 0; i < largest.size(); ++i)
        largest_[i] = std::max(largest_[i], largest[i]);
    if (!again_) choose_units(largest);
    if (!whole_.defined()) {
        std::int64_t numbers = 0;
        for (const Tensor& parameter : parameters_) numbers += parameter.numel();
        whole_ = at::zeros({numbers}, parameters_.front().options().dtype(at::kLong));
    }
    std::int64_t first = 0;
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
        const std::int64_t count = parameters_[i].numel();
        // What does not fit makes complete() ask for all micro-batches once more.
        if (!found.empty() && found[i].defined() && largest[i] > 0 &&
            largest[i] <= std::ldexp(1.0, units_[i] + capacity_))
            add_rounded(whole_.narrow(0, first, count), found[i], units_[i]);
        first += count;
    }
}

/// Gives units to the tensors that have none yet, from the first micro-batch of this round with
/// anything to go by. All ranks know the same maxima, and so choose the same units.
void GradientSum::choose_units(const std::vector<double>& largest) {
    if (std::ranges::find(units_, no_unit) == units_.end()) return;
    const Tensor row = at::empty({static_cast<std::int64_t>(largest.size())}, at::kDouble);
    std::ranges::copy(largest, row.mutable_data_ptr<double>());
    const Tensor rows = ranks_.gather(row);
    const auto* values = rows.const_data_ptr<double>();
    for (std::size_t i = 0; i < units_.size(); ++i) {
        for (int rank = 0; rank < ranks_.world() && units_[i] == no_unit; ++rank) {
            const double most = values[static_cast<std::size_t>(rank) * units_.size() + i];
            if (most > 0)
                units_[i] = std::isfinite(most) ? exponent_above(most) + headroom - capacity_ : 0;
        }
    }
}

std::string GradientSum::report() const {
    if (micro_batches_ == 1 || reduction_ == Reduction::floating) return "";
    std::string bytes(largest_.size() * sizeof(double), '\0');
    std::memcpy(bytes.data(), largest_.data(), bytes.size());
    return bytes;
}

bool GradientSum::complete(const std::vector<std::string>& reports) {
    at::NoGradGuard no_gradients;
    if (micro_batches_ > 1 && reduction_ == Reduction::exact) return complete_exactly(reports);
    if (ranks_.is_alone()) return true;
    Tensor all = joined();
    if (micro_batches_ == 1) ranks_.broadcast(all);  // nothing is summed, so nothing is rounded
    else ranks_.sum(all);
    split(all);
    return true;
}

bool GradientSum::complete_exactly(const std::vector<std::string>& reports) {
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
        return false;
    }
    ranks_.sum(whole_);
    std::int64_t first = 0;
    sums_.clear();
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
        const std::int64_t count = parameters_[i].numel();
        sums_.push_back(at::empty_like(parameters_[i], parameters_[i].options().dtype(at::kFloat)));
        const double unit = std::ldexp(1.0, units_[i] == no_unit ? 0 : units_[i]);
        in_memory_order(sums_.back()).copy_(whole_.narrow(0, first, count).to(at::kDouble) * unit);
        first += count;
    }
    whole_ = Tensor();
    return true;
}

/// This rank's sums as one float32 tensor, zeros where there is no gradient.
Tensor GradientSum::joined() {
    std::vector<Tensor> flat;
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
        const bool defined = !sums_.empty() && sums_[i].defined();
        flat.push_back(defined ? in_memory_order(laid_out(sums_[i], parameters_[i]))
                               : at::zeros({parameters_[i].numel()},
                                           parameters_[i].options().dtype(at::kFloat)));
    }
    sums_.clear();
    return at::cat(flat);
}

/// The sums as parts of one tensor again.
void GradientSum::split(const Tensor& whole) {
    std::int64_t first = 0;
    for (const Tensor& parameter : parameters_) {
        sums_.push_back(at::empty_like(parameter, parameter.options().dtype(at::kFloat)));
        in_memory_order(sums_.back()).copy_(whole.narrow(0, first, parameter.numel()));
        first += parameter.numel();
    }
}

std::vector<Tensor> GradientSum::take() { return std::move(sums_); }

}  // namespace atelier::parallel
