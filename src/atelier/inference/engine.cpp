#include "atelier/inference/engine.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "atelier/backends/torch/recorded_work.h"
#include "atelier/core/error.h"
#include "atelier/diffusion/samplers.h"
#include "atelier/inference/compiled_denoiser.h"
#include "atelier/inference/native_network.h"
#include "atelier/inference/openvino_graphs.h"

namespace atelier::inference {

namespace {

/// A denoiser whose evaluations on an accelerator are recorded and replayed.
class RecordedDenoiser : public diffusion::Denoiser {
public:
    explicit RecordedDenoiser(diffusion::EdmDenoiser denoiser)
        : denoiser_(std::move(denoiser)), work_([this](const std::vector<Tensor>& inputs) {
              return denoiser_.denoise(inputs[0], inputs[1], {inputs[2], inputs[3], inputs[4]});
          }) {}

    Tensor denoise(const Tensor& x_t, const Tensor& sigma,
                   const diffusion::Condition& condition) const override {
        return work_({x_t, sigma, condition.labels, condition.augment, condition.ids});
    }

private:
    diffusion::EdmDenoiser denoiser_;
    mutable backends::RecordedWork work_;
};

class TorchOneStep : public OneStep {
public:
    TorchOneStep(const models::Model& model, const Engine& engine)
        : model_(model), engine_(engine), denoiser_(model.denoiser(engine.compute())) {}

    Tensor draw(const Tensor& z, std::span<const std::int64_t> classes) const override {
        at::NoGradGuard no_gradients;
        const auto condition =
            diffusion::one_hot(classes, model_.network.label_dim, engine_.device);
        return diffusion::sample_one_step(denoiser_, z.to(engine_.device), model_.noise, condition)
            .to(at::kCPU);
    }

private:
    const models::Model& model_;
    Engine engine_;
    RecordedDenoiser denoiser_;
};

const std::map<std::string, Engine::Precision>& precisions() {
    static const std::map<std::string, Engine::Precision> all{
        {"auto", Engine::Precision::automatic},
        {"fp32", Engine::Precision::fp32},
        {"bf16", Engine::Precision::bf16},
        {"int8", Engine::Precision::int8}};
    return all;
}

Engine::Precision precision_of(const std::string& name) {
    const auto found = precisions().find(name);
    if (found == precisions().end())
        throw core::UsageError(
            fmt::format("there is no precision \"{}\"; known are auto, fp32, bf16 and int8", name));
    return found->second;
}

}  // namespace

Engine engine_of(const std::string& kind, const std::string& precision, const std::string& device) {
    using Kind = Engine::Kind;
    named_device(device);
    const std::map<std::string, Kind> kinds{
        {"auto", device == "cpu" ? Kind::openvino : Kind::torch},
        {"native", Kind::native},
        {"openvino", Kind::openvino},
        {"torch", Kind::torch}};
    const auto found = kinds.find(kind);
    if (found == kinds.end())
        throw core::UsageError(fmt::format(
            "there is no engine \"{}\"; known are auto, native, openvino and torch", kind));
    Engine engine{found->second, precision_of(precision), at::kCPU, kind == "auto"};
    if (engine.precision == Engine::Precision::int8 && engine.kind != Kind::openvino) {
        throw core::UsageError(
            "int8 is computed by OpenVINO, on CPUs" +
            std::string(engine.kind == Kind::torch ? "; for LibTorch use --precision bf16" : ""));
    }
    if (engine.precision == Engine::Precision::bf16 && engine.kind == Kind::native)
        throw core::UsageError(
            "--engine native computes in fp32; for bf16 use --engine openvino or torch");
    if (engine.kind != Kind::torch && device != "cpu") {
        throw core::UsageError(fmt::format(
            "--engine {} computes on the CPU; for {} use --engine torch", kind, device));
    }
    engine.device = device_of(device);
    return engine;
}

std::string name_of(Engine::Kind kind) {
    switch (kind) {
        case Engine::Kind::native:
            return "native";
        case Engine::Kind::openvino:
            return "openvino";
        case Engine::Kind::torch:
            break;
    }
    return "torch";
}

std::string name_of(Engine::Precision precision) {
    for (const auto& [name, known] : precisions()) {
        if (known == precision) return name;
    }
    return "";
}

Engine engine_for(Engine engine, const models::Model& model) {
    using Precision = Engine::Precision;
    if (engine.precision == Precision::int8 && !model.quantised()) {
        throw core::UsageError(
            "--precision int8: this model is not quantised; quantise it with atelier quantize "
            "MODEL "
            "--out DIR");
    }
    if (engine.precision == Precision::automatic) {
        engine.precision = model.quantised() && engine.kind == Engine::Kind::openvino
                               ? Precision::int8
                               : Precision::fp32;
    }
    const bool in_float32 = engine.precision == Precision::fp32 ||
                            (engine.precision == Precision::bf16 && !cpu_computes_in_bfloat16());
    if (engine.automatic && engine.kind == Engine::Kind::openvino && in_float32 &&
        !model.quantised() && native_pays(model.network))
        engine.kind = Engine::Kind::native;
    return engine;
}

std::unique_ptr<diffusion::Denoiser> open_denoiser(const models::Model& model,
                                                   const Engine& engine) {
    const Engine chosen = engine_for(engine, model);
    switch (chosen.kind) {
        case Engine::Kind::native:
            return std::make_unique<CompiledDenoiser>(model, native_network(model));
        case Engine::Kind::openvino:
            return std::make_unique<CompiledDenoiser>(model,
                                                      openvino_network(model, chosen.precision));
        case Engine::Kind::torch:
            break;
    }
    return std::make_unique<RecordedDenoiser>(model.denoiser(chosen.compute()));
}

std::unique_ptr<OneStep> open_one_step(const models::Model& model, const Engine& engine,
                                       std::vector<std::int64_t> classes) {
    const Engine chosen = engine_for(engine, model);
    if (chosen.kind == Engine::Kind::torch) return std::make_unique<TorchOneStep>(model, chosen);
    if (classes.empty()) {
        classes.resize(static_cast<std::size_t>(model.network.label_dim));
        std::iota(classes.begin(), classes.end(), 0);
    }
    std::ranges::sort(classes);
    auto network = chosen.kind == Engine::Kind::native
                       ? native_one_level(model, classes)
                       : openvino_one_level(model, classes, chosen.precision);
    return std::make_unique<CompiledOneStep>(model, std::move(classes), std::move(network));
}

}  // namespace atelier::inference
