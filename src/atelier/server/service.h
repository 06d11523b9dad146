#pragma once

#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "atelier/server/api_keys.h"
#include "atelier/server/asked.h"

namespace atelier::server {

class Metrics;
class Residents;

/// A request for pictures that was accepted: its job is in a student's queue, once its prompts were read.
struct Pending {
    std::shared_ptr<const Served> served;
    std::shared_ptr<const Asked> asked;
    Plan plan;                 // of `job`
    std::shared_ptr<Job> job;  // null: `Service::read` is next
};

/// What the server does with a request: everything but reading and writing it.
class Service {
public:
    struct Options {
        ApiKeys keys;
        std::vector<std::string> cors_origins;  // "*": any
        std::int64_t most_pictures = 64;        // a request
        std::int64_t most_unread = 256;         // requests whose prompts wait to be read
        Clock::duration deadline = std::chrono::seconds(30);
        bool checks_host = false;                // requests for a site's name must be for one of
        std::vector<std::string> allowed_hosts;  // in lower case; "*": any
    };

    Service(Options options, Library& library, Batcher& batcher, Residents& residents, Metrics& metrics);

    /// Answers at once, or puts a request for pictures into its queue, calling `finished` (from another thread) when it is drawn. Never throws for what a
    /// client sends.
    std::variant<Response, Pending> begin(const Request& request, const std::function<void(Outcome)>& finished);
    /// Reads the prompts of a request that has no job yet and goes on as `begin` would have; called once for each of them. Takes as long as a text tower does.
    std::variant<Response, Pending> read(const Request& request, Pending pending, const std::function<void(Outcome)>& finished);
    /// The answer to a request whose job is finished.
    Response finish(const Request& request, const Pending& pending, const Outcome& outcome);
    /// The client left, or its time is over.
    void abandon(const Pending& pending, const std::string& reason);
    static Response late_answer();
    /// Most bytes that are read of this request's body: more of a router's, who shows a key where
    /// one is needed.
    std::uint64_t longest_body(const Request& request, std::uint64_t usual) const;
    void set_connections(std::size_t open);

    /// Whether requests are answered without loading first.
    void set_ready(bool ready) { ready_ = ready; }
    /// From now on requests for pictures are refused.
    void drain();

    /// Puts what every answer bears into it (request id, CORS, what browsers should not do), counts it and writes the access log.
    void complete(const Request& request, Response& response);

private:
    std::string_view state() const;
    Response answer(const Request& request) const;
    Response health(std::string_view path) const;
    Response models() const;
    Response model(const std::string& id) const;
    nlohmann::json entry(const Served& served) const;
    nlohmann::json about(const Served& served) const;
    nlohmann::json about(const Served& served, std::int64_t student) const;
    void begin_counters(const Served& served) const;
    Response metrics_text() const;
    Pending accept(const Request& request, const std::function<void(Outcome)>& finished);
    void wait_for_reader(const Pending& pending);
    void enqueue(const Request& request, Pending& pending, std::span<const Reading> readings, const std::function<void(Outcome)>& finished);
    Response refused(const Request& request) const;
    std::shared_ptr<const Served> found(const std::string& model) const;
    void submit(const std::shared_ptr<Job>& job);
    Response drawn(const Request& request, const Pending& pending, const Outcome& outcome);
    Response not_drawn(const Request& request, const std::exception_ptr& problem);
    void reject(const std::string& reason);
    void check_host(const Request& request) const;
    bool shows_key(const Request& request) const;
    void check_key(const Request& request) const;
    bool allows(std::string_view origin) const;

    const Options options_;
    Library& library_;
    Batcher& batcher_;
    Residents& residents_;
    Metrics& metrics_;
    std::atomic<bool> ready_ = false, draining_ = false;
    std::atomic<std::int64_t> unread_ = 0;
};

}  // namespace atelier::server
