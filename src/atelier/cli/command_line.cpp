#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iostream>

#include <fmt/ranges.h>

#include "atelier/backends/torch/error_message.h"
#include "atelier/backends/torch/thread_limit.h"
#include "atelier/cli/commands.h"
#include "atelier/cli/standard_output.h"
#include "atelier/cli/usage.h"
#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/core/schema.h"
#include "atelier/core/signals.h"
#include "atelier/core/terminal.h"
#include "atelier/parallel/ranks.h"

namespace atelier::cli {

namespace {

constexpr int failed = 1, wrong_usage = 2, interrupted = 130;

int report_failure(const std::string& message, int code) {
    std::cerr << core::terminal::line_prefix() << "atelier: " << message << std::endl;
    return code;
}

/// Parsing runs the chosen command's callback, so usage and run-time errors are both caught here.
int guarded(const std::function<void()>& parse_and_run, const CLI::App& app) {
    try {
        parse_and_run();
        return 0;
    } catch (const CLI::ParseError& error) {
        if (error.get_exit_code() == 0) return app.exit(error);  // --help and --version
        return report_failure(parse_error_message(error, app), wrong_usage);
    } catch (const core::Interrupted& stop) {
        return report_failure(stop.what(), interrupted);
    } catch (const core::UsageError& error) {
        return report_failure(error.what(), wrong_usage);
    } catch (const parallel::RankLost& lost) {
        return report_failure(lost.what(), parallel::rank_lost);
    } catch (const std::exception& error) {
        return report_failure(backends::error_message(error), failed);
    }
}

/// A command whose output could not be written has failed. A closed pipe (EPIPE) sets the exit code
/// without a message.
int with_output_checked(int code, StandardOutput& output) {
    const auto problem = output.finish();
    if (!problem || code != 0) return code;
    if (*problem == EPIPE) return failed;
    return report_failure(
        fmt::format("standard output: writing failed ({})", std::strerror(*problem)), failed);
}

/// Rejects unknown commands with a suggestion; CLI11 would only report that one is required.
void check_command(const CLI::App& app, const std::string& word) {
    std::vector<std::string> known;
    for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
        known.push_back(command->get_name());
    if (std::ranges::find(known, word) != known.end()) return;
    throw core::UsageError(fmt::format("there is no command \"{}\"{}; known are {}", word,
                                       core::did_you_mean(word, known), fmt::join(known, ", ")));
}

}  // namespace

int run_command_line(int argc, char** argv) {
    occupy_standard_descriptors();
    StandardOutput output;
    CLI::App app{
        "Atelier distils one diffusion teacher into K one-step students, each owning a part of the "
        "conditions.",
        "atelier"};
    app.footer(
        "Begin with:\n  atelier run configs/toy2d.toml output=runs/toy2d\n  atelier sample "
        "models/fashion-mnist/k4 --count 64 --seed 1 --out grid.png\n"
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 75 another rank is gone, 130 interrupted "
        "(75 and 130: run again to go on).");
    app.require_subcommand(1);
    app.option_defaults()->always_capture_default();
    app.formatter(help_formatter());
    app.set_version_flag("--version", "atelier " ATELIER_VERSION);
    bool quiet = false;
    app.add_flag("-q,--quiet", quiet, "only warnings, errors and results")
        ->each([](const std::string&) { core::log::set_quiet(true); });
    add_stage_commands(app);
    add_plan_command(app);
    add_sample_command(app);
    add_evaluate_command(app);
    add_forward_command(app);
    add_inspect_command(app);
    add_classifier_command(app);
    add_benchmark_command(app);
    add_quantize_command(app);
    add_convert_command(app);
    add_import_command(app);
    add_serve_command(app);
    add_route_command(app);
    add_tokenize_command(app);
    add_embed_command(app);
    add_completions_command(app);

    add_common_checks(app);

    core::catch_stop_signals();
    backends::limit_threads();
    if (argc > 1 && (std::string_view(argv[1]) == "import" || std::string_view(argv[1]) == "embed"))
        core::end_after_stop(3, core::resumable_message);
    const int code = guarded(
        [&] {
            if (argc > 1 && argv[1][0] != '-') check_command(app, argv[1]);
            app.parse(argc, argv);
        },
        app);
    return with_output_checked(code, output);
}

}  // namespace atelier::cli
