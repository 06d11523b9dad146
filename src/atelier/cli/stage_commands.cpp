#include <CLI/CLI.hpp>
#include <iostream>

#include "atelier/cli/commands.h"
#include "atelier/cli/usage.h"
#include "atelier/cli/with_ranks.h"
#include "atelier/core/error.h"
#include "atelier/core/json_file.h"
#include "atelier/core/shard.h"
#include "atelier/core/signals.h"
#include "atelier/core/whole_number.h"
#include "atelier/pipeline/latent_data.h"
#include "atelier/pipeline/make_stages.h"
#include "atelier/pipeline/partition_prompts.h"
#include "atelier/pipeline/preflight.h"
#include "atelier/pipeline/run_status.h"
#include "atelier/pipeline/stages.h"
#include "atelier/pipeline/start_run.h"
#include "atelier/planning/dry_run.h"
#include "atelier/training/loop.h"

namespace atelier::cli {

namespace {

/// The arguments of every command on a config.
struct ConfigArguments {
    std::string path;
    std::vector<std::string> overrides;
    double max_hours = 0;
    std::string shard;                       // of pairs and encode
    std::string student_from = "--student";  // who names the student, in messages
};

void add_config_arguments(CLI::App& command, ConfigArguments& to, bool required = true) {
    command.add_option("CONFIG", to.path, "a TOML file, e.g. configs/toy2d.toml")
        ->required(required);
    command.add_option(
        "overrides", to.overrides,
        "key=value pairs that take the config's place, e.g. seed=3 partition.students=8");
    command
        .add_option("--max-hours", to.max_hours,
                    "stop after so many hours with a checkpoint and exit code 130; the same "
                    "command goes on")
        ->check(CLI::PositiveNumber);
}

constexpr double gigabyte = 1e9;
constexpr unsigned seconds_of_a_step =
    10;  // that a stage may take to its next checkpoint after a request to stop

/// Opens the run and calls pipeline::start_run.
void with_run(const ConfigArguments& arguments, std::optional<std::int64_t> student,
              const std::string& lock_folder,
              const std::function<void(pipeline::RunContext&)>& work, bool trains = true,
              bool all_stages = false) {
    core::end_after_stop(seconds_of_a_step, core::resumable_message);
    if (arguments.max_hours > 0) core::stop_after(arguments.max_hours * 3600);
    with_ranks([&](parallel::Ranks& ranks) {
        std::vector<std::string> overrides = arguments.overrides;
        // Ranks train one student at a time together.
        if (!ranks.is_alone()) overrides.emplace_back("students.parallel=1");
        pipeline::RunContext context(pipeline::load_config(arguments.path, overrides), ranks);
        if (student == pipeline::trunk && !context.config().trunk.exists())
            throw core::UsageError(
                "--student trunk: this run has no trunk; set trunk.dm_steps or trunk.adm_steps");
        if (student && *student != pipeline::trunk &&
            (*student < 0 || *student >= context.config().partition.students)) {
            throw core::UsageError(fmt::format(
                "{} {} is out of range; this run has students 0 to {}", arguments.student_from,
                *student, context.config().partition.students - 1));
        }
        const bool sharded = !arguments.shard.empty();
        if (sharded) context.set_shard(core::shard_of(arguments.shard));
        try {
            pipeline::start_run(context,
                                {.lock_folder = lock_folder,
                                 .locks = !sharded,
                                 .trains = trains,
                                 .all_stages = all_stages},
                                work);
        } catch (const training::OutOfMemory& error) {
            core::fail("{}{}", error.what(),
                       planning::advice_on_memory(context.loaded(), error.stage));
        }
    });
}

void print_status(const std::string& directory, bool json) {
    const pipeline::RunStatus status = pipeline::run_status(directory);
    if (json) std::cout << core::json_text(status.json()) << std::endl;
    else std::cout << status.text() << std::flush;
}

void add_run(CLI::App& app) {
    auto arguments = std::make_shared<ConfigArguments>();
    auto explain = std::make_shared<bool>(false), dry = std::make_shared<bool>(false);
    auto status = std::make_shared<std::string>();
    auto options = std::make_shared<planning::DryRunOptions>();
    auto link = std::make_shared<double>(options->ranks.link / gigabyte);
    CLI::App* command = app.add_subcommand(
        "run", "Do every missing stage of a run; safe to call again after any interruption");
    add_config_arguments(*command, *arguments, false);
    command->add_flag("--explain", *explain,
                      "list every key of a config with its meaning, and stop");
    CLI::Option* where = command->add_option("--status", *status,
                                             "instead of a config the directory of a run: print "
                                             "how far each stage is, how fast, and who "
                                             "works on it, and stop");
    CLI::Option* plan =
        command->add_flag("--dry-run", *dry,
                          "print what the run needs (networks, memory, work, images, "
                          "time) and whether it fits, and stop");
    command->add_flag("--json", options->json, "the dry run or the status as JSON");
    command
        ->add_option("--device-memory", options->device_memory_gib,
                     "GiB of the device to plan for; without: the config's, or what is found")
        ->needs(plan)
        ->check(CLI::PositiveNumber);
    command
        ->add_option("--tflops", options->tflops,
                     "the device's rate, for estimates of time; without: measured here")
        ->needs(plan)
        ->check(CLI::PositiveNumber);
    command
        ->add_option("--ranks", options->ranks.ranks,
                     "GPUs that would train each network together: micro-batches, sums, time")
        ->needs(plan)
        ->check(CLI::Range(1, 100'000));
    command
        ->add_option("--link", *link,
                     "with --ranks: GB a second that a ring of those GPUs passes on; 300 is NVLink "
                     "within a node")
        ->needs(plan)
        ->check(CLI::PositiveNumber);
    command->footer(
        "Examples:\n  atelier run configs/toy2d.toml output=runs/toy2d\n  atelier run "
        "configs/toy2d.toml data.path=points.safetensors "
        "partition.students=8 output=runs/eight\n  atelier run configs/toy2d.toml --explain\n"
        "  atelier run configs/imagenet64-msd4-dm.toml --dry-run --tflops 200 --ranks 8\n  atelier "
        "run "
        "configs/imagenet64-msd4-dm.toml --max-hours 23.5\n  atelier run --status runs/toy2d");
    command->callback([arguments, explain, dry, options, status, where, link] {
        if (where->count() > 0 && (!arguments->path.empty() || *explain || *dry))
            throw core::UsageError(
                "--status goes with the directory of a run alone, without a config");
        if (options->json && where->count() == 0 && !*dry)
            throw core::UsageError("--json goes with --dry-run or --status");
        if (where->count() > 0) return print_status(*status, options->json);
        if (arguments->path.empty()) throw CLI::RequiredError("CONFIG");
        if (*explain) {
            pipeline::RunConfig config;
            std::cout << pipeline::schema_of(config).explain();
            return;
        }
        options->ranks.link = *link * gigabyte;
        if (*dry)
            return planning::dry_run(pipeline::load_config(arguments->path, arguments->overrides),
                                     *options);
        with_run(*arguments, std::nullopt, "", pipeline::run_stages, true, true);
    });
}

void add_one_stage(CLI::App& app, pipeline::StageKind kind, const std::string& help) {
    auto arguments = std::make_shared<ConfigArguments>();
    const std::string name = pipeline::name_of(kind);
    CLI::App* command = app.add_subcommand(name, help);
    add_config_arguments(*command, *arguments);
    std::string examples = "Example:\n  atelier " + name + " configs/toy2d.toml output=runs/toy2d";
    if (kind == pipeline::StageKind::pairs) {
        add_shard_option(*command, arguments->shard,
                         "pairs' files; the last shard to be done finishes the stage");
        examples += "\n  atelier pairs configs/toy2d.toml output=runs/toy2d --shard 1/2";
    }
    command->footer(examples);
    command->callback([arguments, kind] {
        with_run(*arguments, std::nullopt, "", [kind](pipeline::RunContext& context) {
            pipeline::run_stages_of(context, kind);
            if (kind == pipeline::StageKind::teacher && context.ranks().leads())
                pipeline::warn_of_stale_stages(context);
        });
    });
}

void add_encode(CLI::App& app) {
    auto arguments = std::make_shared<ConfigArguments>();
    CLI::App* command = app.add_subcommand(
        "encode",
        "Encode a run's images and captions for a teacher of latents now, so that several machines "
        "share the work; without, the first stage that needs them does it");
    add_config_arguments(*command, *arguments);
    add_shard_option(*command, arguments->shard, "files of encoded images and captions");
    command->footer(
        "Example:\n  atelier teacher configs/sd15-msd4-adm.toml\n  atelier encode "
        "configs/sd15-msd4-adm.toml --shard 1/8");
    command->callback(
        [arguments] { with_run(*arguments, std::nullopt, "", pipeline::encode_data, false); });
}

bool is_embeddings(const std::string& path) {
    return path.ends_with(".npy") || path.ends_with(".safetensors");
}

void add_partition(CLI::App& app) {
    struct Arguments : ConfigArguments {
        pipeline::PromptArguments prompts;
    };
    auto arguments = std::make_shared<Arguments>();
    pipeline::PromptArguments& prompts = arguments->prompts;
    CLI::App* command = app.add_subcommand(
        "partition",
        "Split a run's classes among the students, or a set of prompts by their embeddings");
    command
        ->add_option("SUBJECT", arguments->path,
                     "a run's config (*.toml), or embeddings: .npy [N,D], or safetensors with "
                     "\"embeddings\" [N,D]")
        ->required();
    command->add_option("overrides", arguments->overrides,
                        "key=value pairs that take the config's place; with a config");
    // With embeddings:
    command->add_option(
        "--out", prompts.out,
        "embeddings: the directory to make: the partition, every prompt's owner, and a report");
    command->add_option("--students", prompts.students, "embeddings: K")->capture_default_str();
    command->add_option("--seed", prompts.seed, "embeddings: seed of the clustering")
        ->check(CLI::NonNegativeNumber);
    command->add_option("--prompts", prompts.prompts,
                        "embeddings: the prompts, one line per row, to show what cells are about");
    command->add_option(
        "--encoder", prompts.encoder,
        "embeddings: the name of the model that made them, recorded in the partition");
    command->add_option("--null-owner", prompts.null_owner,
                        "embeddings: who owns the empty prompt; else the owner of an empty line, "
                        "else the largest cell's");
    command->add_flag("--balanced", prompts.balanced, "embeddings: cells of equal size");
    command->add_flag("--json", prompts.json,
                      "embeddings: sizes, borders and central prompts as JSON");
    command->footer(
        "Examples:\n  atelier partition configs/toy2d.toml output=runs/toy2d\n"
        "  atelier partition embeddings.npy --prompts prompts.txt --students 4 --balanced --out "
        "prompts-k4");
    command->callback([arguments] {
        if (!is_embeddings(arguments->path)) {
            with_run(*arguments, std::nullopt, "", [](pipeline::RunContext& context) {
                pipeline::run_stages_of(context, pipeline::StageKind::partition);
            });
            return;
        }
        if (!arguments->overrides.empty())
            throw core::UsageError(fmt::format(
                "\"{}\" goes with a config, not with embeddings; use --students and the like",
                arguments->overrides[0]));
        arguments->prompts.embeddings = arguments->path;
        pipeline::partition_prompts(arguments->prompts);
    });
}

void add_report(CLI::App& app) {
    struct Arguments {
        std::string subject, out;
        std::vector<std::string> more;
    };
    auto arguments = std::make_shared<Arguments>();
    CLI::App* command = app.add_subcommand("report",
                                           "Write a run's HTML report from what is there, or one "
                                           "page about several folders of models");
    command
        ->add_option("SUBJECT", arguments->subject,
                     "a run's config (*.toml), or a run directory or folder of models")
        ->required();
    command->add_option("more", arguments->more,
                        "key=value pairs with a config, further folders otherwise");
    command->add_option("--out", arguments->out, "the page, e.g. report.html; with folders");
    command->footer(
        "Examples:\n  atelier report configs/toy2d.toml output=runs/toy2d\n  atelier report "
        "runs/toy2d models/fashion-mnist --out report.html");
    command->callback([arguments] {
        if (arguments->subject.ends_with(".toml")) {
            with_run(
                {arguments->subject, arguments->more, 0}, std::nullopt, "",
                [](pipeline::RunContext& context) {
                    pipeline::run_stages_of(context, pipeline::StageKind::report);
                },
                false);
            return;
        }
        if (arguments->out.empty())
            throw core::UsageError("--out is needed: the page to write, e.g. --out report.html");
        std::vector<std::string> folders{arguments->subject};
        folders.insert(folders.end(), arguments->more.begin(), arguments->more.end());
        pipeline::report_on(folders, arguments->out);
    });
}

std::vector<std::string> student_stage_names() {
    std::vector<std::string> names;
    for (const pipeline::StageKind kind : pipeline::student_stage_kinds)
        names.push_back(pipeline::name_of(kind));
    return names;
}

/// The student that --student names; none: all of them. `from` becomes whoever names it.
std::optional<std::int64_t> student_of(const std::string& text, std::string& from) {
    if (text.empty()) return std::nullopt;
    if (text == pipeline::students_folder(pipeline::trunk)) return pipeline::trunk;
    if (text == "auto") {
        const auto task = core::array_task();
        if (!task)
            throw core::UsageError(
                fmt::format("--student auto: this is no task of a job array, since none of {} is "
                            "set; give the student's number",
                            core::array_variables));
        from = "--student auto: " + task->variable;
        return task->number;
    }
    const auto number = core::whole_number(text);
    if (!number)
        throw core::UsageError(
            fmt::format("--student: \"{}\" is no student; give a number, trunk or auto", text));
    return number;
}

void add_distill(CLI::App& app) {
    struct Arguments : ConfigArguments {
        std::string student;  // a number, "auto", or empty: all
        std::optional<std::string> stage;
        bool checked = false;
    };
    auto arguments = std::make_shared<Arguments>();
    CLI::App* command = app.add_subcommand(
        "distill",
        "Train students: all of them, or one at a time, each in its own process if you like");
    add_config_arguments(*command, *arguments);
    command
        ->add_option("--student", arguments->student,
                     "only this student, 0 to K-1; trunk: that from which they branch; auto: the "
                     "number of this task of a job array")
        ->type_name("K|trunk|auto");
    command->add_option("--stage", arguments->stage, "only this stage")
        ->check(CLI::IsMember(student_stage_names()));
    command
        ->add_flag("--checked", arguments->checked,
                   "the run that starts this has already checked and reported everything")
        ->group("");
    command->footer(
        "Examples:\n  atelier distill configs/toy2d.toml output=runs/toy2d --student 2\n  atelier "
        "distill configs/toy2d.toml "
        "output=runs/toy2d --student 0 --stage dm\n  sbatch --array=0-3 --wrap \"atelier distill "
        "configs/imagenet64-msd4-adm.toml --student auto\"");
    command->callback([arguments] {
        std::optional<pipeline::StageKind> only;
        if (arguments->stage) only = pipeline::stage_kind_of(*arguments->stage);
        const std::optional<std::int64_t> student =
            student_of(arguments->student, arguments->student_from);
        with_run(
            *arguments, student, pipeline::students_folder(student),
            [&](pipeline::RunContext& context) {
                context.teacher();
                if (student.value_or(pipeline::trunk) == pipeline::trunk &&
                    context.config().trunk.exists())
                    pipeline::run_student(context, pipeline::trunk, only);
                for (std::int64_t k = 0; k < context.config().partition.students; ++k) {
                    if (!student || *student == k) pipeline::run_student(context, k, only);
                }
            },
            !arguments->checked);
    });
}

}  // namespace

void add_stage_commands(CLI::App& app) {
    add_run(app);
    using Kind = pipeline::StageKind;
    add_one_stage(app, Kind::teacher,
                  "Train the run's teacher, or adopt the one at teacher.path; a finished one goes "
                  "on where teacher.steps was raised");
    add_partition(app);
    add_encode(app);
    add_one_stage(app, Kind::pairs,
                  "Draw the teacher's noise-sample pairs for the regression loss");
    add_distill(app);
    add_one_stage(app, Kind::ensemble, "Put the finished students together");
    add_report(app);
}

}  // namespace atelier::cli
