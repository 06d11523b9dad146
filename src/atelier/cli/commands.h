#pragma once

namespace CLI {
class App;
}

namespace atelier::cli {

/// Runs the program: parses the command line, runs one command and turns an error into a message
/// and an exit code (0 done, 1 failed, 2 wrong usage, 130 interrupted and resumable).
int run_command_line(int argc, char** argv);

// Each adds its commands. A new command needs one file and one line in command_line.cpp.
void add_stage_commands(CLI::App& app);  // run, teacher, partition, pairs, distill
void add_plan_command(CLI::App& app);
void add_sample_command(CLI::App& app);
void add_evaluate_command(CLI::App& app);
void add_forward_command(CLI::App& app);
void add_inspect_command(CLI::App& app);
void add_classifier_command(CLI::App& app);
void add_benchmark_command(CLI::App& app);
void add_quantize_command(CLI::App& app);
void add_convert_command(CLI::App& app);
void add_import_command(CLI::App& app);
void add_serve_command(CLI::App& app);
void add_route_command(CLI::App& app);
void add_tokenize_command(CLI::App& app);
void add_embed_command(CLI::App& app);
void add_completions_command(CLI::App& app);

}  // namespace atelier::cli
