#include "atelier/diffusion/noise_levels.h"

#include <cmath>

#include "atelier/diffusion/device_normals.h"

namespace atelier::diffusion {

std::vector<double> karras_levels(double sigma_min, double sigma_max, std::int64_t count,
                                  double rho) {
    std::vector<double> levels(static_cast<std::size_t>(count));
    const double high = std::pow(sigma_max, 1 / rho), low = std::pow(sigma_min, 1 / rho);
    for (std::int64_t i = 0; i < count; ++i) {
        const double fraction =
            count > 1 ? static_cast<double>(i) / static_cast<double>(count - 1) : 0.0;
        levels[static_cast<std::size_t>(i)] = std::pow(high + fraction * (low - high), rho);
    }
    return levels;
}

Tensor lognormal_levels(core::RandomStream& stream, std::int64_t count, double p_mean,
                        double p_std) {
    Tensor sigma = at::empty({count}, at::kFloat);
    float* values = sigma.mutable_data_ptr<float>();
    for (std::int64_t i = 0; i < count; ++i)
        values[i] = static_cast<float>(std::exp(p_mean + p_std * stream.normal()));
    return sigma;
}

Tensor indexed_levels(core::RandomStream& stream, std::int64_t count,
                      std::span<const double> levels, std::int64_t first, std::int64_t last) {
    Tensor sigma = at::empty({count}, at::kFloat);
    float* values = sigma.mutable_data_ptr<float>();
    for (std::int64_t i = 0; i < count; ++i) {
        const auto index = first + static_cast<std::int64_t>(
                                       stream.below(static_cast<std::uint64_t>(last - first + 1)));
        values[i] = static_cast<float>(levels[static_cast<std::size_t>(index)]);
    }
    return sigma;
}

Tensor normal_tensor(core::RandomStream& stream, at::IntArrayRef shape) {
    Tensor noise = at::empty(shape, at::kFloat);
    stream.fill_normal({noise.mutable_data_ptr<float>(), static_cast<std::size_t>(noise.numel())});
    return noise;
}

std::vector<Tensor> normal_rows(std::span<const core::RandomStream> streams, at::IntArrayRef row,
                                std::int64_t first, std::int64_t count, at::Device device) {
    std::vector<std::int64_t> shape{count};
    shape.insert(shape.end(), row.begin(), row.end());
    const std::int64_t each = c10::multiply_integers(row);
    std::vector<Tensor> rows;
    if (streams.empty()) return rows;
    if (!device.is_cpu()) {
        const Tensor all = device_normals(streams, first * each, count * each, device);
        for (const Tensor& of_stream : all.unbind()) rows.push_back(of_stream.reshape(shape));
        return rows;
    }
    for (core::RandomStream stream : streams) {
        // Normal numbers come in pairs.
        const auto before = static_cast<std::uint64_t>(first * each);
        stream.skip(before / 2 * 2);
        if (before % 2 == 1) stream.normal();
        rows.push_back(normal_tensor(stream, shape));
    }
    return rows;
}

Tensor image_noise(std::uint64_t seed, std::int64_t first, std::int64_t count,
                   at::IntArrayRef shape) {
    std::vector<std::int64_t> sizes{count};
    sizes.insert(sizes.end(), shape.begin(), shape.end());
    Tensor noise = at::empty(sizes, at::kFloat);
    const std::int64_t elements = count > 0 ? noise.numel() / count : 0;
    for (std::int64_t i = 0; i < count; ++i) {
        core::RandomStream stream(seed, "noise", static_cast<std::uint64_t>(first + i));
        stream.fill_normal(
            {noise.mutable_data_ptr<float>() + i * elements, static_cast<std::size_t>(elements)});
    }
    return noise;
}

}  // namespace atelier::diffusion
