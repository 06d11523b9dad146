#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/beast/core/tcp_stream.hpp>

#include "atelier/server/idle_connections.h"
#include "atelier/server/service.h"

namespace atelier::server {

/// Limits per client connection.
struct ClientLimits {
    Clock::duration timeout = std::chrono::seconds(30);  // for sending a request, receiving its
                                                         // response, and between requests
    std::uint32_t header_bytes = 16 << 10;
    std::uint64_t body_bytes = 64 << 10;
};

/// Counts the requests that were read and are not yet answered, so that a stopping server can wait
/// for them.
class InFlightRequests {
public:
    void enter() { ++open_; }
    void leave() { --open_; }
    bool none() const { return open_ == 0; }

private:
    std::atomic<std::int64_t> open_ = 0;
};

/// Shared by all connections of a server.
struct ServerContext {
    Service& service;
    ClientLimits limits;
    InFlightRequests& in_flight;
    IdleConnections& idle;
    boost::asio::any_io_executor encoders;  // of prompts, which would block the I/O threads
};

/// Answers whatever one connection asks with 503, once and without reading it first, and closes it:
/// within a second or two, also where the client neither sends nor reads. `stream`'s executor must
/// be a strand.
boost::asio::awaitable<void> turn_away(boost::beast::tcp_stream stream, ServerContext context);

/// Answers the requests of one connection in order until either side closes it. `stream`'s executor
/// must be a strand.
boost::asio::awaitable<void> run_session(boost::beast::tcp_stream stream, ServerContext context);

}  // namespace atelier::server
