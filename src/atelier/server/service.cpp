#include "atelier/server/service.h"

#include <algorithm>
#include <cmath>

#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/server/addresses.h"
#include "atelier/server/http_errors.h"
#include "atelier/server/metrics.h"
#include "atelier/server/model_cache.h"
#include "atelier/server/request_fields.h"
#include "atelier/server/responses.h"
#include "atelier/server/routes.h"
#include "atelier/server/worker_protocol.h"

namespace atelier::server {

namespace {

using nlohmann::json;

std::string milliseconds(Clock::duration duration) {
    return fmt::format("{:.3f}", 1e3 * seconds(duration));
}

/// Counts a request whose prompts are being encoded, until destruction.
struct EncodingSlot {
    explicit EncodingSlot(std::atomic<std::int64_t>& with) : waiting(with) {}
    ~EncodingSlot() { --waiting; }
    EncodingSlot(const EncodingSlot&) = delete;
    std::atomic<std::int64_t>& waiting;
};

/// The metric's `reason` for an accepted request that failed with `status`.
std::string reason_of(unsigned status) {
    switch (status) {
        case 429:
            return "full";
        case 503:
            return "unavailable";
        case 504:
            return "late";
        default:
            return "failed";
    }
}

}  // namespace

Service::Service(Options options, ModelRegistry& registry, Batcher& batcher, ModelCache& cache,
                 Metrics& metrics)
    : options_(std::move(options)),
      registry_(registry),
      batcher_(batcher),
      cache_(cache),
      metrics_(metrics) {}

void Service::drain() {
    draining_ = true;
    batcher_.drain();
}

void Service::set_connections(std::size_t open) {
    metrics_.set("atelier_connections", {}, static_cast<double>(open));
}

Response Service::turned_away_response() {
    reject("connections");
    Response response = error_response(too_many_connections());
    response.headers.emplace_back("X-Content-Type-Options", "nosniff");
    response.close = true;
    return response;
}

void Service::reject(const std::string& reason) {
    metrics_.count("atelier_rejected_total", {{"reason", reason}});
}

/// Prevents DNS rebinding: a site can resolve its own name to 127.0.0.1, and is then of this
/// server's origin for the browser. Its Host header still has the site's name, which contains a
/// dot; browsers always send one.
void Service::check_host(const Request& request) const {
    const bool may_be_a_site = std::string_view(request.host)
                                   .substr(0, request.host.size() - request.host.ends_with('.'))
                                   .find('.') != std::string_view::npos;
    if (!options_.checks_host || !may_be_a_site || is_ip_address(request.host) ||
        is_loopback(request.host))
        return;
    const auto fits = [&](const std::string& one) { return one == "*" || one == request.host; };
    if (std::ranges::any_of(options_.allowed_hosts, fits)) return;
    throw HttpError(
        403,
        fmt::format("this server does not answer to the host name \"{}\"; ask localhost "
                    "or an address, or start it with --allowed-hosts {}",
                    printable(request.host), printable(request.host)),
        "", "host_not_allowed");
}

bool Service::has_valid_key(const Request& request) const {
    return !options_.keys.required() || options_.keys.accepts(key_of(request));
}

std::uint64_t Service::max_body_bytes(const Request& request, std::uint64_t usual) const {
    return request.path() == draws_path && has_valid_key(request)
               ? std::max(usual, max_draws_body_bytes)
               : usual;
}

void Service::check_key(const Request& request) const {
    if (is_public(request.path()) || request.method == "OPTIONS" || has_valid_key(request)) return;
    const std::string_view key = key_of(request);
    throw HttpError(
        401, key.empty() ? "an API key is needed: Authorization: Bearer KEY" : "unknown API key",
        "", "invalid_api_key", {{"WWW-Authenticate", "Bearer"}});
}

std::variant<Response, Pending> Service::begin(const Request& request,
                                               const std::function<void(Outcome)>& on_finished) {
    try {
        check_host(request);
        check_method(request);
        check_key(request);
        if (request.method != "POST") return answer(request);
        return accept(request, on_finished);
    } catch (const std::exception&) {
        return exception_response(request);
    }
}

std::variant<Response, Pending> Service::encode(const Request& request, Pending pending,
                                                const std::function<void(Outcome)>& on_finished) {
    try {
        const EncodingSlot slot{waiting_prompts_};
        if (Clock::now() > request.arrived + options_.deadline) {
            reject("late");
            throw deadline_exceeded();
        }
        const std::vector<EncodedPrompt> encoded =
            pending.served->generator->encode(pending.parsed->prompts());
        metrics_.observe("atelier_reading_seconds", {{"model", pending.served->id}},
                         seconds(Clock::now() - request.arrived));
        enqueue(request, pending, encoded, on_finished);
        return pending;
    } catch (const std::exception&) {
        return exception_response(request);
    }
}

/// The response to the exception that is being handled.
Response Service::exception_response(const Request& request) const {
    try {
        throw;
    } catch (const HttpError& error) {
        return error_response(error);
    } catch (const std::exception& error) {
        core::log::warning("{} {}: {}", request.id, printable(request.target),
                           printable(error.what()));
        return error_response(
            HttpError(500, "internal error; see the server's log for this request's id", "",
                      "internal_error"));
    }
}

Response Service::answer(const Request& request) const {
    const std::string_view path = request.path();
    if (request.method == "OPTIONS")
        return {.status = 204,
                .content_type = "",
                .headers = {{"Allow", std::string(methods_of(path))}}};
    if (const PageFile* file = page_file(path)) return page_response(*file, request);
    if (path == models_path) return models();
    if (const std::string id = model_of(path); !id.empty()) return model(id);
    if (path == metrics_path) return metrics_text();
    return health(path);
}

/// The server's status: draining, loading, incomplete or ok.
std::string_view Service::state() const {
    if (draining_) return "draining";
    if (!ready_) return "loading";
    for (const auto& served : registry_.all()) {
        const bool whole = std::ranges::all_of(served->queues, [&](const auto& queue) {
            return served->generator->facts(queue->student).available;
        });
        if (!whole) return "incomplete";
    }
    return "ok";
}

Response Service::health(std::string_view path) const {
    const std::string_view now = state();
    Response response = json_response({{"status", now}});
    if (path == "/health/ready" && now != "ok") response.status = 503;
    return response;
}

json Service::describe(const LoadedModel& served, std::int64_t student) const {
    const auto queue = served.queue(student);
    const StudentFacts facts = served.generator->facts(student);
    return {{"parameters", facts.parameters},
            {"here", queue && facts.available},
            {"loaded", queue && facts.available && cache_.loaded(*queue)},
            {"routed",
             metrics_.counter_value("atelier_routed_total", student_labels(served.id, student))},
            {"waiting", queue ? batcher_.waiting(*queue) : 0}};
}

json Service::describe(const LoadedModel& served) const {
    const Description& model = served.description();
    json students = json::array();
    for (std::int64_t k = 0; k < model.partition.students; ++k)
        students.push_back(describe(served, k));
    return {{"class_names", model.class_names},
            {"owner", model.partition.owner},
            {"partition", model.partition.method},
            {"partition_hash", served.partition_hash},
            {"size", {model.width, model.height}},
            {"evaluations", model.evaluations},
            {"engine", model.engine},
            {"precision", model.precision},
            {"routes", model.routes},
            {"reads_prompts", model.reads_prompts},
            {"students", std::move(students)}};
}

Response Service::models() const {
    json list = json::array();
    for (const auto& served : registry_.all()) list.push_back(model_entry(*served));
    const json limits{{"n", options_.max_images}, {"prompt_bytes", max_prompt_bytes}};
    return json_response(
        {{"object", "list"}, {"status", state()}, {"limits", limits}, {"data", std::move(list)}});
}

json Service::model_entry(const LoadedModel& served) const {
    return {{"id", served.id},
            {"object", "model"},
            {"created", served.created},
            {"owned_by", "atelier"},
            {"atelier", describe(served)}};
}

Response Service::model(const std::string& id) const {
    return json_response(model_entry(*find_model(id)));
}

/// Creates every series known in advance with value 0: rate() and increase() do not see a counter
/// that begins with 1.
void Service::init_counters(const LoadedModel& served) const {
    for (const char* outcome : {"done", "failed"})
        metrics_.count("atelier_reloads_total", {{"model", served.id}, {"outcome", outcome}}, 0);
    if (served.description().reads_prompts)
        metrics_.init_histogram("atelier_reading_seconds", {{"model", served.id}});
    for (std::int64_t k = 0; k < served.description().partition.students; ++k) {
        const Labels labels = student_labels(served.id, k);
        for (const char* counter :
             {"atelier_routed_total", "atelier_images_total", "atelier_student_loads_total",
              "atelier_student_unloads_total"}) {
            metrics_.count(counter, labels, 0);
        }
        for (const char* histogram : {"atelier_request_seconds", "atelier_queue_seconds",
                                      "atelier_engine_seconds", "atelier_batch_size"}) {
            metrics_.init_histogram(histogram, labels);
        }
    }
}

Response Service::metrics_text() const {
    for (const char* reason :
         {"full", "late", "left", "failed", "draining", "unavailable", "connections"})
        metrics_.count("atelier_rejected_total", {{"reason", reason}}, 0);
    for (const unsigned status :
         {200, 400, 401, 403, 404, 408, 413, 415, 421, 429, 499, 500, 502, 503, 504}) {
        metrics_.count("atelier_requests_total",
                       {{"route", std::string(images_path)}, {"code", std::to_string(status)}}, 0);
    }
    for (const auto& served : registry_.all()) {
        init_counters(*served);
        const Description& model = served->description();
        for (std::int64_t k = 0; k < model.partition.students; ++k) {
            const auto queue = served->queue(k);
            const bool here = queue && served->generator->facts(k).available;
            const Labels labels = student_labels(served->id, k);
            metrics_.set("atelier_student_here", labels, here ? 1 : 0);
            metrics_.set("atelier_student_loaded", labels, here && cache_.loaded(*queue) ? 1 : 0);
            metrics_.set("atelier_queue_depth", labels,
                         queue ? static_cast<double>(batcher_.waiting(*queue)) : 0);
        }
        served->generator->measure(metrics_, served->id);
        metrics_.set(
            "atelier_engine_info",
            {{"model", served->id}, {"engine", model.engine}, {"precision", model.precision}}, 1);
    }
    metrics_.set("atelier_student_bytes", {}, static_cast<double>(cache_.bytes()));
    metrics_.set("atelier_memory_budget_bytes", {}, static_cast<double>(cache_.budget()));
    metrics_.set("atelier_ready", {}, state() == "ok" ? 1 : 0);
    metrics_.set("process_resident_memory_bytes", {}, static_cast<double>(resident_bytes()));
    return {.content_type = "text/plain; version=0.0.4; charset=utf-8", .body = metrics_.text()};
}

Pending Service::accept(const Request& request, const std::function<void(Outcome)>& on_finished) {
    if (draining_) {
        reject("draining");
        throw draining();
    }
    check_content_type(request);
    Pending pending;
    pending.parsed = parse_request(request, options_.max_images);
    pending.served = find_model(pending.parsed->model());
    if (pending.served->description().reads_prompts) reserve_encoder(pending);
    else enqueue(request, pending, {}, on_finished);
    return pending;
}

/// Checks what can be checked before the prompts are encoded, and reserves a place in the queue for
/// encoding.
void Service::reserve_encoder(const Pending& pending) {
    pending.parsed->check_before_encoding(pending.served->description());
    if (++waiting_prompts_ <= options_.max_waiting_prompts) return;
    --waiting_prompts_;
    reject("full");
    throw encoder_busy();
}

/// Resolves the request and adds its job to its student's queue.
void Service::enqueue(const Request& request, Pending& pending,
                      std::span<const EncodedPrompt> encoded,
                      const std::function<void(Outcome)>& on_finished) {
    pending.resolved = pending.parsed->resolve(*pending.served, encoded);
    const auto student = pending.resolved.student;
    if (!pending.served->generator->facts(student).available) {
        reject("unavailable");
        throw student_unavailable(student);
    }
    pending.job = std::make_shared<Job>();
    pending.job->queue = pending.served->queue(student);
    pending.job->draws = pending.resolved.draws;
    pending.job->arrived = request.arrived;
    pending.job->deadline = request.arrived + options_.deadline;
    pending.job->on_finished = on_finished;
    submit(pending.job);
    metrics_.count("atelier_routed_total", student_labels(pending.served->id, student));
}

std::shared_ptr<const LoadedModel> Service::find_model(const std::string& model) const {
    if (auto served = registry_.find(model)) return served;
    throw HttpError(404,
                    fmt::format("there is no model \"{}\" here; GET /v1/models lists them", model),
                    "model", "model_not_found");
}

void Service::submit(const std::shared_ptr<Job>& job) {
    if (batcher_.submit(job)) return;
    reject("full");
    throw queue_full(
        job->queue->student,
        static_cast<int>(std::clamp(std::ceil(batcher_.seconds_until_empty()), 1.0, 3600.0)));
}

Response Service::timeout_response() { return error_response(deadline_exceeded()); }

Response Service::failure_response(const Request& request, const std::exception_ptr& problem) {
    try {
        std::rethrow_exception(problem);
    } catch (const HttpError& error) {
        reject(reason_of(error.status));
        return error_response(error);
    } catch (const std::exception& error) {
        reject("failed");
        core::log::warning("{}: {}", request.id, printable(error.what()));
        return error_response(HttpError(
            500, "the image could not be generated; see the server's log for this request's id", "",
            "generation_failed"));
    }
}

void Service::abandon(const Pending& pending, const std::string& reason) {
    batcher_.cancel(pending.job);
    reject(reason);
}

Response Service::finish(const Request& request, const Pending& pending, const Outcome& outcome) {
    switch (outcome.status) {
        case Outcome::Status::late:
            reject("late");
            return timeout_response();
        case Outcome::Status::failed:
            return failure_response(request, outcome.problem);
        case Outcome::Status::drawn:
            break;
    }
    try {
        return images_response(request, pending, outcome);
    } catch (const std::exception&) {
        return failure_response(request, std::current_exception());
    }
}

Response Service::images_response(const Request& request, const Pending& pending,
                                  const Outcome& outcome) {
    const Description& model = pending.served->description();
    Response response = pending.parsed->answer(pending.resolved, model, outcome.images);
    const Clock::duration all = Clock::now() - request.arrived;
    const std::string student = std::to_string(pending.resolved.student);
    const Labels labels = student_labels(pending.served->id, pending.resolved.student);
    metrics_.count("atelier_images_total", labels, outcome.images.size());
    metrics_.observe("atelier_queue_seconds", labels, seconds(outcome.queued));
    metrics_.observe("atelier_request_seconds", labels, seconds(all));
    response.headers = {
        {"Cache-Control", "no-store"},
        {"X-Atelier-Model", pending.served->id},
        {"X-Atelier-Student", student},
        {"X-Atelier-Student-Parameters",
         std::to_string(pending.served->generator->facts(pending.resolved.student).parameters)},
        {"X-Atelier-Evaluations", std::to_string(model.evaluations)},
        {"X-Atelier-Seed", std::to_string(pending.resolved.seed)},
        {"X-Atelier-Batch", std::to_string(outcome.batch)},
        {"X-Atelier-Queue-Milliseconds", milliseconds(outcome.queued)},
        {"X-Atelier-Engine-Milliseconds", milliseconds(outcome.engine)},
        {"X-Atelier-Milliseconds", milliseconds(all)}};
    return response;
}

bool Service::allows_origin(std::string_view origin) const {
    return !origin.empty() &&
           std::ranges::any_of(options_.cors_origins,
                               [&](const std::string& one) { return one == "*" || one == origin; });
}

void Service::complete(const Request& request, Response& response) {
    response.headers.emplace_back("X-Request-Id", request.id);
    response.headers.emplace_back("X-Content-Type-Options", "nosniff");
    const std::string_view origin = request.header("origin");
    if (allows_origin(origin)) {
        response.headers.emplace_back("Access-Control-Allow-Origin", origin);
        response.headers.emplace_back("Vary", "Origin");
        response.headers.emplace_back(
            "Access-Control-Expose-Headers",
            "X-Request-Id, Retry-After, X-Atelier-Model, X-Atelier-Student, "
            "X-Atelier-Student-Parameters, X-Atelier-Milliseconds");
        if (request.method == "OPTIONS") {
            response.headers.emplace_back("Access-Control-Allow-Methods", "GET, POST");
            response.headers.emplace_back("Access-Control-Allow-Headers",
                                          "Authorization, Content-Type, X-Api-Key, X-Request-Id");
            response.headers.emplace_back("Access-Control-Max-Age", "600");
        }
    }
    if (draining_) response.close = true;
    metrics_.count("atelier_requests_total", {{"route", route_of(request.path())},
                                              {"code", std::to_string(response.status)}});
    core::log::info("{} {} {} {} {} {} bytes {} ms", request.id, request.peer,
                    printable(request.method), printable(request.target), response.status,
                    response.body.size(), milliseconds(Clock::now() - request.arrived));
}

}  // namespace atelier::server
