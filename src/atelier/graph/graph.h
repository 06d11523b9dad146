#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

/// The op set, one struct per op, and the graph that a network's function records (builder.h).
/// Everything else is a pass over that graph (cost.h, constants.h) or a backend that lowers its ops
/// (execute.h). Torch-free.
///
/// Images are [N,C,H,W], features [N,F], tokens [N,T,F]. `op_name` is the op's name in messages;
/// `name`, which the builder sets, that of a layer's parameters without ".weight" and ".bias".
namespace atelier::graph {

/// Sizes along each axis, outermost first.
using Shape = std::vector<std::int64_t>;

std::int64_t elements(const Shape& shape);

/// How a weight is initialised: uniform in +-gain/sqrt(fan_in), or normal with standard deviation
/// gain/sqrt(fan_in); biases are uniform in +-gain/sqrt(fan_in) too, and a gain of 0 gives zeros.
/// Xavier: uniform in +-gain sqrt(6/(fan_in+fan_out)), biases 0.
struct Init {
    enum class Kind { uniform, normal, xavier };
    Kind kind = Kind::uniform;
    double gain = 1.0;
};

inline constexpr Init zeros{Init::Kind::uniform, 0.0};

/// A parameter that a network reads.
struct ParameterSpec {
    std::string name;
    Shape shape;
    Init init;
    std::int64_t fan_in;
    double base = 0.0;  // added to the random value: 1 for the weights of norms
};

struct Graph;

/// What the graph is run on; `nodes` of this op are listed in Graph::inputs.
struct Input {
    static constexpr const char* op_name = "input";
};

struct Conv2d {
    static constexpr const char* op_name = "conv2d";
    std::int64_t out_channels;
    std::int64_t kernel = 3;
    std::int64_t stride = 1;
    std::int64_t padding = 1;
    bool bias = true;
    Init init{};
    std::string name{};
};

/// Of features, or of each token by itself.
struct Linear {
    static constexpr const char* op_name = "linear";
    std::int64_t out_features;
    bool bias = true;
    Init init{};
    std::string name{};
};

/// With a second input [N,2C] of scale and shift, norm(x)*(1+scale)+shift, before SiLU.
struct GroupNorm {
    static constexpr const char* op_name = "group_norm";
    std::int64_t groups;
    double eps = 1e-5;
    bool silu = false;  // apply SiLU to the result
    std::string name{};
};

/// Of features, or of each token by itself; without parameters unless `affine`.
struct LayerNorm {
    static constexpr const char* op_name = "layer_norm";
    double eps;
    bool affine = true;
    std::string name{};
};

/// Of tokens [N,T,C], each of `heads` parts of C/heads by itself: x / sqrt(mean(x^2) + eps) times
/// the weights [C/heads] that all heads share.
struct RmsNorm {
    static constexpr const char* op_name = "rms_norm";
    std::int64_t heads;
    double eps;
    std::string name{};
};

/// Self-attention of the ADM U-Net: [N,3C,H,W] holds q, k, v interleaved per channel, viewed as
/// [N*heads, C/heads, 3, H*W]; softmax over keys of q.k/sqrt(C/heads): [N,C,H,W].
struct Attention {
    static constexpr const char* op_name = "attention";
    std::int64_t heads;
};

/// Queries [N,T,C] attend to keys and values [N,S,C] in `heads` heads of C/heads, softmax over keys
/// of q.k/sqrt(C/heads): [N,T,C]. `causal`: each token attends to itself and those before it.
struct TokenAttention {
    static constexpr const char* op_name = "token_attention";
    std::int64_t heads;
    bool causal = false;
};

/// By a factor of 2. `up` repeats pixels, `down` averages 2x2 boxes; the smooth modes filter with
/// [1,3,3,1]/8 along both axes, with zeros beyond the edges. `smooth_down_valid` does not pad
/// instead: height and width h become h/2 - 1.
enum class Resample { none, up, down, smooth_up, smooth_down, smooth_down_valid };

struct Resampling {
    static constexpr const char* op_name = "resample";
    Resample mode;
};

/// Along axis 1.
struct Concat {
    static constexpr const char* op_name = "concat";
};

/// `count` elements along axis 1, from `first` on.
struct Slice {
    static constexpr const char* op_name = "slice";
    std::int64_t first, count;
};

/// Of equal shapes, or [N,C,H,W] and [N,C], added to every pixel, or [N,T,C] and [N,C], added to
/// every token.
struct Add {
    static constexpr const char* op_name = "add";
};

/// Of equal shapes, or [N,T,C] and [N,C], by which every token is multiplied.
struct Multiply {
    static constexpr const char* op_name = "multiply";
};

/// factor x + shift
struct Scale {
    static constexpr const char* op_name = "scale";
    double factor, shift = 0;
};

struct Silu {
    static constexpr const char* op_name = "silu";
};
struct Relu {
    static constexpr const char* op_name = "relu";
};
struct Tanh {
    static constexpr const char* op_name = "tanh";
};

/// Positional embedding of one scalar per sample: [N] -> [N,width], cos(x f_i) then sin(x f_i) (the
/// ADM U-Net's time embedding), or the sines first (DDPM++'s, with endpoint); of several, one after
/// the other: [N,M] -> [N,M*width]. Frequencies f_i =
/// (1/10000)^(i/(width/2)), i from 0 to width/2-1; with `endpoint`, i/(width/2-1).
struct Sinusoid {
    static constexpr const char* op_name = "sinusoid";
    std::int64_t width;
    bool endpoint = false;
    bool sines_first = false;
};

/// Fourier features of one scalar per sample (NCSN++): [N] -> [N,width], sin(2 pi x f_i) then
/// cos(2 pi x f_i), with random frequencies that are never trained, the tensor `name` [width/2].
struct Fourier {
    static constexpr const char* op_name = "fourier";
    std::int64_t width;
    std::string name{};
};

/// [N,C,H,W] -> [N,C*factor^2,H/factor,W/factor], and back. Channel (c*factor + i)*factor + j is
/// pixel (i,j) of a block; where `blocks_first`, channel (i*factor + j)*C + c.
struct PixelUnshuffle {
    static constexpr const char* op_name = "pixel_unshuffle";
    std::int64_t factor;
};
struct PixelShuffle {
    static constexpr const char* op_name = "pixel_shuffle";
    std::int64_t factor;
    bool blocks_first = false;
};

/// Mean over height and width: [N,C,H,W] -> [N,C].
struct GlobalAverage {
    static constexpr const char* op_name = "global_average";
};

/// The rows ids [N,T] or [N] (int64) of the embedding table `name`.weight [rows,width]: [N,T,width]
/// or [N,width].
struct Embedding {
    static constexpr const char* op_name = "embedding";
    std::int64_t rows, width;
    std::string name{};
};

/// Adds row t of the embedding table `name`.weight [rows,F] to token t of x [N,T,F].
struct AddPositions {
    static constexpr const char* op_name = "add_positions";
    std::int64_t rows;
    std::string name{};
};

/// Adds to the tokens of an image of height x width, row by row, the middle of the table `name`
/// [1,side*side,F], which is an image of side x side itself and never trained.
struct CroppedPositions {
    static constexpr const char* op_name = "cropped_positions";
    std::int64_t side, height, width;
    std::string name{};
};

/// Adds to token (i,j) of an image of height x width, row by row, the sinusoids of its coordinates
/// x = j base/width and y = i base/height (grid_table in sinusoid.h).
struct GridSinusoid {
    static constexpr const char* op_name = "grid_sinusoid";
    std::int64_t height, width, base;
};

/// x Phi(x), exactly, or with tanh: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
struct Gelu {
    static constexpr const char* op_name = "gelu";
    bool tanh = false;
};

/// x sigmoid(1.702 x)
struct QuickGelu {
    static constexpr const char* op_name = "quick_gelu";
};

/// [N,T,2F] -> [N,T,F]: the first half times gelu of the second
struct Geglu {
    static constexpr const char* op_name = "geglu";
};

/// [N,C,H,W] -> [N,H*W,C], row by row, and back.
struct Tokens {
    static constexpr const char* op_name = "tokens";
};
struct Image {
    static constexpr const char* op_name = "image";
    std::int64_t height, width;
};

/// Pads a row of zeros below and a column of zeros on the right: [N,C,H,W] -> [N,C,H+1,W+1].
struct PadCorner {
    static constexpr const char* op_name = "pad_corner";
};

/// A part of a network with one output, whose inner values a backend need not keep for the backward
/// pass: it may run `body` a second time there.
struct Block {
    static constexpr const char* op_name = "block";
    std::shared_ptr<const Graph> body;
};

using Op = std::variant<Input, Conv2d, Linear, GroupNorm, LayerNorm, RmsNorm, Attention,
                        TokenAttention, Resampling, Concat, Slice, Add, Multiply, Scale, Silu, Relu,
                        Tanh, Sinusoid, Fourier, PixelUnshuffle, PixelShuffle, GlobalAverage,
                        Embedding, AddPositions, CroppedPositions, GridSinusoid, Gelu, QuickGelu,
                        Geglu, Tokens, Image, PadCorner, Block>;

/// The name of an op in messages.
inline const char* name_of(const Op& op) {
    return std::visit([]<class O>(const O&) { return O::op_name; }, op);
}

/// What an op computes, by the index of its node.
struct Value {
    static constexpr std::uint32_t nothing = ~std::uint32_t{0};
    std::uint32_t node = nothing;

    bool has_value() const { return node != nothing; }
    bool operator==(const Value&) const = default;
};

struct Node {
    Op op;
    std::vector<Value> inputs;
    Shape shape;
    /// Values, possibly its own, that nothing reads after this node and that are no outputs.
    std::vector<Value> last_reads{};
};

/// Nodes in the order in which a network adds them: each reads earlier ones. The first axis is the
/// batch; nothing but shapes depends on its size.
struct Graph {
    std::vector<Node> nodes;
    std::vector<Value> inputs, outputs;
    std::vector<ParameterSpec> parameters;  // in the order in which they are read, blocks included

    const Shape& shape(Value value) const { return nodes[value.node].shape; }
};

/// Fills in Node::last_reads once nodes and outputs are complete.
void find_last_reads(Graph& graph);

}  // namespace atelier::graph
