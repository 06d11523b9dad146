#include "atelier/data/toy_points.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include <fmt/ranges.h>

#include "atelier/core/error.h"
#include "atelier/core/random_streams.h"
#include "atelier/core/schema.h"
#include "atelier/data/points.h"

namespace atelier::data {

namespace {

using core::RandomStream;
using Point = std::array<double, 2>;
using std::numbers::pi;

constexpr std::string_view toy_prefix = "toy:";
constexpr std::int64_t count = 40000;

struct Draw {
    Point point;  // before the normal noise
    std::int64_t label;
};

std::vector<Point> ring_centres() {
    std::vector<Point> centres;
    for (int k = 0; k < 8; ++k) centres.push_back({std::cos(k * pi / 4), std::sin(k * pi / 4)});
    return centres;
}

std::vector<Point> grid_centres() {
    std::vector<Point> centres;
    for (int k = 0; k < 25; ++k) centres.push_back({k % 5 - 2.0, k / 5 - 2.0});
    return centres;
}

Draw draw_ring(RandomStream& stream) {
    // Weights in twentieths: rare modes next to frequent ones are what a generator loses first.
    static constexpr std::array<std::int64_t, 20> mode{0, 0, 0, 0, 1, 2, 2, 2, 3, 3,
                                                       4, 4, 4, 4, 5, 6, 6, 6, 7, 7};
    static const std::vector<Point> centres = ring_centres();
    const std::int64_t label = mode[stream.below(mode.size())];
    return {centres[static_cast<std::size_t>(label)], label};
}

Draw draw_grid(RandomStream& stream) {
    static const std::vector<Point> centres = grid_centres();
    const std::uint64_t label = stream.below(centres.size());
    return {centres[label], static_cast<std::int64_t>(label)};
}

Draw draw_moons(RandomStream& stream) {
    const bool upper = stream.below(2) == 0;
    const double fraction = stream.uniform();
    const double x = std::cos(pi * fraction), y = std::sin(pi * fraction);
    const std::int64_t arc = static_cast<std::int64_t>(fraction * 3);
    return upper ? Draw{{x, y}, arc} : Draw{{1 - x, 0.5 - y}, 3 + arc};
}

Draw draw_spiral(RandomStream& stream) {
    // The square root makes the density along the curve even: arc length grows with the square of
    // the angle.
    const double length = stream.uniform();
    const double fraction = std::sqrt(length);
    const double angle = 4 * pi * fraction;
    return {{fraction * std::cos(angle), fraction * std::sin(angle)},
            static_cast<std::int64_t>(length * 8)};
}

Draw draw_spirals(RandomStream& stream) {
    const std::uint64_t arm = stream.below(2);
    const double fraction = stream.uniform();
    const double radius = 0.2 + 0.8 * fraction;
    const double angle = pi * (3 * fraction + static_cast<double>(arm));
    return {{radius * std::cos(angle), radius * std::sin(angle)},
            static_cast<std::int64_t>(arm) * 4 + static_cast<std::int64_t>(fraction * 4)};
}

struct Toy {
    std::string name;
    ToyDistribution distribution;
    Draw (*draw)(RandomStream&);
};

const std::vector<Toy>& toys() {
    static const std::vector<Toy> list{
        {"ring", {ring_centres(), 0.1}, draw_ring},   {"moons", {{}, 0.05}, draw_moons},
        {"spiral", {{}, 0.02}, draw_spiral},          {"spirals", {{}, 0.02}, draw_spirals},
        {"grid25", {grid_centres(), 0.1}, draw_grid},
    };
    return list;
}

const Toy& toy_at(const std::filesystem::path& path) {
    const std::string name = path.string().substr(toy_prefix.size());
    std::vector<std::string> names;
    for (const Toy& toy : toys()) {
        if (toy.name == name) return toy;
        names.push_back(toy.name);
    }
    const std::string nearest = core::nearest_word(name, names);
    throw core::UsageError(
        fmt::format("there is no toy \"{}\"; {}known are {}", name,
                    nearest.empty() ? "" : fmt::format("did you mean \"{}\"? ", nearest),
                    fmt::join(names, ", ")));
}

Points draw_points(const Toy& toy, const std::string& split) {
    RandomStream stream(0, "toy/" + toy.name + "/" + split);
    Points points{at::empty({count, 2}, at::kFloat), {}};
    float* out = points.positions.mutable_data_ptr<float>();
    for (std::int64_t i = 0; i < count; ++i) {
        const Draw draw = toy.draw(stream);
        points.labels.push_back(draw.label);
        for (const double x : draw.point)
            *out++ = static_cast<float>(x + toy.distribution.std_dev * stream.normal());
    }
    return points;
}

}  // namespace

bool is_toy(const std::filesystem::path& path) { return path.string().starts_with(toy_prefix); }

ToyDistribution toy_distribution(const std::filesystem::path& path) {
    return toy_at(path).distribution;
}

std::shared_ptr<const Dataset> open_toy(const DataRequest& request) {
    const Toy& toy = toy_at(request.path);
    const Points train = draw_points(toy, "train");
    return make_points_dataset(train,
                               request.split == "train" ? train : draw_points(toy, request.split),
                               request.limit, request.path.string());
}

}  // namespace atelier::data
