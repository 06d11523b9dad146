#include "atelier/graph/builder.h"

#include <algorithm>

#include "atelier/core/error.h"
#include "atelier/core/safetensors.h"

namespace atelier::graph {

namespace {

void require_fit(bool holds, const std::string& name, const Shape& shape, const char* expected) {
    if (!holds)
        core::fail("layer \"{}\": input {} does not fit; {}", name, core::to_string(shape),
                   expected);
}

}  // namespace

Value Builder::node(Op op, std::vector<Value> inputs, Shape shape) {
    graph_.nodes.push_back({std::move(op), std::move(inputs), std::move(shape)});
    return {static_cast<std::uint32_t>(graph_.nodes.size() - 1)};
}

Value Builder::input(const Shape& shape) {
    graph_.inputs.push_back(node(Input{}, {}, shape));
    return graph_.inputs.back();
}

Graph Builder::finished(std::vector<Value> outputs) && {
    graph_.outputs = std::move(outputs);
    find_last_reads(graph_);
    return std::move(graph_);
}

const Shape& Builder::shape(Value x) const { return graph_.nodes.at(x.node).shape; }

Value Builder::conv2d(Value x, const std::string& name, Conv2d layer) {
    const Shape in = shape(x);
    require_fit(in.size() == 4 && in[2] + 2 * layer.padding >= layer.kernel &&
                    in[3] + 2 * layer.padding >= layer.kernel,
                name, in, "expected [N,C,H,W] at least as large as the kernel");
    const std::int64_t fan_in = in[1] * layer.kernel * layer.kernel;
    graph_.parameters.push_back({name + ".weight",
                                 {layer.out_channels, in[1], layer.kernel, layer.kernel},
                                 layer.init,
                                 fan_in});
    if (layer.bias)
        graph_.parameters.push_back({name + ".bias", {layer.out_channels}, layer.init, fan_in});
    const auto size = [&](std::int64_t n) {
        return (n + 2 * layer.padding - layer.kernel) / layer.stride + 1;
    };
    layer.name = name;
    Shape out{in[0], layer.out_channels, size(in[2]), size(in[3])};
    return node(std::move(layer), {x}, std::move(out));
}

Value Builder::linear(Value x, const std::string& name, Linear layer) {
    Shape s = shape(x);
    require_fit(s.size() == 2 || s.size() == 3, name, s, "expected [N,F] or [N,T,F]");
    const std::int64_t features = s.back();
    graph_.parameters.push_back(
        {name + ".weight", {layer.out_features, features}, layer.init, features});
    if (layer.bias)
        graph_.parameters.push_back({name + ".bias", {layer.out_features}, layer.init, features});
    s.back() = layer.out_features;
    layer.name = name;
    return node(std::move(layer), {x}, std::move(s));
}

void Builder::norm_parameters(const std::string& name, std::int64_t channels) {
    graph_.parameters.push_back({name + ".weight", {channels}, zeros, channels, 1.0});
    graph_.parameters.push_back({name + ".bias", {channels}, zeros, channels});
}

Value Builder::group_norm(Value x, const std::string& name, GroupNorm layer,
                          std::optional<Value> modulation) {
    const Shape in = shape(x);
    require_fit(in.size() == 4 && layer.groups > 0 && in[1] % layer.groups == 0, name, in,
                "the channels must be a multiple of the groups");
    std::vector<Value> inputs{x};
    if (modulation) {
        const Shape& by = shape(*modulation);
        require_fit(by == Shape{in[0], 2 * in[1]}, name, by,
                    "expected a scale and a shift for every channel");
        inputs.push_back(*modulation);
    }
    norm_parameters(name, in[1]);
    layer.name = name;
    return node(std::move(layer), std::move(inputs), in);
}

Value Builder::layer_norm(Value x, const std::string& name, double eps) {
    const Shape in = shape(x);
    require_fit(in.size() == 2 || in.size() == 3, name, in, "expected [N,F] or [N,T,F]");
    norm_parameters(name, in.back());
    return node(LayerNorm{.eps = eps, .name = name}, {x}, in);
}

Value Builder::layer_norm(Value x, double eps) {
    const Shape in = shape(x);
    require_fit(in.size() == 2 || in.size() == 3, "layer_norm", in, "expected [N,F] or [N,T,F]");
    return node(LayerNorm{.eps = eps, .affine = false}, {x}, in);
}

Value Builder::rms_norm(Value x, const std::string& name, const RmsNorm& layer) {
    const Shape in = shape(x);
    require_fit(in.size() == 3 && layer.heads > 0 && in[2] % layer.heads == 0, name, in,
                "expected [N,T,C] with a width that is a multiple of the heads");
    const std::int64_t width = in[2] / layer.heads;
    graph_.parameters.push_back({name + ".weight", {width}, zeros, width, 1.0});
    return node(RmsNorm{layer.heads, layer.eps, name}, {x}, in);
}

Value Builder::attention(Value qkv, std::int64_t heads) {
    const Shape in = shape(qkv);
    require_fit(in.size() == 4 && heads > 0 && in[1] % (3 * heads) == 0, "attention", in,
                "the channels must be a multiple of three times the heads");
    return node(Attention{heads}, {qkv}, {in[0], in[1] / 3, in[2], in[3]});
}

Value Builder::resample(Value x, Resample mode) {
    if (mode == Resample::none) return x;
    Shape s = shape(x);
    const bool doubles = mode == Resample::up || mode == Resample::smooth_up;
    const std::int64_t lost = mode == Resample::smooth_down_valid ? 1 : 0;
    require_fit(s.size() == 4 && (doubles || (s[2] % 2 == 0 && s[3] % 2 == 0)), "resample", s,
                "halving needs an even height and width");
    for (const std::size_t axis : {2U, 3U}) s[axis] = doubles ? s[axis] * 2 : s[axis] / 2 - lost;
    return node(Resampling{mode}, {x}, std::move(s));
}

Value Builder::concat(Value a, Value b) {
    Shape s = shape(a);
    const Shape& t = shape(b);
    require_fit(s.size() >= 2 && s.size() == t.size() && s[0] == t[0] &&
                    std::equal(s.begin() + 2, s.end(), t.begin() + 2),
                "concat", t, "the other axes must agree");
    s[1] += t[1];
    return node(Concat{}, {a, b}, std::move(s));
}

Value Builder::slice(Value x, std::int64_t first, std::int64_t count) {
    Shape s = shape(x);
    require_fit(s.size() >= 2 && first >= 0 && count > 0 && count <= s[1] - first, "slice", s,
                "expected an axis 1 that is long enough");
    s[1] = count;
    return node(Slice{first, count}, {x}, std::move(s));
}

namespace {

/// Whether `s` has one row of `of`'s features per sample.
bool is_row_per_token(const Shape& of, const Shape& s) {
    return of.size() == 3 && s == Shape{of[0], of[2]};
}

}  // namespace

Value Builder::add(Value a, Value b) {
    const Shape s = shape(a);
    const bool per_channel = s.size() == 4 && shape(b) == Shape{s[0], s[1]};
    require_fit(s == shape(b) || per_channel || is_row_per_token(s, shape(b)), "add", shape(b),
                "both terms need the same shape");
    return node(Add{}, {a, b}, s);
}

Value Builder::multiply(Value a, Value b) {
    const Shape s = shape(a);
    require_fit(s == shape(b) || is_row_per_token(s, shape(b)), "multiply", shape(b),
                "both factors need the same shape");
    return node(Multiply{}, {a, b}, s);
}

Value Builder::scale(Value x, double factor, double shift) {
    return node(Scale{factor, shift}, {x}, Shape(shape(x)));
}

Value Builder::silu(Value x) { return node(Silu{}, {x}, Shape(shape(x))); }

Value Builder::relu(Value x) { return node(Relu{}, {x}, Shape(shape(x))); }

Value Builder::tanh(Value x) { return node(Tanh{}, {x}, Shape(shape(x))); }

Value Builder::sinusoid(Value x, const Sinusoid& layer) {
    const Shape& s = shape(x);
    require_fit((s.size() == 1 || s.size() == 2) && layer.width % 2 == 0 &&
                    (!layer.endpoint || layer.width > 2),
                "sinusoid", s, "expected [N] or [N,M] and an even width");
    return node(layer, {x}, {s[0], s.size() == 2 ? s[1] * layer.width : layer.width});
}

Value Builder::fourier(Value x, const std::string& name, std::int64_t width) {
    const Shape& s = shape(x);
    require_fit(s.size() == 1 && width % 2 == 0, name, s, "expected [N] and an even width");
    graph_.parameters.push_back({name, {width / 2}, {Init::Kind::normal, 16.0}, 1});
    return node(Fourier{width, name}, {x}, {s[0], width});
}

Value Builder::pixel_unshuffle(Value x, std::int64_t factor) {
    const Shape& s = shape(x);
    require_fit(s.size() == 4 && s[2] % factor == 0 && s[3] % factor == 0, "pixel_unshuffle", s,
                "height and width must be multiples of the factor");
    return node(PixelUnshuffle{factor}, {x},
                {s[0], s[1] * factor * factor, s[2] / factor, s[3] / factor});
}

Value Builder::pixel_shuffle(Value x, std::int64_t factor, bool blocks_first) {
    const Shape& s = shape(x);
    require_fit(s.size() == 4 && s[1] % (factor * factor) == 0, "pixel_shuffle", s,
                "the channels must be a multiple of the factor squared");
    return node(PixelShuffle{factor, blocks_first}, {x},
                {s[0], s[1] / (factor * factor), s[2] * factor, s[3] * factor});
}

Value Builder::global_average(Value x) {
    const Shape& s = shape(x);
    require_fit(s.size() == 4, "global_average", s, "expected [N,C,H,W]");
    return node(GlobalAverage{}, {x}, {s[0], s[1]});
}

Value Builder::embedding(Value ids, const std::string& name, std::int64_t rows,
                         std::int64_t width) {
    Shape s = shape(ids);
    require_fit(s.size() == 1 || s.size() == 2, name, s, "expected ids [N] or [N,T]");
    graph_.parameters.push_back({name + ".weight", {rows, width}, {Init::Kind::normal, 0.02}, 1});
    s.push_back(width);
    return node(Embedding{rows, width, name}, {ids}, std::move(s));
}

Value Builder::add_positions(Value x, const std::string& name, std::int64_t rows) {
    const Shape in = shape(x);
    require_fit(in.size() == 3 && in[1] <= rows, name, in,
                "expected [N,T,F] with no more tokens than there are positions");
    graph_.parameters.push_back({name + ".weight", {rows, in[2]}, {Init::Kind::normal, 0.02}, 1});
    return node(AddPositions{rows, name}, {x}, in);
}

Value Builder::cropped_positions(Value x, const std::string& name, CroppedPositions layer) {
    const Shape in = shape(x);
    require_fit(in.size() == 3 && in[1] == layer.height * layer.width &&
                    layer.height <= layer.side && layer.width <= layer.side,
                name, in, "expected as many tokens as pixels, within the table of positions");
    graph_.parameters.push_back({name, {1, layer.side * layer.side, in[2]}, zeros, 1});
    layer.name = name;
    return node(std::move(layer), {x}, in);
}

Value Builder::grid_sinusoid(Value x, const GridSinusoid& layer) {
    const Shape in = shape(x);
    require_fit(in.size() == 3 && in[1] == layer.height * layer.width && in[2] % 4 == 0,
                "grid_sinusoid", in,
                "expected as many tokens as pixels, and a width that is a multiple of 4");
    return node(layer, {x}, in);
}

Value Builder::token_attention(Value q, Value k, Value v, const TokenAttention& layer) {
    const Shape queries = shape(q);
    const Shape& keys = shape(k);
    require_fit(queries.size() == 3 && keys.size() == 3 && keys == shape(v) &&
                    queries[0] == keys[0] && queries[2] == keys[2],
                "token_attention", keys, "queries, keys and values must be [N,T,C] of one N and C");
    require_fit(layer.heads > 0 && queries[2] % layer.heads == 0, "token_attention", queries,
                "the width must be a multiple of the heads");
    return node(layer, {q, k, v}, queries);
}

Value Builder::gelu(Value x, bool tanh) { return node(Gelu{tanh}, {x}, Shape(shape(x))); }

Value Builder::quick_gelu(Value x) { return node(QuickGelu{}, {x}, Shape(shape(x))); }

Value Builder::geglu(Value x) {
    Shape s = shape(x);
    require_fit(s.size() == 3 && s[2] % 2 == 0, "geglu", s, "expected [N,T,F] with an even F");
    s[2] /= 2;
    return node(Geglu{}, {x}, std::move(s));
}

Value Builder::tokens(Value image) {
    const Shape& s = shape(image);
    require_fit(s.size() == 4, "tokens", s, "expected [N,C,H,W]");
    return node(Tokens{}, {image}, {s[0], s[2] * s[3], s[1]});
}

Value Builder::image(Value tokens, std::int64_t height, std::int64_t width) {
    const Shape& s = shape(tokens);
    require_fit(s.size() == 3 && s[1] == height * width, "image", s,
                "expected as many tokens as pixels");
    return node(Image{height, width}, {tokens}, {s[0], s[2], height, width});
}

Value Builder::pad_corner(Value x) {
    const Shape& s = shape(x);
    require_fit(s.size() == 4, "pad_corner", s, "expected [N,C,H,W]");
    return node(PadCorner{}, {x}, {s[0], s[1], s[2] + 1, s[3] + 1});
}

Value Builder::block(std::span<const Value> inputs, const Body& body) {
    std::vector<Shape> shapes;
    for (const Value input : inputs) shapes.push_back(shape(input));
    auto inner =
        std::make_shared<const Graph>(record(shapes, [&](Builder& ops, std::span<const Value> in) {
            return std::vector{body(ops, in)};
        }));
    graph_.parameters.insert(graph_.parameters.end(), inner->parameters.begin(),
                             inner->parameters.end());
    Shape out = inner->shape(inner->outputs[0]);
    return node(Block{std::move(inner)}, {inputs.begin(), inputs.end()}, std::move(out));
}

Graph record(const std::vector<Shape>& inputs, const Function& function) {
    Builder ops;
    std::vector<Value> values;
    for (const Shape& shape : inputs) values.push_back(ops.input(shape));
    std::vector<Value> outputs = function(ops, values);
    return std::move(ops).finished(std::move(outputs));
}

}  // namespace atelier::graph
