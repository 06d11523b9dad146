#pragma once

#include "atelier/ops/openvino_ops.h"
#include "atelier/ops/token_ops.h"

namespace atelier::ops {

/// OpenVinoOps in both vocabularies; here every value is a node.
class OpenVinoTokenOps : public OpenVinoOps, public TokenOps {
public:
    /// `parameters`, float32 and contiguous on the CPU, must outlive the graph.
    OpenVinoTokenOps(const Parameters& parameters, const Options& options) : OpenVinoOps(parameters, options), parameters_(parameters), precision_(options.precision) {}

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
    ov::Output<ov::Node> node(const Value& x) const;
    ov::Output<ov::Node> table(const std::string& name) const;

    const Parameters& parameters_;
    ov::element::Type precision_;
};

}  // namespace atelier::ops
