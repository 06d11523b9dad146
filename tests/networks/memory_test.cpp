#include <c10/core/CPUAllocator.h>

#include <map>
#include <mutex>

#include "graph/every_op.h"
#include "networks/network_fixtures.h"

namespace atelier::networks {
namespace {

const nlohmann::json& unet() {
    static const nlohmann::json config{{"architecture", "adm_unet"},
                                       {"resolution", 16},
                                       {"channels", 3},
                                       {"classes", 4},
                                       {"model_channels", 64},
                                       {"channel_mult", {1, 2}},
                                       {"num_blocks", 1},
                                       {"attention_resolutions", {8}}};
    return config;
}

std::vector<Tensor> gradients(const Network& network, const backends::Parameters& parameters,
                              bool recompute, std::optional<at::ScalarType> type = {}) {
    TensorInputs inputs = inputs_for(network, 3);
    Tensor x = inputs.x.clone().set_requires_grad(true);
    inputs.x = x;
    Tensor value;
    {
        const backends::LowPrecision precision(at::kCPU, type);
        backends::TorchOps backend(parameters, "", recompute);
        value = forward(network, backend, inputs).raw.to(at::kFloat).square().mean();
    }
    std::vector<Tensor> inputs_with_gradients = parameters.list();
    inputs_with_gradients.push_back(x);
    return torch::autograd::grad({value}, inputs_with_gradients);
}

TEST(ActivationCheckpointing, changes_gradients_only_by_rounding) {
    const Network network = network_of(unet());
    const backends::Parameters parameters = backends::filled(trace(network).parameters);
    parameters.require_gradients(true);
    for (const auto type : {std::optional<at::ScalarType>(), std::optional(at::kBFloat16)}) {
        const auto plain = gradients(network, parameters, false, type),
                   again = gradients(network, parameters, true, type);
        for (std::size_t i = 0; i < plain.size(); ++i) {
            const double scale = plain[i].norm().item<double>();
            ASSERT_GT(scale, 0) << i;
            EXPECT_LT((plain[i] - again[i]).norm().item<double>() / scale, type ? 2e-2 : 1e-5) << i;
        }
    }
}

/// Counts the bytes of LibTorch's tensors on the CPU that are allocated while it lives.
class CountingAllocator final : public c10::Allocator {
public:
    CountingAllocator() : former_(c10::GetCPUAllocator()) { c10::SetCPUAllocator(this, 255); }
    ~CountingAllocator() override { c10::SetCPUAllocator(former_, 255); }
    CountingAllocator(const CountingAllocator&) = delete;
    CountingAllocator& operator=(const CountingAllocator&) = delete;

    static double bytes() {
        const std::lock_guard lock(mutex_);
        return static_cast<double>(bytes_);
    }

    c10::DataPtr allocate(std::size_t size) override {
        c10::DataPtr memory = former_->allocate(size);
        void* const data = memory.get();
        const std::lock_guard lock(mutex_);
        bytes_ += size;
        blocks_.insert_or_assign(data, std::pair(size, std::move(memory)));
        return {data, data, &release, c10::Device(c10::kCPU)};
    }
    c10::DeleterFnPtr raw_deleter() const override { return &release; }
    void copy_data(void* to, const void* from, std::size_t size) const override {
        default_copy_data(to, from, size);
    }

private:
    static void release(void* data) {
        const std::lock_guard lock(mutex_);
        const auto block = blocks_.extract(data);
        if (!block.empty()) bytes_ -= block.mapped().first;
    }

    c10::Allocator* former_;
    // Tensors may outlive an allocator.
    static inline std::mutex mutex_;
    static inline std::size_t bytes_ = 0;
    static inline std::map<void*, std::pair<std::size_t, c10::DataPtr>> blocks_;
};

/// Bytes that autograd retains after a forward pass: what was allocated and is still held.
double retained_bytes(const Network& network, bool recompute) {
    const backends::Parameters parameters = backends::filled(trace(network).parameters);
    parameters.require_gradients(true);
    const TensorInputs inputs = inputs_for(network, 3);
    const CountingAllocator allocator;
    const double before = allocator.bytes();
    backends::TorchOps backend(parameters, "", recompute);
    const Tensor value = forward(network, backend, inputs).raw.square().mean();
    return allocator.bytes() - before;
}

TEST(ActivationCheckpointing, retains_only_the_inputs_of_blocks) {
    const Network network = network_of(unet());
    const double all = retained_bytes(network, false), inputs = retained_bytes(network, true);
    EXPECT_LT(inputs, 0.4 * all);
    const auto estimate = [&](bool recompute) {
        return trace(network, {.backward = true, .recompute = recompute}).memory;
    };
    EXPECT_LT(estimate(true).retained, 0.4 * estimate(false).retained);
    EXPECT_GT(estimate(true).block, 0);
    EXPECT_LT(trace(network).memory.peak, estimate(false).retained) << "of inference";
}

TEST(ActivationCheckpointing, double_backward_is_rejected_with_a_message) {
    const Network network = network_of(unet());
    const backends::Parameters parameters = backends::filled(trace(network).parameters);
    parameters.require_gradients(true);
    backends::TorchOps backend(parameters, "", true);
    TensorInputs inputs = inputs_for(network, 2);
    const Tensor x = inputs.x.clone().set_requires_grad(true);
    inputs.x = x;
    const Tensor value = forward(network, backend, inputs).raw.sum();
    const std::string message = core::error_of<std::exception>(
        [&] { torch::autograd::grad({value}, {x}, {}, std::nullopt, /*create_graph=*/true); });
    EXPECT_NE(message.find("does not support double backward"), std::string::npos) << message;
    EXPECT_NE(message.find("DoubleBackwardGuard"), std::string::npos) << "the remedy: " << message;
}

TEST(MemoryEstimate, grows_with_width_and_halves_with_precision) {
    nlohmann::json wide = unet();
    wide["model_channels"] = 128;
    const double narrow = trace(network_of(unet()), {.backward = true}).memory.retained;
    EXPECT_NEAR(trace(network_of(wide), {.backward = true}).memory.retained / narrow, 2.0, 0.1);
    EXPECT_NEAR(
        trace(network_of(unet()), {.backward = true, .element_size = 2}).memory.retained / narrow,
        0.5, 0.02);
}

TEST(MemoryEstimate, of_a_chain_matches_a_count_by_hand) {
    // x (outside) -> conv a -> norm b (retains a) -> conv c (retains b): a, b and c have 2*4*4*4
    // elements each.
    const graph::Graph chain =
        graph::record({{2, 3, 4, 4}}, [](graph::Builder& ops, std::span<const graph::Value> in) {
            const graph::Value a = ops.conv2d(in[0], "a", {.out_channels = 4});
            const graph::Value b = ops.group_norm(a, "b", {.groups = 2});
            return std::vector{ops.conv2d(b, "c", {.out_channels = 4})};
        });
    constexpr double each = 2 * 4 * 4 * 4 * 4;
    const graph::MemoryEstimate training = graph::memory(chain, {.backward = true}),
                                inference = graph::memory(chain, {});
    EXPECT_EQ(training.peak, 3 * each);
    EXPECT_EQ(training.retained, 2 * each)
        << "the result is freed, what the backward pass reads is retained";
    EXPECT_EQ(inference.retained, 0);
    EXPECT_EQ(inference.peak, 2 * each) << "a is freed before c is computed";
}

/// One op on values that nothing else retains, and how far the estimate may be off: `over` is the
/// share by which it may be larger than what LibTorch retains.
struct OpCase {
    std::string name;  // of the op
    std::vector<graph::Shape> inputs;
    graph::Body layer;
    double over = 0.1;
};

std::vector<OpCase> op_cases() {
    using graph::Builder;
    using In = std::span<const graph::Value>;
    const graph::Shape image{2, 32, 16, 16}, tokens{2, 256, 64}, others{2, 192, 64};
    const auto resampled = [](graph::Resample mode) {
        return [mode](Builder& ops, In in) { return ops.resample(in[0], mode); };
    };
    return {
        {"conv2d",
         {image},
         [](Builder& ops, In in) { return ops.conv2d(in[0], "a", {.out_channels = 8}); }},
        {"linear",
         {tokens},
         [](Builder& ops, In in) { return ops.linear(in[0], "a", {.out_features = 8}); }},
        {"group_norm",
         {image},
         [](Builder& ops, In in) { return ops.group_norm(in[0], "a", {.groups = 4}); }},
        {"layer_norm",
         {tokens},
         [](Builder& ops, In in) { return ops.layer_norm(in[0], "a", 1e-5); }},
        {"rms_norm",
         {tokens},
         [](Builder& ops, In in) { return ops.rms_norm(in[0], "a", {.heads = 2, .eps = 1e-6}); },
         0.6},
        // The estimate is of LibTorch's own operations, which retain the result too.
        {"attention",
         {{2, 96, 16, 16}},
         [](Builder& ops, In in) { return ops.attention(in[0], 2); },
         0.4},
        {"token_attention",
         {tokens, others, others},
         [](Builder& ops, In in) {
             return ops.token_attention(in[0], in[1], in[2], {.heads = 2});
         }},
        {"token_attention",
         {tokens},
         [](Builder& ops, In in) {
             return ops.token_attention(in[0], in[0], in[0], {.heads = 2, .causal = true});
         }},
        {"resample", {image}, resampled(graph::Resample::up)},
        {"resample", {image}, resampled(graph::Resample::down)},
        {"resample", {image}, resampled(graph::Resample::smooth_up)},
        {"resample", {image}, resampled(graph::Resample::smooth_down)},
        {"concat", {image, image}, [](Builder& ops, In in) { return ops.concat(in[0], in[1]); }},
        {"add", {image, image}, [](Builder& ops, In in) { return ops.add(in[0], in[1]); }},
        {"slice", {image}, [](Builder& ops, In in) { return ops.slice(in[0], 4, 8); }},
        {"multiply",
         {image, image},
         [](Builder& ops, In in) { return ops.multiply(in[0], in[1]); }},
        {"relu", {image}, [](Builder& ops, In in) { return ops.relu(in[0]); }},
        {"tanh", {image}, [](Builder& ops, In in) { return ops.tanh(in[0]); }},
        {"cropped_positions",
         {tokens},
         [](Builder& ops, In in) {
             return ops.cropped_positions(in[0], "a", {.side = 20, .height = 16, .width = 16});
         }},
        {"grid_sinusoid",
         {tokens},
         [](Builder& ops, In in) {
             return ops.grid_sinusoid(in[0], {.height = 16, .width = 16, .base = 16});
         }},
        {"scale", {image}, [](Builder& ops, In in) { return ops.scale(in[0], 0.5); }},
        {"silu", {image}, [](Builder& ops, In in) { return ops.silu(in[0]); }},
        {"pixel_unshuffle",
         {image},
         [](Builder& ops, In in) { return ops.pixel_unshuffle(in[0], 2); }},
        {"pixel_shuffle", {image}, [](Builder& ops, In in) { return ops.pixel_shuffle(in[0], 2); }},
        {"global_average", {image}, [](Builder& ops, In in) { return ops.global_average(in[0]); }},
        {"add_positions",
         {tokens},
         [](Builder& ops, In in) { return ops.add_positions(in[0], "a", 256); }},
        {"gelu", {tokens}, [](Builder& ops, In in) { return ops.gelu(in[0]); }},
        {"quick_gelu", {tokens}, [](Builder& ops, In in) { return ops.quick_gelu(in[0]); }},
        {"geglu", {tokens}, [](Builder& ops, In in) { return ops.geglu(in[0]); }},
        {"tokens", {image}, [](Builder& ops, In in) { return ops.tokens(in[0]); }},
        {"image", {tokens}, [](Builder& ops, In in) { return ops.image(in[0], 16, 16); }},
        {"pad_corner", {image}, [](Builder& ops, In in) { return ops.pad_corner(in[0]); }},
    };
}

/// What the backward pass of a graph retains: estimated, and held by autograd.
std::pair<double, double> retained_by(const OpCase& tested) {
    const graph::Graph graph =
        graph::record(tested.inputs, [&](graph::Builder& ops, std::span<const graph::Value> in) {
            std::vector<graph::Value> values;
            for (const graph::Value input : in) values.push_back(ops.scale(input, 2));
            return std::vector{tested.layer(ops, values)};
        });
    const backends::Parameters parameters = backends::filled(graph.parameters);
    parameters.require_gradients(true);
    std::vector<Tensor> inputs;
    for (const graph::Shape& shape : tested.inputs)
        inputs.push_back(backends::normal(shape, "x").set_requires_grad(true));
    const CountingAllocator allocator;
    const double before = allocator.bytes();
    const Tensor value = backends::TorchOps(parameters).run(graph, inputs)[0].sum();
    return {graph::memory(graph, {.backward = true}).retained, allocator.bytes() - before};
}

TEST(MemoryEstimate, of_every_op_is_what_autograd_retains) {
    constexpr double small = 8192;  // moments and scalars; each input has 64 KB or more
    std::set<std::string> tried{"input", "block", "sinusoid", "fourier", "embedding"};
    for (const OpCase& tested : op_cases()) {
        tried.insert(tested.name);
        const auto [estimated, held] = retained_by(tested);
        EXPECT_GT(estimated, held - small) << tested.name;
        EXPECT_LT(estimated, held * (1 + tested.over) + small) << tested.name;
    }
    EXPECT_EQ(tried, graph::names_of_all_ops()) << "a new op needs a case here";
}

}  // namespace
}  // namespace atelier::networks
