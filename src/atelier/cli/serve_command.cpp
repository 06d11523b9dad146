#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <thread>

#include "atelier/cli/commands.h"
#include "atelier/cli/engine_options.h"
#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/core/processors.h"
#include "atelier/core/signals.h"
#include "atelier/models/ensemble.h"
#include "atelier/models/identify_path.h"
#include "atelier/server/addresses.h"
#include "atelier/server/server.h"
#include "atelier/serving/served_model.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

constexpr std::chrono::milliseconds poll_interval{20};
constexpr std::chrono::seconds file_check_interval{1};

/// A router's concurrent batches per student, and their maximum in total; each occupies a thread.
constexpr std::size_t batches_per_student = 4, max_in_flight = 256;

struct ServeArguments {
    std::vector<std::string> models;
    EngineOptions engine;
    server::Options server;
    std::string api_keys, upstream_key;
    std::vector<std::string> upstreams, allowed_hosts;
    std::vector<std::int64_t> students;
    std::int64_t threads = 0, memory_megabytes = 0, workers = 0;
    double max_wait_ms = 0, deadline = 30, client_timeout = 30, grace = 30;
};

server::Clock::duration seconds(double count) {
    return std::chrono::duration_cast<server::Clock::duration>(
        std::chrono::duration<double>(count));
}

/// Whether `text` consists of letters, digits, - _ . and characters of `extra`.
bool is_name(const std::string& text, std::string_view extra = "") {
    const auto fits = [&](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' ||
               c == '.' || extra.find(c) != std::string_view::npos;
    };
    return !text.empty() && std::ranges::all_of(text, fits);
}

struct NamedModel {
    std::string name;
    fs::path path;
    bool chosen = false;  // by NAME=PATH
};

/// Parses NAME=PATH (NAME may contain slashes, as in OWNER/MODEL) or PATH, which is named after its
/// last folder, a run's ensemble after the run. The path of a run becomes that of its ensemble.
NamedModel parse_model_argument(const std::string& argument) {
    const std::size_t equals = argument.find('=');
    if (equals != std::string::npos && is_name(argument.substr(0, equals), "/") &&
        !fs::exists(argument))
        return {argument.substr(0, equals), models::model_at(argument.substr(equals + 1)), true};
    const fs::path path = fs::weakly_canonical(argument);
    const std::string last = path.filename().string(), run = path.parent_path().filename().string();
    const std::string name = last == "ensemble" && is_name(run) ? run : last;
    if (!is_name(name))
        throw core::UsageError(
            fmt::format("\"{}\" is not a valid model name (letters, digits, - _ .); write NAME={}",
                        name, argument));
    return {name, models::model_at(argument)};
}

/// Names all models. Unnamed models with equal names (the teachers of two runs) are prefixed with
/// their parent folder.
std::vector<NamedModel> name_models(const std::vector<std::string>& models) {
    std::vector<NamedModel> all;
    for (const std::string& argument : models) all.push_back(parse_model_argument(argument));
    const auto folder_above = [](const NamedModel& one) {
        return fs::weakly_canonical(one.path).parent_path().filename().string();
    };
    std::vector<NamedModel> distinct = all;
    for (NamedModel& one : distinct) {
        const std::string name = one.name, parent = folder_above(one);
        const auto alike = [&](const NamedModel& other) { return other.name == name; };
        const auto same = [&](const NamedModel& other) {
            return other.name == name && folder_above(other) == parent;
        };
        const bool disambiguates = std::ranges::count_if(all, same) == 1 && is_name(parent);
        if (!one.chosen && disambiguates && std::ranges::count_if(all, alike) > 1)
            one.name = parent + "-" + name;
    }
    return distinct;
}

server::Options options_of(const ServeArguments& arguments) {
    server::Options options = arguments.server;
    if (!arguments.api_keys.empty()) options.service.keys = server::ApiKeys(arguments.api_keys);
    for (const std::string& argument : arguments.allowed_hosts) {
        const auto host = server::host_and_port(argument.find(':') != std::string::npos &&
                                                        server::is_ip_address(argument)
                                                    ? server::host_in_url(argument)
                                                    : argument);
        if (argument != "*" && (!host || host->host.empty()))
            throw core::UsageError(fmt::format(
                "--allowed-hosts: \"{}\" is not a host name; write it as in a URL, or * for any",
                argument));
        options.service.allowed_hosts.push_back(argument == "*" ? argument : host->host);
    }
    options.batching.max_wait = seconds(arguments.max_wait_ms / 1000);
    options.service.deadline = seconds(arguments.deadline);
    options.service.max_images =
        std::min(options.service.max_images, static_cast<std::int64_t>(options.batching.max_queue));
    options.client_timeout = seconds(arguments.client_timeout);
    options.memory_budget = arguments.memory_megabytes << 20;
    return options;
}

/// Models computed on this machine; all workers share its threads.
std::vector<server::ModelSource> local_sources(const ServeArguments& arguments,
                                               server::Options& options) {
    at::globalContext().setDeterministicAlgorithms(true, true);
    options.batching.workers = static_cast<int>(std::max<std::int64_t>(1, arguments.workers));
    const std::int64_t threads = arguments.threads > 0
                                     ? core::threads_within(arguments.threads, "--threads")
                                     : at::get_num_threads();
    at::set_num_threads(
        static_cast<int>(std::max<std::int64_t>(1, threads / options.batching.workers)));
    serving::ServingOptions serving{arguments.engine.chosen(), options.batching.max_batch,
                                    arguments.students};
    std::ranges::sort(serving.students);
    std::vector<server::ModelSource> sources;
    for (const NamedModel& one : name_models(arguments.models))
        sources.push_back(serving::served_source(one.name, one.path, serving));
    return sources;
}

/// Ensembles computed by other servers. Each student gets its share of the workers, so that one
/// that does not answer cannot occupy them all.
std::vector<server::ModelSource> routed_sources(const ServeArguments& arguments,
                                                server::Options& options) {
    std::size_t students = 0;
    const std::vector<NamedModel> all = name_models(arguments.models);
    for (const NamedModel& one : all) students += models::read_manifest(one.path).students.size();
    const std::size_t workers = arguments.workers > 0
                                    ? static_cast<std::size_t>(arguments.workers)
                                    : std::min(max_in_flight, batches_per_student * students);
    options.batching.workers = static_cast<int>(workers);
    const server::RoutedEnsemble::Options route{
        .urls = arguments.upstreams,
        .key = arguments.upstream_key.empty() ? "" : server::first_key(arguments.upstream_key),
        .max_concurrent_batches = std::max<std::size_t>(1, workers / students)};
    std::vector<server::ModelSource> sources;
    for (const NamedModel& one : all)
        sources.push_back(serving::routed_source(one.name, one.path, route));
    return sources;
}

/// Reloads models when their files change or on SIGHUP, until a stop is requested.
void watch_models(server::ModelRegistry& registry) {
    auto last_check = server::Clock::now();
    while (!core::stop_requested()) {
        std::this_thread::sleep_for(poll_interval);
        if (core::reload_requested()) registry.reload();
        if (server::Clock::now() < last_check + file_check_interval) continue;
        registry.reload_changed();
        last_check = server::Clock::now();
    }
}

void serve(const ServeArguments& arguments) {
    core::catch_reload_signal();
    core::end_after_stop(0, "");  // accepted requests are answered within --grace
    server::Options options = options_of(arguments);
    auto sources = arguments.upstreams.empty() ? local_sources(arguments, options)
                                               : routed_sources(arguments, options);
    server::Server server(options, std::move(sources));
    const std::string host = server::host_in_url(options.host);
    if (!server::is_loopback(options.host) && !options.service.keys.required()) {
        core::log::warning(
            "anyone who reaches {} may request images; --api-keys FILE requires a key", host);
    }
    core::log::info("serving at http://{}:{}", host, server.port());
    server.warm_up();
    core::log::info("ready");
    watch_models(server.registry());
    core::log::info("stopping after all accepted requests are answered");
    if (!server.drain(seconds(arguments.grace)))
        core::fail("some requests were not answered within {} s (--grace)", arguments.grace);
}

/// Options for serving with several processes: subsets of students, and a router.
void add_process_options(CLI::App& command, ServeArguments& arguments) {
    const std::string group = "Several processes";
    CLI::Option* students = command.add_option("--students", arguments.students,
                                               "the only students served here, as in 0,1");
    students->delimiter(',')->check(CLI::NonNegativeNumber)->group(group);
    CLI::Option* route =
        command.add_option("--route-to", arguments.upstreams,
                           "servers to forward requests to, http://HOST:PORT,...; of ENSEMBLE only "
                           "ensemble.json is read");
    route->delimiter(',')->group(group);
    command
        .add_option("--upstream-key-file", arguments.upstream_key,
                    "a file whose first key is sent to those servers")
        ->needs(route)
        ->group(group);
    for (const char* local :
         {"--students", "--engine", "--precision", "--device", "--threads", "--memory-budget"})
        route->excludes(command.get_option(local));
}

void add_limit_options(CLI::App& command, ServeArguments& arguments) {
    server::Batcher::Options& batching = arguments.server.batching;
    command.add_option("--max-batch", batching.max_batch, "maximum images per batch")
        ->check(CLI::Range(1, 256))
        ->group("Limits");
    command
        .add_option("--max-wait", arguments.max_wait_ms,
                    "ms that a request waits for others to share its batch")
        ->check(CLI::Range(0, 10000))
        ->group("Limits");
    command
        .add_option("--queue", batching.max_queue,
                    "maximum images waiting for a student; beyond, 429")
        ->check(CLI::Range(1, 1'000'000))
        ->group("Limits");
    command
        .add_option("--max-n", arguments.server.service.max_images, "maximum images per request")
        ->check(CLI::Range(1, 10000))
        ->group("Limits");
    command
        .add_option("--deadline", arguments.deadline,
                    "s within which a request is answered; beyond, 504")
        ->check(CLI::Range(0.01, 86400.0))
        ->group("Limits");
    command
        .add_option("--client-timeout", arguments.client_timeout,
                    "s that a client may take to send a request or receive its response")
        ->check(CLI::Range(0.01, 86400.0))
        ->group("Limits");
    command
        .add_option("--max-connections", arguments.server.max_connections,
                    "maximum open connections")
        ->check(CLI::Range(1, 1'000'000))
        ->group("Limits");
    command
        .add_option(
            "--memory-budget", arguments.memory_megabytes,
            "MB of loaded students; beyond, the least recently used are evicted; 0: unlimited")
        ->check(CLI::Range(0, 1 << 30))
        ->group("Limits");
    command
        .add_option("--grace", arguments.grace, "s to answer accepted requests after a stop signal")
        ->check(CLI::Range(0.0, 86400.0))
        ->group("Limits");
}

}  // namespace

void add_serve_command(CLI::App& app) {
    auto arguments = std::make_shared<ServeArguments>();
    CLI::App* command = app.add_subcommand(
        "serve", "Serve image requests over HTTP, compatible with OpenAI's images API");
    command->option_defaults()->always_capture_default();
    command
        ->add_option("ENSEMBLE", arguments->models,
                     "ensemble or model directories, each named after its folder or by NAME=PATH")
        ->required();
    command->add_option("--host", arguments->server.host,
                        "address to listen on; 0.0.0.0: all of this machine's");
    command->add_option("--port", arguments->server.port, "0: any free one")
        ->check(CLI::Range(0, 65535));
    arguments->engine.add_to(*command);
    command
        ->add_option("--threads", arguments->threads,
                     "of all workers together; 0: one per processor, and never more")
        ->check(CLI::Range(0, 4096));
    command
        ->add_option("--workers", arguments->workers,
                     "concurrent batches; 0: one, or four per student for a router")
        ->check(CLI::Range(0, 4096));
    command->add_option("--api-keys", arguments->api_keys,
                        "a file with one key per line; without, no key is required");
    CLI::Option* hosts = command->add_option(
        "--allowed-hosts", arguments->allowed_hosts,
        "host names by which this server may be reached, besides localhost and addresses, as in a "
        "proxy's Host header; *: any. Without it any name where --host is not this machine's own");
    hosts->delimiter(',');
    command->add_option("--cors-origin", arguments->server.service.cors_origins,
                        "an origin whose pages may send requests; may be repeated");
    add_limit_options(*command, *arguments);
    add_process_options(*command, *arguments);
    command->footer(
        "SIGTERM answers accepted requests and exits; SIGHUP, or a change of their files, reloads "
        "the "
        "models.\nExamples:\n  atelier serve "
        "models/fashion-mnist/k4 --precision bf16\n  atelier serve models/fashion-mnist/k4 "
        "models/fashion-mnist/teacher --port 8080\n  atelier serve "
        "clothes=models/fashion-mnist/k4 --host 0.0.0.0 --api-keys keys.txt\n  atelier serve "
        "models/fashion-mnist/k4 --students 0,1 --port 8081\n  atelier serve "
        "models/fashion-mnist/k4 --route-to http://127.0.0.1:8081,http://127.0.0.1:8082");
    command->callback([arguments] { serve(*arguments); });
}

}  // namespace atelier::cli
