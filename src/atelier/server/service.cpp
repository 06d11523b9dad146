#include "atelier/server/service.h"

#include <algorithm>
#include <cmath>

#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/server/addresses.h"
#include "atelier/server/answers.h"
#include "atelier/server/drawing.h"
#include "atelier/server/metrics.h"
#include "atelier/server/refusals.h"
#include "atelier/server/request_fields.h"
#include "atelier/server/residents.h"
#include "atelier/server/routes.h"

namespace atelier::server {

namespace {

using nlohmann::json;

std::string milliseconds(Clock::duration duration) { return fmt::format("{:.3f}", 1e3 * seconds(duration)); }

/// A request whose prompts are read until this goes.
struct InReading {
    explicit InReading(std::atomic<std::int64_t>& with) : unread(with) {}
    ~InReading() { --unread; }
    InReading(const InReading&) = delete;
    std::atomic<std::int64_t>& unread;
};

/// The metric's word for a request that was accepted and came to nothing.
std::string reason_of(unsigned status) {
    switch (status) {
        case 429: return "full";
        case 503: return "unavailable";
        case 504: return "late";
        default: return "failed";
    }
}

}  // namespace

Service::Service(Options options, Library& library, Batcher& batcher, Residents& residents, Metrics& metrics)
    : options_(std::move(options)), library_(library), batcher_(batcher), residents_(residents), metrics_(metrics) {}

void Service::drain() {
    draining_ = true;
    batcher_.drain();
}

void Service::set_connections(std::size_t open) { metrics_.set("atelier_connections", {}, static_cast<double>(open)); }

void Service::reject(const std::string& reason) { metrics_.count("atelier_rejected_total", {{"reason", reason}}); }

/// A page of any site can make its own name mean 127.0.0.1 (DNS rebinding), and is then of this
/// server's origin for the browser. The name that it asks stays its own, and has a dot, as all
/// names of sites have; none is what no browser sends.
void Service::check_host(const Request& request) const {
    const bool may_be_a_site = std::string_view(request.host)
                                   .substr(0, request.host.size() - request.host.ends_with('.'))
                                   .find('.') != std::string_view::npos;
    if (!options_.checks_host || !may_be_a_site || is_ip_address(request.host) ||
        is_loopback(request.host))
        return;
    const auto fits = [&](const std::string& one) { return one == "*" || one == request.host; };
    if (std::ranges::any_of(options_.allowed_hosts, fits)) return;
    throw Refusal(403,
                  fmt::format("this server does not answer to the host name \"{}\"; ask localhost "
                              "or an address, or start it with --allowed-hosts {}",
                              printable(request.host), printable(request.host)),
                  "", "host_not_allowed");
}

bool Service::shows_key(const Request& request) const {
    return !options_.keys.needed() || options_.keys.knows(key_of(request));
}

std::uint64_t Service::longest_body(const Request& request, std::uint64_t usual) const {
    return request.path() == draws_path && shows_key(request) ? std::max(usual, largest_draws_body)
                                                              : usual;
}

void Service::check_key(const Request& request) const {
    if (is_public(request.path()) || request.method == "OPTIONS" || shows_key(request)) return;
    const std::string_view key = key_of(request);
    Refusal refusal(401, key.empty() ? "an API key is needed: Authorization: Bearer KEY" : "this API key is not known here", "", "invalid_api_key");
    refusal.headers = {{"WWW-Authenticate", "Bearer"}};
    throw refusal;
}

std::variant<Response, Pending> Service::begin(const Request& request, const std::function<void(Outcome)>& finished) {
    try {
        check_host(request);
        check_method(request);
        check_key(request);
        if (request.method != "POST") return answer(request);
        return accept(request, finished);
    } catch (const std::exception&) {
        return refused(request);
    }
}

std::variant<Response, Pending> Service::read(const Request& request, Pending pending, const std::function<void(Outcome)>& finished) {
    try {
        const InReading counted{unread_};
        if (Clock::now() > request.arrived + options_.deadline) {
            reject("late");
            throw deadline_exceeded();
        }
        const std::vector<Reading> readings = pending.served->generator->read(pending.asked->prompts());
        metrics_.observe("atelier_reading_seconds", {{"model", pending.served->id}}, seconds(Clock::now() - request.arrived));
        enqueue(request, pending, readings, finished);
        return pending;
    } catch (const std::exception&) {
        return refused(request);
    }
}

/// The answer to the exception that is being handled.
Response Service::refused(const Request& request) const {
    try {
        throw;
    } catch (const Refusal& refusal) {
        return error_response(refusal);
    } catch (const std::exception& error) {
        core::log::warning("{} {}: {}", request.id, printable(request.target), printable(error.what()));
        return error_response(Refusal(500, "something went wrong here; the log knows more under this request's id", "", "internal_error"));
    }
}

Response Service::answer(const Request& request) const {
    const std::string_view path = request.path();
    if (request.method == "OPTIONS") return {.status = 204, .content_type = "", .headers = {{"Allow", std::string(methods_of(path))}}};
    if (const PageFile* file = page_file(path)) return page_answer(*file, request);
    if (path == models_path) return models();
    if (const std::string id = model_of(path); !id.empty()) return model(id);
    if (path == metrics_path) return metrics_text();
    return health(path);
}

/// In one word, what it can do for those who ask for pictures.
std::string_view Service::state() const {
    if (draining_) return "draining";
    if (!ready_) return "loading";
    for (const auto& served : library_.all()) {
        const bool whole = std::ranges::all_of(served->lanes, [&](const auto& lane) { return served->generator->facts(lane->student).present; });
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

json Service::about(const Served& served, std::int64_t student) const {
    const auto lane = served.lane(student);
    const StudentFacts facts = served.generator->facts(student);
    return {{"parameters", facts.parameters}, {"here", lane && facts.present}, {"loaded", lane && facts.present && residents_.loaded(*lane)},
            {"routed", metrics_.counted("atelier_routed_total", student_labels(served.id, student))}, {"waiting", lane ? batcher_.waiting(*lane) : 0}};
}

json Service::about(const Served& served) const {
    const Description& model = served.description();
    json students = json::array();
    for (std::int64_t k = 0; k < model.partition.students; ++k) students.push_back(about(served, k));
    return {{"class_names", model.class_names}, {"owner", model.partition.owner}, {"partition", model.partition.method}, {"partition_hash", served.partition_hash},
            {"size", {model.width, model.height}}, {"evaluations", model.evaluations}, {"engine", model.engine}, {"precision", model.precision},
            {"routes", model.routes}, {"reads_prompts", model.reads_prompts}, {"students", std::move(students)}};
}

Response Service::models() const {
    json list = json::array();
    for (const auto& served : library_.all()) list.push_back(entry(*served));
    const json limits{{"n", options_.most_pictures}, {"prompt_bytes", longest_prompt}};
    return json_response(
        {{"object", "list"}, {"status", state()}, {"limits", limits}, {"data", std::move(list)}});
}

json Service::entry(const Served& served) const {
    return {{"id", served.id},
            {"object", "model"},
            {"created", served.since},
            {"owned_by", "atelier"},
            {"atelier", about(served)}};
}

Response Service::model(const std::string& id) const { return json_response(entry(*found(id))); }

/// Every series that can be named beforehand is there, as 0, before its first event: rate() and
/// increase() do not see a counter begin with 1.
void Service::begin_counters(const Served& served) const {
    for (const char* outcome : {"done", "failed"})
        metrics_.count("atelier_reloads_total", {{"model", served.id}, {"outcome", outcome}}, 0);
    if (served.description().reads_prompts)
        metrics_.begin("atelier_reading_seconds", {{"model", served.id}});
    for (std::int64_t k = 0; k < served.description().partition.students; ++k) {
        const Labels labels = student_labels(served.id, k);
        for (const char* counter :
             {"atelier_routed_total", "atelier_images_total", "atelier_student_loads_total",
              "atelier_student_unloads_total"}) {
            metrics_.count(counter, labels, 0);
        }
        for (const char* histogram : {"atelier_request_seconds", "atelier_queue_seconds",
                                      "atelier_engine_seconds", "atelier_batch_size"}) {
            metrics_.begin(histogram, labels);
        }
    }
}

Response Service::metrics_text() const {
    for (const char* reason : {"full", "late", "left", "failed", "draining", "unavailable"})
        metrics_.count("atelier_rejected_total", {{"reason", reason}}, 0);
    for (const unsigned status :
         {200, 400, 401, 403, 404, 408, 413, 415, 421, 429, 499, 500, 502, 503, 504}) {
        metrics_.count("atelier_requests_total",
                       {{"route", std::string(images_path)}, {"code", std::to_string(status)}}, 0);
    }
    for (const auto& served : library_.all()) {
        begin_counters(*served);
        const Description& model = served->description();
        for (std::int64_t k = 0; k < model.partition.students; ++k) {
            const auto lane = served->lane(k);
            const bool here = lane && served->generator->facts(k).present;
            const Labels labels = student_labels(served->id, k);
            metrics_.set("atelier_student_here", labels, here ? 1 : 0);
            metrics_.set("atelier_student_loaded", labels, here && residents_.loaded(*lane) ? 1 : 0);
            metrics_.set("atelier_queue_depth", labels, lane ? static_cast<double>(batcher_.waiting(*lane)) : 0);
        }
        served->generator->measure(metrics_, served->id);
        metrics_.set("atelier_engine_info", {{"model", served->id}, {"engine", model.engine}, {"precision", model.precision}}, 1);
    }
    metrics_.set("atelier_student_bytes", {}, static_cast<double>(residents_.bytes()));
    metrics_.set("atelier_memory_budget_bytes", {}, static_cast<double>(residents_.budget()));
    metrics_.set("atelier_ready", {}, state() == "ok" ? 1 : 0);
    metrics_.set("process_resident_memory_bytes", {}, static_cast<double>(resident_bytes()));
    return {.content_type = "text/plain; version=0.0.4; charset=utf-8", .body = metrics_.text()};
}

Pending Service::accept(const Request& request, const std::function<void(Outcome)>& finished) {
    if (draining_) {
        reject("draining");
        throw draining();
    }
    check_content_type(request);
    Pending pending;
    pending.asked = asked_by(request, options_.most_pictures);
    pending.served = found(pending.asked->model());
    if (pending.served->description().reads_prompts) wait_for_reader(pending);
    else enqueue(request, pending, {}, finished);
    return pending;
}

/// Throws what can be told before the prompts are read.
void Service::wait_for_reader(const Pending& pending) {
    pending.asked->check_before_reading(pending.served->description());
    if (++unread_ <= options_.most_unread) return;
    --unread_;
    reject("full");
    throw readers_busy();
}

/// Plans what is asked and gives it to its student's queue.
void Service::enqueue(const Request& request, Pending& pending, std::span<const Reading> readings, const std::function<void(Outcome)>& finished) {
    pending.plan = pending.asked->plan(*pending.served, readings);
    const auto student = pending.plan.student;
    if (!pending.served->generator->facts(student).present) {
        reject("unavailable");
        throw student_unavailable(student);
    }
    pending.job = std::make_shared<Job>();
    pending.job->lane = pending.served->lane(student);
    pending.job->draws = pending.plan.draws;
    pending.job->arrived = request.arrived;
    pending.job->deadline = request.arrived + options_.deadline;
    pending.job->finished = finished;
    submit(pending.job);
    metrics_.count("atelier_routed_total", student_labels(pending.served->id, student));
}

std::shared_ptr<const Served> Service::found(const std::string& model) const {
    if (auto served = library_.find(model)) return served;
    throw Refusal(404, fmt::format("there is no model \"{}\" here; GET /v1/models lists them", model), "model", "model_not_found");
}

void Service::submit(const std::shared_ptr<Job>& job) {
    if (batcher_.submit(job)) return;
    reject("full");
    throw queue_full(job->lane->student, static_cast<int>(std::clamp(std::ceil(batcher_.seconds_until_empty()), 1.0, 3600.0)));
}

Response Service::late_answer() { return error_response(deadline_exceeded()); }

Response Service::not_drawn(const Request& request, const std::exception_ptr& problem) {
    try {
        std::rethrow_exception(problem);
    } catch (const Refusal& refusal) {
        reject(reason_of(refusal.status));
        return error_response(refusal);
    } catch (const std::exception& error) {
        reject("failed");
        core::log::warning("{}: {}", request.id, printable(error.what()));
        return error_response(Refusal(500, "the picture could not be drawn; the log knows more under this request's id", "", "generation_failed"));
    }
}

void Service::abandon(const Pending& pending, const std::string& reason) {
    batcher_.cancel(pending.job);
    reject(reason);
}

Response Service::finish(const Request& request, const Pending& pending, const Outcome& outcome) {
    switch (outcome.end) {
        case Outcome::End::late: reject("late"); return late_answer();
        case Outcome::End::failed: return not_drawn(request, outcome.problem);
        case Outcome::End::drawn: break;
    }
    try {
        return drawn(request, pending, outcome);
    } catch (const std::exception&) {
        return not_drawn(request, std::current_exception());
    }
}

Response Service::drawn(const Request& request, const Pending& pending, const Outcome& outcome) {
    const Description& model = pending.served->description();
    Response response = pending.asked->answer(pending.plan, model, outcome.pictures);
    const Clock::duration all = Clock::now() - request.arrived;
    const std::string student = std::to_string(pending.plan.student);
    const Labels labels = student_labels(pending.served->id, pending.plan.student);
    metrics_.count("atelier_images_total", labels, outcome.pictures.size());
    metrics_.observe("atelier_queue_seconds", labels, seconds(outcome.queued));
    metrics_.observe("atelier_request_seconds", labels, seconds(all));
    response.headers = {{"Cache-Control", "no-store"},
                        {"X-Atelier-Model", pending.served->id},
                        {"X-Atelier-Student", student},
                        {"X-Atelier-Student-Parameters", std::to_string(pending.served->generator->facts(pending.plan.student).parameters)},
                        {"X-Atelier-Evaluations", std::to_string(model.evaluations)},
                        {"X-Atelier-Seed", std::to_string(pending.plan.seed)},
                        {"X-Atelier-Batch", std::to_string(outcome.batch)},
                        {"X-Atelier-Queue-Milliseconds", milliseconds(outcome.queued)},
                        {"X-Atelier-Engine-Milliseconds", milliseconds(outcome.engine)},
                        {"X-Atelier-Milliseconds", milliseconds(all)}};
    return response;
}

bool Service::allows(std::string_view origin) const {
    return !origin.empty() && std::ranges::any_of(options_.cors_origins, [&](const std::string& one) { return one == "*" || one == origin; });
}

void Service::complete(const Request& request, Response& response) {
    response.headers.emplace_back("X-Request-Id", request.id);
    response.headers.emplace_back("X-Content-Type-Options", "nosniff");
    const std::string_view origin = request.header("origin");
    if (allows(origin)) {
        response.headers.emplace_back("Access-Control-Allow-Origin", origin);
        response.headers.emplace_back("Vary", "Origin");
        response.headers.emplace_back("Access-Control-Expose-Headers",
                                      "X-Request-Id, Retry-After, X-Atelier-Model, X-Atelier-Student, X-Atelier-Student-Parameters, X-Atelier-Milliseconds");
        if (request.method == "OPTIONS") {
            response.headers.emplace_back("Access-Control-Allow-Methods", "GET, POST");
            response.headers.emplace_back("Access-Control-Allow-Headers", "Authorization, Content-Type, X-Api-Key, X-Request-Id");
            response.headers.emplace_back("Access-Control-Max-Age", "600");
        }
    }
    if (draining_) response.close = true;
    metrics_.count("atelier_requests_total", {{"route", route_of(request.path())}, {"code", std::to_string(response.status)}});
    core::log::info("{} {} {} {} {} {} bytes {} ms", request.id, request.peer, printable(request.method), printable(request.target), response.status,
                    response.body.size(), milliseconds(Clock::now() - request.arrived));
}

}  // namespace atelier::server
