#include "atelier/planning/footprint.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "atelier/backends/torch/low_rank.h"
#include "atelier/networks/discriminator.h"
#include "atelier/parallel/shares.h"

namespace atelier::planning {

namespace {

constexpr double float32 = 4, low = 2;
constexpr double workspace_on_cpu = 60e6,  // of oneDNN's kernels and LibTorch's threads
    context_on_cuda = 1e9;                 // with its libraries
/// Fragmentation: on CPUs, tensors of many sizes share one heap. Largest with recomputation, which
/// allocates the most. Measured (docs/recipes.md).
constexpr double heap_factor = 1.2, heap_factor_recomputing = 1.6;
/// Beside the retained activations, a backward pass holds the gradients of a layer's output and
/// input, and one value in between.
constexpr double live_gradients = 3;

double heap_overhead(const ExecutionMode& mode) {
    return mode.cuda ? 1.0 : mode.recompute ? heap_factor_recomputing : heap_factor;
}

graph::ActivationPolicy activation_policy(const ExecutionMode& mode, bool backward) {
    return {.backward = backward,
            .recompute = mode.recompute,
            .element_size = mode.low_precision ? low : float32,
            .fused_norm = !mode.cuda};
}

/// Whether learners keep low-precision copies of their weights, by which losses are differentiated
/// (backends::Parameters::keep_narrow).
bool keeps_narrow(const ExecutionMode& mode) { return mode.cuda && mode.low_precision; }

/// Of a gradient while it is computed.
double gradient_width(const ExecutionMode& mode) { return keeps_narrow(mode) ? low : float32; }

double gradient_bytes(const NetworkCost& cost, const ExecutionMode& mode) {
    return (float32 + (keeps_narrow(mode) ? low : 0)) * cost.parameters;
}

/// Low-precision copies of trained parameters, which autocast on CPUs makes and keeps for the
/// duration of a pass.
double cast_bytes(const NetworkCost& cost, const ExecutionMode& mode) {
    return mode.low_precision && !keeps_narrow(mode) ? low * cost.parameters : 0;
}

enum class Gradients { of_weights, of_samples };

/// The peak of a forward and backward pass: at each point of the backward pass, the activations
/// that earlier layers retain and, where needed, the weight gradients of later ones.
double training_pass_bytes(const NetworkCost& cost, double samples, const ExecutionMode& mode,
                           Gradients needed = Gradients::of_weights) {
    samples *= heap_overhead(mode);
    double peak = cost.training.peak * samples + cast_bytes(cost, mode);
    const double layer_gradients =
        (live_gradients * cost.training.largest + cost.training.block) * samples;
    for (const graph::MemoryEstimate::Layer& layer : cost.training.layers) {
        const double cast = mode.low_precision && !keeps_narrow(mode) ? low * layer.parameters : 0;
        const double weight_gradients =
            needed == Gradients::of_weights
                ? gradient_width(mode) * (cost.parameters - layer.parameters)
                : 0;
        peak = std::max(peak, layer.retained * samples + layer_gradients + cast + weight_gradients);
    }
    return peak;
}

double evaluation_bytes(const NetworkCost& cost, double samples, const ExecutionMode& mode) {
    return cost.inference.peak * samples * heap_overhead(mode) + cast_bytes(cost, mode);
}

/// Of a learner's probe, for which the rest of its average comes from the ranks that keep it.
double probe_bytes(const NetworkCost& learner, const OptimizerState& optimizer, double samples,
                   const ExecutionMode& mode) {
    const double gathered = optimizer.averages > 0 ? 1 - optimizer.share : 0;
    return evaluation_bytes(learner, samples, mode) + gathered * float32 * learner.parameters;
}

double retained_bytes(const NetworkCost& cost, double samples, const ExecutionMode& mode) {
    return cost.training.retained * samples * heap_overhead(mode) + cast_bytes(cost, mode);
}

/// A frozen teacher is stored in the precision that it computes in.
double frozen_bytes(const NetworkCost& teacher, const ExecutionMode& mode) {
    return (mode.low_precision ? low : float32) * teacher.parameters;
}

double frozen_evaluation_bytes(const NetworkCost& teacher, double samples,
                               const ExecutionMode& mode) {
    return teacher.inference.peak * samples * heap_overhead(mode);
}

double learner_bytes(const NetworkCost& learner, const OptimizerState& optimizer,
                     const ExecutionMode& mode) {
    const double copies =
        1 + optimizer.share * (2 + optimizer.averages) + (optimizer.keeps_best ? 1 : 0);
    return learner.parameters * (float32 * copies + (keeps_narrow(mode) ? low : 0));
}

double resident_bytes() {
    std::ifstream statm("/proc/self/statm");
    double size = 0, resident = 0;
    statm >> size >> resident;
    return resident * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

NetworkCost network_cost(const networks::Trace& inference, const networks::Trace& training) {
    NetworkCost cost;
    for (const graph::ParameterSpec& spec : inference.parameters)
        cost.parameters += static_cast<double>(graph::elements(spec.shape));
    cost.flops = inference.flops;
    cost.inference = inference.memory;
    cost.training = training.memory;
    return cost;
}

/// The work of a forward and backward pass, in forward passes.
double training_factor(const ExecutionMode& mode) { return mode.recompute ? 4 : 3; }

}  // namespace

NetworkCost network_cost(const networks::Network& network, const ExecutionMode& mode,
                         networks::TraceScope scope) {
    return network_cost(networks::trace(network, activation_policy(mode, false), scope),
                        networks::trace(network, activation_policy(mode, true), scope));
}

NetworkCost guided(NetworkCost cost) {
    constexpr double evaluations = 2;
    cost.flops *= evaluations;
    for (graph::MemoryEstimate* memory : {&cost.inference, &cost.training}) {
        for (double* bytes : {&memory->retained, &memory->peak, &memory->largest, &memory->block})
            *bytes *= evaluations;
        for (graph::MemoryEstimate::Layer& layer : memory->layers) layer.retained *= evaluations;
    }
    return cost;
}

NetworkCost low_rank(NetworkCost cost, double deltas) {
    for (graph::MemoryEstimate* memory : {&cost.inference, &cost.training}) {
        for (graph::MemoryEstimate::Layer& layer : memory->layers)
            layer.parameters *= deltas / cost.parameters;
    }
    cost.parameters = deltas;
    return cost;
}

NetworkCost head_cost(const networks::Network& network, const ExecutionMode& mode) {
    const graph::Graph head =
        graph::record({networks::bottleneck_shape(network)},
                      [](graph::Builder& ops, std::span<const graph::Value> bottleneck) {
                          return std::vector{networks::discriminator_head(ops, bottleneck[0])};
                      });
    const auto traced = [&](bool backward) {
        return networks::Trace{head.parameters, graph::flops(head),
                               graph::memory(head, activation_policy(mode, backward))};
    };
    return network_cost(traced(false), traced(true));
}

double score_matching_bytes(const NetworkCost& model, const NetworkCost* teacher,
                            const OptimizerState& optimizer, const Batch& batch,
                            const ExecutionMode& mode) {
    double working =
        std::max(training_pass_bytes(model, batch.samples, mode), gradient_bytes(model, mode)) +
        batch.sum_bytes * model.parameters;
    working = std::max(working, probe_bytes(model, optimizer, batch.probe, mode));
    if (teacher)
        working = std::max(working, frozen_evaluation_bytes(*teacher, batch.samples, mode));
    return learner_bytes(model, optimizer, mode) + (teacher ? frozen_bytes(*teacher, mode) : 0) +
           working;
}

double share_of(std::span<const graph::ParameterSpec> specs, int shares) {
    std::vector<std::int64_t> sizes;
    for (const graph::ParameterSpec& spec : specs) sizes.push_back(graph::elements(spec.shape));
    return parallel::largest_share(sizes, shares);
}

double averages(const distillation::Optimization& optimization) {
    return (optimization.ema_decay > 0 ? 1.0 : 0.0) +
           static_cast<double>(optimization.more_ema_decays.size());
}

DistillationCost distillation_cost(const distillation::MatchingSettings& settings,
                                   const networks::Network& teacher,
                                   const networks::Network& student, const ExecutionMode& mode,
                                   const DistillationRun& run) {
    DistillationCost cost{.student = network_cost(student, mode),
                          .teacher = network_cost(teacher, mode),
                          .fake = network_cost(student, mode),
                          .encoder = {},
                          .head = {},
                          .gan = settings.adversarial.has_value()};
    if (cost.gan) {
        cost.encoder = network_cost(student, mode, networks::TraceScope::encoder_only);
        cost.head = head_cost(student, mode);
    }
    if (run.guidance != 1) cost.teacher = guided(cost.teacher);
    std::vector<graph::ParameterSpec> trained = networks::trace(student).parameters;
    if (run.lora_rank > 0) {
        trained = backends::low_rank_specs(trained, run.lora_rank);
        double deltas = 0;
        for (const graph::ParameterSpec& spec : trained)
            deltas += static_cast<double>(graph::elements(spec.shape));
        for (NetworkCost* network : {&cost.student, &cost.fake, &cost.encoder})
            *network = low_rank(*network, deltas);
    }
    cost.score_identity = settings.loss == distillation::MatchingLoss::score_identity;
    cost.regression = settings.uses_pairs();
    cost.evaluations_before = static_cast<double>(run.student_steps - 1) / 2;  // on average
    cost.optimizer = {averages(settings.student), settings.keep_best && run.probes,
                      share_of(trained, run.shares)};
    return cost;
}

double distillation_bytes(const DistillationCost& m, const Batch& batch,
                          const ExecutionMode& mode) {
    const double n = batch.samples;
    // The fake score's update: the head reads real samples through the encoder while the
    // graph of the fake score's own pass is retained.
    double fake =
        std::max(training_pass_bytes(m.fake, n, mode), evaluation_bytes(m.student, n, mode));
    if (m.gan) {
        const double with_head = retained_bytes(m.fake, n, mode) +
                                 training_pass_bytes(m.encoder, n, mode) +
                                 retained_bytes(m.head, n, mode);
        fake = std::max(fake, with_head);
    }
    fake = std::max(fake, gradient_bytes(m.fake, mode)) +
           (m.gan ? gradient_bytes(m.head, mode) : 0) + batch.sum_bytes * m.fake.parameters;
    // The student's update: teacher and fake score evaluate samples whose graph is retained.
    const double graph = retained_bytes(m.student, n, mode);
    double others =
        std::max(frozen_evaluation_bytes(m.teacher, n, mode), evaluation_bytes(m.fake, n, mode));
    if (m.score_identity)
        others = retained_bytes(m.teacher, n, mode) - cast_bytes(m.teacher, mode) +
                 training_pass_bytes(m.fake, n, mode, Gradients::of_samples);
    if (m.gan)
        others = std::max(others, training_pass_bytes(m.encoder, n, mode, Gradients::of_samples) +
                                      retained_bytes(m.head, n, mode));
    if (m.regression) others = std::max(others, training_pass_bytes(m.student, n, mode));
    double student = std::max({graph + others, training_pass_bytes(m.student, n, mode),
                               gradient_bytes(m.student, mode)}) +
                     batch.sum_bytes * m.student.parameters;
    const OptimizerState critic{
        .keeps_best = m.optimizer.keeps_best,  // the best weights of all networks are kept
        .share = m.optimizer.share};
    const double persistent =
        frozen_bytes(m.teacher, mode) + learner_bytes(m.student, m.optimizer, mode) +
        learner_bytes(m.fake, critic, mode) + (m.gan ? learner_bytes(m.head, critic, mode) : 0);
    return persistent +
           std::max({fake, student, probe_bytes(m.student, m.optimizer, batch.probe, mode)});
}

double own_bytes(const ExecutionMode& mode) {
    return mode.cuda ? context_on_cuda : resident_bytes() + workspace_on_cpu;
}

double score_matching_flops(const NetworkCost& model, const NetworkCost* teacher, double batch,
                            const ExecutionMode& mode) {
    return batch * (training_factor(mode) * model.flops + (teacher ? teacher->flops : 0));
}

double distillation_flops(const DistillationCost& m, double batch, double fake_updates,
                          const ExecutionMode& mode) {
    const double both = training_factor(mode);
    const double before = m.evaluations_before * m.student.flops;
    double fake = before + m.student.flops + both * m.fake.flops,
           student = before + both * m.student.flops + m.teacher.flops + m.fake.flops;
    if (m.score_identity)
        student = before + both * m.student.flops + (both - 1) * (m.teacher.flops + m.fake.flops);
    if (m.gan) {
        fake += both * (m.encoder.flops + 2 * m.head.flops);
        student += (both - 1) * (m.encoder.flops + m.head.flops);
    }
    if (m.regression) student += both * m.student.flops;
    return batch * (fake_updates * fake + student);
}

}  // namespace atelier::planning
