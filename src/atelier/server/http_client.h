#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "atelier/core/error.h"
#include "atelier/server/http.h"

namespace atelier::server {

/// Where a server is.
struct Address {
    std::string host, port;
};

/// Of http://HOST[:PORT][/]; an IPv6 address in brackets. Throws core::UsageError that says what is wrong with it.
Address address_of(const std::string& url);

/// Asks one server over connections that it keeps for the next question. Any thread.
class HttpClient {
public:
    struct Answer {
        unsigned status = 0;
        std::string body;
    };

    /// The server could not be reached, or was silent.
    struct NoAnswer : core::Error {
        using core::Error::Error;
    };

    /// `key`: shown as Authorization: Bearer; "": none.
    HttpClient(Address address, std::string key);
    ~HttpClient();
    HttpClient(const HttpClient&) = delete;
    HttpClient& operator=(const HttpClient&) = delete;

    /// Both throw NoAnswer when there is none until `until`, core::Error when it is malformed or its body exceeds `largest` bytes. What is asked may be asked twice: a kept
    /// connection that the server has closed meanwhile is replaced by a fresh one.
    Answer get(const std::string& target, Clock::time_point until, std::uint64_t largest);
    Answer post(const std::string& target, const std::string& json, Clock::time_point until, std::uint64_t largest);

private:
    struct Question;
    struct Line;

    Answer ask(Question& question);
    Answer ask_over(std::unique_ptr<Line> line, const Question& question);
    std::unique_ptr<Line> kept_line();

    const Address address_;
    const std::string key_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<Line>> kept_;
};

}  // namespace atelier::server
