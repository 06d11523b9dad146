#include "atelier/pipeline/pair_losses.h"

#include "atelier/backends/torch/torch_ops.h"
#include "atelier/core/error.h"
#include "atelier/distillation/lpips.h"
#include "atelier/networks/classifier.h"

namespace atelier::pipeline {

distillation::RegressionLoss perceptual_loss(const std::string& directory, at::Device device) {
    const std::filesystem::path folder(directory);
    const auto path = (folder / "config.json").string();
    const auto json = core::read_json(path);
    const auto config = networks::read_classifier_config(core::JsonObject(json, path));
    auto parameters = std::make_shared<backends::Parameters>(
        backends::read_parameters(folder / "classifier.safetensors").to(device));
    return distillation::perceptual(
        [graph = networks::classifier_graph(config), parameters](const Tensor& images) {
            auto outputs = backends::TorchOps(*parameters).run(graph, std::span(&images, 1));
            outputs.erase(outputs.begin(), outputs.begin() + 2);  // features and logits
            return outputs;
        });
}

distillation::RegressionLoss lpips_loss(const LpipsConfig& config, at::Device device) {
    return distillation::Lpips(distillation::lpips_network(config.network), config.backbone,
                               config.linear, device);
}

distillation::RegressionLoss pair_loss(const RunConfig& config, StageKind stage,
                                       const std::string& classifier, at::Device device) {
    if (!config.matching(stage).uses_pairs()) return {};
    switch (config.matching(stage).regression) {
        case distillation::PairLoss::none:
            return {};
        case distillation::PairLoss::pseudo_huber:
            return distillation::pseudo_huber;
        case distillation::PairLoss::lpips:
            return lpips_loss(config.lpips, device);
        case distillation::PairLoss::perceptual:
            return perceptual_loss(classifier, device);
    }
    core::fail("this loss on pairs has no function");
}

}  // namespace atelier::pipeline
