#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/core/progress.h"
#include "atelier/core/signals.h"
#include "atelier/data/pair_store.h"
#include "atelier/diffusion/samplers.h"
#include "atelier/pipeline/make_stages.h"

namespace atelier::pipeline {

namespace {

constexpr std::int64_t batch = 256;
constexpr std::uint64_t pair_seed_offset =
    0x9a1e5;  // keeps the noise of pairs apart from that of samples of the run's seed

std::uint64_t pair_seed(const RunConfig& config) {
    return static_cast<std::uint64_t>(config.seed) + pair_seed_offset;
}

data::Pairs draw_pairs(RunContext& context, std::int64_t first, std::int64_t count) {
    at::NoGradGuard no_gradients;
    const models::Model& teacher = context.teacher();
    const std::uint64_t seed = pair_seed(context.config());
    const conditions::Prior prior = data::prior_of(*context.data());
    const auto levels = teacher.noise.sampling_levels(context.config().pairs.steps);
    const auto denoiser = context.guided_teacher(teacher);
    data::Pairs pairs;
    std::vector<Tensor> noise, samples;
    for (std::int64_t done = 0; done < count; done += batch) {
        const std::int64_t n = std::min(batch, count - done);
        std::vector<std::int64_t> labels;
        for (std::int64_t i = 0; i < n; ++i)
            labels.push_back(
                conditions::draw_class(prior, seed, static_cast<std::uint64_t>(first + done + i)));
        noise.push_back(diffusion::image_noise(seed, first + done, n, teacher.network.data_shape));
        samples.push_back(diffusion::sample_heun(*denoiser, noise.back().to(context.device()),
                                                 levels,
                                                 context.conditions().of(labels, context.device()))
                              .to(at::kCPU));
        pairs.labels.insert(pairs.labels.end(), labels.begin(), labels.end());
        if (core::stop_requested())
            throw core::Interrupted(
                "pairs stopped; the finished shards are kept, run the same command again to go on");
    }
    pairs.noise = at::cat(noise);
    pairs.samples = at::cat(samples);
    return pairs;
}

}  // namespace

std::vector<std::int64_t> pair_labels(const RunConfig& config, const conditions::Prior& prior) {
    const conditions::ClassSampler draws(prior);
    std::vector<std::int64_t> labels;
    for (std::int64_t i = 0; i < config.pairs.count; ++i)
        labels.push_back(draws.at(pair_seed(config), static_cast<std::uint64_t>(i)));
    return labels;
}

void make_pairs(RunContext& context) {
    const PairsConfig& config = context.config().pairs;
    if (config.count == 0 || !config.path.empty()) return;
    const auto stage = context.stage(StageKind::pairs);
    if (stage.finished()) return;
    context.teacher();
    if (context.shard().whole() || !training::StageFolder::is_begun(stage.path())) stage.begin();
    core::log::info("pairs: {} with {} Heun steps of the teacher", config.count, config.steps);
    const data::PairSpec spec{
        config.count,
        config.shard,
        context.teacher().network.data_shape,
        context.teacher_hash(),
        {{"method", "heun"}, {"steps", config.steps}, {"seed", context.config().seed}}};
    core::Progress progress("pairs", spec.pairs_of(context.shard()), "pairs");
    const bool all = data::write_pairs(
        stage.path(), spec,
        [&](std::int64_t first, std::int64_t count) { return draw_pairs(context, first, count); },
        [&](std::int64_t done) { progress.update(done); }, context.shard());
    if (all) stage.finish({{"count", config.count}});
    else
        core::log::info("pairs: shard {} is done; the last of the {} to be done finishes the stage",
                        context.shard().name(), context.shard().count);
}

}  // namespace atelier::pipeline
