#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "atelier/server/batcher.h"
#include "atelier/server/library.h"
#include "atelier/server/service.h"

namespace atelier::server {

struct Options {
    std::string host = "127.0.0.1";
    std::uint16_t port = 8080;                // 0: any free one
    int io_threads = 2;                       // read, encode, write
    std::size_t most_connections = 1024;      // beyond, one that waits for its client's request is closed for a new one
    std::int64_t memory_budget = 0;           // bytes, of loaded students; 0: any
    Clock::duration patience = std::chrono::seconds(30);
    Batcher::Options batching;
    Service::Options service;
};

/// An HTTP server for some models, from its making until it is destroyed.
class Server {
public:
    /// Opens the models and listens; requests are answered from now on. Throws core::Error when a model cannot be served or the address not be had.
    Server(const Options& options, std::vector<Source> sources);
    ~Server();

    std::uint16_t port() const;

    /// Loads students ahead of the first request and then says that it is ready.
    void warm_up();

    Library& library();

    /// Refuses new image requests and waits until all that was accepted is answered. False when `grace` was not enough.
    bool drain(Clock::duration grace);

private:
    struct Running;
    std::unique_ptr<Running> running_;
};

}  // namespace atelier::server
