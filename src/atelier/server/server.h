#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "atelier/server/batcher.h"
#include "atelier/server/model_registry.h"
#include "atelier/server/service.h"

namespace atelier::server {

struct Options {
    std::string host = "127.0.0.1";
    std::uint16_t port = 8080;           // 0: any free port
    int io_threads = 2;                  // read requests, encode images, write responses
    std::size_t max_connections = 1024;  // beyond, the longest idle one is closed for a new one
    std::int64_t memory_budget = 0;      // bytes of loaded students; 0: unlimited
    Clock::duration client_timeout = std::chrono::seconds(30);
    Batcher::Options batching;
    Service::Options service;
};

/// An HTTP server for some models, running from construction to destruction.
class Server {
public:
    /// Opens the models and starts to listen and answer requests. Throws core::Error if a model
    /// cannot be served or the address cannot be bound.
    Server(const Options& options, std::vector<ModelSource> sources);
    ~Server();

    std::uint16_t port() const;

    /// Loads students ahead of the first request, then reports ready.
    void warm_up();

    ModelRegistry& registry();

    /// Rejects new image requests and waits until all accepted ones are answered. Returns false if
    /// that takes longer than `grace`.
    bool drain(Clock::duration grace);

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace atelier::server
