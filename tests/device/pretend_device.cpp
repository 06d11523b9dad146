#include "device/pretend_device.h"

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/GraphImplInterface.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/native/transformers/sdp_utils_cpp.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <mutex>
#include <numeric>
#include <set>
#include <sstream>
#include <utility>
#include <vector>

namespace atelier::pretend {

namespace {

using at::Tensor;
constexpr auto kind = c10::DeviceType::PrivateUse1;
constexpr c10::DeviceIndex devices = 2;

/// What is launched on the device while it is recorded, to be done again at each replay. As on
/// CUDA, the host can neither wait nor copy to and from the device meanwhile.
class Recording final : public at::GraphImplInterface {
public:
    using Work = std::function<void()>;

    explicit Recording(const at::GraphImplArgs&) {}
    ~Recording() override { end(); }
    Recording(const Recording&) = delete;
    Recording& operator=(const Recording&) = delete;

    static bool active() { return current_ != nullptr; }
    static void forbid(const char* what) {
        TORCH_CHECK(!active(), what, " is not permitted while the device's work is recorded");
    }
    /// While one lives, nothing is recorded on this thread.
    class Pause {
    public:
        Pause() : paused_(std::exchange(current_, nullptr)) {}
        ~Pause() { current_ = paused_; }
        Pause(const Pause&) = delete;
        Pause& operator=(const Pause&) = delete;

    private:
        Recording* paused_;
    };

    /// Records work that has just been done.
    static void add(Work again) {
        if (active()) current_->works_.push_back(std::move(again));
    }

    void capture_begin(at::MempoolId_t, at::GraphCaptureMode) override {
        TORCH_CHECK(!active(), "work is recorded already");
        current_ = this;
    }
    void capture_end() override { end(); }
    void instantiate() override {}
    void replay() override;
    void reset() override { works_.clear(); }
    at::MempoolId_t pool() const override { return {0, 1}; }
    void enable_debug_mode() override {}
    void debug_dump(const std::string&) override {}

private:
    void end() {
        if (current_ == this) current_ = nullptr;
    }
    static thread_local Recording* current_;
    std::vector<Work> works_;
};

thread_local Recording* Recording::current_ = nullptr;

/// Counts what happens, and writes it at the end of the process where the environment asks for it.
class Counter {
public:
    ~Counter() {
        if (const char* path = std::getenv("PRETEND_COUNTS"))
            std::ofstream(path) << counts_.description() << "peak bytes " << peak_bytes() << "\n";
    }
    static Counter& instance() {
        static Counter counter;
        return counter;
    }

    void operation(const std::string& name) {
        if (Recording::active()) return;  // recorded, not done
        const std::lock_guard lock(mutex_);
        ++counts_.operations[name];
    }
    void wait(const std::string& reason) {
        Recording::forbid("waiting");
        const std::lock_guard lock(mutex_);
        ++counts_.waits[reason];
    }
    void copy(const Tensor& from, const Tensor& to, bool waits) {
        Recording::forbid("a copy from or to the host");
        const std::lock_guard lock(mutex_);
        const auto bytes = static_cast<std::int64_t>(from.nbytes());
        if (from.is_cpu()) ++counts_.copies_to_device, counts_.bytes_to_device += bytes;
        else ++counts_.copies_to_host, counts_.bytes_to_host += bytes;
        if (waits) ++counts_.waits[from.is_cpu() ? "copy to the device" : "copy to the host"];
    }
    Counts counts() {
        const std::lock_guard lock(mutex_);
        return counts_;
    }
    void reset() {
        const std::lock_guard lock(mutex_);
        counts_ = {};
    }

private:
    std::mutex mutex_;
    Counts counts_;
};

void Recording::replay() {
    Counter::instance().operation("replay");
    for (const Work& work : works_) work();
}

thread_local c10::DeviceIndex current = 0;
thread_local int inside = 0;  // the depth of operations whose own copies do not count

/// Memory of the device, and pinned memory of the host.
std::atomic<std::int64_t> held{0}, peak{0}, limit{0};
constexpr std::size_t alignment = 64, granule = 512;

void release(void* block) {
    std::int64_t size = 0;
    std::memcpy(&size, block, sizeof size);
    held -= size;
    std::free(block);
}

class DeviceMemory final : public c10::DeviceAllocator {
public:
    c10::DataPtr allocate(std::size_t bytes) override {
        const c10::Device device(kind, current);
        if (bytes == 0) return {nullptr, nullptr, &c10::detail::deleteNothing, device};
        const std::size_t rounded = (bytes + granule - 1) / granule * granule;
        const auto size = static_cast<std::int64_t>(rounded);
        const std::int64_t most = limit;
        TORCH_CHECK_WITH(OutOfMemoryError, most == 0 || held + size <= most,
                         "pretend out of memory. Tried to allocate ", rounded, " bytes");
        char* block = static_cast<char*>(std::aligned_alloc(alignment, rounded + alignment));
        std::memcpy(block, &size, sizeof size);
        const std::int64_t now = held += size;
        for (std::int64_t before = peak; now > before;) {
            if (peak.compare_exchange_weak(before, now)) break;
        }
        return {block + alignment, block, &release, device};
    }
    c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
    void copy_data(void* to, const void* from, std::size_t bytes) const override {
        std::memcpy(to, from, bytes);
    }
    bool initialized() override { return true; }
    void emptyCache(c10::MempoolId_t) override {}
    void recordStream(const c10::DataPtr&, c10::Stream) override {}
    c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex) override {
        return {};
    }
    void resetAccumulatedStats(c10::DeviceIndex) override {}
    void resetPeakStats(c10::DeviceIndex) override {}
    std::pair<std::size_t, std::size_t> getMemoryInfo(c10::DeviceIndex) override {
        const auto all = static_cast<std::size_t>(limit.load());
        return {all - std::min(all, static_cast<std::size_t>(held.load())), all};
    }
};

DeviceMemory device_memory;
REGISTER_ALLOCATOR(kind, &device_memory)

class PinnedMemory final : public c10::Allocator {
public:
    c10::DataPtr allocate(std::size_t bytes) override {
        char* block = static_cast<char*>(std::malloc(std::max<std::size_t>(bytes, 1)));
        const std::lock_guard lock(mutex());
        blocks()[block] = bytes;
        return {block, block,
                [](void* given) {
                    const std::lock_guard lock(mutex());
                    blocks().erase(static_cast<char*>(given));
                    std::free(given);
                },
                c10::Device(c10::kCPU)};
    }
    c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
    void copy_data(void* to, const void* from, std::size_t bytes) const override {
        std::memcpy(to, from, bytes);
    }
    static bool holds(const void* address) {
        const auto* at = static_cast<const char*>(address);
        const std::lock_guard lock(mutex());
        auto next = blocks().upper_bound(const_cast<char*>(at));
        if (next == blocks().begin()) return false;
        --next;
        return at < next->first + next->second;
    }

private:
    static std::mutex& mutex() {
        static std::mutex only;
        return only;
    }
    static std::map<char*, std::size_t>& blocks() {
        static std::map<char*, std::size_t> all;
        return all;
    }
};

PinnedMemory pinned_memory;

class Guard final : public c10::impl::DeviceGuardImplInterface {
public:
    c10::DeviceType type() const override { return kind; }
    c10::Device exchangeDevice(c10::Device device) const override {
        const c10::Device before(kind, current);
        setDevice(device);
        return before;
    }
    c10::Device getDevice() const override { return {kind, current}; }
    void setDevice(c10::Device device) const override { uncheckedSetDevice(device); }
    void uncheckedSetDevice(c10::Device device) const noexcept override {
        current = device.has_index() ? device.index() : c10::DeviceIndex{0};
    }
    c10::Stream getStream(c10::Device device) const override { return getDefaultStream(device); }
    c10::Stream getDefaultStream(c10::Device device) const override {
        return c10::Stream(c10::Stream::DEFAULT, device);
    }
    c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override {
        return getDefaultStream(device);
    }
    c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
    c10::DeviceIndex deviceCount() const noexcept override { return devices; }
    void record(void** event, const c10::Stream&, c10::DeviceIndex, c10::EventFlag) const override {
        *event = reinterpret_cast<void*>(1);
    }
    void block(void*, const c10::Stream&) const override {}
    bool queryEvent(void*) const override { return true; }
    void destroyEvent(void*, c10::DeviceIndex) const noexcept override {}
    bool queryStream(const c10::Stream&) const override { return true; }
    void synchronizeStream(const c10::Stream&) const override {
        Counter::instance().wait("stream");
    }
    void synchronizeEvent(void*) const override { Counter::instance().wait("event"); }
    void synchronizeDevice(c10::DeviceIndex) const override { Counter::instance().wait("device"); }
    void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

class Hooks final : public at::PrivateUse1HooksInterface {
public:
    bool isBuilt() const override { return true; }
    bool isAvailable() const override { return true; }
    bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
    c10::DeviceIndex deviceCount() const override { return devices; }
    at::Device getDeviceFromPtr(void*) const override { return {kind, current}; }
    bool isPinnedPtr(const void* address) const override { return PinnedMemory::holds(address); }
    at::Allocator* getPinnedMemoryAllocator() const override { return &pinned_memory; }
    void resizePrivateUse1Bytes(const c10::Storage& storage, std::size_t bytes) const override {
        c10::DataPtr larger = device_memory.allocate(bytes);
        std::memcpy(larger.get(), storage.data(), std::min(bytes, storage.nbytes()));
        storage.set_data_ptr_noswap(std::move(larger));
        storage.unsafeGetStorageImpl()->set_nbytes(bytes);
    }
};

Hooks hooks;
[[maybe_unused]] const bool registered = [] {
    c10::register_privateuse1_backend("pretend");
    at::RegisterPrivateUse1HooksInterface(&hooks);
    at::GraphImplRegistry()->Register(
        c10::DeviceTypeName(kind), [](const at::GraphImplArgs& arguments) {
            return std::unique_ptr<at::GraphImplInterface>(new Recording(arguments));
        });
    return true;
}();

c10::Device placed(std::optional<c10::Device> device) {
    return device && device->has_index() ? *device : c10::Device(kind, current);
}

constexpr c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);

Tensor empty(c10::SymIntArrayRef size, std::optional<c10::ScalarType> type,
             std::optional<c10::Layout>, std::optional<c10::Device> device, std::optional<bool>,
             std::optional<c10::MemoryFormat> format) {
    const c10::DeviceGuard guard(placed(device));
    return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), &device_memory, keys,
                                     type.value_or(at::kFloat), format);
}

Tensor empty_strided(c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                     std::optional<c10::ScalarType> type, std::optional<c10::Layout>,
                     std::optional<c10::Device> device, std::optional<bool>) {
    const c10::DeviceGuard guard(placed(device));
    return at::detail::empty_strided_generic(C10_AS_INTARRAYREF_SLOW(size),
                                             C10_AS_INTARRAYREF_SLOW(stride), &device_memory, keys,
                                             type.value_or(at::kFloat));
}

/// The same memory as a tensor of the CPU.
Tensor on_host(const Tensor& tensor) {
    if (!tensor.defined() || tensor.is_cpu()) return tensor;
    return at::from_blob(
        tensor.data_ptr(), tensor.sizes(), tensor.strides(), [tensor](void*) {},
        at::TensorOptions().dtype(tensor.dtype()));
}

/// A copy of a tensor of the CPU.
Tensor on_device(const Tensor& tensor, c10::Device device) {
    if (!tensor.defined()) return tensor;
    const c10::DeviceGuard guard(device);
    const Tensor copy = at::detail::empty_strided_generic(
        tensor.sizes(), tensor.strides(), &device_memory, keys, tensor.scalar_type());
    on_host(copy).copy_(tensor);
    return copy;
}

/// As on CUDA, a copy from or to the host waits unless the host's memory is pinned and the caller
/// asked for no wait.
Tensor copy_from(const Tensor& from, const Tensor& to, bool non_blocking) {
    if (inside == 0) {
        if (from.is_cpu() == to.is_cpu()) Counter::instance().operation("aten::copy_");
        else
            Counter::instance().copy(
                from, to,
                !non_blocking || !PinnedMemory::holds((from.is_cpu() ? from : to).data_ptr()));
    }
    on_host(to).copy_(on_host(from));
    Recording::add([from, to] { on_host(to).copy_(on_host(from)); });
    return to;
}

Tensor copy_from_and_resize(const Tensor& from, const Tensor& to) {
    to.resize_(from.sizes());
    return copy_from(from, to, false);
}

at::Scalar read_scalar(const Tensor& tensor) {
    Counter::instance().wait("scalar read");
    return on_host(tensor).item();
}

const Tensor& resize(const Tensor& tensor, c10::SymIntArrayRef size,
                     std::optional<c10::MemoryFormat>) {
    const auto sizes = C10_AS_INTARRAYREF_SLOW(size);
    if (tensor.sizes() == sizes) return tensor;
    c10::TensorImpl* const of = tensor.unsafeGetTensorImpl();
    const auto bytes = static_cast<std::size_t>(c10::multiply_integers(sizes)) * tensor.itemsize();
    of->set_sizes_contiguous(sizes);
    if (bytes > of->storage().nbytes()) hooks.resizePrivateUse1Bytes(of->storage(), bytes);
    return tensor;
}

Tensor as_strided(const Tensor& tensor, c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                  std::optional<c10::SymInt> offset) {
    return at::native::as_strided_tensorimpl(
        tensor, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride),
        offset ? std::optional(offset->guard_int(__FILE__, __LINE__)) : std::nullopt);
}

Tensor view(const Tensor& tensor, c10::SymIntArrayRef size) {
    return at::native::view(tensor, C10_AS_INTARRAYREF_SLOW(size));
}

Tensor reshape_alias(const Tensor& tensor, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
    return at::native::_reshape_alias(tensor, C10_AS_INTARRAYREF_SLOW(size),
                                      C10_AS_INTARRAYREF_SLOW(stride));
}

/// Whether an operation's tensors may be combined, as CUDA judges: all on one device, except
/// scalars of the CPU, and indices.
class Placement {
public:
    explicit Placement(std::string operation) : operation_(std::move(operation)) {}

    void check(const Tensor& tensor, const std::string& argument) {
        static const std::set<std::string> with_indices{"aten::index", "aten::index_put_",
                                                        "aten::_index_put_impl_"};
        if (!tensor.defined() || (tensor.is_cpu() && tensor.dim() == 0)) return;
        if (tensor.is_cpu() && with_indices.contains(operation_)) return;
        TORCH_CHECK(tensor.device().type() == kind && (!device_ || *device_ == tensor.device()),
                    "Expected all tensors to be on the same device, but ", operation_, " got ",
                    argument, " of sizes ", tensor.sizes(), " on ", tensor.device(),
                    device_ ? " beside others on " + device_->str() : std::string());
        device_ = tensor.device();
    }
    c10::Device device() const { return device_.value_or(c10::Device(kind, current)); }

private:
    std::string operation_;
    std::optional<c10::Device> device_;
};

/// Operations whose results' sizes, or whose value, the host must know. (Indexing by a mask calls
/// nonzero.)
bool host_waits_for(const std::string& name) {
    static const std::set<std::string> all{"aten::nonzero", "aten::masked_select", "aten::_unique2",
                                           "aten::equal"};
    return all.contains(name);
}

class Inside {
public:
    Inside() { ++inside; }
    ~Inside() { --inside; }
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;
};

/// Puts what was computed again where the first results lie, unless it was computed there.
void renew(const c10::IValue& result, const c10::IValue& again) {
    if (result.isTensorList()) {
        for (std::size_t i = 0; i < result.toTensorVector().size(); ++i)
            renew(result.toTensorVector()[i], again.toTensorVector()[i]);
    } else if (result.isTensor() && result.toTensor().defined()) {
        const Tensor &to = result.toTensor(), &from = again.toTensor();
        if (to.data_ptr() != from.data_ptr()) on_host(to).copy_(on_host(from));
    }
}

/// Everything that is not below: computed by the CPU's kernel, on copies.
void compute_on_host(const c10::OperatorHandle& operation, torch::jit::Stack* stack) {
    const auto& schema = operation.schema();
    const std::string& name = schema.name();
    Counter::instance().operation(name);
    const auto arguments = torch::jit::last(*stack, schema.arguments().size());
    if (host_waits_for(name)) Counter::instance().wait(name);
    Placement placement(name);
    for (std::size_t i = 0; i < arguments.size(); ++i) {
        const std::string& argument = schema.arguments()[i].name();
        if (arguments[i].isTensor()) placement.check(arguments[i].toTensor(), argument);
        if (!arguments[i].isList()) continue;
        for (const c10::IValue& each : arguments[i].toListRef()) {
            if (each.isTensor()) placement.check(each.toTensor(), argument);
        }
    }
    const auto compute = [operation, device = placement.device()](torch::jit::Stack& values) {
        const c10::DeviceGuard guard(device);
        const Inside copies_do_not_count;
        at::native::cpu_fallback(operation, &values, /*error_on_views=*/true);
    };
    if (!Recording::active()) return compute(*stack);
    const torch::jit::Stack inputs(arguments.begin(), arguments.end());
    {
        const Recording::Pause its_parts_are_not_work_of_their_own;
        compute(*stack);
    }
    const auto outputs = torch::jit::last(*stack, schema.returns().size());
    Recording::add([compute, inputs, results = torch::jit::Stack(outputs.begin(), outputs.end())] {
        torch::jit::Stack values = inputs;
        compute(values);
        for (std::size_t i = 0; i < results.size(); ++i) renew(results[i], values[i]);
    });
}

Tensor convolution(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                   c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
                   c10::SymIntArrayRef dilation, bool transposed,
                   c10::SymIntArrayRef output_padding, c10::SymInt groups) {
    const std::string name = "aten::convolution";
    Counter::instance().operation(name);
    Placement placement(name);
    placement.check(x, "input");
    placement.check(weight, "weight");
    if (bias) placement.check(*bias, "bias");
    const auto sizes = [](c10::SymIntArrayRef all) { return C10_AS_INTARRAYREF_SLOW(all).vec(); };
    const auto compute = [x, weight, bias = bias.value_or(Tensor()), stride = sizes(stride),
                          padding = sizes(padding), dilation = sizes(dilation), transposed,
                          output_padding = sizes(output_padding),
                          groups = groups.guard_int(__FILE__, __LINE__)] {
        return at::convolution(on_host(x), on_host(weight), on_host(bias), stride, padding,
                               dilation, transposed, output_padding, groups);
    };
    const Tensor result = on_device(compute(), x.device());
    Recording::add([compute, result] { on_host(result).copy_(compute()); });
    return result;
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(
    const Tensor& gradient, const Tensor& x, const Tensor& weight, c10::SymIntArrayRef stride,
    c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation, bool transposed,
    c10::SymIntArrayRef output_padding, c10::SymInt groups, std::array<bool, 3> mask) {
    const std::string name = "aten::convolution_backward";
    Counter::instance().operation(name);
    Placement placement(name);
    placement.check(gradient, "grad_output");
    placement.check(x, "input");
    placement.check(weight, "weight");
    const std::vector<c10::SymInt> bias{gradient.sym_size(1)};
    const auto [of_x, of_weight, of_bias] = at::convolution_backward_symint(
        on_host(gradient), on_host(x), on_host(weight),
        mask[2] ? at::OptionalSymIntArrayRef(bias) : at::OptionalSymIntArrayRef(), stride, padding,
        dilation, transposed, output_padding, std::move(groups), mask);
    return {on_device(of_x, x.device()), on_device(of_weight, x.device()),
            on_device(of_bias, x.device())};
}

/// As CUDA, whose fused kernels want the features of a head next to each other.
std::int64_t attention_backend(const Tensor& query, const Tensor& key, const Tensor& value,
                               const std::optional<Tensor>& mask, double dropout, bool,
                               std::optional<double>, bool) {
    bool dense = dropout == 0 && !mask;
    for (const Tensor* tensor : {&query, &key, &value})
        dense = dense && tensor->dim() == 4 && tensor->stride(-1) == 1;
    return static_cast<std::int64_t>(dense ? sdp::SDPBackend::overrideable : sdp::SDPBackend::math);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, c10::SymInt, c10::SymInt, Tensor, Tensor, Tensor>
attention(const Tensor& query, const Tensor& key, const Tensor& value, const std::optional<Tensor>&,
          double dropout, bool causal, bool, std::optional<double> scale) {
    const std::string name = "aten::scaled_dot_product_attention";
    Counter::instance().operation(name);
    Placement placement(name);
    for (const Tensor* tensor : {&query, &key, &value}) placement.check(*tensor, "an argument");
    const auto compute = [query, key, value, dropout, causal, scale] {
        return at::_scaled_dot_product_flash_attention_for_cpu(
            on_host(query), on_host(key), on_host(value), dropout, causal, {}, scale);
    };
    const auto [host_out, host_logsumexp] = compute();
    const Tensor out = on_device(host_out, query.device()),
                 logsumexp = on_device(host_logsumexp, query.device());
    Recording::add([compute, out] { on_host(out).copy_(std::get<0>(compute())); });
    return {out, logsumexp, {}, {}, query.sym_size(2), key.sym_size(2), {}, {}, {}};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> attention_backward(
    const Tensor& gradient, const Tensor& query, const Tensor& key, const Tensor& value,
    const Tensor&, std::array<bool, 4>, const Tensor& out, const Tensor& logsumexp, const Tensor&,
    const Tensor&, c10::SymInt, c10::SymInt, double dropout, bool causal, const Tensor&,
    const Tensor&, std::optional<double> scale) {
    Counter::instance().operation("aten::scaled_dot_product_attention_backward");
    const auto [of_query, of_key, of_value] =
        at::_scaled_dot_product_flash_attention_for_cpu_backward(
            on_host(gradient), on_host(query), on_host(key), on_host(value), on_host(out),
            on_host(logsumexp), dropout, causal, {}, scale);
    const auto device = query.device();
    return {on_device(of_query, device), on_device(of_key, device), on_device(of_value, device),
            Tensor()};
}

}  // namespace

std::int64_t Counts::launched() const {
    return std::accumulate(operations.begin(), operations.end(), std::int64_t{0},
                           [](std::int64_t sum, const auto& each) { return sum + each.second; });
}

std::int64_t Counts::waited() const {
    return std::accumulate(waits.begin(), waits.end(), std::int64_t{0},
                           [](std::int64_t sum, const auto& each) { return sum + each.second; });
}

std::string Counts::description() const {
    constexpr int shown = 40;
    std::ostringstream text;
    text << "operations " << launched() << ", waits " << waited() << ", copies to the device "
         << copies_to_device << ", to the host " << copies_to_host << "\n";
    for (const auto& [reason, count] : waits) text << "wait: " << reason << " " << count << "\n";
    std::multimap<std::int64_t, std::string, std::greater<>> by_count;
    for (const auto& [name, count] : operations) by_count.emplace(count, name);
    int line = 0;
    for (const auto& [count, name] : by_count) {
        if (line++ < shown) text << name << " " << count << "\n";
    }
    return text.str();
}

Counts counts() { return Counter::instance().counts(); }

void reset() {
    Counter::instance().reset();
    peak = held.load();
}

std::int64_t bytes_held() { return held; }
std::int64_t peak_bytes() { return peak; }
void limit_memory(std::int64_t bytes) { limit = bytes; }

}  // namespace atelier::pretend

namespace at::native {
REGISTER_PRIVATEUSE1_DISPATCH(_fused_sdp_choice_stub, &atelier::pretend::attention_backend)
}  // namespace at::native

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
    library.fallback(
        torch::CppFunction::makeFromBoxedFunction<&atelier::pretend::compute_on_host>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
    using namespace atelier::pretend;
    library.impl("empty.memory_format", TORCH_FN(empty));
    library.impl("empty_strided", TORCH_FN(empty_strided));
    library.impl("_copy_from", TORCH_FN(copy_from));
    library.impl("_copy_from_and_resize", TORCH_FN(copy_from_and_resize));
    library.impl("_local_scalar_dense", TORCH_FN(read_scalar));
    library.impl("resize_", TORCH_FN(resize));
    library.impl("as_strided", TORCH_FN(as_strided));
    library.impl("view", TORCH_FN(view));
    library.impl("_reshape_alias", TORCH_FN(reshape_alias));
    library.impl("convolution_overrideable", TORCH_FN(convolution));
    library.impl("convolution_backward_overrideable", TORCH_FN(convolution_backward));
    library.impl("_scaled_dot_product_fused_attention_overrideable", TORCH_FN(attention));
    library.impl("_scaled_dot_product_fused_attention_overrideable_backward",
                 TORCH_FN(attention_backward));
    // LibTorch decomposes these for backends that it does not know; CUDA has kernels of its own.
    for (const char* name :
         {"native_group_norm", "native_group_norm_backward", "native_layer_norm",
          "native_layer_norm_backward", "silu_backward", "silu_backward.grad_input",
          "_foreach_norm.Scalar", "_foreach_add_.List", "_foreach_add.List", "_foreach_mul.Scalar",
          "_foreach_mul_.Scalar", "_foreach_mul.Tensor", "_foreach_mul_.Tensor",
          "_foreach_mul.List", "_foreach_mul_.List", "_foreach_lerp_.Scalar", "_foreach_copy_",
          "_foreach_zero_", "_foreach_round_"})
        library.impl(name, torch::CppFunction::makeFromBoxedFunction<&compute_on_host>());
}

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, library) {
    library.fallback(torch::CppFunction::makeFallthrough());
}

namespace at::autocast {
TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
#define PRETEND_LOWER(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, lower_precision_fp)
    AT_FORALL_LOWER_PRECISION_FP(PRETEND_LOWER)
#define PRETEND_FULL(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32)
    AT_FORALL_FP32(PRETEND_FULL)
#define PRETEND_DTYPE(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32_set_opt_dtype)
    AT_FORALL_FP32_SET_OPT_DTYPE(PRETEND_DTYPE)
#define PRETEND_PROMOTE(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, promote)
    AT_FORALL_PROMOTE(PRETEND_PROMOTE)
}
}  // namespace at::autocast
