#pragma once

#include "atelier/ops/shape_ops.h"
#include "atelier/ops/token_ops.h"

namespace atelier::ops {

/// ShapeOps in both vocabularies.
class ShapeTokenOps : public ShapeOps, public TokenOps {
public:
    Ops& layers() override { return *this; }

    Value embedding(const Value& ids, const std::string& name, std::int64_t rows, std::int64_t width) override;
    Value add_positions(const Value& x, const std::string& name, std::int64_t rows) override;
    Value token_attention(const Value& q, const Value& k, const Value& v, const TokenAttention& how) override;
    Value gelu(const Value& x) override;
    Value quick_gelu(const Value& x) override;
    Value geglu(const Value& x) override;
    Value tokens(const Value& image) override;
    Value image(const Value& tokens, std::int64_t height, std::int64_t width) override;
    Value pad_corner(const Value& x) override;
};

}  // namespace atelier::ops
