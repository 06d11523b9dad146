#include "atelier/server/http_client.h"

#include <algorithm>

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>

#include "atelier/core/error.h"
#include "atelier/core/whole_number.h"
#include "atelier/server/addresses.h"

namespace atelier::server {

namespace net = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using net::ip::tcp;

namespace {

constexpr std::chrono::seconds connect_timeout{2};
constexpr std::chrono::seconds max_connection_age{
    30};  // so that servers added later behind the same name get their share
constexpr std::uint32_t max_response_header_bytes = 16 << 10;

bool is_port(std::string_view text) {
    const auto port = core::whole_number(text);
    return port && *port > 0 && *port < 65536;
}

/// Whether the response was malformed or too large.
bool is_malformed(const beast::error_code& error) {
    return error.category() == http::make_error_code(http::error::bad_method).category() &&
           error != http::error::end_of_stream && error != http::error::partial_message;
}

}  // namespace

Address parse_address(const std::string& url) {
    const auto wrong = [&](const char* why) {
        return core::UsageError(fmt::format("\"{}\" is not a server address: {}", url, why));
    };
    constexpr std::string_view scheme = "http://";
    if (url.starts_with("https://"))
        throw wrong("TLS is not supported; put a TLS proxy next to this server");
    if (!url.starts_with(scheme)) throw wrong("write http://HOST:PORT");
    std::string rest = url.substr(scheme.size());
    if (rest.ends_with('/')) rest.pop_back();
    if (rest.find_first_of("/?#@ ") != std::string::npos)
        throw wrong("write http://HOST:PORT and nothing behind or before");
    Address address{.port = "80"};
    const std::size_t bracket = rest.starts_with('[') ? rest.find(']') : 0;
    if (bracket == std::string::npos) throw wrong("a bracket is not closed");
    if (bracket > 0 && bracket + 1 < rest.size() && rest[bracket + 1] != ':')
        throw wrong("write http://[HOST]:PORT");
    const std::size_t colon = rest.find(':', bracket);
    if (colon != std::string::npos) address.port = rest.substr(colon + 1);
    address.host = rest.substr(0, colon);
    if (bracket > 0) address.host = rest.substr(1, bracket - 1);
    if (address.host.empty()) throw wrong("the host is missing");
    if (!is_port(address.port)) throw wrong("the port must be a number from 1 to 65535");
    return address;
}

struct HttpClient::ClientRequest {
    http::request<http::string_body> message;
    Clock::time_point deadline;
    std::uint64_t max_bytes;
};

/// A connection with its own event loop, which runs only while a caller waits for a response.
struct HttpClient::Connection {
    net::io_context io{1};
    beast::tcp_stream stream{io};
    beast::flat_buffer buffer;
    Clock::time_point opened = Clock::now();

    /// Runs one asynchronous operation, started by `start(handler)`, to completion. Throws
    /// boost::system::system_error if it fails.
    template <class Start>
    void run(Start start) {
        beast::error_code result;
        start([&result](const beast::error_code& error, const auto&...) { result = error; });
        io.restart();
        io.run();
        if (!result) return;
        // A reset tells the server immediately that nobody waits any more; without one it would
        // assume a half-closed client that still listens.
        beast::error_code ignored;
        stream.socket().set_option(net::socket_base::linger(true, 0), ignored);
        stream.socket().close(ignored);  // the destructor would close without a reset
        throw beast::system_error(result);
    }

    void connect(const Address& address, Clock::time_point deadline) {
        const auto endpoints = tcp::resolver(io).resolve(address.host, address.port);
        stream.expires_at(std::min(deadline, Clock::now() + connect_timeout));
        run([&](auto handler) { stream.async_connect(endpoints, handler); });
        stream.socket().set_option(tcp::no_delay(true));
    }
};

HttpClient::HttpClient(Address address, std::string key)
    : address_(std::move(address)), key_(std::move(key)) {}

HttpClient::~HttpClient() = default;

/// Null if there is none.
std::unique_ptr<HttpClient::Connection> HttpClient::idle_connection() {
    const std::lock_guard lock(mutex_);
    std::erase_if(idle_, [](const auto& connection) {
        return Clock::now() > connection->opened + max_connection_age;
    });
    if (idle_.empty()) return nullptr;
    auto connection = std::move(idle_.back());
    idle_.pop_back();
    return connection;
}

HttpClient::Response HttpClient::send_over(std::unique_ptr<Connection> connection,
                                           const ClientRequest& request) {
    connection->stream.expires_at(request.deadline);
    connection->run(
        [&](auto handler) { http::async_write(connection->stream, request.message, handler); });
    http::response_parser<http::string_body> parser;
    parser.header_limit(max_response_header_bytes);
    parser.body_limit(request.max_bytes);
    connection->run([&](auto handler) {
        http::async_read(connection->stream, connection->buffer, parser, handler);
    });
    const bool keep = parser.keep_alive() && connection->buffer.size() == 0;
    Response response{parser.get().result_int(), std::move(parser.get().body())};
    if (keep) {
        const std::lock_guard lock(mutex_);
        idle_.push_back(std::move(connection));
    }
    return response;
}

HttpClient::Response HttpClient::send(ClientRequest& request) {
    request.message.set(http::field::host, host_in_url(address_.host) + ":" + address_.port);
    if (!key_.empty()) request.message.set(http::field::authorization, "Bearer " + key_);
    try {
        if (auto connection = idle_connection()) {
            try {
                return send_over(std::move(connection), request);
            } catch (const beast::system_error& stale) {
                if (stale.code() == beast::error::timeout || is_malformed(stale.code())) throw;
            }
        }
        auto connection = std::make_unique<Connection>();
        connection->connect(address_, request.deadline);
        return send_over(std::move(connection), request);
    } catch (const beast::system_error& error) {
        if (!is_malformed(error.code()))
            throw NoResponse(error.code() == beast::error::timeout ? "it did not respond in time"
                                                                   : error.code().message());
        core::fail("its response cannot be parsed: {}", error.code().message());
    }
}

HttpClient::Response HttpClient::get(const std::string& target, Clock::time_point deadline,
                                     std::uint64_t max_bytes) {
    ClientRequest request{{http::verb::get, target, 11}, deadline, max_bytes};
    return send(request);
}

HttpClient::Response HttpClient::post(const std::string& target, const std::string& json,
                                      Clock::time_point deadline, std::uint64_t max_bytes) {
    ClientRequest request{{http::verb::post, target, 11, json}, deadline, max_bytes};
    request.message.set(http::field::content_type, "application/json");
    request.message.prepare_payload();
    return send(request);
}

}  // namespace atelier::server
