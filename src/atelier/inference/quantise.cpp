#include "atelier/inference/quantise.h"

#include <algorithm>
#include <cmath>

#include "atelier/core/error.h"
#include "atelier/core/progress.h"
#include "atelier/ops/quantised.h"

namespace atelier::inference {

namespace {

constexpr std::int64_t measured_samples = 8, path_samples = 16, path_steps = 6;
constexpr std::size_t measured_uses = 3;

/// Computes some layers as int8 would: with rounded inputs and weights, in float32.
class RoundingOps : public ops::TorchOps {
public:
    RoundingOps(const ops::Parameters& full, const ops::Parameters& rounded, std::map<std::string, double> ranges)
        : TorchOps(full), rounded_(rounded), ranges_(std::move(ranges)) {}

    bool rounds(const std::string& layer) const { return ranges_.contains(layer); }

    ops::Value conv2d(const ops::Value& x, const std::string& name, const ops::Convolution& layer) override {
        const auto range = ranges_.find(name);
        if (range == ranges_.end()) return TorchOps::conv2d(x, name, layer);
        return rounded_.conv2d(ops::rounded_to_steps(ops::tensor_of(x), range->second), name, layer);
    }

private:
    ops::TorchOps rounded_;
    std::map<std::string, double> ranges_;
};

/// A few samples of a few uses, from the first on.
std::vector<NetworkUse> some_of(const std::vector<NetworkUse>& uses) {
    std::vector<NetworkUse> some;
    for (std::size_t i = 0; i < uses.size(); i += (uses.size() + measured_uses - 1) / measured_uses) {
        const NetworkUse& use = uses[i];
        const std::int64_t n = std::min(measured_samples, use.x_t.size(0));
        const Tensor labels = use.condition.labels.defined() ? use.condition.labels.narrow(0, 0, n) : Tensor();
        some.push_back({use.x_t.narrow(0, 0, n), use.sigma.narrow(0, 0, n), {labels}});
    }
    return some;
}

/// Measures what rounding in some layers does to a network's output.
class Comparison {
public:
    Comparison(const models::Model& model, const ops::Parameters& rounded, std::vector<NetworkUse> uses)
        : model_(model), rounded_(rounded), uses_(std::move(uses)) {
        for (const NetworkUse& use : uses_) exact_.push_back(output(use, {}));
    }

    double error(const std::map<std::string, double>& ranges) const {
        double wrong = 0, all = 0;
        for (std::size_t i = 0; i < uses_.size(); ++i) {
            wrong += (output(uses_[i], ranges) - exact_[i]).square().sum().item<double>();
            all += exact_[i].square().sum().item<double>();
        }
        return std::sqrt(wrong / std::max(all, 1e-30));
    }

private:
    Tensor output(const NetworkUse& use, const std::map<std::string, double>& ranges) const {
        at::NoGradGuard no_gradients;
        RoundingOps speaker(model_.parameters, rounded_, ranges);
        return run(model_, speaker, use);
    }

    const models::Model& model_;
    const ops::Parameters& rounded_;
    std::vector<NetworkUse> uses_;
    std::vector<Tensor> exact_;
};

using ChannelMeans = std::map<std::string, Tensor>;  // of what a convolution gives, [1,C,1,1]

/// Gives each rounded convolution the mean that it has without rounding, layer after layer, and notes by how much that moved it.
class Centring : public RoundingOps {
public:
    Centring(const ops::Parameters& full, const ops::Parameters& rounded, std::map<std::string, double> ranges, const ChannelMeans& wanted, ChannelMeans& moved)
        : RoundingOps(full, rounded, std::move(ranges)), wanted_(wanted), moved_(moved) {}

    ops::Value conv2d(const ops::Value& x, const std::string& name, const ops::Convolution& layer) override {
        const Tensor y = ops::tensor_of(RoundingOps::conv2d(x, name, layer));
        if (!rounds(name)) return y;
        moved_[name] = wanted_.at(name) - y.mean({0, 2, 3}, true);
        return y + moved_[name];
    }

private:
    const ChannelMeans& wanted_;
    ChannelMeans& moved_;
};

/// Moves the biases of rounded layers so that their means stay what they were (Nagel et al. 2019, "Data-free quantization", section 4.2): rounding
/// shifts them all in one direction, which a set of images shows sooner than what it does to each.
void correct_biases(models::Model& model, const ops::Parameters& rounded, const std::map<std::string, double>& ranges, const std::vector<NetworkUse>& uses) {
    at::NoGradGuard no_gradients;
    ChannelMeans total;
    for (const NetworkUse& use : uses) {
        ChannelMeans wanted, moved;
        ConvolutionWatcher exact(model.parameters, [&](const std::string& name, const ops::Convolution&, const Tensor&, const Tensor& output) {
            wanted[name] = output.mean({0, 2, 3}, true);
        });
        run(model, exact, use);
        Centring centring(model.parameters, rounded, ranges, wanted, moved);
        run(model, centring, use);
        for (const auto& [name, by] : moved) total[name] = total.contains(name) ? total[name] + by : by;
    }
    for (const auto& [name, by] : total) {
        const std::string bias = name + ".bias";
        model.parameters.set(bias, model.parameters.at(bias) + by.flatten() / static_cast<double>(uses.size()));
    }
}

std::vector<NetworkUse> uses_of(const models::Model& model, const std::vector<std::int64_t>& classes, const QuantisationSettings& settings) {
    if (model.config.contains("place")) return uses_in_one_step(model, classes, settings.samples, settings.seed);
    return uses_along_paths(model, std::min(settings.samples, path_samples), path_steps, settings.seed);
}

nlohmann::json description(const std::vector<LayerError>& layers, const QuantisationSettings& settings, double error) {
    nlohmann::json rows = nlohmann::json::array();
    for (const LayerError& each : layers) {
        rows.push_back({{"layer", each.layer.name}, {"precision", each.in_int8 ? "int8" : "bf16"}, {"error", each.error},
                        {"share_of_work", each.layer.share}, {"input_range", each.layer.input_range}});
    }
    return {{"weights", "int8, symmetric, a scale a channel"}, {"inputs", "int8, symmetric, a range a layer"}, {"samples", settings.samples},
            {"seed", settings.seed}, {"tolerance", settings.tolerance}, {"error", error}, {"layers", rows}};
}

}  // namespace

std::vector<LayerError> choose_layers(std::vector<LayerError> layers, double tolerance) {
    std::vector<std::size_t> by_merit;
    for (std::size_t i = 1; i + 1 < layers.size(); ++i) by_merit.push_back(i);
    const auto price = [&](std::size_t i) { return layers[i].error * layers[i].error / std::max(layers[i].layer.share, 1e-12); };
    std::ranges::stable_sort(by_merit, [&](std::size_t a, std::size_t b) { return price(a) < price(b); });
    double spent = 0;
    for (const std::size_t i : by_merit) {
        const double with = spent + layers[i].error * layers[i].error;
        layers[i].in_int8 = with <= tolerance * tolerance;
        if (layers[i].in_int8) spent = with;
    }
    return layers;
}

std::vector<LayerError> quantise(models::Model& model, const std::vector<std::int64_t>& classes, const QuantisationSettings& settings) {
    if (model.quantised()) core::fail("this model is quantised already; quantize the one that it was made from");
    const std::vector<NetworkUse> uses = uses_of(model, classes, settings);
    const std::vector<CalibratedLayer> calibrated = calibrate(model, uses);
    if (calibrated.size() < 3) core::fail("a network of architecture {} has no convolutions between its first and last layer to quantise", model.network.architecture);

    ops::Parameters steps = model.parameters;
    for (const CalibratedLayer& layer : calibrated) ops::quantise(steps, layer.name, static_cast<float>(layer.input_range));
    const ops::Parameters rounded = ops::dequantised(steps);
    const Comparison comparison(model, rounded, some_of(uses));
    core::Progress progress("measuring layers", static_cast<std::int64_t>(calibrated.size()), "layers");
    std::vector<LayerError> layers;
    for (const CalibratedLayer& layer : calibrated) {
        layers.push_back({layer, comparison.error({{layer.name, layer.input_range}})});
        progress.update(static_cast<std::int64_t>(layers.size()));
    }
    layers = choose_layers(std::move(layers), settings.tolerance);

    std::map<std::string, double> ranges;
    for (const LayerError& each : layers) {
        if (each.in_int8) ranges[each.layer.name] = each.layer.input_range;
    }
    model.config["quantisation"] = description(layers, settings, comparison.error(ranges));
    correct_biases(model, rounded, ranges, uses);
    for (const auto& [layer, range] : ranges) ops::quantise(model.parameters, layer, static_cast<float>(range));
    return layers;
}

}  // namespace atelier::inference
