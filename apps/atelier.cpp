#include "atelier/cli/commands.h"

int main(int argc, char** argv) { return atelier::cli::run_command_line(argc, argv); }
