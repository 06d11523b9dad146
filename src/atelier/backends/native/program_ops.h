#pragma once

#include "atelier/backends/native/program.h"
#include "atelier/backends/torch/constant_folding.h"

namespace atelier::backends {

/// One sample's pixels, or features as one pixel, in a Program.
struct ProgramResult {
    Program::Slot slot;
    std::int64_t channels, height = 1, width = 1;
    bool image = true;

    std::int64_t positions() const { return height * width; }
    std::int64_t elements() const { return channels * positions(); }
};

/// A result of the program, or a constant.
using ProgramValue = Folded<ProgramResult>;

/// Lowers recorded graphs to a Program: float32, channels innermost, 3x3 convolutions by Winograd's
/// minimal filtering where that pays, weights as panels that are read once per step. What depends
/// on constants alone is folded, and where a constant meets a result each sample takes its row, as
/// in OpenVinoOps. Copies the parameters that it needs, which must be floating-point numbers on the
/// CPU. Throws core::Error on a missing parameter, and on ops that `unsupported_by_programs` names.
class ProgramOps {
public:
    explicit ProgramOps(const Parameters& parameters) : parameters_(parameters) {}

    /// The run's input `index`, of `sample`'s shape: [C,H,W] or [F].
    ProgramValue input(std::size_t index, const graph::Shape& sample);

    /// Returns the program that writes the first output of `graph`, in its own shape, to the run's
    /// output.
    Program compiled(const graph::Graph& graph, const std::vector<ProgramValue>& inputs);

    using Unsupported =
        graph::OpList<graph::LayerNorm, graph::RmsNorm, graph::TokenAttention, graph::Slice,
                      graph::Multiply, graph::Embedding, graph::AddPositions,
                      graph::CroppedPositions, graph::GridSinusoid, graph::Gelu, graph::QuickGelu,
                      graph::Geglu, graph::Tokens, graph::Image, graph::PadCorner,
                      graph::Block>;  // folding dissolves blocks
    using In = graph::Call<ProgramValue>;
    ProgramValue lower(const graph::Conv2d& layer, const In& in);
    ProgramValue lower(const graph::Linear& layer, const In& in);
    ProgramValue lower(const graph::GroupNorm& layer, const In& in);
    ProgramValue lower(const graph::Attention& layer, const In& in);
    ProgramValue lower(const graph::Resampling& layer, const In& in);
    ProgramValue lower(const graph::Concat&, const In& in);
    ProgramValue lower(const graph::Add&, const In& in);
    ProgramValue lower(const graph::Scale& layer, const In& in);
    ProgramValue lower(const graph::Silu&, const In& in);
    ProgramValue lower(const graph::Relu&, const In& in);
    ProgramValue lower(const graph::Tanh&, const In& in);
    ProgramValue lower(const graph::Sinusoid& layer, const In& in);
    ProgramValue lower(const graph::Fourier& layer, const In& in);
    ProgramValue lower(const graph::PixelUnshuffle& layer, const In& in);
    ProgramValue lower(const graph::PixelShuffle& layer, const In& in);
    ProgramValue lower(const graph::GlobalAverage&, const In& in);

private:
    using Result = ProgramResult;

    Result result(std::int64_t channels, std::int64_t height, std::int64_t width,
                  bool image = true);
    Result like(const Result& one) {
        return result(one.channels, one.height, one.width, one.image);
    }
    /// A value as a result; of a constant, each sample's row.
    Result read(const ProgramValue& x);
    /// A parameter as float32; a one-dimensional one as a copy.
    Tensor parameter(const std::string& name) const;
    Result convolved(const Result& x, const Tensor& weight, const Tensor& bias,
                     const graph::Conv2d& layer, bool image);
    void convolve_by_winograd(const Result& x, const Tensor& weight, const Tensor& bias,
                              const Result& y);
    /// A result of `of` applied to each element of x.
    template <class Of>
    Result elementwise(const ProgramValue& x, Of of);
    Result sinusoids(const ProgramValue& x, const Tensor& frequencies, bool sines_first);

    const Parameters& parameters_;
    Program program_;
};

/// What programs cannot compute of `graph`: the name of the first such op, or "tokens" where an
/// input is [N,T,F]; empty if they can compute all of it.
std::string unsupported_by_programs(const graph::Graph& graph);

}  // namespace atelier::backends
