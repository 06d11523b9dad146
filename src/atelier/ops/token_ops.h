#pragma once

#include "atelier/ops/ops.h"

namespace atelier::ops {

/// How tokens attend: in `heads` heads of C/heads, softmax over keys of q.k/sqrt(C/heads); `causal` ones look at themselves and those before.
struct TokenAttention {
    std::int64_t heads;
    bool causal = false;
};

/// What networks that read text say beyond Ops. Tokens are [N,T,F]; linear, layer_norm, add and scale of Ops take them too, each token by itself. A
/// speaker of this vocabulary speaks both.
class TokenOps {
public:
    virtual ~TokenOps() = default;

    /// The same speaker's other words.
    virtual Ops& layers() = 0;

    /// The rows of the table `name`.weight [rows,width] that `ids` [N,T] (int64) name: [N,T,width].
    virtual Value embedding(const Value& ids, const std::string& name, std::int64_t rows, std::int64_t width) = 0;
    /// Adds row t of the table `name`.weight [rows,F] to token t of `x` [N,T,F].
    virtual Value add_positions(const Value& x, const std::string& name, std::int64_t rows) = 0;
    /// Queries [N,T,C] look at keys and values [N,S,C]: [N,T,C].
    virtual Value token_attention(const Value& q, const Value& k, const Value& v, const TokenAttention& how) = 0;
    virtual Value gelu(const Value& x) = 0;        // x Phi(x), exactly
    virtual Value quick_gelu(const Value& x) = 0;  // x sigmoid(1.702 x)
    virtual Value geglu(const Value& x) = 0;       // [N,T,2F] -> [N,T,F]: the first half times gelu of the second

    /// [N,C,H,W] -> [N,H*W,C], row by row, and back.
    virtual Value tokens(const Value& image) = 0;
    virtual Value image(const Value& tokens, std::int64_t height, std::int64_t width) = 0;
    /// A row of zeros below and a column of zeros on the right: [N,C,H,W] -> [N,C,H+1,W+1].
    virtual Value pad_corner(const Value& x) = 0;
};

}  // namespace atelier::ops
