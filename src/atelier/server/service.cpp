#include "atelier/server/service.h"

#include <algorithm>
#include <cmath>

#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/server/answers.h"
#include "atelier/server/drawing.h"
#include "atelier/server/metrics.h"
#include "atelier/server/page.h"
#include "atelier/server/refusals.h"
#include "atelier/server/residents.h"

namespace atelier::server {

namespace {

using nlohmann::json;

constexpr std::string_view images_path = "/v1/images/generations", models_path = "/v1/models", metrics_path = "/metrics";

std::string milliseconds(Clock::duration duration) { return fmt::format("{:.3f}", 1e3 * seconds(duration)); }

const PageFile* page_file(std::string_view path) {
    const auto files = page_files();
    const auto found = std::ranges::find(files, path, &PageFile::path);
    return found == files.end() ? nullptr : &*found;
}

bool is_health(std::string_view path) { return path == "/health" || path == "/health/live" || path == "/health/ready"; }

bool is_public(std::string_view path) { return is_health(path) || page_file(path) != nullptr; }

/// The methods that a path answers to; empty when there is no such path.
std::string_view methods_of(std::string_view path) {
    if (path == images_path || path == draws_path) return "POST, OPTIONS";
    if (is_public(path) || path == models_path || path == metrics_path) return "GET, HEAD, OPTIONS";
    return "";
}

/// Few words, whatever clients send.
std::string route_of(std::string_view path) { return methods_of(path).empty() ? "other" : std::string(path); }

std::string_view key_of(const Request& request) {
    const std::string_view authorization = request.header("authorization");
    if (authorization.starts_with("Bearer ")) return authorization.substr(7);
    return request.header("x-api-key");
}

Response page_answer(const PageFile& file, const Request& request) {
    const std::string tag = fmt::format("\"{}\"", file.hash);
    Response response{.content_type = std::string(file.content_type)};
    response.headers = {{"ETag", tag},
                        {"Cache-Control", "no-cache"},
                        {"Content-Security-Policy", "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"},
                        {"Referrer-Policy", "no-referrer"}};
    if (request.header("if-none-match") == tag) response.status = 304;
    else response.body = file.bytes;
    return response;
}

void check_method(const Request& request) {
    const std::string_view methods = methods_of(request.path());
    if (methods.empty()) throw Refusal(404, "there is nothing at this path; look at /, /v1/models, /v1/images/generations, /health and /metrics", "", "not_found");
    const bool read = request.method == "GET" || request.method == "HEAD";
    if (request.method == "OPTIONS" || (read && methods.starts_with("GET")) || (request.method == "POST" && methods.starts_with("POST"))) return;
    Refusal refusal(405, fmt::format("this path answers to {}", methods), "", "method_not_allowed");
    refusal.headers = {{"Allow", std::string(methods)}};
    throw refusal;
}

/// A browser asks before it sends this type to another origin, so a foreign page cannot set us to work.
void check_content_type(const Request& request) {
    if (!request.header("content-type").starts_with("application/json")) {
        throw Refusal(415, "the body must be JSON, with the header Content-Type: application/json", "", "unsupported_media_type");
    }
}

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

void Service::check_key(const Request& request) const {
    if (!options_.keys.needed() || is_public(request.path()) || request.method == "OPTIONS") return;
    const std::string_view key = key_of(request);
    if (options_.keys.knows(key)) return;
    Refusal refusal(401, key.empty() ? "an API key is needed: Authorization: Bearer KEY" : "this API key is not known here", "", "invalid_api_key");
    refusal.headers = {{"WWW-Authenticate", "Bearer"}};
    throw refusal;
}

std::variant<Response, Pending> Service::begin(const Request& request, const std::function<void(Outcome)>& finished) {
    try {
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
    for (const auto& served : library_.all()) {
        list.push_back({{"id", served->id}, {"object", "model"}, {"created", served->since}, {"owned_by", "atelier"}, {"atelier", about(*served)}});
    }
    return json_response({{"object", "list"}, {"status", state()}, {"data", std::move(list)}});
}

Response Service::metrics_text() const {
    for (const auto& served : library_.all()) {
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
