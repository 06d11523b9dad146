#include "atelier/graph/shape_ops.h"

#include "atelier/core/error.h"
#include "atelier/core/safetensors.h"

namespace atelier::graph {

Value ShapeOps::embedding(const Value& ids, const std::string& name, std::int64_t rows,
                          std::int64_t width) {
    const Shape in = shape(ids);
    require_fit(in.size() == 2, name, in, "expected ids [N,T]");
    add_parameter({name + ".weight", {rows, width}, {Init::Kind::normal, 0.02}, 1});
    return output({in[0], in[1], width});
}

Value ShapeOps::add_positions(const Value& x, const std::string& name, std::int64_t rows) {
    const Shape in = shape(x);
    require_fit(in.size() == 3 && in[1] <= rows, name, in,
                "expected [N,T,F] with no more tokens than there are positions");
    add_parameter({name + ".weight", {rows, in[2]}, {Init::Kind::normal, 0.02}, 1});
    return output(in);
}

Value ShapeOps::token_attention(const Value& q, const Value& k, const Value& v,
                                const TokenAttention& layer) {
    const Shape queries = shape(q), keys = shape(k);
    require_fit(queries.size() == 3 && keys.size() == 3 && keys == shape(v) &&
                    queries[0] == keys[0] && queries[2] == keys[2],
                "token_attention", keys, "queries, keys and values must be [N,T,C] of one N and C");
    require_fit(layer.heads > 0 && queries[2] % layer.heads == 0, "token_attention", queries,
                "the width must be a multiple of the heads");
    flops += 4.0 * static_cast<double>(elements(queries)) * static_cast<double>(keys[1]);
    for (const Value* read : {&q, &k, &v}) save_for_backward(*read);
    return output(queries);
}

Value ShapeOps::gelu(const Value& x) {
    save_for_backward(x);
    return output(shape(x));
}

Value ShapeOps::quick_gelu(const Value& x) { return gelu(x); }

Value ShapeOps::geglu(const Value& x) {
    Shape s = shape(x);
    require_fit(s.size() == 3 && s[2] % 2 == 0, "geglu", s, "expected [N,T,F] with an even F");
    s[2] /= 2;
    save_for_backward(x);
    return output(s);
}

Value ShapeOps::tokens(const Value& image) {
    const Shape s = shape(image);
    require_fit(s.size() == 4, "tokens", s, "expected [N,C,H,W]");
    return output({s[0], s[2] * s[3], s[1]});
}

Value ShapeOps::image(const Value& tokens, std::int64_t height, std::int64_t width) {
    const Shape s = shape(tokens);
    require_fit(s.size() == 3 && s[1] == height * width, "image", s,
                "expected as many tokens as pixels");
    return output({s[0], s[2], height, width});
}

Value ShapeOps::pad_corner(const Value& x) {
    const Shape s = shape(x);
    require_fit(s.size() == 4, "pad_corner", s, "expected [N,C,H,W]");
    return output({s[0], s[1], s[2] + 1, s[3] + 1});
}

}  // namespace atelier::graph
