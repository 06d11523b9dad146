#include "atelier/pipeline/budgets.h"

#include <fmt/ranges.h>

#include "atelier/conditions/budget.h"
#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/data/sampling.h"
#include "atelier/distillation/score_matching.h"
#include "atelier/pipeline/preflight.h"

namespace atelier::pipeline {

namespace {

namespace fs = std::filesystem;

/// The teacher's denoising loss on up to `max_samples` of the samples at `indices`; `which` numbers
/// the random streams.
double teacher_loss(RunContext& context, std::span<const std::int64_t> indices,
                    std::int64_t max_samples, std::uint64_t which) {
    constexpr std::int64_t batch = 256;
    at::NoGradGuard no_gradients;
    const data::Dataset& data = *context.data();
    const diffusion::ConditionTable& conditions = context.conditions();
    const models::Model& teacher = context.teacher();
    const auto denoiser = teacher.denoiser();
    const diffusion::NoiseSchedule noise_schedule = training_noise(teacher, context.config());
    const auto chosen =
        data::seeded_sample(data, indices, max_samples, context.seed(), "difficulty/samples");
    core::RandomStream levels(context.seed(), "difficulty/sigma", which),
        noise(context.seed(), "difficulty/noise", which);
    double sum = 0;
    for (std::size_t first = 0; first < chosen.size(); first += batch) {
        const std::span<const std::int64_t> some =
            std::span(chosen).subspan(first, std::min<std::size_t>(batch, chosen.size() - first));
        const auto n = static_cast<std::int64_t>(some.size());
        std::vector<std::int64_t> labels;
        for (const std::int64_t i : some)
            labels.push_back(data.labels().empty() ? 0
                                                   : data.labels()[static_cast<std::size_t>(i)]);
        const Tensor x = data.samples(some).to(context.device());
        const Tensor sigma = noise_schedule.training_levels(levels, n);
        sum +=
            static_cast<double>(n) * distillation::score_matching_loss(
                                         denoiser, nullptr, x, sigma.to(x.device()),
                                         diffusion::normal_tensor(noise, x.sizes()).to(x.device()),
                                         conditions.of(labels, x.device()), noise_schedule)
                                         .item<double>();
    }
    return sum / static_cast<double>(chosen.size());
}

/// The teacher's loss on the samples of each cell, of captions.
std::vector<double> cell_losses(RunContext& context) {
    constexpr std::int64_t max_samples = 2048;
    const conditions::Partition& owners = context.split().owners;
    std::vector<double> losses;
    for (std::int64_t k = 0; k < owners.students; ++k)
        losses.push_back(teacher_loss(context, data::indices_of(*context.data(), owners.cell(k)),
                                      max_samples, static_cast<std::uint64_t>(k)));
    return losses;
}

fs::path difficulty_file(const RunConfig& config) {
    return fs::path(config.output) / "difficulty.json";
}

/// The losses by which budgets are divided: one per class or, of captions, per cell. Measured
/// unless the file has those of this teacher, data, levels and, of cells, partition.
std::vector<double> difficulty(RunContext& context) {
    const bool captions = !context.data()->captions().empty();
    const RunConfig& config = context.config();
    const diffusion::NoiseSchedule noise = training_noise(context.teacher(), config);
    const nlohmann::json of{{"teacher", context.teacher_hash()},
                            {"data", context.raw_data()->hash()},
                            {"seed", config.seed},
                            {"p_mean", noise.p_mean},
                            {"p_std", noise.p_std},
                            {"partition", captions ? context.split().owners.hash() : ""}};
    const fs::path file = difficulty_file(config);
    if (fs::exists(file)) {
        const nlohmann::json known = core::read_json(file);
        if (known.value("of", nlohmann::json()) == of)
            return core::JsonObject(known, file.string()).numbers("losses");
    }
    const std::vector<double> losses = captions ? cell_losses(context) : class_losses(context);
    core::write_json(file, {{"of", of}, {"losses", losses}});
    return losses;
}

/// `losses`: one per class or per cell, or none where they do not count.
std::vector<double> shares_of(const conditions::Partition& owners, const conditions::Prior& prior,
                              const std::vector<double>& losses, bool per_cell) {
    std::vector<double> weights(static_cast<std::size_t>(owners.students));
    for (std::size_t c = 0; c < owners.owner.size(); ++c) {
        const auto k = static_cast<std::size_t>(owners.owner[c]);
        const double loss = losses.empty() ? 1 : losses.at(per_cell ? k : c);
        weights[k] += prior.weights.at(c) * loss;
    }
    return conditions::budget_shares(weights);
}

bool are_equal(const RunConfig& config) {
    return config.students.budget == Budget::equal || config.partition.students == 1;
}

}  // namespace

std::vector<double> class_losses(RunContext& context) {
    constexpr std::int64_t max_samples = 256;
    std::vector<double> losses;
    for (std::int64_t c = 0; c < context.data()->classes(); ++c) {
        const std::int64_t cell[]{c};
        losses.push_back(teacher_loss(context, data::indices_of(*context.data(), cell), max_samples,
                                      static_cast<std::uint64_t>(c)));
    }
    return losses;
}

std::vector<double> measured_shares(RunContext& context) {
    if (are_equal(context.config())) return {};
    const conditions::Partition& owners = context.split().owners;
    std::vector<double> losses;
    if (context.config().students.budget == Budget::difficulty) losses = difficulty(context);
    return shares_of(owners, data::prior_of(*context.data()), losses,
                     !context.data()->captions().empty());
}

std::optional<std::vector<double>> known_shares(const RunConfig& config, const data::Dataset& raw) {
    if (are_equal(config)) return std::vector<double>{};
    if (!raw.captions().empty()) return std::nullopt;
    const auto owners = known_partition(config, raw);
    // A partition that is there may be of another number of students, which `run` rejects.
    if (!owners || owners->students != config.partition.students) return std::nullopt;
    std::vector<double> losses;
    if (config.students.budget == Budget::difficulty) {
        const fs::path file = difficulty_file(config);
        if (!fs::exists(file)) return std::nullopt;
        losses = core::JsonObject(core::read_json(file), file.string()).numbers("losses");
        if (losses.size() != owners->owner.size()) return std::nullopt;
    }
    return shares_of(*owners, data::prior_of(raw), losses, false);
}

}  // namespace atelier::pipeline
