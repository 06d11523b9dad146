#pragma once

#include "atelier/ops/torch_ops.h"
#include "atelier/ops/token_ops.h"

namespace atelier::ops {

/// TorchOps in both vocabularies.
class TorchTokenOps : public TorchOps, public TokenOps {
public:
    /// `parameters` must outlive this.
    explicit TorchTokenOps(const Parameters& parameters) : TorchOps(parameters), parameters_(parameters) {}

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

private:
    const Parameters& parameters_;
};

}  // namespace atelier::ops
