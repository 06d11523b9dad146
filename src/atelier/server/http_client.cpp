#include "atelier/server/http_client.h"

#include <algorithm>
#include <charconv>

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>

#include "atelier/core/error.h"
#include "atelier/server/addresses.h"

namespace atelier::server {

namespace net = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using net::ip::tcp;

namespace {

constexpr std::chrono::seconds longest_connect{2};
constexpr std::chrono::seconds longest_life{30};  // of a connection, so that servers that come later behind one name get their share
constexpr std::uint32_t largest_answer_head = 16 << 10;

bool is_port(std::string_view text) {
    int port = 0;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), port);
    return problem == std::errc() && end == text.data() + text.size() && port > 0 && port < 65536;
}

/// Whether something came that is no answer, or larger than was agreed to.
bool is_malformed(const beast::error_code& error) {
    return error.category() == http::make_error_code(http::error::bad_method).category() && error != http::error::end_of_stream &&
           error != http::error::partial_message;
}

}  // namespace

Address address_of(const std::string& url) {
    const auto wrong = [&](const char* why) { return core::UsageError(fmt::format("\"{}\" is no server's address: {}", url, why)); };
    constexpr std::string_view scheme = "http://";
    if (url.starts_with("https://")) throw wrong("TLS is not spoken here; put a proxy that does beside this server");
    if (!url.starts_with(scheme)) throw wrong("write http://HOST:PORT");
    std::string rest = url.substr(scheme.size());
    if (rest.ends_with('/')) rest.pop_back();
    if (rest.find_first_of("/?#@ ") != std::string::npos) throw wrong("write http://HOST:PORT and nothing behind or before");
    Address address{.port = "80"};
    const std::size_t bracket = rest.starts_with('[') ? rest.find(']') : 0;
    if (bracket == std::string::npos) throw wrong("a bracket is not closed");
    const std::size_t colon = rest.find(':', bracket);
    if (colon != std::string::npos) address.port = rest.substr(colon + 1);
    address.host = rest.substr(0, colon);
    if (bracket > 0) address.host = rest.substr(1, bracket - 1);
    if (address.host.empty()) throw wrong("the host is missing");
    if (!is_port(address.port)) throw wrong("the port must be a number from 1 to 65535");
    return address;
}

struct HttpClient::Question {
    http::request<http::string_body> message;
    Clock::time_point until;
    std::uint64_t largest;
};

/// A connection with a loop of its own, which runs only while somebody waits for an answer over it.
struct HttpClient::Line {
    net::io_context io{1};
    beast::tcp_stream stream{io};
    beast::flat_buffer buffer;
    Clock::time_point opened = Clock::now();

    /// Runs one operation, started by `start(handler)`, to its end. Throws boost::system::system_error when it fails.
    template <class Start>
    void run(Start start) {
        beast::error_code result;
        start([&result](const beast::error_code& error, const auto&...) { result = error; });
        io.restart();
        io.run();
        if (!result) return;
        // With a reset the server knows at once that nobody waits any more; without one it would
        // take the client for one that only ended its own side.
        beast::error_code ignored;
        stream.socket().set_option(net::socket_base::linger(true, 0), ignored);
        stream.socket().close(ignored);  // the destructor would close without it
        throw beast::system_error(result);
    }

    void connect(const Address& address, Clock::time_point until) {
        const auto endpoints = tcp::resolver(io).resolve(address.host, address.port);
        stream.expires_at(std::min(until, Clock::now() + longest_connect));
        run([&](auto handler) { stream.async_connect(endpoints, handler); });
        stream.socket().set_option(tcp::no_delay(true));
    }
};

HttpClient::HttpClient(Address address, std::string key) : address_(std::move(address)), key_(std::move(key)) {}

HttpClient::~HttpClient() = default;

/// Null when there is none.
std::unique_ptr<HttpClient::Line> HttpClient::kept_line() {
    const std::lock_guard lock(mutex_);
    std::erase_if(kept_, [](const auto& line) { return Clock::now() > line->opened + longest_life; });
    if (kept_.empty()) return nullptr;
    auto line = std::move(kept_.back());
    kept_.pop_back();
    return line;
}

HttpClient::Answer HttpClient::ask_over(std::unique_ptr<Line> line, const Question& question) {
    line->stream.expires_at(question.until);
    line->run([&](auto handler) { http::async_write(line->stream, question.message, handler); });
    http::response_parser<http::string_body> parser;
    parser.header_limit(largest_answer_head);
    parser.body_limit(question.largest);
    line->run([&](auto handler) { http::async_read(line->stream, line->buffer, parser, handler); });
    const bool keep = parser.keep_alive() && line->buffer.size() == 0;
    Answer answer{parser.get().result_int(), std::move(parser.get().body())};
    if (keep) {
        const std::lock_guard lock(mutex_);
        kept_.push_back(std::move(line));
    }
    return answer;
}

HttpClient::Answer HttpClient::ask(Question& question) {
    question.message.set(http::field::host, host_in_url(address_.host) + ":" + address_.port);
    if (!key_.empty()) question.message.set(http::field::authorization, "Bearer " + key_);
    try {
        if (auto line = kept_line()) {
            try {
                return ask_over(std::move(line), question);
            } catch (const beast::system_error& stale) {
                if (stale.code() == beast::error::timeout || is_malformed(stale.code())) throw;
            }
        }
        auto line = std::make_unique<Line>();
        line->connect(address_, question.until);
        return ask_over(std::move(line), question);
    } catch (const beast::system_error& error) {
        if (!is_malformed(error.code())) throw NoAnswer(error.code() == beast::error::timeout ? "it did not answer in time" : error.code().message());
        core::fail("its answer cannot be read: {}", error.code().message());
    }
}

HttpClient::Answer HttpClient::get(const std::string& target, Clock::time_point until, std::uint64_t largest) {
    Question question{{http::verb::get, target, 11}, until, largest};
    return ask(question);
}

HttpClient::Answer HttpClient::post(const std::string& target, const std::string& json, Clock::time_point until, std::uint64_t largest) {
    Question question{{http::verb::post, target, 11, json}, until, largest};
    question.message.set(http::field::content_type, "application/json");
    question.message.prepare_payload();
    return ask(question);
}

}  // namespace atelier::server
