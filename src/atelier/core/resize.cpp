#include "atelier/core/resize.h"

#include <algorithm>
#include <cmath>

namespace atelier::core {

namespace {

/// The weights with which pixels from `first` on make up a new one; their sum is 1.
struct Taps {
    int first;
    std::vector<float> weights;
};

std::vector<Taps> taps_of(int from, int to) {
    const double scale = static_cast<double>(from) / to, reach = std::max(1.0, scale);
    std::vector<Taps> all;
    for (int i = 0; i < to; ++i) {
        const double centre = (i + 0.5) * scale;
        const int first = std::max(0, static_cast<int>(std::floor(centre - reach))), last = std::min(from, static_cast<int>(std::ceil(centre + reach)));
        Taps taps{first, {}};
        double sum = 0;
        for (int j = first; j < last; ++j) {
            const double weight = std::max(0.0, 1 - std::abs(j + 0.5 - centre) / reach);
            taps.weights.push_back(static_cast<float>(weight));
            sum += weight;
        }
        for (float& weight : taps.weights) weight = static_cast<float>(weight / sum);
        all.push_back(std::move(taps));
    }
    return all;
}

std::uint8_t rounded(float value) { return static_cast<std::uint8_t>(std::clamp(value + 0.5f, 0.0f, 255.0f)); }

}  // namespace

Image square(const Image& image, int side) {
    const int from = std::min(image.height, image.width), top = (image.height - from) / 2, left = (image.width - from) / 2, channels = image.channels;
    const std::vector<Taps> taps = taps_of(from, side);
    // Rows first: `narrow` is [from, side, channels].
    std::vector<float> narrow(static_cast<std::size_t>(from) * side * channels);
    for (int y = 0; y < from; ++y) {
        const std::uint8_t* row = image.pixels.data() + (static_cast<std::size_t>(top + y) * image.width + left) * channels;
        float* out = narrow.data() + static_cast<std::size_t>(y) * side * channels;
        for (int x = 0; x < side; ++x) {
            for (int c = 0; c < channels; ++c) {
                float sum = 0;
                for (std::size_t t = 0; t < taps[x].weights.size(); ++t) sum += taps[x].weights[t] * row[(taps[x].first + t) * channels + c];
                out[x * channels + c] = sum;
            }
        }
    }
    Image scaled{side, side, channels, std::vector<std::uint8_t>(static_cast<std::size_t>(side) * side * channels)};
    const std::size_t stride = static_cast<std::size_t>(side) * channels;
    std::vector<float> line(stride);
    for (int y = 0; y < side; ++y) {
        std::ranges::fill(line, 0.0f);
        for (std::size_t t = 0; t < taps[y].weights.size(); ++t) {
            const float* row = narrow.data() + (taps[y].first + t) * stride;
            for (std::size_t i = 0; i < stride; ++i) line[i] += taps[y].weights[t] * row[i];
        }
        std::ranges::transform(line, scaled.pixels.begin() + static_cast<std::ptrdiff_t>(y * stride), rounded);
    }
    return scaled;
}

Image with_channels(const Image& image, int channels) {
    if (image.channels == channels) return image;
    Image changed{image.height, image.width, channels, {}};
    changed.pixels.reserve(static_cast<std::size_t>(image.height) * image.width * channels);
    for (std::size_t i = 0; i + image.channels <= image.pixels.size(); i += image.channels) {
        const std::uint8_t* p = image.pixels.data() + i;
        if (channels == 3) changed.pixels.insert(changed.pixels.end(), 3, p[0]);
        else changed.pixels.push_back(rounded(0.299f * p[0] + 0.587f * p[1] + 0.114f * p[2]));
    }
    return changed;
}

}  // namespace atelier::core
