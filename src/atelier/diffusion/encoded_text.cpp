#include "atelier/diffusion/encoded_text.h"

#include "atelier/backends/torch/torch_ops.h"
#include "atelier/backends/torch/transfer.h"

namespace atelier::diffusion {

Tensor end_positions(const networks::ClipText& tower, const Tensor& ids) {
    constexpr std::int64_t legacy = 2;
    return (tower.eos == legacy ? ids : ids.eq(tower.eos).to(at::kInt)).argmax(1);
}

EncodedText encode_text(const networks::ClipText& tower, const backends::Parameters& parameters,
                        const Tensor& token_ids) {
    const Tensor ids =
        backends::to_device(token_ids, parameters.tensors().begin()->second.device());
    const auto forward = [&](graph::Builder& ops, std::span<const graph::Value> in) {
        return std::vector{tower.forward(ops, in[0])};
    };
    const Tensor hidden =
        backends::TorchOps(parameters).run(*tower.graphs, forward, std::span(&ids, 1))[0];
    const Tensor pooled =
        hidden.index({at::arange(ids.size(0), ids.options()), end_positions(tower, ids)});
    return {hidden, pooled / pooled.norm(2, {1}, true).clamp_min(1e-12)};  // zero stays zero
}

Condition with_labels(const networks::Network& network, const backends::Parameters& parameters,
                      const Condition& condition) {
    if (!network.text || condition.labels.defined() || !condition.ids.defined()) return condition;
    return {encode_text(*network.text, parameters, condition.ids).embeddings, condition.augment};
}

}  // namespace atelier::diffusion
