#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "atelier/server/http.h"

/// Our own reading of a request's head, before any parser is believed. Where two readers of one
/// connection could disagree on where a request ends (RFC 9112, section 11.2), the request is
/// refused and the connection closed.
namespace atelier::server {

struct HeadProblem {
    unsigned status = 400;
    std::string message;
};

struct RequestHead {
    std::string method, target;  // the target in origin form, or "*"
    std::string host;  // of the Host header, or of an absolute target; in lower case, without
                       // brackets and port
    bool http_1_0 = false;
    bool expects_continue = false;
    std::map<std::string, std::string, std::less<>>
        headers;  // names in lower case; of several equal ones, the first
    std::optional<HeadProblem>
        problem;  // why it is not answered; what could be read of it is above
};

/// Bytes of empty lines that `bytes` begins with, which RFC 9112 (2.2) asks servers to pass over.
std::size_t leading_empty_lines(std::string_view bytes);

/// Whether no more bytes could make a head of these: a line ends otherwise than in CR LF, a control
/// character, or a first letter of no method.
bool is_hopeless(std::string_view bytes);

/// Reads a head, whose end (an empty line) is the end of `head`, or the part of one that came.
RequestHead read_request_head(std::string_view head);

/// All of a request but the body. A chunked body's trailers are no headers of ours. The client's
/// own X-Request-Id is taken where it is fit for headers and logs.
Request request_of(RequestHead&& head, const std::string& peer);

}  // namespace atelier::server
