#pragma once

#include "atelier/inference/engine.h"
#include "atelier/inference/compiled_network.h"
#include "atelier/ops/plan.h"

namespace atelier::inference {

/// A network as a plan that this program runs itself, in float32. Few samples are computed by all threads together, many side by side, some on each thread; an answer does not depend on which.
class NativeNetwork : public CompiledNetwork {
public:
    /// `inputs`: numbers a sample of each of the plan's inputs; `outputs`: of its answer.
    NativeNetwork(ops::Plan plan, const std::vector<std::int64_t>& inputs, std::int64_t outputs);

    void in_pieces(std::int64_t samples, const Each& each) override;

private:
    class Batch;

    void compute(std::int64_t samples);
    void compute_together(std::int64_t samples, std::int64_t threads);
    void compute_side_by_side(std::int64_t samples, std::int64_t threads);

    ops::Plan plan_;
    std::vector<std::int64_t> widths_;         // of a sample's inputs
    std::vector<std::vector<float>> inputs_;
    std::vector<std::int32_t> rows_;
    std::int64_t outputs_;
    std::vector<float> output_;
};

/// Whether `network` can be spoken as a plan: all but those that read tokens.
bool native_speaks(const networks::Network& network);

/// Whether that is the faster way to compute in float32: of networks up to 16 million parameters, in which what lies between the products takes its time. Larger ones take as long by OpenVINO or less.
bool native_pays(const networks::Network& network);

/// A model's network at any noise level: x, c_noise and, where it is conditional, labels. Copies the weights. Throws core::UsageError where there is no plan of it.
std::unique_ptr<CompiledNetwork> native_network(const models::Model& model);

/// The same at the model's highest noise level alone, for samples of `classes`: x and, where it is conditional, rows. All that follows from the level, and from a class where that pays, is
/// computed when the plan is written.
std::unique_ptr<CompiledNetwork> native_one_level(const models::Model& model, const std::vector<std::int64_t>& classes);

}  // namespace atelier::inference
