#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// HTTP as the rest of the room sees it, without sockets.
namespace atelier::server {

using Clock = std::chrono::steady_clock;

inline double seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

struct Request {
    std::string id, method, target, body, peer;
    std::string host;  // that is asked, in lower case, without port; empty: none
    std::map<std::string, std::string, std::less<>> headers;  // names in lower case; of several equal ones, the first
    Clock::time_point arrived = Clock::now();

    /// The value of a header, or "".
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
    bool close = false;  // the connection, after this
};

/// A request that is not fulfilled, and why; becomes an error in OpenAI's shape.
struct Refusal : std::runtime_error {
    Refusal(unsigned with_status, const std::string& message, std::string of_param = "", std::string with_code = "")
        : std::runtime_error(message), status(with_status), param(std::move(of_param)), code(std::move(with_code)) {}

    unsigned status;
    std::string param, code;                                    // empty: null
    std::optional<int> retry_after;                             // seconds
    std::vector<std::pair<std::string, std::string>> headers;  // more of them
};

}  // namespace atelier::server
