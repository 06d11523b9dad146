#include "atelier/inference/calibration.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "atelier/core/random_streams.h"
#include "atelier/diffusion/samplers.h"
#include "atelier/ops/quantised.h"

namespace atelier::inference {

namespace {

constexpr std::int64_t bins = 2048, candidates = 64;

/// Keeps what it is asked to denoise.
class Recorder : public diffusion::Denoiser {
public:
    Recorder(const diffusion::Denoiser& denoiser, std::vector<NetworkUse>& uses) : denoiser_(denoiser), uses_(uses) {}

    Tensor denoise(const Tensor& x_t, const Tensor& sigma, const diffusion::Condition& condition) const override {
        uses_.push_back({x_t.clone(), sigma.clone(), condition});
        return denoiser_.denoise(x_t, sigma, condition);
    }

private:
    const diffusion::Denoiser& denoiser_;
    std::vector<NetworkUse>& uses_;
};

/// Each class in turn, from the first to the last and again. Many classes come in a random order, so
/// that a few samples are not all of the first classes.
std::vector<std::int64_t> in_turn(std::vector<std::int64_t> classes, std::int64_t count,
                                  std::uint64_t seed) {
    constexpr std::size_t few = 8;  // those that layers are measured on have each of so many
    if (classes.size() > few) {
        std::vector<std::int64_t> shuffled;
        core::RandomStream stream(seed, "calibration/classes");
        for (const std::int64_t i : stream.permutation(static_cast<std::int64_t>(classes.size()))) {
            shuffled.push_back(classes[static_cast<std::size_t>(i)]);
        }
        classes = std::move(shuffled);
    }
    std::vector<std::int64_t> all;
    for (std::size_t i = 0; i < static_cast<std::size_t>(count) && !classes.empty(); ++i) {
        all.push_back(classes[i % classes.size()]);
    }
    return all;
}

void watch(const models::Model& model, const std::vector<NetworkUse>& uses, const ConvolutionWatcher::See& see) {
    at::NoGradGuard no_gradients;
    ConvolutionWatcher speaker(model.parameters, see);
    for (const NetworkUse& use : uses) run(model, speaker, use);
}

struct Seen {
    double largest = 0, multiplications = 0;
    Tensor counts = at::zeros({bins}, at::kDouble);
};

}  // namespace

Tensor run(const models::Model& model, ops::Ops& speaker, const NetworkUse& use) {
    const auto with = diffusion::precondition(use.sigma, model.scheme);
    return ops::tensor_of(model.network.forward(speaker, diffusion::network_inputs(model.network, use.x_t, with, use.condition)).raw);
}

ops::Value ConvolutionWatcher::conv2d(const ops::Value& x, const std::string& name, const ops::Convolution& layer) {
    const ops::Value y = TorchOps::conv2d(x, name, layer);
    see_(name, layer, ops::tensor_of(x), ops::tensor_of(y));
    return y;
}

std::vector<NetworkUse> uses_in_one_step(const models::Model& model, const std::vector<std::int64_t>& classes, std::int64_t samples,
                                         std::uint64_t seed) {
    const Tensor z = diffusion::image_noise(seed, 0, samples, model.network.data_shape);
    return {{model.range.start() * z, at::full({samples}, model.range.sigma_max, at::kFloat),
             diffusion::one_hot(in_turn(classes, samples, seed), model.network.classes)}};
}

std::vector<NetworkUse> uses_along_paths(const models::Model& model, std::int64_t samples, std::int64_t steps, std::uint64_t seed) {
    at::NoGradGuard no_gradients;
    std::vector<std::int64_t> classes(static_cast<std::size_t>(model.network.classes));
    std::iota(classes.begin(), classes.end(), 0);
    std::vector<NetworkUse> uses;
    const auto denoiser = model.denoiser();
    diffusion::sample_heun(
        Recorder(denoiser, uses),
        diffusion::image_noise(seed, 0, samples, model.network.data_shape),
        diffusion::sampling_levels(model.range, steps),
        diffusion::one_hot(in_turn(classes, samples, seed), model.network.classes));
    return uses;
}

double best_range(const std::vector<double>& counts, double largest) {
    double best = largest, least = std::numeric_limits<double>::infinity();
    for (std::int64_t candidate = candidates; candidate > 0; --candidate) {
        const double range = largest * static_cast<double>(candidate) / candidates, step = range / ops::largest_step;
        double error = 0;
        for (std::size_t i = 0; i < counts.size() && error < least; ++i) {
            const double value = largest * (static_cast<double>(i) + 0.5) / static_cast<double>(counts.size());
            const double away = value - std::min(std::round(value / step), static_cast<double>(ops::largest_step)) * step;
            error += counts[i] * away * away;
        }
        if (error < least) {
            least = error;
            best = range;
        }
    }
    return best;
}

std::vector<CalibratedLayer> calibrate(const models::Model& model, const std::vector<NetworkUse>& uses) {
    std::vector<std::string> order;
    std::map<std::string, Seen> seen;
    watch(model, uses, [&](const std::string& name, const ops::Convolution& layer, const Tensor& input, const Tensor&) {
        if (!seen.contains(name)) order.push_back(name);
        Seen& here = seen[name];
        here.largest = std::max(here.largest, input.abs().max().item<double>());
        here.multiplications += static_cast<double>(input.numel() * layer.out_channels * layer.kernel * layer.kernel) / static_cast<double>(layer.stride * layer.stride);
    });
    watch(model, uses, [&](const std::string& name, const ops::Convolution&, const Tensor& input, const Tensor&) {
        Seen& here = seen[name];
        if (here.largest > 0) here.counts += at::histc(input.abs().flatten().to(at::kFloat), bins, 0, here.largest).to(at::kDouble);
    });
    double all = 0;
    for (const auto& [name, here] : seen) all += here.multiplications;
    std::vector<CalibratedLayer> layers;
    for (const std::string& name : order) {
        const Seen& here = seen[name];
        const double* counts = here.counts.const_data_ptr<double>();
        layers.push_back({name, here.largest > 0 ? best_range({counts, counts + bins}, here.largest) : 1.0, here.multiplications / all});
    }
    return layers;
}

}  // namespace atelier::inference
