#pragma once

#include <deque>

#include "atelier/server/routed_ensemble.h"
#include "server/server_fixtures.h"

namespace atelier::server {

/// Listens like a worker and sends whatever responses a test chooses.
class Impostor {
public:
    using Respond = std::function<std::string(const std::string& request)>;

    explicit Impostor(Respond respond)
        : respond_(std::move(respond)),
          listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof address;
        ::bind(listener_, reinterpret_cast<sockaddr*>(&address), size);
        ::listen(listener_, 64);
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
        port = ntohs(address.sin_port);
        thread_ = std::jthread([this] { serve(); });
    }
    ~Impostor() {
        ::shutdown(listener_, SHUT_RDWR);
        thread_.join();
        ::close(listener_);
    }

    std::uint16_t port = 0;
    std::atomic<int> draws = 0;  // draw requests received

private:
    void serve() {
        for (int client = ::accept(listener_, nullptr, nullptr); client >= 0;
             client = ::accept(listener_, nullptr, nullptr)) {
            const timeval timeout{2, 0};
            ::setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
            std::string request;
            char bytes[65536];
            for (ssize_t count = 1; count > 0 && !whole(request);) {
                count = ::recv(client, bytes, sizeof bytes, 0);
                if (count > 0) request.append(bytes, static_cast<std::size_t>(count));
            }
            if (request.starts_with("POST")) ++draws;
            const std::string answer = respond_(request);
            for (std::size_t sent = 0; sent < answer.size();) {
                const ssize_t count =
                    ::send(client, answer.data() + sent, answer.size() - sent, MSG_NOSIGNAL);
                if (count <= 0) break;
                sent += static_cast<std::size_t>(count);
            }
            ::close(client);
        }
    }
    static bool whole(const std::string& request) {
        const std::size_t end = request.find("\r\n\r\n"), length = request.find("Content-Length: ");
        if (end == std::string::npos) return false;
        return length == std::string::npos ||
               request.size() >= end + 4 + std::stoul(request.substr(length + 16));
    }

    Respond respond_;
    int listener_;
    std::jthread thread_;
};

inline std::string http(const std::string& body, int status = 200) {
    return "HTTP/1.1 " + std::to_string(status) +
           " So\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

/// Workers with some students of the fake model, and `server`, a router in front of them.
class Routing : public LiveServer {
protected:
    struct WorkerServer {
        FakeGenerator::Behaviour behaviour;
        std::unique_ptr<Server> server;
        std::uint16_t port = 0;
    };

    ~Routing() override {
        for (WorkerServer& one : worker_servers) one.behaviour.hold(false);
        server.reset();
    }

    /// Starts a worker with these students, at `port` or (0) any free one.
    WorkerServer& add(std::vector<std::int64_t> here, std::uint16_t port = 0) {
        WorkerServer& one = worker_servers.emplace_back();
        worker_options.port = port;
        const auto open = [&one, here, prompts = of_prompts] {
            return prompts ? FakeGenerator::of_prompts(one.behaviour, here)
                           : std::make_shared<FakeGenerator>(one.behaviour, 100, here);
        };
        one.server = std::make_unique<Server>(
            worker_options, std::vector<ModelSource>{{"fake", open, [] { return ""; }}});
        one.server->warm_up();
        one.port = one.server->port();
        return one;
    }
    std::uint16_t route_to(const std::vector<std::uint16_t>& ports) {
        RoutedEnsemble::Options route{.key = key, .max_concurrent_batches = 4};
        for (const std::uint16_t port : ports) route.urls.push_back(url(port));
        options.port = 0;
        options.batching.workers = 8;
        const auto fake = of_prompts ? FakeGenerator::of_prompts(behaviour)
                                     : std::make_shared<FakeGenerator>(behaviour);
        const auto open = [fake, route] {
            return std::make_shared<RoutedEnsemble>(
                route, "fake", fake->description(),
                [fake](std::span<const std::string> prompts) { return fake->encode(prompts); });
        };
        server = std::make_unique<Server>(
            options, std::vector<ModelSource>{{"fake", open, [] { return ""; }}});
        server->warm_up();
        return server->port();
    }
    static std::string url(std::uint16_t port) {
        return "http://127.0.0.1:" + std::to_string(port);
    }
    std::string batches(std::uint16_t port, const std::string& outcome) {
        return metric(R"(atelier_upstream_requests_total{model="fake",upstream=")" + url(port) +
                      R"(",outcome=")" + outcome + "\"}");
    }
    /// The body of /v1/models of a worker with both students.
    std::string models() { return Client(add({0, 1}).port).ask("GET", "/v1/models").body; }

    Options worker_options;
    bool of_prompts = false;  // the fake model reads prompts
    std::string key;
    std::deque<WorkerServer> worker_servers;
};

}  // namespace atelier::server
