#include "atelier/inference/quantise.h"

#include <algorithm>
#include <cmath>

#include "atelier/backends/torch/quantised.h"
#include "atelier/core/error.h"
#include "atelier/core/progress.h"

namespace atelier::inference {

namespace {

constexpr std::int64_t measured_samples = 8, path_samples = 16, path_steps = 6;
constexpr std::size_t measured_batches = 3;

using Ranges = std::map<std::string, double>;  // of inputs, by layer

/// Fake quantisation: computes the layers in `ranges` with inputs and weights rounded to int8
/// steps, in float32.
class FakeQuantisation {
public:
    FakeQuantisation(const backends::Parameters& full, const backends::Parameters& rounded,
                     const Ranges& ranges)
        : full_(full), rounded_(rounded), ranges_(ranges) {}

    bool rounds(const graph::Conv2d& layer) const { return ranges_.contains(layer.name); }

    Tensor operator()(const graph::Conv2d& layer, const Tensor& x) const {
        const auto range = ranges_.find(layer.name);
        if (range == ranges_.end()) return full_.convolved(layer, x);
        return rounded_.convolved(layer, backends::fake_quantised(x, range->second));
    }

private:
    backends::TorchOps full_, rounded_;
    const Ranges& ranges_;
};

/// A few samples of a few batches, from the first on.
std::vector<CalibrationBatch> subset_of(const std::vector<CalibrationBatch>& batches) {
    std::vector<CalibrationBatch> subset;
    for (std::size_t i = 0; i < batches.size();
         i += (batches.size() + measured_batches - 1) / measured_batches) {
        const CalibrationBatch& batch = batches[i];
        const std::int64_t n = std::min(measured_samples, batch.x_t.size(0));
        const Tensor labels =
            batch.condition.labels.defined() ? batch.condition.labels.narrow(0, 0, n) : Tensor();
        subset.push_back({batch.x_t.narrow(0, 0, n), batch.sigma.narrow(0, 0, n), {labels}});
    }
    return subset;
}

/// Measures the error that rounding in some layers causes in a network's output.
class Comparison {
public:
    Comparison(const models::Model& model, const backends::Parameters& rounded,
               std::vector<CalibrationBatch> batches)
        : model_(model), rounded_(rounded), batches_(std::move(batches)) {
        for (const CalibrationBatch& batch : batches_) exact_.push_back(output(batch, {}));
    }

    double error(const Ranges& ranges) const {
        double wrong = 0, all = 0;
        for (std::size_t i = 0; i < batches_.size(); ++i) {
            wrong += (output(batches_[i], ranges) - exact_[i]).square().sum().item<double>();
            all += exact_[i].square().sum().item<double>();
        }
        return std::sqrt(wrong / std::max(all, 1e-30));
    }

private:
    Tensor output(const CalibrationBatch& batch, const Ranges& ranges) const {
        at::NoGradGuard no_gradients;
        backends::TorchOps backend(model_.parameters);
        backend.replace_convolutions(FakeQuantisation(model_.parameters, rounded_, ranges));
        return run(model_, backend, batch);
    }

    const models::Model& model_;
    const backends::Parameters& rounded_;
    std::vector<CalibrationBatch> batches_;
    std::vector<Tensor> exact_;
};

using ChannelMeans = std::map<std::string, Tensor>;  // of a convolution's output, [1,C,1,1]

/// Shifts the output of each rounded convolution, layer after layer, to the channel means that it
/// has without rounding; returns the shifts.
ChannelMeans shifts_to(const ChannelMeans& target_means, const models::Model& model,
                       const backends::Parameters& rounded, const Ranges& ranges,
                       const CalibrationBatch& batch) {
    ChannelMeans shifts;
    const FakeQuantisation rounding(model.parameters, rounded, ranges);
    backends::TorchOps backend(model.parameters);
    backend.replace_convolutions([&](const graph::Conv2d& layer, const Tensor& x) {
        const Tensor y = rounding(layer, x);
        if (!rounding.rounds(layer)) return y;
        shifts[layer.name] = target_means.at(layer.name) - y.mean({0, 2, 3}, true);
        return y + shifts[layer.name];
    });
    run(model, backend, batch);
    return shifts;
}

/// Bias correction (Nagel et al. 2019, "Data-free quantization", section 4.2): shifts the biases of
/// rounded layers so that the channel means are preserved. Rounding shifts all samples in the same
/// direction, which distorts statistics of an image set more than any single image.
void correct_biases(models::Model& model, const backends::Parameters& rounded, const Ranges& ranges,
                    const std::vector<CalibrationBatch>& batches) {
    at::NoGradGuard no_gradients;
    ChannelMeans total;
    for (const CalibrationBatch& batch : batches) {
        ChannelMeans target_means;
        observe(model, batch, [&](const graph::Conv2d& layer, const Tensor&, const Tensor& output) {
            target_means[layer.name] = output.mean({0, 2, 3}, true);
        });
        for (const auto& [name, by] : shifts_to(target_means, model, rounded, ranges, batch))
            total[name] = total.contains(name) ? total[name] + by : by;
    }
    for (const auto& [name, by] : total) {
        const std::string bias = name + ".bias";
        model.parameters.set(
            bias, model.parameters.at(bias) + by.flatten() / static_cast<double>(batches.size()));
    }
}

std::vector<CalibrationBatch> calibration_set(const models::Model& model,
                                              const Conditioning& conditions,
                                              const QuantisationSettings& settings) {
    if (default_sampling(model).method == Sampling::Method::one_step)
        return one_step_calibration_set(model, conditions, settings.samples, settings.seed);
    return trajectory_calibration_set(model, conditions, std::min(settings.samples, path_samples),
                                      path_steps, settings.seed);
}

models::Quantisation description(const std::vector<LayerError>& layers,
                                 const QuantisationSettings& settings, double error) {
    models::Quantisation quantisation{.samples = settings.samples,
                                      .seed = settings.seed,
                                      .tolerance = settings.tolerance,
                                      .error = error};
    for (const LayerError& layer_error : layers) {
        quantisation.layers.push_back({layer_error.layer.name,
                                       layer_error.in_int8 ? "int8" : "bf16", layer_error.error,
                                       layer_error.layer.share, layer_error.layer.input_range});
    }
    return quantisation;
}

}  // namespace

std::vector<LayerError> choose_layers(std::vector<LayerError> layers, double tolerance) {
    std::vector<std::size_t> by_cost;
    for (std::size_t i = 1; i + 1 < layers.size(); ++i) by_cost.push_back(i);
    const auto cost = [&](std::size_t i) {
        return layers[i].error * layers[i].error / std::max(layers[i].layer.share, 1e-12);
    };
    std::ranges::stable_sort(by_cost,
                             [&](std::size_t a, std::size_t b) { return cost(a) < cost(b); });
    double spent = 0;
    for (const std::size_t i : by_cost) {
        const double with = spent + layers[i].error * layers[i].error;
        layers[i].in_int8 = with <= tolerance * tolerance;
        if (layers[i].in_int8) spent = with;
    }
    return layers;
}

std::vector<LayerError> quantise(models::Model& model, const Conditioning& conditions,
                                 const QuantisationSettings& settings) {
    if (model.quantised())
        core::fail("this model is quantised already; quantize the model that it was made from");
    const std::vector<CalibrationBatch> batches = calibration_set(model, conditions, settings);
    const std::vector<CalibratedLayer> calibrated = calibrate(model, batches);
    if (calibrated.size() < 3)
        core::fail(
            "a network of architecture {} has no convolutions between its first and last layer to "
            "quantise",
            model.network.architecture);

    backends::Parameters steps = model.parameters;
    for (const CalibratedLayer& layer : calibrated)
        backends::quantise(steps, layer.name, static_cast<float>(layer.input_range));
    const backends::Parameters rounded = backends::dequantised(steps);
    const Comparison comparison(model, rounded, subset_of(batches));
    core::Progress progress("measuring layers", static_cast<std::int64_t>(calibrated.size()),
                            "layers");
    std::vector<LayerError> layers;
    for (const CalibratedLayer& layer : calibrated) {
        layers.push_back({layer, comparison.error({{layer.name, layer.input_range}})});
        progress.update(static_cast<std::int64_t>(layers.size()));
    }
    layers = choose_layers(std::move(layers), settings.tolerance);

    Ranges ranges;
    for (const LayerError& layer_error : layers) {
        if (layer_error.in_int8) ranges[layer_error.layer.name] = layer_error.layer.input_range;
    }
    model.quantisation = description(layers, settings, comparison.error(ranges));
    correct_biases(model, rounded, ranges, batches);
    for (const auto& [layer, range] : ranges)
        backends::quantise(model.parameters, layer, static_cast<float>(range));
    return layers;
}

}  // namespace atelier::inference
