#include "atelier/training/loop.h"

#include <chrono>
#include <cmath>
#include <future>
#include <limits>
#include <optional>
#include <thread>
#include <type_traits>

#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/core/progress.h"
#include "atelier/core/signals.h"
#include "atelier/training/checkpoint.h"
#include "atelier/training/run_log.h"
#include "atelier/training/stepper.h"

namespace atelier::training {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

/// The state of one call of run_stage.
class Run {
public:
    Run(distillation::Stage& stage, const LoopSettings& settings)
        : stage_(stage),
          settings_(settings),
          ranks_(*settings.ranks),
          stepper_(stage, settings.reduction, ranks_, settings.optimizer_sharding),
          checkpoints_(settings.folder / "checkpoints", settings.checkpoints_kept) {
        restore();
        tell_shares();
        warn_of_idle_ranks();
    }
    ~Run() { ranks_.set_position({}); }
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;

    LoopResult finish() {
        std::optional<RunLog> log;
        if (ranks_.leads()) log.emplace(settings_.folder, step_ + 1);
        warm_up();
        core::Progress progress(settings_.label, stage_.steps(), "steps", step_);
        std::string note;  // of the last metrics that were read
        while (step_ < stage_.steps()) {
            StepMetrics measured = guarded([&] { return stepper_.step(step_); });
            if (stepper_.updates_begun() > 0) stop();
            ++step_;
            tell_position();
            const bool last = step_ == stage_.steps();
            const bool logged = last || step_ % settings_.log_every == 0;
            const bool probed =
                last || (settings_.probe_every > 0 && step_ % settings_.probe_every == 0);
            distillation::Metrics shown;
            if (logged || probed || measured.known()) {
                settle();
                shown = measured.read();
                note = shown.empty()
                           ? ""
                           : fmt::format("{} {:.4g}", shown.front().first, shown.front().second);
            }
            const std::size_t of_step = shown.size();
            if (probed) probe(shown);
            if (logged) check_agreement();
            if (log && (logged || shown.size() > of_step)) log->write(step_, shown);
            progress.update(step_, note);
            save_when_due(last);
        }
        return result();
    }

    /// Sets the state after `steps` steps from weights alone, and saves it.
    void start_at(std::int64_t steps, const backends::Parameters& averaged,
                  const std::function<backends::Parameters(const std::string&)>& more_averages) {
        at::NoGradGuard no_gradients;
        Optimizer& optimizer = stepper_.optimizers().back();
        backends::Parameters state = optimizer.state();
        const auto take = [&](const std::string& prefix, const backends::Parameters& from) {
            for (const auto& [name, tensor] : from.tensors()) state.at(prefix + name).copy_(tensor);
        };
        if (state.contains("ema/" + averaged.tensors().begin()->first)) take("ema/", averaged);
        for (const auto& [decay, average] : optimizer.more_averages())
            take("ema-" + decay + "/", more_averages(decay));
        state.at("updates").fill_(static_cast<double>(steps));
        step_ = steps;
        save();
        finish_writing();
        ranks_.barrier();
    }

private:
    /// Runs the updates before the first step; checkpoints may be written between them.
    void warm_up() {
        const std::int64_t updates = step_ == 0 ? stepper_.warmup_updates() : 0;
        if (warmed_ >= updates) return;
        core::Progress progress(settings_.label + " warm-up", updates, "updates", warmed_);
        std::string note;
        while (warmed_ < updates) {
            StepMetrics measured = guarded([&] { return stepper_.warm_up(warmed_); });
            ++warmed_;
            if (measured.known()) {
                const auto [name, value] = measured.read().front();
                note = fmt::format("{} {:.4g}", name, value);
            }
            progress.update(warmed_, note);
            save_when_due(false);
        }
    }

    /// Stops where a loss or gradient since the last call was not finite. Comes before anything
    /// that outlives the steps: a checkpoint, a line of the log, a probe.
    void settle() {
        guarded([&] { stepper_.check(); });
    }

    template <class Updates>
    std::invoke_result_t<Updates> guarded(const Updates& updates) const {
        try {
            return updates();
        } catch (const NotFinite& error) {
            stop_because(error.what());
        } catch (const c10::OutOfMemoryError& error) {
            const std::string what = error.what_without_backtrace();
            throw OutOfMemory(fmt::format("{}: step {} needs more memory than the device has ({})",
                                          settings_.label, step_, what.substr(0, what.find('\n'))),
                              settings_.stage);
        }
    }

    /// Ranks beyond the number of micro-batches have nothing to compute.
    void warn_of_idle_ranks() const {
        std::int64_t most = 0;
        for (std::size_t i = 0; i < stepper_.learners().size(); ++i)
            most = std::max(most, stage_.micro_batches(i));
        if (ranks_.leads() && most < ranks_.world()) {
            core::log::warning(
                "{}: {} ranks share {} micro-batch{}, so some have nothing to do; set the stage's "
                "micro_batch to the samples that each is to compute",
                settings_.label, ranks_.world(), most, most == 1 ? "" : "es");
        }
    }

    /// What each rank keeps of the optimisers' state.
    void tell_shares() const {
        if (!shares_optimizers()) return;
        std::int64_t here = 0;
        for (const Optimizer& optimizer : stepper_.optimizers()) here += optimizer.kept_bytes();
        const Tensor all = ranks_.gather(at::full({1}, here, at::kLong));
        constexpr double mb = 1e6;
        if (ranks_.leads())
            core::log::info(
                "{}: moments and averages take {:.4g} MB, of which no rank keeps more than {:.4g}",
                settings_.label, static_cast<double>(all.sum().item<std::int64_t>()) / mb,
                static_cast<double>(all.max().item<std::int64_t>()) / mb);
    }

    bool shares_optimizers() const { return settings_.optimizer_sharding && !ranks_.is_alone(); }

    void tell_position() {
        if (ranks_.is_alone()) return;
        ranks_.set_position({settings_.label, step_, stage_.steps(), [checkpoints = checkpoints_] {
                                 return checkpoints.latest_path().string();
                             }});
    }

    /// Throws where the weights of the ranks differ: their processors, or their numbers of threads,
    /// then round differently.
    void check_agreement() const {
        if (ranks_.is_alone()) return;
        at::NoGradGuard no_gradients;
        std::int64_t sum = 0;
        for (const distillation::Learner& learner : stepper_.learners()) {
            for (const Tensor& tensor : learner.parameters->list()) {
                const Tensor bits =
                    tensor.scalar_type() == at::kFloat ? tensor.view(at::kInt) : tensor;
                sum += bits.sum(at::kLong).item<std::int64_t>();
            }
        }
        const Tensor sums = ranks_.gather(at::full({1}, sum, at::kLong));
        for (int rank = 1; rank < ranks_.world(); ++rank) {
            if (sums[rank].item<std::int64_t>() == sums[0].item<std::int64_t>()) continue;
            stop_because(
                fmt::format("the weights of rank {} differ from those of rank 0 at step {}: their "
                            "machines or devices compute differently, so they cannot train one "
                            "student together",
                            rank, step_));
        }
    }

    [[noreturn]] void stop_because(const std::string& what) const {
        const auto good = checkpoints_.latest_path();
        core::fail(
            "{}: {}; stopped. Last good checkpoint: {}. Lower the learning rate and start into a "
            "new output, or resume to retry",
            settings_.label, what, good.empty() ? "none yet" : good.string());
    }

    /// Samples from the probe noise with the averaged weights; measures, draws and checks them.
    /// Rank 0 does, and the others hear whether to go on.
    void probe(distillation::Metrics& metrics) {
        if (!settings_.probe_noise.defined()) return;
        const backends::Parameters weights = stepper_.optimizers().back().averaged();
        std::string collapse;
        if (ranks_.leads()) collapse = measured(metrics, weights);
        if (!ranks_.is_alone()) collapse = ranks_.from_leader(collapse);
        if (!collapse.empty()) stop_because(collapse);
    }

    /// Returns why training is to stop, or nothing.
    std::string measured(distillation::Metrics& metrics, const backends::Parameters& weights) {
        at::NoGradGuard no_gradients;
        const Tensor samples = probe_samples(weights);
        if (settings_.distance) {
            const double distance = settings_.distance(samples);
            metrics.emplace_back("probe_distance", distance);
            if (std::isfinite(distance) && !(distance >= best_distance_))
                remember_best(weights, distance);
        }
        if (settings_.draw)
            settings_.draw(settings_.folder / "samples" / fmt::format("step-{:06}", step_),
                           samples);
        for (const distillation::Finding& finding : stage_.health(metrics, samples)) {
            if (finding.level == distillation::Finding::Level::collapse) return finding.message;
            if (finding.level == distillation::Finding::Level::warning) {
                core::log::warning("{} step {}: {}", settings_.label, step_, finding.message);
            }
        }
        return "";
    }

    Tensor probe_samples(const backends::Parameters& weights) const {
        const std::int64_t count = settings_.probe_noise.size(0),
                           batch = settings_.probe_batch > 0 ? settings_.probe_batch : count;
        if (batch >= count)
            return stage_.sample(weights, settings_.probe_noise, settings_.probe_condition);
        std::vector<Tensor> batches;
        for (std::int64_t first = 0; first < count; first += batch) {
            const std::int64_t n = std::min(batch, count - first);
            batches.push_back(stage_.sample(weights, settings_.probe_noise.narrow(0, first, n),
                                            settings_.probe_condition.rows(first, n)));
        }
        return at::cat(batches);
    }

    void remember_best(const backends::Parameters& weights, double distance) {
        best_distance_ = distance;
        best_step_ = step_;
        if (!settings_.keep_best) return;
        best_ = weights.clone();
        best_others_ = others();
    }

    /// Copies of the parameters of all learners except the last.
    std::map<std::string, backends::Parameters> others() const {
        std::map<std::string, backends::Parameters> copies;
        const auto& learners = stepper_.learners();
        for (std::size_t i = 0; i + 1 < learners.size(); ++i)
            copies[learners[i].name] = learners[i].parameters->clone();
        return copies;
    }

    void save_when_due(bool last) {
        const bool stopping = stepper_.stop_requested();
        if (stopping && !last) stop();
        if (!last && !checkpoint_is_due()) return;
        if (stopping) core::acknowledge_stop();
        save();
        if (last) finish_writing();
    }

    /// Rank 0's clock decides where all must take part in the checkpoint.
    bool checkpoint_is_due() const {
        const bool here = seconds_since(saved_) >= settings_.checkpoint_seconds;
        return shares_optimizers() ? ranks_.broadcast(here ? 1.0 : 0.0) != 0 : here;
    }

    /// Ends the run with a checkpoint, at the end of a step or within one.
    [[noreturn]] void stop() {
        core::acknowledge_stop();
        save();
        finish_writing();
        ranks_.barrier();  // all end when the checkpoint is on disk
        throw core::Interrupted(
            fmt::format("{} stopped at step {} of {}; run the same command again to go on",
                        settings_.label, step_, stage_.steps()));
    }

    /// Writes a checkpoint; that of an accelerator is copied once, and written while training goes
    /// on.
    void save() {
        settle();
        Checkpoint checkpoint;
        checkpoint.step = step_;
        if (ranks_.leads() || shares_optimizers()) {
            for (std::size_t i = 0; i < stepper_.learners().size(); ++i) {
                checkpoint.tensors.merge(stepper_.optimizers()[i].state(),
                                         stepper_.learners()[i].name + "/");
            }
        }
        if (!ranks_.leads()) return;
        checkpoint.tensors.merge(best_, "best/");
        for (const auto& [name, weights] : best_others_)
            checkpoint.tensors.merge(weights, "best-" + name + "/");
        for (const auto& [name, scalar] : stage_.scalars())
            checkpoint.scalars["stage/" + name] = *scalar;
        for (const auto& [name, scalar] : stepper_.scalars()) checkpoint.scalars[name] = *scalar;
        checkpoint.scalars["best_step"] = static_cast<double>(best_step_);
        checkpoint.scalars["best_distance"] = best_distance_;
        checkpoint.scalars["warmup_updates"] = static_cast<double>(warmed_);
        if (stepper_.updates_begun() > 0)
            checkpoint.scalars["updates_begun"] = static_cast<double>(stepper_.updates_begun());
        checkpoint.scalars["seconds"] = seconds_before_ + seconds_since(start_);
        finish_writing();
        if (stepper_.learners().front().parameters->list().front().is_cpu()) {
            checkpoints_.save(checkpoint);
        } else {
            backends::Parameters copies;
            for (const auto& [name, tensor] : checkpoint.tensors.tensors())
                copies.set(name, tensor.detach().to(at::kCPU, /*non_blocking=*/false,
                                                    /*copy=*/true));
            checkpoint.tensors = std::move(copies);
            writing_ = std::async(
                std::launch::async,
                [folder = checkpoints_, whole = std::move(checkpoint)] { folder.save(whole); });
        }
        saved_ = Clock::now();
    }

    /// Waits for a checkpoint that is still being written. Throws what kept it from being.
    void finish_writing() {
        if (writing_.valid()) writing_.get();
    }

    /// The newest intact checkpoint, the same on all ranks.
    std::optional<Checkpoint> newest() const {
        if (ranks_.is_alone()) return checkpoints_.latest();
        std::optional<Checkpoint> found;
        if (ranks_.leads()) found = checkpoints_.latest();
        const std::string step =
            ranks_.from_leader(found ? std::to_string(found->step) : std::string());
        if (ranks_.leads() || step.empty()) return found;
        return seen_by_others([&] { return checkpoints_.at_step(std::stoll(step)); });
    }

    /// Reads what rank 0 sees; a network's file system may show it to others a little later.
    template <class Read>
    Checkpoint seen_by_others(const Read& read) const {
        constexpr double longest = 60;
        constexpr std::chrono::milliseconds pause{500};
        for (const auto begin = Clock::now(); seconds_since(begin) < longest;
             std::this_thread::sleep_for(pause)) {
            try {
                return read();
            } catch (const core::Error& error) {
                if (core::stop_requested()) break;
            }
        }
        return read();
    }

    void restore() {
        tell_position();
        const std::optional<Checkpoint> found = newest();
        if (!found) return take_moments();
        step_ = found->step;
        for (std::size_t i = 0; i < stepper_.learners().size(); ++i) {
            stepper_.optimizers()[i].restore(
                found->tensors.subset(stepper_.learners()[i].name + "/"));
        }
        best_ = found->tensors.subset("best/");
        for (const distillation::Learner& learner : stepper_.learners()) {
            backends::Parameters other = found->tensors.subset("best-" + learner.name + "/");
            if (!other.empty()) best_others_[learner.name] = std::move(other);
        }
        // Checkpoints of older versions do not have this value.
        if (found->scalars.contains("warmup_updates"))
            warmed_ = static_cast<std::int64_t>(found->scalar("warmup_updates"));
        if (found->scalars.contains("updates_begun"))
            stepper_.set_updates_begun(static_cast<std::int64_t>(found->scalar("updates_begun")));
        for (const auto& [name, scalar] : stage_.scalars())
            *scalar = found->scalar("stage/" + name);
        for (const auto& [name, scalar] : stepper_.scalars()) *scalar = found->scalar(name);
        best_step_ = static_cast<std::int64_t>(found->scalar("best_step"));
        best_distance_ = found->scalar("best_distance");
        seconds_before_ = found->scalar("seconds");
        if (!ranks_.leads()) best_ = {}, best_others_.clear();
        tell_position();
        if (step_ < stage_.steps())
            core::log::info("{}: resuming from step {} of {}", settings_.label, step_,
                            stage_.steps());
    }

    void take_moments() {
        if (!settings_.moments) return;
        const backends::Parameters moments = settings_.moments();
        for (std::size_t i = 0; i < stepper_.learners().size(); ++i) {
            const std::string& name = stepper_.learners()[i].name;
            const bool taken = stepper_.optimizers()[i].take_moments(moments.subset(name + "/"));
            if (taken && ranks_.leads())
                core::log::info("{}: {} goes on with its optimiser's moments", settings_.label,
                                name);
        }
    }

    LoopResult result() const {
        backends::Parameters moments;
        for (std::size_t i = 0; i < stepper_.learners().size(); ++i)
            moments.merge(stepper_.optimizers()[i].moments(), stepper_.learners()[i].name + "/");
        const bool best = settings_.keep_best && !best_.empty();
        const backends::Parameters last = stepper_.optimizers().back().averaged();
        std::map<std::string, backends::Parameters> more;
        for (const auto& [decay, average] : stepper_.optimizers().back().more_averages())
            more[decay] = average.clone();
        // A checkpoint of an older version may hold the best weights without the other learners'.
        const bool best_others = best && !best_others_.empty();
        return {best ? best_.clone() : last.clone(),
                stepper_.learners().back().parameters->clone(),
                std::move(more),
                best_others ? best_others_ : others(),
                best_others || !best || best_step_ == step_ || stepper_.learners().size() == 1,
                std::move(moments),
                best_step_,
                best_distance_,
                best,
                seconds_before_ + seconds_since(start_)};
    }

    distillation::Stage& stage_;
    const LoopSettings& settings_;
    parallel::Ranks& ranks_;
    Stepper stepper_;
    CheckpointFolder checkpoints_;
    std::int64_t step_ = 0, best_step_ = 0, warmed_ = 0;
    backends::Parameters best_;
    std::map<std::string, backends::Parameters> best_others_;  // of the same step
    double best_distance_ = std::numeric_limits<double>::quiet_NaN(), seconds_before_ = 0;
    Clock::time_point start_ = Clock::now(), saved_ = Clock::now();
    std::future<void> writing_;
};

}  // namespace

LoopResult run_stage(distillation::Stage& stage, const LoopSettings& settings) {
    return Run(stage, settings).finish();
}

bool has_checkpoint(const LoopSettings& settings) {
    return !CheckpointFolder(settings.folder / "checkpoints").latest_path().empty();
}

void begin_from_weights(
    distillation::Stage& stage, const LoopSettings& settings, std::int64_t steps,
    const backends::Parameters& averaged,
    const std::function<backends::Parameters(const std::string& decay)>& more_averages) {
    LoopSettings undivided = settings;
    undivided.optimizer_sharding = false;  // the state is set tensor by tensor
    Run(stage, undivided).start_at(steps, averaged, more_averages);
}

}  // namespace atelier::training
