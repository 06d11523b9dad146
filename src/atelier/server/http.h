#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// HTTP requests, responses and errors as the server's modules exchange them, without sockets.
namespace atelier::server {

using Clock = std::chrono::steady_clock;

inline double seconds(Clock::duration duration) {
    return std::chrono::duration<double>(duration).count();
}

struct Request {
    std::string id, method, target, body, peer;
    std::string host;  // of the Host header, in lower case, without port; empty: none
    std::map<std::string, std::string, std::less<>>
        headers;  // names in lower case; of duplicates, the first
    Clock::time_point arrived = Clock::now();

    /// The value of a header (`name` in lower case), or "".
    std::string_view header(std::string_view name) const {
        const auto found = headers.find(name);
        return found == headers.end() ? std::string_view() : std::string_view(found->second);
    }
    /// The target without its query.
    std::string_view path() const { return std::string_view(target).substr(0, target.find('?')); }
};

struct Response {
    unsigned status = 200;
    std::string content_type = "application/json", body;
    std::vector<std::pair<std::string, std::string>> headers;
    bool close = false;  // close the connection after this response
};

/// An error that is reported to the client as OpenAI's error object, with this status.
struct HttpError : std::runtime_error {
    HttpError(unsigned with_status, const std::string& message, std::string of_param = "",
              std::string with_code = "",
              std::vector<std::pair<std::string, std::string>> with_headers = {})
        : std::runtime_error(message),
          status(with_status),
          param(std::move(of_param)),
          code(std::move(with_code)),
          headers(std::move(with_headers)) {}

    unsigned status;
    std::string param, code;                                   // empty: null
    std::optional<int> retry_after;                            // seconds
    std::vector<std::pair<std::string, std::string>> headers;  // additional response headers
};

}  // namespace atelier::server
