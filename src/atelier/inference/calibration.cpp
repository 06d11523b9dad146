#include "atelier/inference/calibration.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "atelier/backends/torch/quantised.h"
#include "atelier/core/random_streams.h"
#include "atelier/diffusion/samplers.h"

namespace atelier::inference {

namespace {

constexpr std::int64_t bins = 2048, candidates = 64;

/// Records the inputs of another denoiser.
class Recorder : public diffusion::Denoiser {
public:
    Recorder(const diffusion::Denoiser& denoiser, std::vector<CalibrationBatch>& batches)
        : denoiser_(denoiser), batches_(batches) {}

    Tensor denoise(const Tensor& x_t, const Tensor& sigma,
                   const diffusion::Condition& condition) const override {
        batches_.push_back({x_t.clone(), sigma.clone(), condition});
        return denoiser_.denoise(x_t, sigma, condition);
    }

private:
    const diffusion::Denoiser& denoiser_;
    std::vector<CalibrationBatch>& batches_;
};

/// `count` classes, cycling through `classes`. Many classes are shuffled first, so that a few
/// samples do not only show the first ones.
std::vector<std::int64_t> cycle_classes(std::vector<std::int64_t> classes, std::int64_t count,
                                        std::uint64_t seed) {
    constexpr std::size_t few = 8;  // the samples that measure the layers cover this many classes
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

void observe_convolutions(const models::Model& model, const std::vector<CalibrationBatch>& batches,
                          const ConvolutionObserver& observer) {
    at::NoGradGuard no_gradients;
    for (const CalibrationBatch& batch : batches) observe(model, batch, observer);
}

struct LayerStatistics {
    double max_magnitude = 0, multiplications = 0;
    Tensor counts = at::zeros({bins}, at::kDouble);
};

}  // namespace

Tensor run(const models::Model& model, const backends::TorchOps& backend,
           const CalibrationBatch& batch) {
    const auto with = diffusion::precondition(batch.sigma, model.parametrisation);
    return diffusion::evaluate(
               model.network,
               diffusion::network_inputs(model.network, batch.x_t, with, batch.condition), backend)
        .raw;
}

Tensor observe(const models::Model& model, const CalibrationBatch& batch,
               const ConvolutionObserver& observer) {
    const backends::TorchOps plain(model.parameters);
    backends::TorchOps backend(model.parameters);
    backend.replace_convolutions([&](const graph::Conv2d& layer, const Tensor& x) {
        Tensor y = plain.convolved(layer, x);
        observer(layer, x, y);
        return y;
    });
    return run(model, backend, batch);
}

std::vector<CalibrationBatch> one_step_calibration_set(const models::Model& model,
                                                       const std::vector<std::int64_t>& classes,
                                                       std::int64_t samples, std::uint64_t seed) {
    const Tensor z = diffusion::image_noise(seed, 0, samples, model.network.data_shape);
    return {{model.range.initial_noise_scale() * z,
             at::full({samples}, model.range.sigma_max, at::kFloat),
             diffusion::one_hot(cycle_classes(classes, samples, seed), model.network.label_dim)}};
}

std::vector<CalibrationBatch> trajectory_calibration_set(const models::Model& model,
                                                         std::int64_t samples, std::int64_t steps,
                                                         std::uint64_t seed) {
    at::NoGradGuard no_gradients;
    std::vector<std::int64_t> classes(static_cast<std::size_t>(model.network.label_dim));
    std::iota(classes.begin(), classes.end(), 0);
    std::vector<CalibrationBatch> batches;
    const auto denoiser = model.denoiser();
    diffusion::sample_heun(
        Recorder(denoiser, batches),
        diffusion::image_noise(seed, 0, samples, model.network.data_shape),
        diffusion::sampling_levels(model.range, steps),
        diffusion::one_hot(cycle_classes(classes, samples, seed), model.network.label_dim));
    return batches;
}

double best_range(const std::vector<double>& counts, double max_magnitude) {
    double best = max_magnitude, least = std::numeric_limits<double>::infinity();
    for (std::int64_t candidate = candidates; candidate > 0; --candidate) {
        const double range = max_magnitude * static_cast<double>(candidate) / candidates,
                     quantisation_step = range / backends::int8_max;
        double error = 0;
        for (std::size_t i = 0; i < counts.size() && error < least; ++i) {
            const double value =
                max_magnitude * (static_cast<double>(i) + 0.5) / static_cast<double>(counts.size());
            const double rounding_error =
                value - std::min(std::round(value / quantisation_step),
                                 static_cast<double>(backends::int8_max)) *
                            quantisation_step;
            error += counts[i] * rounding_error * rounding_error;
        }
        if (error < least) {
            least = error;
            best = range;
        }
    }
    return best;
}

std::vector<CalibratedLayer> calibrate(const models::Model& model,
                                       const std::vector<CalibrationBatch>& batches) {
    std::vector<std::string> order;
    std::map<std::string, LayerStatistics> statistics;
    observe_convolutions(
        model, batches, [&](const graph::Conv2d& layer, const Tensor& input, const Tensor&) {
            const std::string& name = layer.name;
            if (!statistics.contains(name)) order.push_back(name);
            LayerStatistics& layer_statistics = statistics[name];
            layer_statistics.max_magnitude =
                std::max(layer_statistics.max_magnitude, input.abs().max().item<double>());
            layer_statistics.multiplications +=
                static_cast<double>(input.numel() * layer.out_channels * layer.kernel *
                                    layer.kernel) /
                static_cast<double>(layer.stride * layer.stride);
        });
    observe_convolutions(
        model, batches, [&](const graph::Conv2d& layer, const Tensor& input, const Tensor&) {
            LayerStatistics& layer_statistics = statistics[layer.name];
            if (layer_statistics.max_magnitude > 0)
                layer_statistics.counts += at::histc(input.abs().flatten().to(at::kFloat), bins, 0,
                                                     layer_statistics.max_magnitude)
                                               .to(at::kDouble);
        });
    double all = 0;
    for (const auto& [name, layer_statistics] : statistics) all += layer_statistics.multiplications;
    std::vector<CalibratedLayer> layers;
    for (const std::string& name : order) {
        const LayerStatistics& layer_statistics = statistics[name];
        const double* counts = layer_statistics.counts.const_data_ptr<double>();
        layers.push_back({name,
                          layer_statistics.max_magnitude > 0
                              ? best_range({counts, counts + bins}, layer_statistics.max_magnitude)
                              : 1.0,
                          layer_statistics.multiplications / all});
    }
    return layers;
}

}  // namespace atelier::inference
