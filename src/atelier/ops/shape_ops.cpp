#include "atelier/ops/shape_ops.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "atelier/core/error.h"
#include "atelier/core/safetensors.h"

namespace atelier::ops {

namespace {

/// A value that was made on the way. Outside of the walk, a value is its shape alone and costs nothing.
struct Held {
    Shape shape;
    double width;
    std::shared_ptr<Memory> memory;
    bool kept = false;

    double bytes() const { return width * static_cast<double>(elements(shape)); }
    ~Held() {
        if (!kept) memory->held -= bytes();
    }
};
using Handle = std::shared_ptr<Held>;

Shape of(const Value& x) {
    if (const auto* held = std::any_cast<Handle>(&x)) return (*held)->shape;
    return std::any_cast<Shape>(x);
}

void hold(Memory& memory, double bytes) {
    memory.held += bytes;
    memory.most = std::max(memory.most, memory.held);
    memory.largest = std::max(memory.largest, bytes);
}

}  // namespace

void require_fit(bool holds, const std::string& name, const Shape& shape, const char* wanted) {
    if (!holds) core::fail("layer \"{}\": input {} does not fit; {}", name, core::to_string(shape), wanted);
}

std::int64_t elements(const Shape& shape) {
    return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

ShapeOps::ShapeOps(const Keeping& keeping) : keeping_(keeping), memory_(std::make_shared<Memory>()) {}

Shape ShapeOps::shape(const Value& x) const { return of(x); }

Value ShapeOps::made(const Shape& shape, double width) {
    auto held = std::make_shared<Held>(shape, width, memory_);
    hold(*memory_, held->bytes());
    return held;
}

void ShapeOps::keep(const Value& x, double width) {
    const auto* held = std::any_cast<Handle>(&x);
    if (!keeping_.backward || held == nullptr) return;
    if ((*held)->width != width) return keep_bytes(width * static_cast<double>(elements((*held)->shape)));
    if (in_block_ != nullptr) *in_block_ += (*held)->bytes();
    else (*held)->kept = true;
}

void ShapeOps::keep_bytes(double bytes) {
    if (!keeping_.backward) return;
    if (in_block_ != nullptr) *in_block_ += bytes;
    else hold(*memory_, bytes);
}

void ShapeOps::note_place() { memory_->places.push_back({memory_->held, parameters_so_far_}); }

void ShapeOps::add_parameter(ParameterSpec spec) {
    parameters_so_far_ += static_cast<double>(elements(spec.shape));
    parameters.push_back(std::move(spec));
}

Value ShapeOps::block(std::span<const Value> inputs, const Body& body) {
    if (!keeping_.backward || !keeping_.recompute) return body(*this, inputs);
    for (const Value& input : inputs) {
        if (const auto* held = std::any_cast<Handle>(&input)) (*held)->kept = true;
    }
    double inside = 0;
    in_block_ = &inside;
    Value out = body(*this, inputs);
    in_block_ = nullptr;
    memory_->block = std::max(memory_->block, inside);
    note_place();
    return out;
}

Value ShapeOps::conv2d(const Value& x, const std::string& name, const Convolution& layer) {
    const Shape in = of(x);
    require_fit(in.size() == 4 && in[2] + 2 * layer.padding >= layer.kernel && in[3] + 2 * layer.padding >= layer.kernel, name, in,
            "expected [N,C,H,W] at least as large as the kernel");
    const std::int64_t fan_in = in[1] * layer.kernel * layer.kernel;
    add_parameter({name + ".weight", {layer.out_channels, in[1], layer.kernel, layer.kernel}, layer.init, fan_in});
    add_parameter({name + ".bias", {layer.out_channels}, layer.init, fan_in});
    const auto size = [&](std::int64_t n) { return (n + 2 * layer.padding - layer.kernel) / layer.stride + 1; };
    const Shape out{in[0], layer.out_channels, size(in[2]), size(in[3])};
    flops += 2.0 * static_cast<double>(elements(out)) * static_cast<double>(fan_in);
    keep(x);
    const Value y = made(out);
    if (in_block_ == nullptr) note_place();
    return y;
}

Value ShapeOps::linear(const Value& x, const std::string& name, const Linear& layer) {
    const Shape in = of(x);
    require_fit(in.size() == 2 || in.size() == 3, name, in, "expected [N,F] or [N,T,F]");
    const std::int64_t features = in.back();
    add_parameter({name + ".weight", {layer.out_features, features}, layer.init, features});
    if (layer.bias) add_parameter({name + ".bias", {layer.out_features}, layer.init, features});
    flops += 2.0 * static_cast<double>(elements(in)) * static_cast<double>(layer.out_features);
    keep(x);
    Shape out = in;
    out.back() = layer.out_features;
    const Value y = made(out);
    if (in_block_ == nullptr) note_place();
    return y;
}

void ShapeOps::norm_parameters(const std::string& name, std::int64_t channels) {
    add_parameter({name + ".weight", {channels}, zeros, channels, 1.0});
    add_parameter({name + ".bias", {channels}, zeros, channels});
}

Value ShapeOps::group_norm(const Value& x, const std::string& name, const GroupNorm& layer) {
    const Shape in = of(x);
    require_fit(in.size() == 4 && layer.groups > 0 && in[1] % layer.groups == 0, name, in,
            "the channels must be a multiple of the groups");
    if (layer.modulation) {
        const Shape by = of(*layer.modulation);
        require_fit(by == Shape{in[0], 2 * in[1]}, name, by, "expected a scale and a shift for every channel");
    }
    norm_parameters(name, in[1]);
    if (keeping_.fused_norm) {
        keep(x);
        return made(in);
    }
    // The modulation's product keeps the normalised values, SiLU what it is of.
    constexpr double float32 = 4;
    keep(x, float32);
    const double steps = (layer.modulation ? 1 : 0) + (layer.silu ? 1 : 0);
    keep_bytes(steps * float32 * static_cast<double>(elements(in)));
    return made(in, float32);
}

Value ShapeOps::layer_norm(const Value& x, const std::string& name, double) {
    const Shape in = of(x);
    require_fit(in.size() == 2 || in.size() == 3, name, in, "expected [N,F] or [N,T,F]");
    norm_parameters(name, in.back());
    keep(x);
    return made(in);
}

Value ShapeOps::attention(const Value& qkv, std::int64_t heads) {
    const Shape in = of(qkv);
    require_fit(in.size() == 4 && heads > 0 && in[1] % (3 * heads) == 0, "attention", in,
            "the channels must be a multiple of three times the heads");
    const auto positions = static_cast<double>(in[2] * in[3]);
    flops += 4.0 * static_cast<double>(in[0] * in[1] / 3) * positions * positions;
    // Queries, keys and values are laid out anew and kept with the result; the scores are not.
    const double kept = keeping_.width * static_cast<double>(elements(in)) * 4 / 3;
    if (keeping_.backward) keep_bytes(kept);
    else memory_->most = std::max(memory_->most, memory_->held + kept);
    return made({in[0], in[1] / 3, in[2], in[3]});
}

Value ShapeOps::resample(const Value& x, Resample how) {
    if (how == Resample::none) return x;
    Shape s = of(x);
    const bool doubles = how == Resample::up || how == Resample::smooth_up;
    const std::int64_t lost = how == Resample::smooth_down_valid ? 1 : 0;
    require_fit(s.size() == 4 && (doubles || (s[2] % 2 == 0 && s[3] % 2 == 0)), "resample", s, "halving needs an even height and width");
    for (const int axis : {2, 3}) s[axis] = doubles ? s[axis] * 2 : s[axis] / 2 - lost;
    if (how != Resample::up) keep(x);
    return made(s);
}

Value ShapeOps::concat(const Value& a, const Value& b) {
    Shape s = of(a);
    const Shape t = of(b);
    require_fit(s.size() >= 2 && s.size() == t.size() && s[0] == t[0] && std::equal(s.begin() + 2, s.end(), t.begin() + 2), "concat", t,
            "the other axes must agree");
    s[1] += t[1];
    return made(s);
}

Value ShapeOps::add(const Value& a, const Value& b) {
    const Shape s = of(a);
    const bool for_every_pixel = s.size() == 4 && of(b) == Shape{s[0], s[1]};
    require_fit(s == of(b) || for_every_pixel, "add", of(b), "both terms need the same shape");
    return made(s);
}

Value ShapeOps::scale(const Value& x, double) { return made(of(x)); }

Value ShapeOps::silu(const Value& x) {
    keep(x);
    return made(of(x));
}

Value ShapeOps::sinusoid(const Value& x, const Sinusoid& layer) {
    require_fit(of(x).size() == 1 && layer.width % 2 == 0 && (!layer.endpoint || layer.width > 2), "sinusoid", of(x), "expected [N] and an even width");
    return made({of(x)[0], layer.width}, 4);
}

Value ShapeOps::fourier(const Value& x, const std::string& name, std::int64_t width) {
    require_fit(of(x).size() == 1 && width % 2 == 0, name, of(x), "expected [N] and an even width");
    add_parameter({name, {width / 2}, {Init::Kind::normal, 16.0}, 1});
    return made({of(x)[0], width}, 4);
}

Value ShapeOps::pixel_unshuffle(const Value& x, std::int64_t factor) {
    const Shape s = of(x);
    require_fit(s.size() == 4 && s[2] % factor == 0 && s[3] % factor == 0, "pixel_unshuffle", s,
            "height and width must be multiples of patch_size");
    return made({s[0], s[1] * factor * factor, s[2] / factor, s[3] / factor});
}

Value ShapeOps::pixel_shuffle(const Value& x, std::int64_t factor) {
    const Shape s = of(x);
    require_fit(s.size() == 4 && s[1] % (factor * factor) == 0, "pixel_shuffle", s,
            "the channels must be a multiple of patch_size squared");
    return made({s[0], s[1] / (factor * factor), s[2] * factor, s[3] * factor});
}

Value ShapeOps::global_average(const Value& x) {
    const Shape s = of(x);
    require_fit(s.size() == 4, "global_average", s, "expected [N,C,H,W]");
    return made({s[0], s[1]});
}

}  // namespace atelier::ops
