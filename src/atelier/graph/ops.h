#pragma once

#include <any>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

/// The op set in which networks are written. A network names its layers; a backend decides what a
/// layer does: TorchOps computes it, ShapeOps only follows shapes, lists the parameters and counts
/// the work. Torch-free.
namespace atelier::graph {

/// Sizes along each axis, outermost first.
using Shape = std::vector<std::int64_t>;

/// A tensor as the backend at hand represents it.
using Value = std::any;

/// How a weight is initialised: uniform in +-gain/sqrt(fan_in), or normal with standard deviation
/// gain/sqrt(fan_in); biases are uniform in +-gain/sqrt(fan_in) too, and a gain of 0 gives zeros.
/// Xavier: uniform in +-gain sqrt(6/(fan_in+fan_out)), biases 0.
struct Init {
    enum class Kind { uniform, normal, xavier };
    Kind kind = Kind::uniform;
    double gain = 1.0;
};

inline constexpr Init zeros{Init::Kind::uniform, 0.0};

struct Convolution {
    std::int64_t out_channels;
    std::int64_t kernel = 3;
    std::int64_t stride = 1;
    std::int64_t padding = 1;
    Init init{};
};

struct Linear {
    std::int64_t out_features;
    bool bias = true;
    Init init{};
};

struct GroupNorm {
    std::int64_t groups;
    double eps = 1e-5;
    bool silu = false;  // apply SiLU to the result
    const Value* modulation =
        nullptr;  // [N,2C] scale and shift: norm(x)*(1+scale)+shift, before SiLU
};

/// By a factor of 2. `up` repeats pixels, `down` averages 2x2 boxes; the smooth modes filter with
/// [1,3,3,1]/8 along both axes, with zeros beyond the edges. `smooth_down_valid` does not pad
/// instead: height and width h become h/2 - 1.
enum class Resample { none, up, down, smooth_up, smooth_down, smooth_down_valid };

/// Frequencies f_i = (1/10000)^(i/(width/2)), i from 0 to width/2-1; with `endpoint`,
/// i/(width/2-1).
struct Sinusoid {
    std::int64_t width;
    bool endpoint = false;
    bool sines_first = false;
};

/// Attention of tokens in `heads` heads of C/heads, softmax over keys of q.k/sqrt(C/heads);
/// `causal`: each token attends to itself and those before it.
struct TokenAttention {
    std::int64_t heads;
    bool causal = false;
};

/// One function per layer. `name` is the parameters' name without ".weight" and ".bias". Images are
/// [N,C,H,W], features [N,F], tokens [N,T,F]; linear, layer_norm, add and scale also take tokens,
/// each token by itself.
class Ops {
public:
    virtual ~Ops() = default;

    virtual Shape shape(const Value& x) const = 0;

    virtual Value conv2d(const Value& x, const std::string& name, const Convolution& layer) = 0;
    virtual Value linear(const Value& x, const std::string& name, const Linear& layer) = 0;
    virtual Value group_norm(const Value& x, const std::string& name, const GroupNorm& layer) = 0;
    virtual Value layer_norm(const Value& x, const std::string& name, double eps) = 0;

    /// Self-attention of the ADM U-Net: `qkv` [N,3C,H,W] holds q, k, v interleaved per channel,
    /// viewed as [N*heads, C/heads, 3, H*W]; softmax over keys of q.k/sqrt(C/heads). Returns
    /// [N,C,H,W].
    virtual Value attention(const Value& qkv, std::int64_t heads) = 0;

    virtual Value resample(const Value& x, Resample mode) = 0;
    virtual Value concat(const Value& a, const Value& b) = 0;  // along axis 1
    virtual Value add(
        const Value& a,
        const Value& b) = 0;  // equal shapes, or [N,C,H,W] and [N,C], added to every pixel
    virtual Value scale(const Value& x, double factor) = 0;
    virtual Value silu(const Value& x) = 0;

    /// Positional embedding of one scalar per sample: [N] -> [N,width], cos(x f_i) then sin(x f_i)
    /// (the ADM U-Net's time embedding), or the sines first (DDPM++'s, with endpoint).
    virtual Value sinusoid(const Value& x, const Sinusoid& layer) = 0;

    /// Fourier features of one scalar per sample (NCSN++): [N] -> [N,width], sin(2 pi x f_i) then
    /// cos(2 pi x f_i), with random frequencies that are never trained, the tensor `name`
    /// [width/2].
    virtual Value fourier(const Value& x, const std::string& name, std::int64_t width) = 0;

    /// [N,C,H,W] <-> [N,C*factor^2,H/factor,W/factor].
    virtual Value pixel_unshuffle(const Value& x, std::int64_t factor) = 0;
    virtual Value pixel_shuffle(const Value& x, std::int64_t factor) = 0;

    /// Mean over height and width: [N,C,H,W] -> [N,C].
    virtual Value global_average(const Value& x) = 0;

    /// The rows `ids` [N,T] (int64) of the embedding table `name`.weight [rows,width]: [N,T,width].
    virtual Value embedding(const Value& ids, const std::string& name, std::int64_t rows,
                            std::int64_t width) = 0;
    /// Adds row t of the embedding table `name`.weight [rows,F] to token t of `x` [N,T,F].
    virtual Value add_positions(const Value& x, const std::string& name, std::int64_t rows) = 0;
    /// Queries [N,T,C] attend to keys and values [N,S,C]: [N,T,C].
    virtual Value token_attention(const Value& q, const Value& k, const Value& v,
                                  const TokenAttention& layer) = 0;
    virtual Value gelu(const Value& x) = 0;        // x Phi(x), exactly
    virtual Value quick_gelu(const Value& x) = 0;  // x sigmoid(1.702 x)
    virtual Value geglu(
        const Value& x) = 0;  // [N,T,2F] -> [N,T,F]: the first half times gelu of the second

    /// [N,C,H,W] -> [N,H*W,C], row by row, and back.
    virtual Value tokens(const Value& image) = 0;
    virtual Value image(const Value& tokens, std::int64_t height, std::int64_t width) = 0;
    /// Pads a row of zeros below and a column of zeros on the right: [N,C,H,W] -> [N,C,H+1,W+1].
    virtual Value pad_corner(const Value& x) = 0;

    /// A part of a network, `body` of `inputs`, whose inner values a backend need not keep for the
    /// backward pass: it may run `body` a second time there, with another backend. So `body` must
    /// depend only on its arguments and the parameters that it names.
    using Body = std::function<Value(Ops& ops, std::span<const Value> inputs)>;
    virtual Value block(std::span<const Value> inputs, const Body& body) {
        return body(*this, inputs);
    }
};

}  // namespace atelier::graph
