#pragma once

#include "atelier/backends/native/program.h"
#include "atelier/inference/compiled_network.h"
#include "atelier/inference/engine.h"

namespace atelier::inference {

/// A network compiled to a program of our own kernels, in float32. Few samples are computed by all
/// threads together; many are distributed over the threads. The result does not depend on which.
class NativeNetwork : public CompiledNetwork {
public:
    /// `inputs`: elements per sample of each of the program's inputs; `outputs`: of its output.
    NativeNetwork(backends::Program program, const std::vector<std::int64_t>& inputs,
                  std::int64_t outputs);

    void for_each_batch(std::int64_t samples, const OnBatch& on_batch) override;

private:
    class NativeBatch;

    void compute(std::int64_t samples);
    void compute_together(std::int64_t samples, std::int64_t threads);
    void compute_side_by_side(std::int64_t samples, std::int64_t threads);

    backends::Program program_;
    std::vector<std::int64_t> widths_;  // elements per sample of each input
    std::vector<std::vector<float>> inputs_;
    std::vector<std::int32_t> rows_;
    std::int64_t outputs_;
    std::vector<float> output_;
};

/// Whether `network` can be compiled natively: its recorded graph has only ops that programs know.
bool native_supports(const networks::Network& network);

/// Whether the native engine is the fastest in float32: it is for networks of up to 16 million
/// parameters, in which the operations between matrix products take a large part of the time. For
/// larger ones OpenVINO is as fast or faster.
bool native_pays(const networks::Network& network);

/// A model's network for any noise level, with inputs x, c_noise and, when it is conditional,
/// labels. Copies the weights. Throws core::UsageError when the network uses an unsupported op.
std::unique_ptr<CompiledNetwork> native_network(const models::Model& model);

/// The same for the model's highest noise level only and samples of `classes`, with inputs x and,
/// when it is conditional, rows. What depends only on the level, and on the class where that pays,
/// is folded into constants at compile time.
std::unique_ptr<CompiledNetwork> native_one_level(const models::Model& model,
                                                  const std::vector<std::int64_t>& classes);

}  // namespace atelier::inference
