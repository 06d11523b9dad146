#include "atelier/inference/native_network.h"

#include <ATen/Parallel.h>

#include <mutex>

#include "atelier/backends/native/program_ops.h"
#include "atelier/core/error.h"
#include "atelier/inference/one_step_factors.h"

namespace atelier::inference {

namespace {

constexpr std::int64_t max_native_batch = 64;
/// Samples that a thread computes together when there are enough of them: each weight is read once
/// for all of them, while their activations still fit its cache.
constexpr std::int64_t samples_per_thread = 4;

/// Buffers for one run, taken from a pool and returned to it, so that networks which run in turn
/// share them.
class PooledBuffers {
public:
    /// For `elements` activations and `threads` threads.
    PooledBuffers(std::size_t elements, std::int64_t threads) {
        {
            const std::lock_guard lock(mutex());
            if (!pool().empty()) {
                memory_ = std::move(pool().back());
                pool().pop_back();
            }
        }
        memory_.results.reserve(elements);
        if (memory_.workspaces.size() < static_cast<std::size_t>(threads))
            memory_.workspaces.resize(static_cast<std::size_t>(threads));
    }
    ~PooledBuffers() {
        const std::lock_guard lock(mutex());
        pool().push_back(std::move(memory_));
    }
    PooledBuffers(const PooledBuffers&) = delete;
    PooledBuffers& operator=(const PooledBuffers&) = delete;

    float* begin() { return memory_.results.reserve(0); }
    kernels::Workspace& workspace(std::int64_t thread) {
        return memory_.workspaces[static_cast<std::size_t>(thread)];
    }

private:
    struct Memory {
        kernels::Workspace results;
        std::vector<kernels::Workspace> workspaces;  // one per thread
    };

    static std::mutex& mutex() {
        static std::mutex only;
        return only;
    }
    static std::vector<Memory>& pool() {
        static auto& only = *new std::vector<Memory>;
        return only;
    }

    Memory memory_;
};

/// What programs cannot compute of `network`; empty if they can compute all of it.
std::string unsupported_natively(const networks::Network& network) {
    return backends::unsupported_by_programs(
        *networks::graph_of(network, networks::input_shapes(network)));
}

/// Compiles the model's network, whose inputs are those that `make_inputs(backend)` returns.
template <class MakeInputs>
std::unique_ptr<CompiledNetwork> compile_native(const models::Model& model,
                                                std::vector<std::int64_t> widths,
                                                const MakeInputs& make_inputs) {
    const at::NoGradGuard no_gradients;
    const networks::Network& network = model.network;
    const std::string missing = unsupported_natively(network);
    if (!missing.empty() || model.quantised()) {
        throw core::UsageError(
            fmt::format("--engine native cannot compute this {} ({}); use --engine openvino",
                        network.architecture, missing.empty() ? "int8 weights" : missing));
    }
    backends::ProgramOps backend(model.parameters);
    const networks::InputsOf<backends::ProgramValue> inputs = make_inputs(backend);
    backends::Program program = backend.compiled(
        *networks::graph_of(network, networks::input_shapes(network)), inputs.list());
    model.release_pages();
    return std::make_unique<NativeNetwork>(std::move(program), widths, widths[0]);
}

}  // namespace

class NativeNetwork::NativeBatch : public CompiledNetwork::Batch {
public:
    NativeBatch(NativeNetwork& network, std::int64_t samples)
        : network_(network), samples_(samples) {}

    float* input(std::size_t i) override { return network_.inputs_[i].data(); }
    std::int32_t* rows() override { return network_.rows_.data(); }
    const float* infer() override {
        network_.compute(samples_);
        return network_.output_.data();
    }

private:
    NativeNetwork& network_;
    std::int64_t samples_;
};

NativeNetwork::NativeNetwork(backends::Program program, const std::vector<std::int64_t>& inputs,
                             std::int64_t outputs)
    : program_(std::move(program)), widths_(inputs), inputs_(inputs.size()), outputs_(outputs) {}

void NativeNetwork::for_each_batch(std::int64_t samples, const OnBatch& on_batch) {
    const auto capacity = static_cast<std::size_t>(std::min(samples, max_native_batch));
    if (rows_.size() < capacity) {
        for (std::size_t i = 0; i < inputs_.size(); ++i)
            inputs_[i].resize(capacity * static_cast<std::size_t>(widths_[i]));
        output_.resize(capacity * static_cast<std::size_t>(outputs_));
        rows_.resize(capacity);
    }
    for (std::int64_t first = 0; first < samples; first += max_native_batch) {
        const std::int64_t count = std::min(max_native_batch, samples - first);
        NativeBatch batch(*this, count);
        on_batch(batch, first, count);
    }
}

void NativeNetwork::compute(std::int64_t samples) {
    const std::int64_t threads = at::get_num_threads();
    if (samples < 2 * threads) compute_together(samples, threads);
    else compute_side_by_side(samples, threads);
}

void NativeNetwork::compute_together(std::int64_t samples, std::int64_t threads) {
    std::vector<const float*> inputs;
    for (const auto& input : inputs_) inputs.push_back(input.data());
    PooledBuffers buffers(program_.memory_size(samples), threads);
    kernels::Barrier barrier(threads);
    kernels::run_on_pool(threads, [&](std::int64_t thread) {
        backends::Program::run({program_, buffers.begin(), samples, inputs.data(), rows_.data(),
                                output_.data(), thread, threads, barrier,
                                buffers.workspace(thread)});
    });
}

void NativeNetwork::compute_side_by_side(std::int64_t samples, std::int64_t threads) {
    const std::int64_t rounds = (samples + samples_per_thread * threads - 1) /
                                (samples_per_thread * threads),
                       parts = std::min(samples, rounds * threads);
    std::atomic<std::int64_t> next = 0;
    kernels::run_on_pool(threads, [&](std::int64_t) {
        kernels::Barrier alone(1);
        PooledBuffers buffers(program_.memory_size((samples + parts - 1) / parts), 1);
        std::vector<const float*> inputs(inputs_.size());
        for (std::int64_t part; (part = next.fetch_add(1)) < parts;) {
            const std::int64_t first = part * samples / parts,
                               count = (part + 1) * samples / parts - first;
            for (std::size_t i = 0; i < inputs.size(); ++i)
                inputs[i] = inputs_[i].data() + first * widths_[i];
            backends::Program::run({program_, buffers.begin(), count, inputs.data(),
                                    rows_.data() + first, output_.data() + first * outputs_, 0, 1,
                                    alone, buffers.workspace(0)});
        }
    });
}

bool native_supports(const networks::Network& network) {
    return unsupported_natively(network).empty();
}

bool native_pays(const networks::Network& network) {
    if (!native_supports(network)) return false;
    std::int64_t parameters = 0;
    for (const auto& one : networks::trace(network).parameters)
        parameters += graph::elements(one.shape);
    return parameters <= 16'000'000;
}

std::unique_ptr<CompiledNetwork> native_network(const models::Model& model) {
    const networks::Network& network = model.network;
    std::vector<std::int64_t> widths{graph::elements(network.data_shape), 1};
    if (network.label_dim > 0) widths.push_back(network.label_dim);
    return compile_native(model, widths, [&](backends::ProgramOps& backend) {
        networks::InputsOf<backends::ProgramValue> inputs{backend.input(0, network.data_shape),
                                                          backend.input(1, {})};
        if (network.label_dim > 0) inputs.labels = backend.input(2, {network.label_dim});
        return inputs;
    });
}

std::unique_ptr<CompiledNetwork> native_one_level(const models::Model& model,
                                                  const std::vector<std::int64_t>& classes) {
    const networks::Network& network = model.network;
    return compile_native(
        model, {graph::elements(network.data_shape)}, [&](backends::ProgramOps& backend) {
            return one_step_inputs(model, classes, backend.input(0, network.data_shape));
        });
}

}  // namespace atelier::inference
