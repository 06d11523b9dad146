#pragma once

namespace CLI {
class App;
}

namespace atelier::cli {

/// Runs the program: parses the command line, calls one command, turns errors into one message and an exit code (0 done, 1 failed,
/// 2 wrong usage, 130 interrupted and resumable).
int run_command_line(int argc, char** argv);

// Each adds its commands; a new command is one file and one line in command_line.cpp.
void add_stage_commands(CLI::App& app);     // run, teacher, partition, pairs, distill

}  // namespace atelier::cli
