#include "atelier/inference/engine.h"

#include <numeric>

#include "atelier/core/error.h"
#include "atelier/diffusion/samplers.h"
#include "atelier/inference/openvino_denoiser.h"

namespace atelier::inference {

at::Device device_of(const std::string& name) {
    try {
        const at::Device device(name);
        if (device.is_cuda() && !at::hasCUDA()) throw core::UsageError("device \"" + name + "\": this build of LibTorch has no CUDA; use cpu");
        return device;
    } catch (const c10::Error&) {
        throw core::UsageError("there is no device \"" + name + "\"; known are cpu, cuda and cuda:N");
    }
}

namespace {

class TorchOneStep : public OneStep {
public:
    TorchOneStep(const models::Model& model, const Engine& engine)
        : model_(model), engine_(engine), denoiser_(model.denoiser(engine.precision == Engine::Precision::bf16)) {}

    Tensor draw(const Tensor& z, std::span<const std::int64_t> classes) const override {
        at::NoGradGuard no_gradients;
        const auto condition = diffusion::one_hot(classes, model_.network.classes, engine_.device);
        return diffusion::sample_one_step(denoiser_, z.to(engine_.device), model_.range.sigma_max, condition).to(at::kCPU);
    }

private:
    const models::Model& model_;
    Engine engine_;
    diffusion::EdmDenoiser denoiser_;
};

}  // namespace

Engine engine_of(const std::string& kind, const std::string& precision, const std::string& device) {
    Engine engine;
    if (kind == "openvino" || (kind == "auto" && device == "cpu")) engine.kind = Engine::Kind::openvino;
    else if (kind != "torch" && kind != "auto") throw core::UsageError(fmt::format("there is no engine \"{}\"; known are auto, openvino and torch", kind));
    if (precision == "bf16") engine.precision = Engine::Precision::bf16;
    else if (precision != "fp32") throw core::UsageError(fmt::format("there is no precision \"{}\"; known are fp32 and bf16", precision));
    if (engine.kind == Engine::Kind::openvino && device != "cpu") {
        throw core::UsageError("OpenVINO computes on the CPU; for " + device + " take --engine torch");
    }
    engine.device = device_of(device);
    return engine;
}

std::string name_of(Engine::Kind kind) { return kind == Engine::Kind::openvino ? "openvino" : "torch"; }

std::string name_of(Engine::Precision precision) { return precision == Engine::Precision::bf16 ? "bf16" : "fp32"; }

std::unique_ptr<diffusion::Denoiser> open_denoiser(const models::Model& model, const Engine& engine) {
    const bool bfloat16 = engine.precision == Engine::Precision::bf16;
    if (engine.kind == Engine::Kind::openvino) return std::make_unique<OpenVinoDenoiser>(model, bfloat16);
    return std::make_unique<diffusion::EdmDenoiser>(model.denoiser(bfloat16));
}

std::unique_ptr<OneStep> open_one_step(const models::Model& model, const Engine& engine, std::vector<std::int64_t> classes) {
    if (engine.kind == Engine::Kind::torch) return std::make_unique<TorchOneStep>(model, engine);
    if (classes.empty()) {
        classes.resize(static_cast<std::size_t>(model.network.classes));
        std::iota(classes.begin(), classes.end(), 0);
    }
    return std::make_unique<OpenVinoOneStep>(model, std::move(classes), engine.precision == Engine::Precision::bf16);
}

}  // namespace atelier::inference
