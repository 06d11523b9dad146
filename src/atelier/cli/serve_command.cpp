#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <thread>

#include "atelier/cli/commands.h"
#include "atelier/cli/engine_options.h"
#include "atelier/cli/served_model.h"
#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/core/signals.h"
#include "atelier/server/server.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

constexpr std::chrono::milliseconds between_looks{20};
constexpr std::chrono::seconds between_looks_at_files{1};

struct Arguments {
    std::vector<std::string> models;
    EngineOptions engine;
    server::Options server;
    std::string api_keys;
    std::int64_t threads = 0, memory_megabytes = 0;
    double longest_wait_ms = 0, deadline = 30, patience = 30, grace = 30;
};

server::Clock::duration seconds(double count) { return std::chrono::duration_cast<server::Clock::duration>(std::chrono::duration<double>(count)); }

bool is_name(const std::string& text) {
    constexpr auto fits = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.'; };
    return !text.empty() && std::ranges::all_of(text, fits);
}

/// NAME=PATH, or a path whose last folder is the name.
server::Source source_of(const std::string& words, const inference::Engine& engine, std::size_t largest_batch) {
    const std::size_t equals = words.find('=');
    if (equals != std::string::npos && is_name(words.substr(0, equals))) return served_source(words.substr(0, equals), words.substr(equals + 1), engine, largest_batch);
    const std::string name = fs::weakly_canonical(words).filename().string();
    if (!is_name(name)) throw core::UsageError(fmt::format("\"{}\" is no name for a model (letters, digits, - _ .); write NAME={}", name, words));
    return served_source(name, words, engine, largest_batch);
}

server::Options options_of(const Arguments& arguments) {
    server::Options options = arguments.server;
    if (!arguments.api_keys.empty()) options.service.keys = server::ApiKeys(arguments.api_keys);
    options.batching.longest_wait = seconds(arguments.longest_wait_ms / 1000);
    options.service.deadline = seconds(arguments.deadline);
    options.service.most_pictures = std::min(options.service.most_pictures, static_cast<std::int64_t>(options.batching.longest_queue));
    options.patience = seconds(arguments.patience);
    options.memory_budget = arguments.memory_megabytes << 20;
    return options;
}

/// Reads models anew when their files change or SIGHUP comes, until it is told to stop.
void look_after(server::Library& library) {
    auto looked = server::Clock::now();
    while (!core::stop_requested()) {
        std::this_thread::sleep_for(between_looks);
        if (core::reload_requested()) library.reload();
        if (server::Clock::now() < looked + between_looks_at_files) continue;
        library.look_after();
        looked = server::Clock::now();
    }
}

void serve(const Arguments& arguments) {
    at::globalContext().setDeterministicAlgorithms(true, true);
    core::catch_reload_signal();
    const std::int64_t threads = arguments.threads > 0 ? arguments.threads : at::get_num_threads();
    at::set_num_threads(static_cast<int>(std::max<std::int64_t>(1, threads / arguments.server.batching.workers)));
    const server::Options options = options_of(arguments);
    const inference::Engine engine = arguments.engine.chosen();
    std::vector<server::Source> sources;
    for (const std::string& words : arguments.models) sources.push_back(source_of(words, engine, options.batching.largest_batch));
    server::Server server(options, std::move(sources));
    if (options.host != "127.0.0.1" && options.host != "localhost" && !options.service.keys.needed()) {
        core::log::warning("anyone who reaches {} may ask for pictures; --api-keys FILE asks them for a key", options.host);
    }
    core::log::info("serving at http://{}:{}", options.host, server.port());
    server.warm_up();
    core::log::info("ready");
    look_after(server.library());
    core::log::info("stopping when all that was accepted is answered");
    if (!server.drain(seconds(arguments.grace))) core::fail("some requests were not answered within {} s (--grace)", arguments.grace);
}

void add_limits(CLI::App& command, Arguments& arguments) {
    server::Batcher::Options& batching = arguments.server.batching;
    command.add_option("--max-batch", batching.largest_batch, "most pictures drawn together")->check(CLI::Range(1, 256))->group("Limits");
    command.add_option("--max-wait", arguments.longest_wait_ms, "ms that a request waits for others to share its batch")->check(CLI::Range(0, 10000))->group("Limits");
    command.add_option("--queue", batching.longest_queue, "most pictures waiting for a student; beyond, 429")->check(CLI::Range(1, 1'000'000))->group("Limits");
    command.add_option("--max-n", arguments.server.service.most_pictures, "most pictures a request")->check(CLI::Range(1, 10000))->group("Limits");
    command.add_option("--deadline", arguments.deadline, "s in which a request is answered; beyond, 504")->check(CLI::Range(0.01, 86400.0))->group("Limits");
    command.add_option("--client-timeout", arguments.patience, "s that a client may take to send a request or take its answer")->check(CLI::Range(0.01, 86400.0))->group("Limits");
    command.add_option("--max-connections", arguments.server.most_connections, "most open connections")->check(CLI::Range(1, 1'000'000))->group("Limits");
    command.add_option("--memory-budget", arguments.memory_megabytes, "MB of loaded students; beyond, the least used go; 0: any")->check(CLI::Range(0, 1 << 30))->group("Limits");
    command.add_option("--grace", arguments.grace, "s to answer what was accepted when told to stop")->check(CLI::Range(0.0, 86400.0))->group("Limits");
}

}  // namespace

void add_serve_command(CLI::App& app) {
    auto arguments = std::make_shared<Arguments>();
    CLI::App* command = app.add_subcommand("serve", "Answer requests for pictures over HTTP, in the form of OpenAI's images API");
    command->option_defaults()->always_capture_default();
    command->add_option("ENSEMBLE", arguments->models, "ensemble or model directories, each called as its folder or NAME=PATH")->required();
    command->add_option("--host", arguments->server.host, "address to listen at; 0.0.0.0: all of this machine's");
    command->add_option("--port", arguments->server.port, "0: any free one");
    arguments->engine.add_to(*command);
    command->add_option("--threads", arguments->threads, "of all workers together; 0: one a core")->check(CLI::Range(0, 4096));
    command->add_option("--workers", arguments->server.batching.workers, "students that draw at the same time")->check(CLI::Range(1, 256));
    command->add_option("--api-keys", arguments->api_keys, "a file with a key a line; without, everyone is let in");
    command->add_option("--cors-origin", arguments->server.service.cors_origins, "an origin whose pages may ask; may be repeated");
    add_limits(*command, *arguments);
    command->footer("SIGTERM answers what was accepted and ends; SIGHUP, or a change of their files, reads the models anew.\nExamples:\n  atelier serve "
                    "models/fashion-mnist/k4 --precision bf16\n  atelier serve models/fashion-mnist/k4 models/fashion-mnist/teacher --port 8080\n  atelier serve "
                    "clothes=models/fashion-mnist/k4 --host 0.0.0.0 --api-keys keys.txt");
    command->callback([arguments] { serve(*arguments); });
}

}  // namespace atelier::cli
