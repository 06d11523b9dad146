#pragma once

#include <span>
#include <string>

#include "atelier/distillation/settings.h"
#include "atelier/networks/network.h"

namespace atelier::planning {

/// Where and how a stage computes, as far as it affects memory.
struct ExecutionMode {
    bool cuda = false;           // or another accelerator
    bool low_precision = false;  // bfloat16 or half: two bytes per element; weights are cast
                                 // for the duration of a pass, or on accelerators kept so, too
    bool recompute = false;      // activation checkpointing
};

/// The cost of one network: its parameters, and the work and memory per sample of a pass.
struct NetworkCost {
    double parameters = 0;  // count
    double flops = 0;       // per sample, of a forward pass; a backward pass takes about twice that
    graph::MemoryEstimate inference, training;  // activations without / with backward
};

NetworkCost network_cost(const networks::Network& network, const ExecutionMode& mode,
                         networks::TraceScope scope = networks::TraceScope::full);
/// The cost of the GAN head on the bottleneck of `network`.
NetworkCost head_cost(const networks::Network& network, const ExecutionMode& mode);

/// The cost with classifier-free guidance: each sample is evaluated with and without its condition.
NetworkCost guided(NetworkCost cost);

/// The cost when only low-rank deltas with `deltas` elements are trained; the base weights are the
/// teacher's.
NetworkCost low_rank(NetworkCost cost, double deltas);

/// What training a network holds beside its weights and AdamW's two moments.
struct OptimizerState {
    double averages = 0;      // moving averages of the weights
    bool keeps_best = false;  // a copy of the best weights
    double share = 1;         // of moments and averages, that one of several ranks keeps at most
};

/// Bytes for each number of a gradient that is summed over micro-batches (parallel::Reduction).
inline constexpr double exact_sum = 8, float_sum = 4;

struct Batch {
    double samples = 0;    // per micro-batch
    double sum_bytes = 0;  // with several micro-batches per update, one of the two above
    double probe = 0;      // samples that a probe draws together
};

/// Bytes that a stage needs on its device, from the sizes of its tensors and how long LibTorch's
/// autograd retains them.
double score_matching_bytes(const NetworkCost& model, const NetworkCost* teacher,
                            const OptimizerState& optimizer, const Batch& batch,
                            const ExecutionMode& mode);

struct DistillationCost {
    NetworkCost student, teacher, fake, encoder,
        head;  // encoder and head: the fake score's, with a GAN only
    bool gan = false, score_identity = false, regression = false;
    double evaluations_before = 0;  // the last of a generated sample, without gradients
    OptimizerState optimizer;
};
/// What of a run decides the cost of distillation, beside the settings of the stage.
struct DistillationRun {
    double guidance = 1;         // of the teacher
    std::int64_t lora_rank = 0;  // 0: all weights are trained
    bool probes = false;         // so that the best weights can be kept
    int shares = 1;              // ranks that share out moments and averages
    std::int64_t student_steps = 1;
};
/// The cost of DM or ADM: work and memory of every term of the loss that `settings` turns on. A new
/// term belongs here, in distillation_bytes and in distillation_flops.
DistillationCost distillation_cost(const distillation::MatchingSettings& settings,
                                   const networks::Network& teacher,
                                   const networks::Network& student, const ExecutionMode& mode,
                                   const DistillationRun& run = {});

/// The fraction of moments and averages that one of `shares` ranks keeps at most.
double share_of(std::span<const graph::ParameterSpec> specs, int shares);

/// Averages of the weights that a learner keeps.
double averages(const distillation::Optimization& optimization);

double distillation_bytes(const DistillationCost& cost, const Batch& batch,
                          const ExecutionMode& mode);

/// Bytes that LibTorch itself takes before any tensor: on CPUs this process's resident memory and
/// the libraries' workspace, on CUDA the context.
double own_bytes(const ExecutionMode& mode);

/// Work of one step in floating-point operations.
double score_matching_flops(const NetworkCost& model, const NetworkCost* teacher, double batch,
                            const ExecutionMode& mode);
double distillation_flops(const DistillationCost& cost, double batch, double fake_updates,
                          const ExecutionMode& mode);

}  // namespace atelier::planning
