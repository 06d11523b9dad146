#include <ATen/Parallel.h>

#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/core/progress.h"
#include "atelier/data/pair_store.h"
#include "atelier/distillation/distribution_matching.h"
#include "atelier/distillation/score_matching.h"
#include "atelier/metrics/features.h"
#include "atelier/models/ensemble.h"
#include "atelier/networks/architecture.h"
#include "atelier/pipeline/make_stages.h"
#include "atelier/pipeline/pair_losses.h"
#include "atelier/pipeline/real_batches.h"

namespace atelier::pipeline {

namespace {

namespace fs = std::filesystem;

constexpr const char *critic_file = "fake_score.safetensors", *moments_file = "moments.safetensors";

/// Trains one student through its stages.
class StudentTrainer {
public:
    StudentTrainer(RunContext& context, std::int64_t student)
        : context_(context),
          config_(student == trunk ? context.config().of_trunk()
                                   : context.config().of_student(student, context.shares())),
          student_(student),
          who_(student_name(student)),
          partition_(student == trunk ? of_everything(context) : context.split().owners),
          cell_(partition_.cell(student == trunk ? 0 : student)),
          cell_indices_(data::indices_of(*context.data(), cell_)) {}

    void tsm() {
        if (!needs_tsm()) {
            core::log::info("{}: no teacher score matching; {}", who_,
                            branches() ? "it branches from the trunk"
                            : same_as_teacher()
                                ? "it has the teacher's architecture and starts from its weights"
                                : "students.tsm is off, or students.start names other weights");
            return;
        }
        const auto stage = context_.stage(StageKind::tsm, student_);
        if (context_.is_finished(stage)) return;
        if (leads()) stage.begin();
        models::Model model = models::init_model(student_card(), context_.seed());
        model.parameters = model.parameters.to(context_.device());
        core::log::info("{} tsm: {} parameters after a teacher of {}", who_,
                        model.parameters.count(), context_.teacher().parameters.count());
        const RealBatches real = real_batches(StageKind::tsm, config_.tsm.batch);
        const models::Model frozen = context_.frozen_teacher();
        const auto teacher =
            frozen.denoiser(config_.compute());  // a diffusion model, not yet guided
        distillation::ScoreMatchingSettings settings = config_.tsm;
        settings.condition_dropout = config_.teacher.training.condition_dropout;
        settings.sampler_steps = config_.evaluation.steps;
        distillation::ScoreMatching matching(
            {model.network, model.parameters, &teacher, real.source(), context_.conditions()},
            settings, context_.stage_context(model, stream(StageKind::tsm)));
        const auto result = run(matching, StageKind::tsm, stage, false, real);
        if (leads()) finish(stage, model, result, config_.tsm.optimization);
    }

    void match(StageKind kind) {
        const distillation::MatchingSettings& stage_config = config_.matching(kind);
        if (stage_config.steps == 0) return;
        const auto stage = context_.stage(kind, student_);
        if (context_.is_finished(stage)) return;
        const auto from = predecessor(kind);
        models::Model student = start(from);
        const auto pairs = pair_batches(kind, stage_config);
        auto denoiser = denoiser_for_critic(from);
        const models::Model frozen =
            context_.frozen_teacher();  // from here on context_.teacher() would read it again
        const Bases bases = student.low_rank() > 0 ? bases_of(frozen) : Bases{};
        student.parameters.set_base(bases.student);
        Critic critic = start_of_critic(from, student, std::move(denoiser), bases.fake_score);
        backends::Parameters& fake = critic.fake_score;
        if (leads()) stage.begin();
        if (kind == StageKind::adm) {
            if (critic.head.empty())
                critic.head = distillation::init_head(student.network, context_.seed());
            fake.merge(critic.head.to(context_.device()), "");
        }
        const RealBatches real = real_batches(kind, stage_config.batch);
        const auto teacher = context_.guided_teacher(frozen);
        distillation::MatchingSettings settings = stage_config;
        settings.student_steps = student.steps;
        settings.critic_warmup = critic_warmup(stage_config, from, critic);
        if (settings.critic_warmup > 0) {
            core::log::info(
                "{} {}: {} updates of the fake score alone first, which was not trained "
                "beside these weights ({}.critic_warmup)",
                who_, name_of(kind), settings.critic_warmup, name_of(kind));
        }
        distillation::DistributionMatching matching(
            {student.network, student.parameters, student.network, fake, *teacher,
             conditions::restricted(data::prior_of(*context_.data()), cell_), real.source(), pairs,
             pair_loss(config_, kind, context_.probe_classifier(), context_.device()),
             context_.conditions()},
            settings, context_.stage_context(student, stream(kind)));
        const bool is_first = kind == StageKind::dm || config_.dm.steps == 0;
        const auto result = run(matching, kind, stage, stage_config.keep_best, real,
                                is_first ? from : std::nullopt);
        if (!leads()) return;
        backends::Parameters saved = result.others.at("fake_score");
        if (kind == StageKind::dm) saved.merge(critic.head, "");  // for the ADM that follows
        backends::write_parameters(stage.path() / critic_file, saved);
        if (student_ == trunk)
            backends::write_parameters(stage.path() / moments_file, result.moments);
        finish(stage, student, result, stage_config.student);
    }

private:
    /// The fake score and, where an ADM stage trained one, its GAN head.
    struct Critic {
        backends::Parameters fake_score, head;
        bool same_step = false;  // trained together with the weights that the student starts from
    };

    /// Rank 0 writes what the stage's ranks have trained.
    bool leads() const { return context_.ranks().leads(); }

    std::string stream(StageKind kind) const {
        return fmt::format("{}/{}", name_of(kind),
                           student_ == trunk ? "trunk" : std::to_string(student_));
    }

    /// Whether the student starts from the run's trunk.
    bool branches() const { return config_.trunk.exists(); }

    /// The trunk's "partition": one student of everything.
    static conditions::Partition of_everything(RunContext& context) {
        const data::Dataset& data = *context.data();
        const auto classes = static_cast<std::size_t>(std::max<std::int64_t>(1, data.classes()));
        return {1, "consecutive", std::vector<std::int64_t>(classes, 0)};
    }

    models::Assignment assignment() const {
        if (student_ != trunk) return context_.split().student_assignment(student_);
        if (context_.data()->captions().empty()) return models::student_assignment(partition_, 0);
        return {0, std::nullopt, partition_.hash()};
    }

    /// What the deltas of a low-rank student and of its fake score are added to; not trained.
    struct Bases {
        std::shared_ptr<const backends::Parameters> student, fake_score;
    };

    Bases bases_of(const models::Model& frozen_teacher) const {
        if (!branches()) {
            const auto teacher =
                std::make_shared<const backends::Parameters>(frozen_teacher.parameters);
            return {teacher, teacher};
        }
        const auto read = [&](const char* file) {
            backends::Parameters all = backends::read_parameters(context_.trunk_folder() / file),
                                 network;
            for (const auto& [name, tensor] : all.tensors()) {
                if (!is_of_head(name)) network.set(name, tensor);
            }
            backends::check_against(network, frozen_teacher.specs(),
                                    (context_.trunk_folder() / file).string());
            network = network.to(context_.device());
            if (const auto type = config_.compute().type) network = network.cast_weights(*type);
            return std::make_shared<const backends::Parameters>(std::move(network));
        };
        return {read("model.safetensors"), read(critic_file)};
    }

    static bool is_of_head(const std::string& name) { return name.starts_with("head."); }

    models::ModelCard student_card() const {
        const models::ModelCard& teacher = context_.teacher();
        models::ModelCard card = teacher;
        card.weights.clear();
        card.guidance.reset();
        card.provenance = {.seed = config_.seed,
                           .data = context_.data()->hash(),
                           .teacher = context_.teacher_hash()};
        card.assignment = assignment();
        if (config_.students.lora_rank > 0) {
            const fs::path base =
                branches() ? context_.trunk_folder() : context_.path_of(StageKind::teacher);
            card.lora = models::LowRank{
                config_.students.lora_rank,
                base.lexically_relative(context_.path_of(StageKind::dm, student_)).string()};
        }
        return models::card_of(student_config(models::json_of(card), config_.students,
                                              std::max<std::int64_t>(0, student_)),
                               "student");
    }

    bool same_as_teacher() const {
        return same_size(student_card().config, context_.teacher().config);
    }

    bool needs_tsm() const {
        return pipeline::needs_tsm(student_card().config, context_.teacher().config, config_);
    }

    /// The folder whose weights the stage starts from; none: the teacher's weights, or new ones.
    std::optional<fs::path> predecessor(StageKind stage) const {
        if (stage == StageKind::adm && config_.dm.steps > 0) return finished_folder(StageKind::dm);
        if (branches()) return finished_trunk();
        if (!config_.students.start.empty()) {
            const fs::path start = config_.students.start;
            return start.has_filename() ? start : start.parent_path();
        }
        if (needs_tsm()) return finished_folder(StageKind::tsm);
        return std::nullopt;
    }

    fs::path finished_folder(StageKind stage) const {
        const fs::path path = context_.path_of(stage, student_);
        if (!fs::exists(path / "model.safetensors")) {
            core::fail(
                "{}: {} has not finished {} yet; run: atelier distill {} --student {} --stage {}",
                path.string(), who_, name_of(stage), context_.loaded().path,
                student_ == trunk ? "trunk" : std::to_string(student_), name_of(stage));
        }
        return path;
    }

    fs::path finished_trunk() const {
        if (!training::StageFolder::is_finished(context_.trunk_folder()))
            core::fail(
                "{}: the trunk, from which students branch, is not finished; run: atelier "
                "distill {} --student trunk",
                context_.trunk_folder().string(), context_.loaded().path);
        return context_.trunk_folder();
    }

    /// Whether the weights in `from` are the base of the student's deltas, rather than its own.
    bool is_base(const std::optional<fs::path>& from) const {
        return config_.students.lora_rank > 0 && branches() && from == context_.trunk_folder();
    }

    models::Model start(const std::optional<fs::path>& from) const {
        models::Model model = models::init_model(student_card(), context_.seed());
        if (from && !is_base(from)) {
            model.parameters = backends::read_parameters(*from / "model.safetensors");
            backends::check_against(model.parameters, model.specs(),
                                    (*from / "model.safetensors").string());
        } else if (same_as_teacher() && model.low_rank() == 0) {
            model.parameters = context_.teacher().parameters.clone();
        }
        model.parameters = model.parameters.clone().to(context_.device());
        return model;
    }

    /// The teacher's weights for the fake score of a one-step student that has none: a one-step
    /// generator is no denoiser to start from.
    std::optional<backends::Parameters> denoiser_for_critic(
        const std::optional<fs::path>& from) const {
        if (!from || fs::exists(*from / critic_file) ||
            from->filename() == name_of(StageKind::tsm) || !same_as_teacher())
            return std::nullopt;
        return context_.teacher().parameters.clone().to(context_.device());
    }

    /// Continues the previous stage's critic; else the fake score starts from `denoiser`, or from
    /// the student's weights (the teacher's, TSM's or new ones). `base` is that of its deltas, if
    /// it is of low rank.
    Critic start_of_critic(const std::optional<fs::path>& from, const models::Model& student,
                           std::optional<backends::Parameters> denoiser,
                           const std::shared_ptr<const backends::Parameters>& base) const {
        if (denoiser) return {std::move(*denoiser), {}, false};
        if (!from || !fs::exists(*from / critic_file))
            return {student.parameters.clone(), {}, false};
        const fs::path path = *from / critic_file;
        Critic critic;
        if (is_base(from)) critic.fake_score = student.parameters.clone();
        critic.fake_score.set_base(base);
        const backends::Parameters saved = backends::read_parameters(path);
        for (const auto& [name, tensor] : saved.tensors()) {
            if (is_of_head(name)) critic.head.set(name, tensor);
            else if (!is_base(from)) critic.fake_score.set(name, tensor.to(context_.device()));
        }
        backends::check_against(critic.fake_score, student.specs(), path.string());
        if (!critic.head.empty())
            distillation::check_head(critic.head, student.network, path.string());
        const fs::path manifest = *from / "stage.json";
        critic.same_step = fs::exists(manifest) &&
                           core::read_json(manifest).value(
                               nlohmann::json::json_pointer("/result/critic_of_same_step"), false);
        return critic;
    }

    static std::int64_t critic_warmup(const distillation::MatchingSettings& settings,
                                      const std::optional<fs::path>& from, const Critic& critic) {
        constexpr std::int64_t max_updates = 200, fraction = 10;
        if (settings.critic_warmup >= 0) return settings.critic_warmup;
        const bool is_trained =
            !from || from->filename() == name_of(StageKind::tsm) || critic.same_step;
        return is_trained ? 0 : std::min(max_updates, (settings.steps + fraction - 1) / fraction);
    }

    RealBatches real_batches(StageKind stage, std::int64_t batch) const {
        return {context_.data(),
                {.batch = batch,
                 .horizontal_flips = config_.flips,
                 .seed = context_.seed(),
                 .stream = stream(stage) + "/data",
                 .indices = cell_indices_,
                 .threads = loader_threads(config_, context_.device())}};
    }

    std::function<distillation::PairBatch(std::int64_t)> pair_batches(
        StageKind stage, const distillation::MatchingSettings& settings) const {
        if (!settings.uses_pairs()) return {};
        const fs::path path = config_.pairs.path.empty() ? context_.path_of(StageKind::pairs)
                                                         : fs::path(config_.pairs.path);
        auto store = std::make_shared<data::PairStore>(path, context_.teacher_hash());
        auto usable = std::make_shared<std::vector<std::int64_t>>();
        for (std::int64_t i = 0; i < store->size(); ++i) {
            const auto label =
                static_cast<std::size_t>(store->labels()[static_cast<std::size_t>(i)]);
            if (label >= partition_.owner.size()) {
                core::fail(
                    "{}: pair {} has label {}, but there are {} classes; make the pairs again",
                    path.string(), i, static_cast<std::int64_t>(label), partition_.owner.size());
            }
            if (config_.pairs.filter == "all" || partition_.owner[label] == student_)
                usable->push_back(i);
        }
        if (usable->empty())
            core::fail(
                "{}: no pair belongs to the cell of student {}; make more pairs or set "
                "pairs.filter = \"all\"",
                path.string(), student_);
        return [store, usable, seed = context_.seed(), name = stream(stage) + "/pairs",
                n = settings.batch](std::int64_t step) {
            core::RandomStream stream(seed, name, static_cast<std::uint64_t>(step));
            std::vector<std::int64_t> chosen;
            for (std::int64_t i = 0; i < n; ++i)
                chosen.push_back((*usable)[stream.below(usable->size())]);
            const data::Pairs pairs = store->at(chosen);
            return distillation::PairBatch{pairs.noise, pairs.samples, pairs.labels};
        };
    }

    training::LoopResult run(distillation::Stage& matching, StageKind kind,
                             const training::StageFolder& stage, bool keep_best,
                             const RealBatches& real,
                             const std::optional<fs::path>& from = {}) const {
        auto settings =
            context_.loop_settings(fmt::format("{} {}", who_, name_of(kind)),
                                   stage.path() / "training", cell_, context_.conditions());
        settings.stage = name_of(kind);
        settings.keep_best = keep_best;
        if (from && fs::exists(*from / moments_file))
            settings.moments = [path = *from / moments_file] {
                return backends::read_parameters(path);
            };
        settings.probe_every =
            kind == StageKind::tsm ? config_.probe.sampler_every : config_.probe.every;
        training::LoopResult result = training::run_stage(matching, settings);
        real.log_throughput(settings.label);
        return result;
    }

    void finish(const training::StageFolder& stage, models::Model& model,
                const training::LoopResult& result,
                const distillation::Optimization& optimization) const {
        write_result(stage.path(), model, result, optimization);
        nlohmann::json about{{"seconds", result.seconds},
                             {"best_step", result.best_step},
                             {"probe_distance", std::isfinite(result.best_distance)
                                                    ? nlohmann::json(result.best_distance)
                                                    : nlohmann::json()}};
        if (!result.others.empty()) about["critic_of_same_step"] = result.others_match;
        stage.finish(about);
        core::log::info("{}: done in {}",
                        stage.path().lexically_relative(context_.output()).string(),
                        core::format_duration(result.seconds));
    }

    RunContext& context_;
    const RunConfig config_;
    std::int64_t student_;
    std::string who_;
    const conditions::Partition partition_;
    std::vector<std::int64_t> cell_, cell_indices_;
};

/// The entry of `student`, or the one for all; none where the list is empty.
std::optional<std::int64_t> chosen(const std::vector<std::int64_t>& list, std::int64_t student) {
    if (list.empty()) return std::nullopt;
    return list[list.size() == 1 ? 0 : static_cast<std::size_t>(student)];
}

}  // namespace

nlohmann::json student_config(nlohmann::json teacher, const StudentsConfig& sizes,
                              std::int64_t student) {
    nlohmann::json config = networks::resized(
        std::move(teacher),
        {chosen(sizes.widths, student), chosen(sizes.depths, student), sizes.channel_mult},
        "teacher/config.json");
    if (const auto steps = chosen(sizes.steps, student).value_or(1); steps > 1)
        config["steps"] = steps;
    return config;
}

bool same_size(const nlohmann::json& student, const nlohmann::json& teacher) {
    return networks::same_parameters(student, teacher);
}

bool needs_tsm(const nlohmann::json& student, const nlohmann::json& teacher,
               const RunConfig& config) {
    return !same_size(student, teacher) && config.students.tsm && config.students.start.empty() &&
           config.tsm.steps > 0 && !config.trunk.exists();
}

void make_student(RunContext& context, std::int64_t student, StageKind kind) {
    at::set_num_threads(static_cast<int>(
        context.config().students.threads));  // bitwise the same in parallel or sequentially
    StudentTrainer trainer(context, student);
    if (kind == StageKind::tsm) trainer.tsm();
    else trainer.match(kind);
}

}  // namespace atelier::pipeline
