#include "atelier/server/upstreams.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <tuple>
#include <utility>

#include "atelier/core/error.h"
#include "atelier/core/json_file.h"
#include "atelier/core/log.h"
#include "atelier/server/answers.h"
#include "atelier/server/drawing.h"
#include "atelier/server/http_client.h"
#include "atelier/server/metrics.h"
#include "atelier/server/refusals.h"

namespace atelier::server {

namespace {

using nlohmann::json;

constexpr std::chrono::seconds between_looks{1}, longest_look{5}, rest{3};
constexpr std::uint64_t largest_list = 16 << 20;  // bytes of /v1/models
constexpr std::int64_t most_parameters = std::int64_t{1} << 50;

/// What a server says of itself.
struct Found {
    std::vector<StudentFacts> students;
    std::string list;  // the numbers of those present, for people
};

json about_model(const json& models, const std::string& name) {
    const json data = models.value("data", json::array());
    for (const json& one : data) {
        if (one.is_object() && one.value("id", json()) == name) return one.value("atelier", json::object());
    }
    core::fail("serves no model \"{}\"", name);
}

/// Throws core::Error when the server cannot be asked for students of this ensemble.
Found read_models(const std::string& body, const std::string& name, const std::string& hash, std::size_t students) {
    const json models = core::parse_json(body, "/v1/models");
    if (!models.is_object()) core::fail("/v1/models is no object");
    if (models.value("status", json()) == "draining" || models.value("status", json()) == "loading") core::fail("is {}", models["status"].get<std::string>());
    const json model = about_model(models, name);
    const core::JsonObject about(model, "/v1/models");
    if (model.value("routes", false)) core::fail("is a router itself");
    if (about.text("partition_hash") != hash) core::fail("serves another ensemble as \"{}\": its partition's hash differs", name);
    const json list = model.value("students", json());
    if (!list.is_array() || list.size() != students) core::fail("/v1/models does not list the {} students of \"{}\"", students, name);
    Found found;
    for (std::size_t k = 0; k < students; ++k) {
        const core::JsonObject one(list[k], "/v1/models");
        const bool here = one.json().value("here", false);
        found.students.push_back({.parameters = one.integer("parameters", 0, most_parameters), .present = here});
        if (here) found.list += (found.list.empty() ? "" : ", ") + std::to_string(k);
    }
    if (found.list.empty()) core::fail("has no student of \"{}\"", name);
    return found;
}

}  // namespace

struct Upstreams::Upstream {
    Upstream(const std::string& with_url, const std::string& key) : url(with_url), client(address_of(with_url), key) {}

    const std::string url;
    HttpClient client;
    std::vector<StudentFacts> students;  // empty: it cannot be asked
    std::string state;                   // for the log
    bool looked = false, look_now = false;
    Clock::time_point rests_until{};
    std::size_t busy_with = 0;           // batches
    std::uint64_t last_turn = 0;
    std::array<std::uint64_t, 3> outcomes{};  // since they were measured
    std::thread looker;
};

Upstreams::Upstreams(const std::vector<std::string>& urls, std::string key, std::string model, Description description)
    : model_(std::move(model)), description_(std::move(description)), hash_(description_.partition_hash()) {
    for (const std::string& url : urls) upstreams_.push_back(std::make_unique<Upstream>(url, key));
    for (const auto& upstream : upstreams_) upstream->looker = std::thread([this, one = upstream.get()] { look_on(*one); });
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return std::ranges::all_of(upstreams_, [](const auto& upstream) { return upstream->looked; }); });
}

Upstreams::~Upstreams() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    changed_.notify_all();
    for (const auto& upstream : upstreams_) upstream->looker.join();
}

void Upstreams::look_on(Upstream& upstream) {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
        upstream.look_now = false;
        lock.unlock();
        look(upstream);
        lock.lock();
        upstream.looked = true;
        changed_.notify_all();
        changed_.wait_for(lock, between_looks, [&] { return stopping_ || upstream.look_now; });
    }
}

void Upstreams::look(Upstream& upstream) {
    Found found;
    std::string state;
    try {
        const HttpClient::Answer answer = upstream.client.get("/v1/models", Clock::now() + longest_look, largest_list);
        if (answer.status == 401) core::fail("takes no such key; --upstream-key-file names a file with one that it knows");
        if (answer.status != 200) core::fail("answered /v1/models with {}", answer.status);
        found = read_models(answer.body, model_, hash_, static_cast<std::size_t>(description_.partition.students));
        state = "has students " + found.list;
    } catch (const std::exception& error) {
        state = std::string("is not asked: ") + error.what();
    }
    {
        const std::lock_guard lock(mutex_);
        upstream.students = std::move(found.students);
    }
    note(upstream, state);
}

/// Of its looker alone. Says what changed.
void Upstreams::note(Upstream& upstream, const std::string& state) {
    if (state == upstream.state) return;
    upstream.state = state;
    if (state.starts_with("has")) core::log::info("{}: {} {}", model_, upstream.url, state);
    else core::log::warning("{}: {} {}", model_, upstream.url, printable(state));
}

std::vector<Upstreams::Upstream*> Upstreams::those_with(std::int64_t k) const {
    std::vector<Upstream*> found;
    for (const auto& upstream : upstreams_) {
        if (!upstream->students.empty() && upstream->students[static_cast<std::size_t>(k)].present) found.push_back(upstream.get());
    }
    return found;
}

StudentFacts Upstreams::facts(std::int64_t k) const {
    const std::lock_guard lock(mutex_);
    const auto owners = those_with(k);
    return owners.empty() ? StudentFacts{.present = false} : owners.front()->students[static_cast<std::size_t>(k)];
}

/// The one to ask, and until when: those behind it get as much time. Null when all were asked.
Upstreams::Upstream* Upstreams::next(std::int64_t k, const std::vector<Upstream*>& asked, Clock::time_point& until) {
    const std::lock_guard lock(mutex_);
    const Clock::time_point now = Clock::now();
    std::vector<Upstream*> left = those_with(k);
    std::erase_if(left, [&](Upstream* one) { return std::ranges::find(asked, one) != asked.end(); });
    if (left.empty()) return nullptr;
    Upstream* best = *std::ranges::min_element(left, {}, [&](const Upstream* one) { return std::tuple(one->rests_until > now, one->busy_with, one->last_turn); });
    until = now + (until - now) / static_cast<std::int64_t>(left.size());
    ++best->busy_with;
    best->last_turn = ++turns_;
    return best;
}

void Upstreams::finish(Upstream& upstream, Outcome outcome) {
    const std::lock_guard lock(mutex_);
    --upstream.busy_with;
    ++upstream.outcomes[static_cast<std::size_t>(outcome)];
}

void Upstreams::leave_alone(Upstream& upstream) {
    {
        const std::lock_guard lock(mutex_);
        upstream.rests_until = Clock::now() + rest;
        upstream.look_now = true;
    }
    changed_.notify_all();
}

/// Throws a Refusal that is fit for clients, or core::Error where the server said that it could not draw; the log hears more.
std::vector<Picture> Upstreams::ask(Upstream& upstream, std::int64_t k, std::span<const Draw> draws, Clock::time_point until) {
    const int width = description_.width, height = description_.height;
    const std::string body = to_body({model_, hash_, {draws.begin(), draws.end()}});
    if (body.size() > largest_draws_body && draws.size() > 1) {
        auto pictures = ask(upstream, k, draws.first(draws.size() / 2), until);
        std::ranges::move(ask(upstream, k, draws.subspan(draws.size() / 2), until),
                          std::back_inserter(pictures));
        return pictures;
    }
    HttpClient::Answer answer;
    try {
        answer = upstream.client.post(std::string(draws_path), body, until, largest_parcel(draws.size(), width, height));
        if (answer.status == 200)
            return read_parcel(answer.body, draws, width, height, "its answer");
    } catch (const HttpClient::NoAnswer& error) {
        core::log::warning("{}: {} did not draw for student {}: {}", model_, upstream.url, k, error.what());
        throw student_unavailable(k);
    } catch (const core::Error& error) {
        core::log::warning("{}: {} did not draw for student {}: {}", model_, upstream.url, k, printable(error.what()));
        throw bad_upstream();
    }
    core::log::warning("{}: {} did not draw for student {}: {} {}", model_, upstream.url, k, answer.status, printable(answer.body));
    if (answer.status == 500) core::fail("{} could not draw", upstream.url);
    if (answer.status == 429) throw queue_full(k, 1);
    constexpr std::array not_now{401U, 403U, 404U, 408U,
                                 421U, 503U, 504U};  // of this server, whatever is asked for
    if (std::ranges::find(not_now, answer.status) != not_now.end()) throw student_unavailable(k);
    throw bad_upstream();
}

std::vector<Picture> Upstreams::draw(std::int64_t k, std::span<const Draw> draws, Clock::time_point until) {
    constexpr std::size_t opinions = 2;
    std::vector<Upstream*> asked, doubtful;  // those who were reached, and did not draw
    std::exception_ptr why = std::make_exception_ptr(student_unavailable(k));
    Clock::time_point share = until;
    while (Upstream* upstream = Clock::now() < until && doubtful.size() < opinions
                                    ? next(k, asked, share = until)
                                    : nullptr) {
        asked.push_back(upstream);
        try {
            auto pictures = ask(*upstream, k, draws, share);
            finish(*upstream, Outcome::drawn);
            for (Upstream* one : doubtful) leave_alone(*one);
            return pictures;
        } catch (const Refusal& refusal) {
            finish(*upstream, refusal.status == 429 ? Outcome::busy : Outcome::failed);
            if (refusal.status == bad_upstream().status) doubtful.push_back(upstream);
            else if (refusal.status != 429) leave_alone(*upstream);
            why = std::current_exception();
        } catch (const std::exception&) {
            finish(*upstream, Outcome::failed);
            doubtful.push_back(upstream);
            why = std::current_exception();
        }
    }
    if (Clock::now() >= until && doubtful.size() < opinions) throw deadline_exceeded();
    std::rethrow_exception(why);
}

void Upstreams::measure(Metrics& metrics, const std::string& model) const {
    constexpr std::array<const char*, 3> names{"drawn", "busy", "failed"};
    const std::lock_guard lock(mutex_);
    for (const auto& upstream : upstreams_) {
        metrics.set("atelier_upstream_up", {{"model", model}, {"upstream", upstream->url}}, upstream->students.empty() ? 0 : 1);
        for (std::size_t i = 0; i < names.size(); ++i) {
            metrics.count("atelier_upstream_requests_total", {{"model", model}, {"upstream", upstream->url}, {"outcome", names[i]}},
                          std::exchange(upstream->outcomes[i], 0));
        }
    }
}

}  // namespace atelier::server
