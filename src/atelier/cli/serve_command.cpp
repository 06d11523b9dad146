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
#include "atelier/core/processors.h"
#include "atelier/core/signals.h"
#include "atelier/models/ensemble.h"
#include "atelier/models/what_is.h"
#include "atelier/server/addresses.h"
#include "atelier/server/server.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

constexpr std::chrono::milliseconds between_looks{20};
constexpr std::chrono::seconds between_looks_at_files{1};

/// Batches on their way for one student of a router, and most of them in all: a thread waits for each.
constexpr std::size_t usual_at_once = 4, most_on_their_way = 256;

struct ServeArguments {
    std::vector<std::string> models;
    EngineOptions engine;
    server::Options server;
    std::string api_keys, upstream_key;
    std::vector<std::string> upstreams, allowed_hosts;
    std::vector<std::int64_t> students;
    std::int64_t threads = 0, memory_megabytes = 0, workers = 0;
    double longest_wait_ms = 0, deadline = 30, patience = 30, grace = 30;
};

server::Clock::duration seconds(double count) { return std::chrono::duration_cast<server::Clock::duration>(std::chrono::duration<double>(count)); }

/// Letters, digits and - _ . , and what else is in `marks`.
bool is_name(const std::string& text, std::string_view marks = "") {
    const auto fits = [&](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' ||
               c == '.' || marks.find(c) != std::string_view::npos;
    };
    return !text.empty() && std::ranges::all_of(text, fits);
}

struct Named {
    std::string name;
    fs::path path;
    bool chosen = false;  // by NAME=PATH
};

/// NAME=PATH, where NAME may have slashes as in OWNER/MODEL; else a path is called as its last
/// folder, and a run's ensemble as its run. Of a run the path is its ensemble's.
Named named(const std::string& words) {
    const std::size_t equals = words.find('=');
    if (equals != std::string::npos && is_name(words.substr(0, equals), "/") && !fs::exists(words))
        return {words.substr(0, equals), models::model_at(words.substr(equals + 1)), true};
    const fs::path path = fs::weakly_canonical(words);
    const std::string last = path.filename().string(), run = path.parent_path().filename().string();
    const std::string name = last == "ensemble" && is_name(run) ? run : last;
    if (!is_name(name)) throw core::UsageError(fmt::format("\"{}\" is no name for a model (letters, digits, - _ .); write NAME={}", name, words));
    return {name, models::model_at(words)};
}

/// All of them; those that nobody named and that would be called alike (the teachers of two runs)
/// get the folder above before their name.
std::vector<Named> all_named(const std::vector<std::string>& models) {
    std::vector<Named> all;
    for (const std::string& words : models) all.push_back(named(words));
    const auto folder_above = [](const Named& one) {
        return fs::weakly_canonical(one.path).parent_path().filename().string();
    };
    std::vector<Named> apart = all;
    for (Named& one : apart) {
        const std::string name = one.name, above = folder_above(one);
        const auto alike = [&](const Named& other) { return other.name == name; };
        const auto same = [&](const Named& other) {
            return other.name == name && folder_above(other) == above;
        };
        const bool helps = std::ranges::count_if(all, same) == 1 && is_name(above);
        if (!one.chosen && helps && std::ranges::count_if(all, alike) > 1)
            one.name = above + "-" + name;
    }
    return apart;
}

server::Options options_of(const ServeArguments& arguments) {
    server::Options options = arguments.server;
    if (!arguments.api_keys.empty()) options.service.keys = server::ApiKeys(arguments.api_keys);
    for (const std::string& words : arguments.allowed_hosts) {
        const auto host = server::host_and_port(words.find(':') != std::string::npos &&
                                                        server::is_ip_address(words)
                                                    ? server::host_in_url(words)
                                                    : words);
        if (words != "*" && (!host || host->host.empty()))
            throw core::UsageError(fmt::format(
                "--allowed-hosts: \"{}\" is no host name; write it as in a URL, or * for any",
                words));
        options.service.allowed_hosts.push_back(words == "*" ? words : host->host);
    }
    options.batching.longest_wait = seconds(arguments.longest_wait_ms / 1000);
    options.service.deadline = seconds(arguments.deadline);
    options.service.most_pictures = std::min(options.service.most_pictures, static_cast<std::int64_t>(options.batching.longest_queue));
    options.patience = seconds(arguments.patience);
    options.memory_budget = arguments.memory_megabytes << 20;
    return options;
}

/// Models of this machine, all of whose workers share the threads.
std::vector<server::Source> sources_here(const ServeArguments& arguments, server::Options& options) {
    at::globalContext().setDeterministicAlgorithms(true, true);
    options.batching.workers = static_cast<int>(std::max<std::int64_t>(1, arguments.workers));
    const std::int64_t threads = arguments.threads > 0 ? core::threads_within(arguments.threads, "--threads") : at::get_num_threads();
    at::set_num_threads(static_cast<int>(std::max<std::int64_t>(1, threads / options.batching.workers)));
    Serving serving{arguments.engine.chosen(), options.batching.largest_batch, arguments.students};
    std::ranges::sort(serving.students);
    std::vector<server::Source> sources;
    for (const Named& one : all_named(arguments.models))
        sources.push_back(served_source(one.name, one.path, serving));
    return sources;
}

/// Ensembles that others draw with. Each student has its share of the workers, so that one that does not answer cannot take them all.
std::vector<server::Source> sources_elsewhere(const ServeArguments& arguments, server::Options& options) {
    std::size_t students = 0;
    const std::vector<Named> all = all_named(arguments.models);
    for (const Named& one : all) students += models::read_manifest(one.path).students.size();
    const std::size_t workers = arguments.workers > 0 ? static_cast<std::size_t>(arguments.workers) : std::min(most_on_their_way, usual_at_once * students);
    options.batching.workers = static_cast<int>(workers);
    const server::RoutedEnsemble::Options route{.urls = arguments.upstreams, .key = arguments.upstream_key.empty() ? "" : server::first_key(arguments.upstream_key),
                                                .at_once = std::max<std::size_t>(1, workers / students)};
    std::vector<server::Source> sources;
    for (const Named& one : all) sources.push_back(routed_source(one.name, one.path, route));
    return sources;
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

void serve(const ServeArguments& arguments) {
    core::catch_reload_signal();
    core::end_after_stop(0, "");  // what was accepted is answered, as --grace says
    server::Options options = options_of(arguments);
    auto sources = arguments.upstreams.empty() ? sources_here(arguments, options) : sources_elsewhere(arguments, options);
    server::Server server(options, std::move(sources));
    const std::string host = server::host_in_url(options.host);
    if (!server::is_loopback(options.host) && !options.service.keys.needed()) {
        core::log::warning(
            "anyone who reaches {} may ask for pictures; --api-keys FILE asks them for a key",
            host);
    }
    core::log::info("serving at http://{}:{}", host, server.port());
    server.warm_up();
    core::log::info("ready");
    look_after(server.library());
    core::log::info("stopping when all that was accepted is answered");
    if (!server.drain(seconds(arguments.grace))) core::fail("some requests were not answered within {} s (--grace)", arguments.grace);
}

/// A part of the students a process, and a process that asks them.
void add_division(CLI::App& command, ServeArguments& arguments) {
    const std::string group = "Several processes";
    CLI::Option* students = command.add_option("--students", arguments.students, "the only students that are asked here, as in 0,1");
    students->delimiter(',')->check(CLI::NonNegativeNumber)->group(group);
    CLI::Option* route = command.add_option("--route-to", arguments.upstreams, "servers that draw in place of this one, http://HOST:PORT,...; of ENSEMBLE only "
                                                                               "ensemble.json is read");
    route->delimiter(',')->group(group);
    command.add_option("--upstream-key-file", arguments.upstream_key, "a file whose first key is shown to those servers")->needs(route)->group(group);
    for (const char* local : {"--students", "--engine", "--precision", "--device", "--threads", "--memory-budget"}) route->excludes(command.get_option(local));
}

void add_limits(CLI::App& command, ServeArguments& arguments) {
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
    auto arguments = std::make_shared<ServeArguments>();
    CLI::App* command = app.add_subcommand("serve", "Answer requests for pictures over HTTP, in the form of OpenAI's images API");
    command->option_defaults()->always_capture_default();
    command->add_option("ENSEMBLE", arguments->models, "ensemble or model directories, each called as its folder or NAME=PATH")->required();
    command->add_option("--host", arguments->server.host, "address to listen at; 0.0.0.0: all of this machine's");
    command->add_option("--port", arguments->server.port, "0: any free one")->check(CLI::Range(0, 65535));
    arguments->engine.add_to(*command);
    command->add_option("--threads", arguments->threads, "of all workers together; 0: one per processor, and never more")->check(CLI::Range(0, 4096));
    command->add_option("--workers", arguments->workers, "batches that are drawn at the same time; 0: one, or of a router four a student")->check(CLI::Range(0, 4096));
    command->add_option("--api-keys", arguments->api_keys, "a file with a key a line; without, everyone is let in");
    CLI::Option* hosts = command->add_option(
        "--allowed-hosts", arguments->allowed_hosts,
        "names of sites by which this server may be asked, beside localhost and addresses, as in a "
        "proxy's Host header; *: any. Without it any name where --host is not this machine's own");
    hosts->delimiter(',');
    command->add_option("--cors-origin", arguments->server.service.cors_origins, "an origin whose pages may ask; may be repeated");
    add_limits(*command, *arguments);
    add_division(*command, *arguments);
    command->footer("SIGTERM answers what was accepted and ends; SIGHUP, or a change of their files, reads the models anew.\nExamples:\n  atelier serve "
                    "models/fashion-mnist/k4 --precision bf16\n  atelier serve models/fashion-mnist/k4 models/fashion-mnist/teacher --port 8080\n  atelier serve "
                    "clothes=models/fashion-mnist/k4 --host 0.0.0.0 --api-keys keys.txt\n  atelier serve models/fashion-mnist/k4 --students 0,1 --port 8081\n  atelier serve "
                    "models/fashion-mnist/k4 --route-to http://127.0.0.1:8081,http://127.0.0.1:8082");
    command->callback([arguments] { serve(*arguments); });
}

}  // namespace atelier::cli
