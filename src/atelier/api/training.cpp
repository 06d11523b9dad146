#include <ATen/Parallel.h>

#include "atelier/api/guard.h"
#include "atelier/backends/torch/thread_limit.h"
#include "atelier/core/log.h"
#include "atelier/core/progress.h"
#include "atelier/core/signals.h"
#include "atelier/pipeline/stages.h"
#include "atelier/pipeline/start_run.h"

namespace atelier {

namespace {

thread_local const std::function<bool()>* cancelled_on_this_thread = nullptr;

bool cancelled() { return cancelled_on_this_thread && (*cancelled_on_this_thread)(); }

/// What train() changes of thread and process, restored at its end.
class TrainingScope {
public:
    explicit TrainingScope(const TrainingOptions& options)
        : progress_([&options]() -> std::function<void(const core::ProgressUpdate&)> {
              if (!options.progress) return {};
              return [&options](const core::ProgressUpdate& update) {
                  options.progress(
                      {update.label, update.done, update.total, update.unit, update.note});
              };
          }()),
          before_(cancelled_on_this_thread) {
        if (options.cancelled) cancelled_on_this_thread = &options.cancelled;
        core::log::set_quiet(!options.verbose);
    }
    ~TrainingScope() {
        cancelled_on_this_thread = before_;
        core::log::set_quiet(true);
        core::log::also_write_to("");
        at::set_num_threads(threads_);
    }
    TrainingScope(const TrainingScope&) = delete;
    TrainingScope& operator=(const TrainingScope&) = delete;

private:
    core::ProgressObserver progress_;
    const std::function<bool()>* before_;
    const int threads_ = at::get_num_threads();
};

}  // namespace

namespace api {

void prepare_process() {
    static const bool once = [] {
        core::log::set_quiet(true);
        backends::limit_threads();
        core::set_stop_check(cancelled);
        return true;
    }();
    (void)once;
}

}  // namespace api

std::filesystem::path train(const std::string& config, const std::vector<std::string>& overrides,
                            const TrainingOptions& options) {
    return api::guarded([&] {
        api::prepare_process();
        const TrainingScope scope(options);
        std::vector<std::string> all = overrides;
        all.emplace_back("students.parallel=1");  // parallel ones are processes of the program
        pipeline::RunContext context(pipeline::load_config(config, all));
        pipeline::start_run(context, {.all_stages = true}, pipeline::run_stages);
        return context.output();
    });
}

}  // namespace atelier
