#include <CLI/CLI.hpp>

#include "atelier/cli/commands.h"
#include "atelier/planning/choice.h"

namespace atelier::cli {

void add_plan_command(CLI::App& app) {
    struct Arguments {
        std::string config;
        std::vector<std::string> overrides;
        planning::ChoiceOptions options;
    };
    auto arguments = std::make_shared<Arguments>();
    planning::ChoiceOptions& options = arguments->options;
    CLI::App* command = app.add_subcommand(
        "plan",
        "Choose the number of students, their width, batch and steps for a budget, by what trials "
        "have shown");
    command->add_option("CONFIG", arguments->config, "a run's config, e.g. configs/toy2d.toml")
        ->required();
    command->add_option("overrides", arguments->overrides,
                        "key=value pairs that take the config's place");
    const auto positive = [&](const char* name, auto& value, const char* help) {
        return command->add_option(name, value, help)->check(CLI::PositiveNumber);
    };
    positive("--budget", options.budget_hours,
             "hours of the config's device for everything that the run trains, e.g. GPU hours")
        ->required();
    positive("--latency", options.latency_ms,
             "most milliseconds of one evaluation of a student; without: any");
    positive("--latency-tflops", options.latency_tflops,
             "the rate of the device that will serve, for its latency; without: measured on this "
             "machine's CPU");
    positive("--device-memory", options.device_memory_gib,
             "GiB of the device that trains; without: the config's, or what is found");
    positive("--tflops", options.tflops, "rate of the device that trains; without: measured here");
    command->add_option("--evidence", options.evidence,
                        "trials to go by, a file like docs/choosing-k.json; without: those that "
                        "the program was built with");
    command->add_flag("--json", options.json, "candidates and choice as JSON");
    command->footer(
        "Examples:\n  atelier plan configs/toy2d.toml --budget 0.1 --latency 0.2\n  atelier plan "
        "configs/imagenet64-msd4-adm.toml --budget 1000 --tflops 200 --latency 5 "
        "--latency-tflops 20");
    command->callback([arguments] {
        planning::print_choice(pipeline::load_config(arguments->config, arguments->overrides),
                               arguments->options);
    });
}

}  // namespace atelier::cli
