#include "atelier/server/worker_pool.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <tuple>
#include <utility>

#include "atelier/core/error.h"
#include "atelier/core/json_file.h"
#include "atelier/core/log.h"
#include "atelier/server/http_client.h"
#include "atelier/server/http_errors.h"
#include "atelier/server/metrics.h"
#include "atelier/server/responses.h"
#include "atelier/server/worker_protocol.h"

namespace atelier::server {

namespace {

using nlohmann::json;

constexpr std::chrono::seconds check_interval{1}, check_timeout{5}, backoff{3};
constexpr std::uint64_t max_models_bytes = 16 << 20;  // of the body of /v1/models
constexpr std::int64_t max_parameters = std::int64_t{1} << 50;

/// What a worker reports about itself.
struct WorkerStatus {
    std::vector<StudentFacts> students;
    std::string list;  // the numbers of the available students, for the log
};

json about_model(const json& models, const std::string& name) {
    const json data = models.value("data", json::array());
    for (const json& one : data) {
        if (one.is_object() && one.value("id", json()) == name)
            return one.value("atelier", json::object());
    }
    core::fail("serves no model \"{}\"", name);
}

/// Throws core::Error if the worker cannot be used for this ensemble.
WorkerStatus read_models(const std::string& body, const std::string& name, const std::string& hash,
                         std::size_t students) {
    const json models = core::parse_json(body, "/v1/models");
    if (!models.is_object()) core::fail("/v1/models is not an object");
    if (models.value("status", json()) == "draining" || models.value("status", json()) == "loading")
        core::fail("is {}", models["status"].get<std::string>());
    const json model = about_model(models, name);
    const core::JsonObject about(model, "/v1/models");
    if (model.value("routes", false)) core::fail("is a router itself");
    if (about.text("partition_hash") != hash)
        core::fail("serves another ensemble as \"{}\": its partition's hash differs", name);
    const json list = model.value("students", json());
    if (!list.is_array() || list.size() != students)
        core::fail("/v1/models does not list the {} students of \"{}\"", students, name);
    WorkerStatus found;
    for (std::size_t k = 0; k < students; ++k) {
        const core::JsonObject one(list[k], "/v1/models");
        const bool here = one.json().value("here", false);
        found.students.push_back(
            {.parameters = one.integer("parameters", 0, max_parameters), .available = here});
        if (here) found.list += (found.list.empty() ? "" : ", ") + std::to_string(k);
    }
    if (found.list.empty()) core::fail("has no student of \"{}\"", name);
    return found;
}

}  // namespace

struct WorkerPool::Worker {
    Worker(const std::string& with_url, const std::string& key)
        : url(with_url), client(parse_address(with_url), key) {}

    const std::string url;
    HttpClient client;
    std::vector<StudentFacts> students;  // empty: the worker is not usable
    std::string state;                   // for the log
    bool checked = false, check_now = false;
    Clock::time_point backoff_until{};
    std::size_t in_flight = 0;  // batches
    std::uint64_t last_picked = 0;
    std::array<std::uint64_t, 3> outcomes{};  // since the last measure()
    std::thread checker;
};

WorkerPool::WorkerPool(const std::vector<std::string>& urls, const std::string& key,
                       std::string model, Description description)
    : model_(std::move(model)),
      description_(std::move(description)),
      hash_(description_.partition_hash()) {
    for (const std::string& url : urls) workers_.push_back(std::make_unique<Worker>(url, key));
    for (const auto& worker : workers_)
        worker->checker = std::thread([this, one = worker.get()] { run_health_checks(*one); });
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] {
        return std::ranges::all_of(workers_, [](const auto& worker) { return worker->checked; });
    });
}

WorkerPool::~WorkerPool() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    changed_.notify_all();
    for (const auto& worker : workers_) worker->checker.join();
}

void WorkerPool::run_health_checks(Worker& worker) {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
        worker.check_now = false;
        lock.unlock();
        health_check(worker);
        lock.lock();
        worker.checked = true;
        changed_.notify_all();
        changed_.wait_for(lock, check_interval, [&] { return stopping_ || worker.check_now; });
    }
}

void WorkerPool::health_check(Worker& worker) {
    WorkerStatus found;
    std::string state;
    try {
        const HttpClient::Response response =
            worker.client.get("/v1/models", Clock::now() + check_timeout, max_models_bytes);
        if (response.status == 401)
            core::fail(
                "rejects the API key; --upstream-key-file must name a file with a key it accepts");
        if (response.status != 200) core::fail("answered /v1/models with {}", response.status);
        found = read_models(response.body, model_, hash_,
                            static_cast<std::size_t>(description_.partition.students));
        state = "has students " + found.list;
    } catch (const std::exception& error) {
        state = std::string("is not used: ") + error.what();
    }
    {
        const std::lock_guard lock(mutex_);
        worker.students = std::move(found.students);
    }
    log_state(worker, state);
}

/// Logs a changed state. Called by the worker's checker thread only.
void WorkerPool::log_state(Worker& worker, const std::string& state) {
    if (state == worker.state) return;
    worker.state = state;
    if (state.starts_with("has")) core::log::info("{}: {} {}", model_, worker.url, state);
    else core::log::warning("{}: {} {}", model_, worker.url, printable(state));
}

std::vector<WorkerPool::Worker*> WorkerPool::workers_with(std::int64_t k) const {
    std::vector<Worker*> found;
    for (const auto& worker : workers_) {
        if (!worker->students.empty() && worker->students[static_cast<std::size_t>(k)].available)
            found.push_back(worker.get());
    }
    return found;
}

StudentFacts WorkerPool::facts(std::int64_t k) const {
    const std::lock_guard lock(mutex_);
    const auto owners = workers_with(k);
    return owners.empty() ? StudentFacts{.available = false}
                          : owners.front()->students[static_cast<std::size_t>(k)];
}

/// The worker to try next, or null if all were tried. Shortens `deadline` so that each remaining
/// worker gets an equal part of the time.
WorkerPool::Worker* WorkerPool::pick_worker(std::int64_t k, const std::vector<Worker*>& tried,
                                            Clock::time_point& deadline) {
    const std::lock_guard lock(mutex_);
    const Clock::time_point now = Clock::now();
    std::vector<Worker*> left = workers_with(k);
    std::erase_if(left, [&](Worker* one) { return std::ranges::find(tried, one) != tried.end(); });
    if (left.empty()) return nullptr;
    Worker* best = *std::ranges::min_element(left, {}, [&](const Worker* one) {
        return std::tuple(one->backoff_until > now, one->in_flight, one->last_picked);
    });
    deadline = now + (deadline - now) / static_cast<std::int64_t>(left.size());
    ++best->in_flight;
    best->last_picked = ++picks_;
    return best;
}

void WorkerPool::finish(Worker& worker, Outcome outcome) {
    const std::lock_guard lock(mutex_);
    --worker.in_flight;
    ++worker.outcomes[static_cast<std::size_t>(outcome)];
}

void WorkerPool::back_off(Worker& worker) {
    {
        const std::lock_guard lock(mutex_);
        worker.backoff_until = Clock::now() + backoff;
        worker.check_now = true;
    }
    changed_.notify_all();
}

/// Throws an HttpError for the client, or core::Error if the worker reported that generation
/// failed; details go to the log.
std::vector<GeneratedImage> WorkerPool::request_images(Worker& worker, std::int64_t k,
                                                       std::span<const Draw> draws,
                                                       Clock::time_point deadline) {
    const int width = description_.width, height = description_.height;
    const std::string body = to_body({model_, hash_, {draws.begin(), draws.end()}});
    if (body.size() > max_draws_body_bytes && draws.size() > 1) {
        auto images = request_images(worker, k, draws.first(draws.size() / 2), deadline);
        std::ranges::move(request_images(worker, k, draws.subspan(draws.size() / 2), deadline),
                          std::back_inserter(images));
        return images;
    }
    HttpClient::Response response;
    try {
        response = worker.client.post(std::string(draws_path), body, deadline,
                                      max_frame_bytes(draws.size(), width, height));
        if (response.status == 200)
            return read_frame(response.body, draws, width, height, "its answer");
    } catch (const HttpClient::NoResponse& error) {
        core::log::warning("{}: {} did not draw for student {}: {}", model_, worker.url, k,
                           error.what());
        throw student_unavailable(k);
    } catch (const core::Error& error) {
        core::log::warning("{}: {} did not draw for student {}: {}", model_, worker.url, k,
                           printable(error.what()));
        throw bad_upstream();
    }
    core::log::warning("{}: {} did not draw for student {}: {} {}", model_, worker.url, k,
                       response.status, printable(response.body));
    if (response.status == 500) core::fail("{} could not draw", worker.url);
    if (response.status == 429) throw queue_full(k, 1);
    constexpr std::array not_now{401U, 403U, 404U, 408U,
                                 421U, 503U, 504U};  // the worker's fault, not the request's
    if (std::ranges::find(not_now, response.status) != not_now.end()) throw student_unavailable(k);
    throw bad_upstream();
}

std::vector<GeneratedImage> WorkerPool::draw(std::int64_t k, std::span<const Draw> draws,
                                             Clock::time_point deadline) {
    constexpr std::size_t max_suspects = 2;
    std::vector<Worker*> tried, suspects;  // suspects: reached, but failed
    std::exception_ptr last_error = std::make_exception_ptr(student_unavailable(k));
    Clock::time_point worker_deadline = deadline;
    while (Worker* worker = Clock::now() < deadline && suspects.size() < max_suspects
                                ? pick_worker(k, tried, worker_deadline = deadline)
                                : nullptr) {
        tried.push_back(worker);
        try {
            auto images = request_images(*worker, k, draws, worker_deadline);
            finish(*worker, Outcome::drawn);
            for (Worker* one : suspects) back_off(*one);
            return images;
        } catch (const HttpError& error) {
            finish(*worker, error.status == 429 ? Outcome::busy : Outcome::failed);
            if (error.status == bad_upstream().status) suspects.push_back(worker);
            else if (error.status != 429) back_off(*worker);
            last_error = std::current_exception();
        } catch (const std::exception&) {
            finish(*worker, Outcome::failed);
            suspects.push_back(worker);
            last_error = std::current_exception();
        }
    }
    if (Clock::now() >= deadline && suspects.size() < max_suspects) throw deadline_exceeded();
    std::rethrow_exception(last_error);
}

void WorkerPool::measure(Metrics& metrics, const std::string& model) const {
    constexpr std::array<const char*, 3> names{"drawn", "busy", "failed"};
    const std::lock_guard lock(mutex_);
    for (const auto& worker : workers_) {
        metrics.set("atelier_upstream_up", {{"model", model}, {"upstream", worker->url}},
                    worker->students.empty() ? 0 : 1);
        for (std::size_t i = 0; i < names.size(); ++i) {
            metrics.count("atelier_upstream_requests_total",
                          {{"model", model}, {"upstream", worker->url}, {"outcome", names[i]}},
                          std::exchange(worker->outcomes[i], 0));
        }
    }
}

}  // namespace atelier::server
