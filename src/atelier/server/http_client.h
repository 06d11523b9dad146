#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "atelier/core/error.h"
#include "atelier/server/http.h"

namespace atelier::server {

/// The address of a server.
struct Address {
    std::string host, port;
};

/// Parses http://HOST[:PORT][/], IPv6 addresses in brackets. Throws core::UsageError if malformed.
Address parse_address(const std::string& url);

/// An HTTP client for one server with keep-alive connections. Any thread.
class HttpClient {
public:
    struct Response {
        unsigned status = 0;
        std::string body;
    };

    /// The server could not be reached or did not respond in time.
    struct NoResponse : core::Error {
        using core::Error::Error;
    };

    /// `key`: sent as Authorization: Bearer; "": none.
    HttpClient(Address address, std::string key);
    ~HttpClient();
    HttpClient(const HttpClient&) = delete;
    HttpClient& operator=(const HttpClient&) = delete;

    /// Both throw NoResponse if there is no response by `deadline`, core::Error if it is malformed
    /// or its body exceeds `max_bytes`. A request may be sent twice: if the server has closed an
    /// idle connection, the request is retried on a new one.
    Response get(const std::string& target, Clock::time_point deadline, std::uint64_t max_bytes);
    Response post(const std::string& target, const std::string& json, Clock::time_point deadline,
                  std::uint64_t max_bytes);

private:
    struct ClientRequest;
    struct Connection;

    Response send(ClientRequest& request);
    Response send_over(std::unique_ptr<Connection> connection, const ClientRequest& request);
    std::unique_ptr<Connection> idle_connection();

    const Address address_;
    const std::string key_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<Connection>> idle_;
};

}  // namespace atelier::server
