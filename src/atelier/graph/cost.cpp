#include "atelier/graph/cost.h"

#include <algorithm>

#include "atelier/graph/execute.h"

namespace atelier::graph {

namespace {

double number_of(const Shape& shape) { return static_cast<double>(elements(shape)); }

/// The work of a node, by its op.
struct NodeFlops {
    /// Ops that move numbers, or visit each a few times: nothing beside the products.
    using Free = OpList<Input, GroupNorm, LayerNorm, RmsNorm, Resampling, Concat, Slice, Add,
                        Multiply, Scale, Silu, Relu, Tanh, Sinusoid, Fourier, PixelUnshuffle,
                        PixelShuffle, GlobalAverage, Embedding, AddPositions, CroppedPositions,
                        GridSinusoid, Gelu, QuickGelu, Geglu, Tokens, Image, PadCorner>;

    const Graph& graph;
    const Node& node;

    const Shape& from(std::size_t i) const { return graph.shape(node.inputs[i]); }

    template <class Op>
        requires(Free::contains<Op>)
    double operator()(const Op&) const {
        return 0;
    }
    double operator()(const Conv2d& layer) const {
        return 2 * number_of(node.shape) *
               static_cast<double>(from(0)[1] * layer.kernel * layer.kernel);
    }
    double operator()(const Linear& layer) const {
        return 2 * number_of(from(0)) * static_cast<double>(layer.out_features);
    }
    double operator()(const Attention&) const {
        const Shape& qkv = from(0);
        const auto positions = static_cast<double>(qkv[2] * qkv[3]);
        return 4 * static_cast<double>(qkv[0] * qkv[1] / 3) * positions * positions;
    }
    double operator()(const TokenAttention&) const {
        return 4 * number_of(from(0)) * static_cast<double>(from(1)[1]);
    }
    double operator()(const Block& block) const { return flops(*block.body); }
};

double flops_of(const Graph& graph, const Node& node) {
    return std::visit(
        [count = NodeFlops{graph, node}]<class Op>(const Op& op) -> double {
            static_assert(std::is_invocable_v<const NodeFlops&, const Op&>,
                          "say what the work of this Op is, or list it in NodeFlops::Free");
            if constexpr (std::is_invocable_v<const NodeFlops&, const Op&>) return count(op);
            else return 0;
        },
        node.op);
}

/// A value computed by an op. An input of the graph is a null pointer and costs nothing.
struct Activation {
    double elements, width;
    MemoryEstimate& memory;
    bool saved = false;

    Activation(const Shape& shape, double bytes_per_element, MemoryEstimate& estimate)
        : elements(number_of(shape)), width(bytes_per_element), memory(estimate) {}
    Activation(const Activation&) = delete;
    ~Activation() {
        if (!saved) memory.retained -= bytes();
    }

    double bytes() const { return width * elements; }
};

/// A backend whose values are activations: it counts what they occupy.
class MemoryCounter {
public:
    using Unsupported = OpList<>;
    using Handle = std::shared_ptr<Activation>;
    using In = Call<Handle>;

    explicit MemoryCounter(const ActivationPolicy& policy) : policy_(policy) {}

    const MemoryEstimate& estimate() const { return estimate_; }

    /// Ops whose backward passes read none of their inputs.
    using ReadNothing = OpList<Concat, Slice, Add, Scale, PixelUnshuffle, PixelShuffle,
                               GlobalAverage, GridSinusoid, Tokens, Image, PadCorner>;
    template <class Op>
        requires(ReadNothing::contains<Op>)
    Handle lower(const Op&, const In& in) {
        return output(in.shape());
    }

    Handle lower(const Conv2d& layer, const In& in) {
        count(static_cast<double>(layer.out_channels) *
              static_cast<double>(in.shape_of(0)[1] * layer.kernel * layer.kernel +
                                  (layer.bias ? 1 : 0)));
        return product(in);
    }
    Handle lower(const Linear& layer, const In& in) {
        count(static_cast<double>(layer.out_features) *
              static_cast<double>(in.shape_of(0).back() + (layer.bias ? 1 : 0)));
        return product(in);
    }
    Handle lower(const GroupNorm& layer, const In& in) {
        count(static_cast<double>(2 * in.shape()[1]));
        if (policy_.fused_norm) return reads_input(in);
        // The modulation's product retains the normalised values, SiLU its input.
        save(in[0], policy_.element_size);
        const double steps = (in.count() > 1 ? 1 : 0) + (layer.silu ? 1 : 0);
        save_bytes(steps * policy_.element_size * number_of(in.shape()));
        return output(in.shape());
    }
    Handle lower(const LayerNorm& layer, const In& in) {
        if (layer.affine) count(static_cast<double>(2 * in.shape().back()));
        return reads_input(in);
    }
    Handle lower(const RmsNorm& layer, const In& in) {
        count(static_cast<double>(in.shape().back() / layer.heads));
        save_result(in);  // the normalised values
        return reads_input(in);
    }
    Handle lower(const Attention&, const In& in) {
        // Queries, keys and values are copied to another layout and retained with the result; the
        // scores are not.
        const double saved = policy_.element_size * number_of(in.shape_of(0)) * 4 / 3;
        if (policy_.backward) save_bytes(saved);
        else estimate_.peak = std::max(estimate_.peak, estimate_.retained + saved);
        return output(in.shape());
    }
    Handle lower(const TokenAttention&, const In& in) {
        for (const Handle& read : in.in) save(read, policy_.element_size);
        save_result(in);  // before its heads are joined
        return output(in.shape());
    }
    Handle lower(const Resampling& layer, const In& in) {
        return layer.mode == Resample::up ? output(in.shape()) : reads_input(in);
    }
    Handle lower(const Multiply&, const In& in) {
        save(in[1], policy_.element_size);
        return reads_input(in);
    }
    Handle lower(const Silu&, const In& in) { return reads_input(in); }
    Handle lower(const Relu&, const In& in) { return reads_input(in); }
    Handle lower(const Tanh&, const In& in) { return reads_input(in); }
    Handle lower(const Gelu&, const In& in) { return reads_input(in); }
    Handle lower(const QuickGelu&, const In& in) {
        save_result(in);  // the sigmoid
        return reads_input(in);
    }
    Handle lower(const Geglu&, const In& in) {
        save_result(in);  // the gelu of the second half
        return reads_input(in);
    }
    Handle lower(const Sinusoid&, const In& in) { return output(in.shape(), 4); }
    Handle lower(const Fourier& layer, const In& in) {
        count(static_cast<double>(layer.width / 2));
        return output(in.shape(), 4);
    }
    Handle lower(const Embedding& layer, const In& in) {
        count(static_cast<double>(layer.rows * layer.width));
        return output(in.shape());
    }
    Handle lower(const AddPositions& layer, const In& in) {
        count(static_cast<double>(layer.rows * in.shape()[2]));
        return output(in.shape());
    }
    Handle lower(const CroppedPositions& layer, const In& in) {
        count(static_cast<double>(layer.side * layer.side * in.shape()[2]));
        return output(in.shape());
    }

    Handle lower(const Block& block, const In& in) {
        if (!policy_.backward || !policy_.recompute)
            return execute<Handle>(*block.body, *this, in.in)[0];
        for (const Handle& input : in.in) {
            if (input) input->saved = true;
        }
        double inside = 0;
        block_bytes_ = &inside;
        Handle out = execute<Handle>(*block.body, *this, in.in)[0];
        block_bytes_ = nullptr;
        estimate_.block = std::max(estimate_.block, inside);
        record_layer();
        return out;
    }

private:
    Handle output(const Shape& shape) { return output(shape, policy_.element_size); }
    Handle output(const Shape& shape, double width) {
        auto activation = std::make_shared<Activation>(shape, width, estimate_);
        allocate(activation->bytes());
        return activation;
    }
    /// The result of an op whose backward pass reads its (first) input.
    Handle reads_input(const In& in) {
        save(in[0], policy_.element_size);
        return output(in.shape());
    }
    /// The result of a convolution or a linear layer.
    Handle product(const In& in) {
        Handle y = reads_input(in);
        if (block_bytes_ == nullptr) record_layer();
        return y;
    }
    /// Marks `x` as read by the backward pass with `width` bytes per element: itself, or a copy.
    void save(const Handle& x, double width) {
        if (!policy_.backward || !x) return;
        if (x->width != width) return save_bytes(width * x->elements);
        if (block_bytes_ != nullptr) *block_bytes_ += x->bytes();
        else x->saved = true;
    }
    /// Retains another value of the result's shape.
    void save_result(const In& in) { save_bytes(policy_.element_size * number_of(in.shape())); }
    void save_bytes(double bytes) {
        if (!policy_.backward) return;
        if (block_bytes_ != nullptr) *block_bytes_ += bytes;
        else allocate(bytes);
    }
    void allocate(double bytes) {
        estimate_.retained += bytes;
        estimate_.peak = std::max(estimate_.peak, estimate_.retained);
        estimate_.largest = std::max(estimate_.largest, bytes);
    }
    void count(double parameters) { parameter_count_ += parameters; }
    void record_layer() { estimate_.layers.push_back({estimate_.retained, parameter_count_}); }

    ActivationPolicy policy_;
    MemoryEstimate estimate_;
    double parameter_count_ = 0;
    double* block_bytes_ = nullptr;  // counts what the current block would retain
};

}  // namespace

double flops(const Graph& graph) {
    double total = 0;
    for (const Node& node : graph.nodes) total += flops_of(graph, node);
    return total;
}

MemoryEstimate memory(const Graph& graph, const ActivationPolicy& policy) {
    MemoryCounter counter(policy);
    const std::vector<MemoryCounter::Handle> inputs(graph.inputs.size());
    execute<MemoryCounter::Handle>(graph, counter, inputs);
    return counter.estimate();
}

}  // namespace atelier::graph
