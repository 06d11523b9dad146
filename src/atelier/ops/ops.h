#pragma once

#include <any>
#include <cstdint>
#include <string>
#include <vector>

/// The small vocabulary in which networks are written. A network names its layers; a speaker decides what a layer does:
/// TorchOps computes it, ShapeOps only follows shapes, lists the parameters and counts the work. Torch-free.
namespace atelier::ops {

/// Sizes along each axis, outermost first.
using Shape = std::vector<std::int64_t>;

/// What flows between layers: a tensor of whichever speaker is at work.
using Value = std::any;

/// How a fresh weight is drawn: uniform in +-gain/sqrt(fan_in), or normal with standard deviation gain/sqrt(fan_in).
/// Biases start at uniform +-gain/sqrt(fan_in) too; a gain of 0 gives zeros.
struct Init {
    enum class Kind { uniform, normal };
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
    bool silu = false;             // apply SiLU to the result
    const Value* modulation = nullptr;  // [N,2C] scale and shift: norm(x)*(1+scale)+shift, before SiLU
};

enum class Resample { none, up, down };  // 2x nearest-neighbour up, 2x2 box average down

/// One layer a function. `name` is the parameters' name without ".weight" and ".bias". Images are [N,C,H,W], features [N,F].
class Ops {
public:
    virtual ~Ops() = default;

    virtual Shape shape(const Value& x) const = 0;

    virtual Value conv2d(const Value& x, const std::string& name, const Convolution& layer) = 0;
    virtual Value linear(const Value& x, const std::string& name, const Linear& layer) = 0;
    virtual Value group_norm(const Value& x, const std::string& name, const GroupNorm& layer) = 0;
    virtual Value layer_norm(const Value& x, const std::string& name, double eps) = 0;

    /// Self-attention of the ADM U-Net: `qkv` [N,3C,H,W] holds q, k, v interleaved per channel, seen as
    /// [N*heads, C/heads, 3, H*W]; softmax over keys of q.k/sqrt(C/heads). Returns [N,C,H,W].
    virtual Value attention(const Value& qkv, std::int64_t heads) = 0;

    virtual Value resample(const Value& x, Resample how) = 0;
    virtual Value concat(const Value& a, const Value& b) = 0;  // along axis 1
    virtual Value add(const Value& a, const Value& b) = 0;     // equal shapes
    virtual Value scale(const Value& x, double factor) = 0;
    virtual Value silu(const Value& x) = 0;

    /// Positional embedding of a number a sample: [N] -> [N,width], cos(x f_i) then sin(x f_i),
    /// f_i = (1/10000)^(i/(width/2)) (the ADM U-Net's time embedding).
    virtual Value sinusoid(const Value& x, std::int64_t width) = 0;

    /// [N,C,H,W] <-> [N,C*factor^2,H/factor,W/factor].
    virtual Value pixel_unshuffle(const Value& x, std::int64_t factor) = 0;
    virtual Value pixel_shuffle(const Value& x, std::int64_t factor) = 0;

    /// Mean over height and width: [N,C,H,W] -> [N,C].
    virtual Value global_average(const Value& x) = 0;
};

}  // namespace atelier::ops
