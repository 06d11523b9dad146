#pragma once

#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "atelier/server/api_keys.h"
#include "atelier/server/parsed_request.h"

namespace atelier::server {

class Metrics;
class ModelCache;

/// An accepted image request. Its job is in a student's queue once its prompts are encoded.
struct Pending {
    std::shared_ptr<const LoadedModel> served;
    std::shared_ptr<const ParsedRequest> parsed;
    ResolvedRequest resolved;  // of `job`
    std::shared_ptr<Job> job;  // null: Service::encode must be called next
};

/// Request handling without I/O: authentication, routing, queueing, responses and metrics.
class Service {
public:
    struct Options {
        ApiKeys keys;
        std::vector<std::string> cors_origins;   // "*": any
        std::int64_t max_images = 64;            // per request
        std::int64_t max_waiting_prompts = 256;  // requests waiting for prompt encoding
        Clock::duration deadline = std::chrono::seconds(30);
        bool checks_host = false;                // reject host names that are not in allowed_hosts
        std::vector<std::string> allowed_hosts;  // in lower case; "*": any
    };

    Service(Options options, ModelRegistry& registry, Batcher& batcher, ModelCache& cache,
            Metrics& metrics);

    /// Responds immediately, or queues an image request and calls `on_finished` (from another
    /// thread) when its images are ready. Never throws because of client input.
    std::variant<Response, Pending> begin(const Request& request,
                                          const std::function<void(Outcome)>& on_finished);
    /// Encodes the prompts of a request that has no job yet, then continues as `begin`; must be
    /// called once for each such request. Slow (runs the text encoder).
    std::variant<Response, Pending> encode(const Request& request, Pending pending,
                                           const std::function<void(Outcome)>& on_finished);
    /// The response to a request whose job is finished.
    Response finish(const Request& request, const Pending& pending, const Outcome& outcome);
    /// Cancels the job because the client disconnected or its deadline passed.
    void abandon(const Pending& pending, const std::string& reason);
    static Response timeout_response();
    /// The maximum body size in bytes: `usual`, or more for a router's request, which must have a
    /// valid key if keys are required.
    std::uint64_t max_body_bytes(const Request& request, std::uint64_t usual) const;
    void set_connections(std::size_t open);
    /// The response to a connection beyond those that are kept open; counted.
    Response turned_away_response();

    /// Whether requests can be answered without loading students first.
    void set_ready(bool ready) { ready_ = ready; }
    /// From now on image requests are rejected.
    void drain();

    /// Adds the headers of every response (request id, CORS, nosniff), counts it and writes the
    /// access log.
    void complete(const Request& request, Response& response);

private:
    std::string_view state() const;
    Response answer(const Request& request) const;
    Response health(std::string_view path) const;
    Response models() const;
    Response model(const std::string& id) const;
    nlohmann::json model_entry(const LoadedModel& served) const;
    nlohmann::json describe(const LoadedModel& served) const;
    nlohmann::json describe(const LoadedModel& served, std::int64_t student) const;
    void init_counters(const LoadedModel& served) const;
    Response metrics_text() const;
    Pending accept(const Request& request, const std::function<void(Outcome)>& on_finished);
    void reserve_encoder(const Pending& pending);
    void enqueue(const Request& request, Pending& pending, std::span<const EncodedPrompt> encoded,
                 const std::function<void(Outcome)>& on_finished);
    Response exception_response(const Request& request) const;
    std::shared_ptr<const LoadedModel> find_model(const std::string& model) const;
    void submit(const std::shared_ptr<Job>& job);
    Response images_response(const Request& request, const Pending& pending,
                             const Outcome& outcome);
    Response failure_response(const Request& request, const std::exception_ptr& problem);
    void reject(const std::string& reason);
    void check_host(const Request& request) const;
    bool has_valid_key(const Request& request) const;
    void check_key(const Request& request) const;
    bool allows_origin(std::string_view origin) const;

    const Options options_;
    ModelRegistry& registry_;
    Batcher& batcher_;
    ModelCache& cache_;
    Metrics& metrics_;
    std::atomic<bool> ready_ = false, draining_ = false;
    std::atomic<std::int64_t> waiting_prompts_ = 0;
};

}  // namespace atelier::server
