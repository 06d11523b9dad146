#include "atelier/data/latents.h"

#include "atelier/core/random_streams.h"

namespace atelier::data {

Tensor Latents::samples(std::span<const std::int64_t> indices) const {
    if (!shards_) return images_->samples(indices);  // throws: there are only captions
    const Tensor mean = shards_->rows("mean", indices),
                 std_dev = shards_->rows("deviation", indices);
    const Tensor noise = at::empty_like(mean);
    const auto each =
        static_cast<std::size_t>(mean.numel() / std::max<std::int64_t>(1, mean.size(0)));
    for (std::size_t i = 0; i < indices.size(); ++i) {
        core::RandomStream stream(0, "latents", static_cast<std::uint64_t>(indices[i]));
        stream.fill_normal({noise.mutable_data_ptr<float>() + i * each, each});
    }
    return mean + std_dev * noise;
}

}  // namespace atelier::data
