#include "atelier/graph/shape_ops.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "atelier/core/error.h"
#include "atelier/core/safetensors.h"

namespace atelier::graph {

namespace {

/// A value computed by an op. An input of the trace is a bare shape and costs nothing.
struct Activation {
    Shape shape;
    double width;
    std::shared_ptr<MemoryEstimate> memory;
    bool saved = false;

    double bytes() const { return width * static_cast<double>(elements(shape)); }
    ~Activation() {
        if (!saved) memory->retained -= bytes();
    }
};
using Handle = std::shared_ptr<Activation>;

Shape shape_of(const Value& x) {
    if (const auto* activation = std::any_cast<Handle>(&x)) return (*activation)->shape;
    return std::any_cast<Shape>(x);
}

void allocate(MemoryEstimate& memory, double bytes) {
    memory.retained += bytes;
    memory.peak = std::max(memory.peak, memory.retained);
    memory.largest = std::max(memory.largest, bytes);
}

}  // namespace

void require_fit(bool holds, const std::string& name, const Shape& shape, const char* expected) {
    if (!holds)
        core::fail("layer \"{}\": input {} does not fit; {}", name, core::to_string(shape),
                   expected);
}

std::int64_t elements(const Shape& shape) {
    return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

ShapeOps::ShapeOps(const ActivationPolicy& policy)
    : policy_(policy), memory_(std::make_shared<MemoryEstimate>()) {}

Shape ShapeOps::shape(const Value& x) const { return shape_of(x); }

Value ShapeOps::output(const Shape& shape, double width) {
    auto activation = std::make_shared<Activation>(shape, width, memory_);
    allocate(*memory_, activation->bytes());
    return activation;
}

void ShapeOps::save_for_backward(const Value& x, double width) {
    const auto* activation = std::any_cast<Handle>(&x);
    if (!policy_.backward || activation == nullptr) return;
    if ((*activation)->width != width)
        return save_bytes(width * static_cast<double>(elements((*activation)->shape)));
    if (block_bytes_ != nullptr) *block_bytes_ += (*activation)->bytes();
    else (*activation)->saved = true;
}

void ShapeOps::save_bytes(double bytes) {
    if (!policy_.backward) return;
    if (block_bytes_ != nullptr) *block_bytes_ += bytes;
    else allocate(*memory_, bytes);
}

void ShapeOps::record_layer() { memory_->layers.push_back({memory_->retained, parameter_count_}); }

void ShapeOps::add_parameter(ParameterSpec spec) {
    parameter_count_ += static_cast<double>(elements(spec.shape));
    parameters.push_back(std::move(spec));
}

Value ShapeOps::block(std::span<const Value> inputs, const Body& body) {
    if (!policy_.backward || !policy_.recompute) return body(*this, inputs);
    for (const Value& input : inputs) {
        if (const auto* activation = std::any_cast<Handle>(&input)) (*activation)->saved = true;
    }
    double inside = 0;
    block_bytes_ = &inside;
    Value out = body(*this, inputs);
    block_bytes_ = nullptr;
    memory_->block = std::max(memory_->block, inside);
    record_layer();
    return out;
}

Value ShapeOps::conv2d(const Value& x, const std::string& name, const Convolution& layer) {
    const Shape in = shape_of(x);
    require_fit(in.size() == 4 && in[2] + 2 * layer.padding >= layer.kernel &&
                    in[3] + 2 * layer.padding >= layer.kernel,
                name, in, "expected [N,C,H,W] at least as large as the kernel");
    const std::int64_t fan_in = in[1] * layer.kernel * layer.kernel;
    add_parameter({name + ".weight",
                   {layer.out_channels, in[1], layer.kernel, layer.kernel},
                   layer.init,
                   fan_in});
    add_parameter({name + ".bias", {layer.out_channels}, layer.init, fan_in});
    const auto size = [&](std::int64_t n) {
        return (n + 2 * layer.padding - layer.kernel) / layer.stride + 1;
    };
    const Shape out{in[0], layer.out_channels, size(in[2]), size(in[3])};
    flops += 2.0 * static_cast<double>(elements(out)) * static_cast<double>(fan_in);
    save_for_backward(x);
    const Value y = output(out);
    if (block_bytes_ == nullptr) record_layer();
    return y;
}

Value ShapeOps::linear(const Value& x, const std::string& name, const Linear& layer) {
    const Shape in = shape_of(x);
    require_fit(in.size() == 2 || in.size() == 3, name, in, "expected [N,F] or [N,T,F]");
    const std::int64_t features = in.back();
    add_parameter({name + ".weight", {layer.out_features, features}, layer.init, features});
    if (layer.bias) add_parameter({name + ".bias", {layer.out_features}, layer.init, features});
    flops += 2.0 * static_cast<double>(elements(in)) * static_cast<double>(layer.out_features);
    save_for_backward(x);
    Shape out = in;
    out.back() = layer.out_features;
    const Value y = output(out);
    if (block_bytes_ == nullptr) record_layer();
    return y;
}

void ShapeOps::norm_parameters(const std::string& name, std::int64_t channels) {
    add_parameter({name + ".weight", {channels}, zeros, channels, 1.0});
    add_parameter({name + ".bias", {channels}, zeros, channels});
}

Value ShapeOps::group_norm(const Value& x, const std::string& name, const GroupNorm& layer) {
    const Shape in = shape_of(x);
    require_fit(in.size() == 4 && layer.groups > 0 && in[1] % layer.groups == 0, name, in,
                "the channels must be a multiple of the groups");
    if (layer.modulation) {
        const Shape by = shape_of(*layer.modulation);
        require_fit(by == Shape{in[0], 2 * in[1]}, name, by,
                    "expected a scale and a shift for every channel");
    }
    norm_parameters(name, in[1]);
    if (policy_.fused_norm) {
        save_for_backward(x);
        return output(in);
    }
    // The modulation's product retains the normalised values, SiLU its input.
    constexpr double float32 = 4;
    save_for_backward(x, float32);
    const double steps = (layer.modulation ? 1 : 0) + (layer.silu ? 1 : 0);
    save_bytes(steps * float32 * static_cast<double>(elements(in)));
    return output(in, float32);
}

Value ShapeOps::layer_norm(const Value& x, const std::string& name, double) {
    const Shape in = shape_of(x);
    require_fit(in.size() == 2 || in.size() == 3, name, in, "expected [N,F] or [N,T,F]");
    norm_parameters(name, in.back());
    save_for_backward(x);
    return output(in);
}

Value ShapeOps::attention(const Value& qkv, std::int64_t heads) {
    const Shape in = shape_of(qkv);
    require_fit(in.size() == 4 && heads > 0 && in[1] % (3 * heads) == 0, "attention", in,
                "the channels must be a multiple of three times the heads");
    const auto positions = static_cast<double>(in[2] * in[3]);
    flops += 4.0 * static_cast<double>(in[0] * in[1] / 3) * positions * positions;
    // Queries, keys and values are copied to another layout and retained with the result; the
    // scores are not.
    const double saved = policy_.element_size * static_cast<double>(elements(in)) * 4 / 3;
    if (policy_.backward) save_bytes(saved);
    else memory_->peak = std::max(memory_->peak, memory_->retained + saved);
    return output({in[0], in[1] / 3, in[2], in[3]});
}

Value ShapeOps::resample(const Value& x, Resample mode) {
    if (mode == Resample::none) return x;
    Shape s = shape_of(x);
    const bool doubles = mode == Resample::up || mode == Resample::smooth_up;
    const std::int64_t lost = mode == Resample::smooth_down_valid ? 1 : 0;
    require_fit(s.size() == 4 && (doubles || (s[2] % 2 == 0 && s[3] % 2 == 0)), "resample", s,
                "halving needs an even height and width");
    for (const int axis : {2, 3}) s[axis] = doubles ? s[axis] * 2 : s[axis] / 2 - lost;
    if (mode != Resample::up) save_for_backward(x);
    return output(s);
}

Value ShapeOps::concat(const Value& a, const Value& b) {
    Shape s = shape_of(a);
    const Shape t = shape_of(b);
    require_fit(s.size() >= 2 && s.size() == t.size() && s[0] == t[0] &&
                    std::equal(s.begin() + 2, s.end(), t.begin() + 2),
                "concat", t, "the other axes must agree");
    s[1] += t[1];
    return output(s);
}

Value ShapeOps::add(const Value& a, const Value& b) {
    const Shape s = shape_of(a);
    const bool per_channel = s.size() == 4 && shape_of(b) == Shape{s[0], s[1]};
    require_fit(s == shape_of(b) || per_channel, "add", shape_of(b),
                "both terms need the same shape");
    return output(s);
}

Value ShapeOps::scale(const Value& x, double) { return output(shape_of(x)); }

Value ShapeOps::silu(const Value& x) {
    save_for_backward(x);
    return output(shape_of(x));
}

Value ShapeOps::sinusoid(const Value& x, const Sinusoid& layer) {
    require_fit(
        shape_of(x).size() == 1 && layer.width % 2 == 0 && (!layer.endpoint || layer.width > 2),
        "sinusoid", shape_of(x), "expected [N] and an even width");
    return output({shape_of(x)[0], layer.width}, 4);
}

Value ShapeOps::fourier(const Value& x, const std::string& name, std::int64_t width) {
    require_fit(shape_of(x).size() == 1 && width % 2 == 0, name, shape_of(x),
                "expected [N] and an even width");
    add_parameter({name, {width / 2}, {Init::Kind::normal, 16.0}, 1});
    return output({shape_of(x)[0], width}, 4);
}

Value ShapeOps::pixel_unshuffle(const Value& x, std::int64_t factor) {
    const Shape s = shape_of(x);
    require_fit(s.size() == 4 && s[2] % factor == 0 && s[3] % factor == 0, "pixel_unshuffle", s,
                "height and width must be multiples of patch_size");
    return output({s[0], s[1] * factor * factor, s[2] / factor, s[3] / factor});
}

Value ShapeOps::pixel_shuffle(const Value& x, std::int64_t factor) {
    const Shape s = shape_of(x);
    require_fit(s.size() == 4 && s[1] % (factor * factor) == 0, "pixel_shuffle", s,
                "the channels must be a multiple of patch_size squared");
    return output({s[0], s[1] / (factor * factor), s[2] * factor, s[3] * factor});
}

Value ShapeOps::global_average(const Value& x) {
    const Shape s = shape_of(x);
    require_fit(s.size() == 4, "global_average", s, "expected [N,C,H,W]");
    return output({s[0], s[1]});
}

}  // namespace atelier::graph
