#include "atelier/networks/sd_blocks.h"

namespace atelier::networks {

using graph::Value;

Value sd_resnet(graph::Builder& ops, const Value& x, const std::optional<Value>& embedding,
                const std::string& name, std::int64_t out_channels, const SdNorm& norm) {
    const graph::GroupNorm silu_norm{.groups = norm.groups, .eps = norm.eps, .silu = true};
    Value y = ops.conv2d(ops.group_norm(x, name + ".norm1", silu_norm), name + ".conv1",
                         {.out_channels = out_channels});
    if (embedding)
        y = ops.add(y, ops.linear(ops.silu(*embedding), name + ".time_emb_proj",
                                  {.out_features = out_channels}));
    y = ops.conv2d(ops.group_norm(y, name + ".norm2", silu_norm), name + ".conv2",
                   {.out_channels = out_channels});
    const bool same = ops.shape(x)[1] == out_channels;
    return ops.add(y, same ? x
                           : ops.conv2d(x, name + ".conv_shortcut",
                                        {.out_channels = out_channels, .kernel = 1, .padding = 0}));
}

Value sd_downsample(graph::Builder& ops, const Value& x, const std::string& name) {
    return ops.conv2d(x, name + ".conv", {.out_channels = ops.shape(x)[1], .stride = 2});
}

Value sd_upsample(graph::Builder& ops, const Value& x, const std::string& name) {
    return ops.conv2d(ops.resample(x, graph::Resample::up), name + ".conv",
                      {.out_channels = ops.shape(x)[1]});
}

}  // namespace atelier::networks
