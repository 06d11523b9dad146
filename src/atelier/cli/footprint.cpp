#include "atelier/cli/footprint.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "atelier/networks/discriminator.h"

namespace atelier::cli {

namespace {

constexpr double float32 = 4, low = 2;
constexpr double scratch_on_cpu = 60e6, context_on_cuda = 1e9;  // of oneDNN's kernels and LibTorch's threads; of a context with its libraries
/// On CPUs values of many sizes come and go in one heap, which loses room among them; most where most come and go. Measured (docs/recipes.md).
constexpr double heap = 1.2, heap_of_recomputing = 1.6;
/// Beside what is kept, a backward pass holds the slopes of a layer's output and input and one value between.
constexpr double slopes_at_once = 3;

double spread(const Conditions& conditions) { return conditions.cuda ? 1.0 : conditions.recompute ? heap_of_recomputing : heap; }

ops::Keeping keeping_of(const Conditions& conditions, bool backward) {
    return {.backward = backward, .recompute = conditions.recompute, .width = conditions.low_precision ? low : float32, .fused_norm = !conditions.cuda};
}

double gradients(const Burden& burden) { return float32 * burden.parameters; }

/// Weights in low precision, which autocast makes of parameters that are trained, and keeps for as long as the pass lasts.
double casts(const Burden& burden, const Conditions& conditions) { return conditions.low_precision ? low * burden.parameters : 0; }

enum class Slopes { of_weights, of_samples };

/// A forward pass and its backward one: at each place backwards, what earlier layers keep and, where they are asked for, the weights' gradients of later ones.
double training_pass(const Burden& burden, double samples, const Conditions& conditions, Slopes asked = Slopes::of_weights) {
    samples *= spread(conditions);
    double most = burden.kept.most * samples + casts(burden, conditions);
    const double slopes = (slopes_at_once * burden.kept.largest + burden.kept.block) * samples;
    for (const ops::Memory::Place& place : burden.kept.places) {
        const double cast = conditions.low_precision ? low * place.parameters : 0;
        const double found = asked == Slopes::of_weights ? float32 * (burden.parameters - place.parameters) : 0;
        most = std::max(most, place.held * samples + slopes + cast + found);
    }
    return most;
}

double evaluation(const Burden& burden, double samples, const Conditions& conditions) {
    return burden.alone.most * samples * spread(conditions) + casts(burden, conditions);
}

double kept_after(const Burden& burden, double samples, const Conditions& conditions) {
    return burden.kept.held * samples * spread(conditions) + casts(burden, conditions);
}

/// A teacher is kept as it is computed with.
double frozen_bytes(const Burden& teacher, const Conditions& conditions) { return (conditions.low_precision ? low : float32) * teacher.parameters; }

double look_of(const Burden& teacher, double samples, const Conditions& conditions) { return teacher.alone.most * samples * spread(conditions); }

double standing_bytes(const Burden& learner, const Standing& standing) {
    return float32 * learner.parameters * (3 + standing.averages + (standing.keeps_best ? 1 : 0));
}

double resident_bytes() {
    std::ifstream statm("/proc/self/statm");
    double size = 0, resident = 0;
    statm >> size >> resident;
    return resident * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

Burden burden_of(const ops::ShapeOps& alone, const ops::ShapeOps& kept) {
    Burden burden;
    for (const ops::ParameterSpec& spec : alone.parameters) burden.parameters += static_cast<double>(ops::elements(spec.shape));
    burden.flops = alone.flops;
    burden.alone = alone.memory();
    burden.kept = kept.memory();
    return burden;
}

/// Forward and backward passes in units of a forward one.
double trained(const Conditions& conditions) { return conditions.recompute ? 4 : 3; }

}  // namespace

Burden burden_of(const networks::Network& network, const Conditions& conditions, networks::Extent extent) {
    return burden_of(networks::trace(network, keeping_of(conditions, false), extent), networks::trace(network, keeping_of(conditions, true), extent));
}

Burden guided(Burden burden) {
    constexpr double evaluations = 2;
    burden.flops *= evaluations;
    for (ops::Memory* memory : {&burden.alone, &burden.kept}) {
        for (double* bytes : {&memory->held, &memory->most, &memory->largest, &memory->block}) *bytes *= evaluations;
        for (ops::Memory::Place& place : memory->places) place.held *= evaluations;
    }
    return burden;
}

Burden low_rank(Burden burden, double deltas) {
    for (ops::Memory* memory : {&burden.alone, &burden.kept}) {
        for (ops::Memory::Place& place : memory->places) place.parameters *= deltas / burden.parameters;
    }
    burden.parameters = deltas;
    return burden;
}

Burden burden_of_head(const networks::Network& network, const Conditions& conditions) {
    ops::ShapeOps alone(keeping_of(conditions, false)), kept(keeping_of(conditions, true));
    networks::discriminator_head(alone, networks::bottleneck_shape(network));
    networks::discriminator_head(kept, networks::bottleneck_shape(network));
    return burden_of(alone, kept);
}

double score_matching_bytes(const Burden& model, const Burden* teacher, const Standing& standing, const Batch& batch, const Conditions& conditions) {
    const double sums = batch.parts ? gradients(model) : 0;
    double working = std::max(training_pass(model, batch.samples, conditions), gradients(model)) + sums;
    working = std::max(working, evaluation(model, batch.probe, conditions));
    if (teacher) working = std::max(working, look_of(*teacher, batch.samples, conditions));
    return standing_bytes(model, standing) + (teacher ? frozen_bytes(*teacher, conditions) : 0) + working;
}

double matching_bytes(const Matching& m, const Batch& batch, const Conditions& conditions) {
    const double n = batch.samples;
    // The fake score's update: the head reads real samples through the encoder while the fake score's own pass is kept.
    double fake = std::max(training_pass(m.fake, n, conditions), evaluation(m.student, n, conditions));
    if (m.gan) {
        const double first = kept_after(m.fake, n, conditions) + training_pass(m.encoder, n, conditions) + kept_after(m.head, n, conditions);
        fake = std::max(fake, first);
    }
    fake = std::max(fake, gradients(m.fake)) + (m.gan ? gradients(m.head) : 0) + (batch.parts ? gradients(m.fake) : 0);
    // The student's: teacher and fake score look at samples whose graph is kept.
    const double kept = kept_after(m.student, n, conditions);
    double others = std::max(look_of(m.teacher, n, conditions), evaluation(m.fake, n, conditions));
    if (m.score_identity) others = kept_after(m.teacher, n, conditions) - casts(m.teacher, conditions) + training_pass(m.fake, n, conditions, Slopes::of_samples);
    if (m.gan) others = std::max(others, training_pass(m.encoder, n, conditions, Slopes::of_samples) + kept_after(m.head, n, conditions));
    if (m.regression) others = std::max(others, training_pass(m.student, n, conditions));
    double student = std::max({kept + others, training_pass(m.student, n, conditions), gradients(m.student)}) + (batch.parts ? gradients(m.student) : 0);
    const Standing critic{.keeps_best = m.standing.keeps_best};  // best weights are kept of all learners
    const double held = frozen_bytes(m.teacher, conditions) + standing_bytes(m.student, m.standing) + standing_bytes(m.fake, critic) + (m.gan ? standing_bytes(m.head, critic) : 0);
    return held + std::max({fake, student, evaluation(m.student, batch.probe, conditions)});
}

double own_bytes(const Conditions& conditions) { return conditions.cuda ? context_on_cuda : resident_bytes() + scratch_on_cpu; }

double score_matching_flops(const Burden& model, const Burden* teacher, double batch, const Conditions& conditions) {
    return batch * (trained(conditions) * model.flops + (teacher ? teacher->flops : 0));
}

double matching_flops(const Matching& m, double batch, double fake_updates, const Conditions& conditions) {
    const double both = trained(conditions);
    double fake = m.student.flops + both * m.fake.flops, student = both * m.student.flops + m.teacher.flops + m.fake.flops;
    if (m.score_identity) student = both * m.student.flops + (both - 1) * (m.teacher.flops + m.fake.flops);
    if (m.gan) {
        fake += both * (m.encoder.flops + 2 * m.head.flops);
        student += (both - 1) * (m.encoder.flops + m.head.flops);
    }
    if (m.regression) student += both * m.student.flops;
    return batch * (fake_updates * fake + student);
}

}  // namespace atelier::cli
