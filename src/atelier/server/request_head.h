#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "atelier/server/http.h"

/// A strict check of a request's head before the HTTP parser sees it. A request whose end two
/// parsers could place differently (request smuggling, RFC 9112, section 11.2) is rejected and the
/// connection closed.
namespace atelier::server {

struct HeadProblem {
    unsigned status = 400;
    std::string message;
};

struct RequestHead {
    std::string method, target;  // the target in origin form, or "*"
    std::string host;            // of the Host header or an absolute target; in lower case, without
                                 // brackets and port
    bool http_1_0 = false;
    bool expects_continue = false;
    std::map<std::string, std::string, std::less<>>
        headers;  // names in lower case; of duplicates, the first
    std::optional<HeadProblem>
        problem;  // why it is rejected; the other members hold what could be parsed
};

/// Length in bytes of the empty lines at the start of `bytes`, which servers should skip (RFC 9112,
/// 2.2).
std::size_t leading_empty_lines(std::string_view bytes);

/// Whether no further bytes could make these a valid head: a line that does not end in CR LF, a
/// control character, or a first character that no method begins with.
bool is_invalid_head(std::string_view bytes);

/// Parses a head that ends with the empty line at the end of `head`, or an incomplete one.
RequestHead read_request_head(std::string_view head);

/// A request without its body; trailers of a chunked body are ignored. The client's X-Request-Id is
/// used if it is safe for headers and logs, else the id is random.
Request request_of(RequestHead&& head, const std::string& peer);

}  // namespace atelier::server
