#include "atelier/core/resize.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "atelier/core/error.h"

namespace atelier::core {

namespace {

constexpr int fraction_bits =
    22;  // of a weight; 255 times the sum of weights, which may exceed 1, still fits 31 bits

double sinc(double x) {
    return x == 0 ? 1 : std::sin(std::numbers::pi * x) / (std::numbers::pi * x);
}

double lanczos_weight(double x) { return std::abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0; }

double cubic_weight(double x) {
    constexpr double a = -0.5;
    x = std::abs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

double triangle_weight(double x) { return std::max(0.0, 1 - std::abs(x)); }

struct FilterKind {
    double reach;
    double (*weight)(double);
};

FilterKind kind_of(ResizeFilter filter) {
    if (filter == ResizeFilter::lanczos) return {3, lanczos_weight};
    return filter == ResizeFilter::bicubic ? FilterKind{2, cubic_weight}
                                           : FilterKind{1, triangle_weight};
}

/// The weights of the input pixels from `first` on that make up an output pixel; they sum to 1.
struct ExactTaps {
    std::size_t first;
    std::vector<double> weights;
};

std::vector<ExactTaps> exact_taps(int from, int to, ResizeFilter filter) {
    const FilterKind kind = kind_of(filter);
    const double scale = static_cast<double>(from) / to, widened = std::max(1.0, scale),
                 reach = kind.reach * widened;
    std::vector<ExactTaps> all;
    for (int i = 0; i < to; ++i) {
        const double centre = (i + 0.5) * scale;
        const int first = std::max(0, static_cast<int>(centre - reach + 0.5)),
                  last = std::min(from, static_cast<int>(centre + reach + 0.5));
        ExactTaps taps{static_cast<std::size_t>(first), {}};
        double sum = 0;
        for (int j = first; j < last; ++j)
            sum += taps.weights.emplace_back(kind.weight((j + 0.5 - centre) / widened));
        for (double& weight : taps.weights) weight /= sum;
        all.push_back(std::move(taps));
    }
    return all;
}

/// The same as integers in units of 2^-fraction_bits; they sum to 1 up to rounding.
struct Taps {
    std::size_t first;
    std::vector<std::int32_t> weights;
};

std::vector<Taps> taps_of(int from, int to, ResizeFilter filter) {
    std::vector<Taps> all;
    for (const ExactTaps& exact : exact_taps(from, to, filter)) {
        Taps taps{exact.first, {}};
        for (const double weight : exact.weights)
            taps.weights.push_back(
                static_cast<std::int32_t>(std::lround(weight * (1 << fraction_bits))));
        all.push_back(std::move(taps));
    }
    return all;
}

std::uint8_t rounded_sum(std::int32_t sum) {
    return static_cast<std::uint8_t>(std::clamp(sum >> fraction_bits, 0, 255));
}

std::uint8_t rounded(float value) {
    return static_cast<std::uint8_t>(std::clamp(value + 0.5f, 0.0f, 255.0f));
}

constexpr std::int32_t one_half = 1 << (fraction_bits - 1);

Image of_size(int height, int width, int channels) {
    return {height, width, channels,
            std::vector<std::uint8_t>(static_cast<std::size_t>(height) *
                                      static_cast<std::size_t>(width) *
                                      static_cast<std::size_t>(channels))};
}

Image of_width(const Image& image, int width, ResizeFilter filter) {
    const std::vector<Taps> all = taps_of(image.width, width, filter);
    const auto channels = static_cast<std::size_t>(image.channels);
    Image made = of_size(image.height, width, image.channels);
    std::uint8_t* out = made.pixels.data();
    for (int y = 0; y < image.height; ++y) {
        const std::uint8_t* row = image.pixels.data() + static_cast<std::size_t>(y) *
                                                            static_cast<std::size_t>(image.width) *
                                                            channels;
        for (const Taps& taps : all) {
            for (std::size_t c = 0; c < channels; ++c) {
                std::int32_t sum = one_half;
                for (std::size_t t = 0; t < taps.weights.size(); ++t)
                    sum += taps.weights[t] * row[(taps.first + t) * channels + c];
                *out++ = rounded_sum(sum);
            }
        }
    }
    return made;
}

Image of_height(const Image& image, int height, ResizeFilter filter) {
    const std::vector<Taps> all = taps_of(image.height, height, filter);
    const std::size_t stride =
        static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.channels);
    Image made = of_size(height, image.width, image.channels);
    std::vector<std::int32_t> line(stride);
    std::uint8_t* out = made.pixels.data();
    for (const Taps& taps : all) {
        std::ranges::fill(line, one_half);
        for (std::size_t t = 0; t < taps.weights.size(); ++t) {
            const std::uint8_t* row = image.pixels.data() + (taps.first + t) * stride;
            for (std::size_t i = 0; i < stride; ++i) line[i] += taps.weights[t] * row[i];
        }
        out = std::ranges::transform(line, out, rounded_sum).out;
    }
    return made;
}

Image crop_to_square(const Image& image) {
    const int side = std::min(image.height, image.width), top = (image.height - side) / 2,
              left = (image.width - side) / 2;
    if (image.height == image.width) return image;
    Image cut = of_size(side, side, image.channels);
    const auto channels = static_cast<std::size_t>(image.channels),
               bytes = static_cast<std::size_t>(side) * channels;
    for (int y = 0; y < side; ++y) {
        const std::size_t from =
            (static_cast<std::size_t>(top + y) * static_cast<std::size_t>(image.width) +
             static_cast<std::size_t>(left)) *
            channels;
        std::copy_n(image.pixels.data() + from, bytes,
                    cut.pixels.data() + static_cast<std::size_t>(y) * bytes);
    }
    return cut;
}

}  // namespace

const std::vector<std::string>& resize_filter_names() {
    static const std::vector<std::string> names{"lanczos", "bicubic", "triangle"};
    return names;
}

ResizeFilter resize_filter(std::string_view name) {
    const auto& names = resize_filter_names();
    const auto found = std::ranges::find(names, name);
    if (found == names.end())
        throw UsageError(fmt::format(
            "there is no filter \"{}\"; known are lanczos, bicubic and triangle", name));
    return static_cast<ResizeFilter>(found - names.begin());
}

const std::string& name_of(ResizeFilter filter) {
    return resize_filter_names()[static_cast<std::size_t>(filter)];
}

std::vector<float> filter_matrix(int from, int to, ResizeFilter filter) {
    std::vector<float> matrix(static_cast<std::size_t>(from) * static_cast<std::size_t>(to));
    std::size_t row = 0;
    for (const ExactTaps& taps : exact_taps(from, to, filter)) {
        for (std::size_t i = 0; i < taps.weights.size(); ++i)
            matrix[row + taps.first + i] = static_cast<float>(taps.weights[i]);
        row += static_cast<std::size_t>(from);
    }
    return matrix;
}

Image resized(const Image& image, int height, int width, ResizeFilter filter) {
    check_image(image);
    if (height < 1 || width < 1) fail("an image cannot be scaled to {} x {} pixels", width, height);
    if (image.width == width)
        return image.height == height ? image : of_height(image, height, filter);
    const Image narrow = of_width(image, width, filter);
    return image.height == height ? narrow : of_height(narrow, height, filter);
}

Image centre_crop(const Image& image, int side, ResizeFilter filter) {
    return resized(crop_to_square(image), side, side, filter);
}

Image padded_square(const Image& image, int side, ResizeFilter filter, const Colour& background) {
    const int longer = std::max(image.height, image.width);
    const auto scaled = [&](int length) {
        return std::max(1,
                        static_cast<int>(std::lround(static_cast<double>(length) * side / longer)));
    };
    const Image small = resized(image, scaled(image.height), scaled(image.width), filter);
    Image sheet = of_size(side, side, image.channels);
    const auto channels = static_cast<std::size_t>(image.channels),
               bytes = static_cast<std::size_t>(small.width) * channels;
    for (std::size_t i = 0; i < sheet.pixels.size(); ++i)
        sheet.pixels[i] = background[i % channels];
    const int top = (side - small.height) / 2, left = (side - small.width) / 2;
    for (int y = 0; y < small.height; ++y) {
        const std::size_t to = (static_cast<std::size_t>(top + y) * static_cast<std::size_t>(side) +
                                static_cast<std::size_t>(left)) *
                               channels;
        std::copy_n(small.pixels.data() + static_cast<std::size_t>(y) * bytes, bytes,
                    sheet.pixels.data() + to);
    }
    return sheet;
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
