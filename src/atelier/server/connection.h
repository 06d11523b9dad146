#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/beast/core/tcp_stream.hpp>

#include "atelier/server/service.h"
#include "atelier/server/waiting_clients.h"

namespace atelier::server {

/// What one client may take of the server.
struct ClientLimits {
    Clock::duration patience = std::chrono::seconds(30);  // to send a request, to take its answer, and between requests
    std::uint32_t header_bytes = 16 << 10;
    std::uint64_t body_bytes = 64 << 10;
};

/// Counts the requests that were read and are not yet answered, so that a server that stops can wait for them.
class Exchanges {
public:
    void enter() { ++open_; }
    void leave() { --open_; }
    bool none() const { return open_ == 0; }

private:
    std::atomic<std::int64_t> open_ = 0;
};

/// What all connections of a server share.
struct Surroundings {
    Service& service;
    ClientLimits limits;
    Exchanges& exchanges;
    WaitingClients& waiting;
    boost::asio::any_io_executor readers;  // where prompts are read, which takes too long for those who read and write
};

/// Answers the requests of one connection, one after the other, until either side closes it. `stream`'s executor runs one handler at a time.
boost::asio::awaitable<void> converse(boost::beast::tcp_stream stream, Surroundings surroundings);

}  // namespace atelier::server
