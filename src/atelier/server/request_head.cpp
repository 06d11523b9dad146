#include "atelier/server/request_head.h"

#include <algorithm>
#include <random>
#include <vector>

#include <fmt/format.h>

#include "atelier/core/lower_case.h"
#include "atelier/server/addresses.h"

namespace atelier::server {

namespace {

constexpr std::size_t max_id_bytes = 64;

std::string random_id() {
    thread_local std::mt19937_64 engine{std::random_device{}()};
    return fmt::format("{:016x}", engine());
}

/// The client's id if it is safe for headers and logs, else a random one.
std::string id_of(std::string_view requested) {
    const auto harmless = [](char c) {
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
               c == '-' || c == '_' || c == '.';
    };
    if (requested.empty() || requested.size() > max_id_bytes ||
        !std::ranges::all_of(requested, harmless))
        return random_id();
    return std::string(requested);
}

constexpr std::string_view end_of_line = "\r\n";

bool is_token_letter(char c) {
    constexpr std::string_view marks = "!#$%&'*+-.^_`|~";
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           marks.find(c) != std::string_view::npos;
}

bool is_token(std::string_view text) {
    return !text.empty() && std::ranges::all_of(text, is_token_letter);
}

bool is_control(char c) { return (static_cast<unsigned char>(c) < ' ' && c != '\t') || c == 0x7f; }

std::string_view without_space_around(std::string_view text) {
    constexpr std::string_view spaces = " \t";
    const std::size_t first = text.find_first_not_of(spaces);
    return first == std::string_view::npos
               ? std::string_view()
               : text.substr(first, text.find_last_not_of(spaces) + 1 - first);
}

HeadProblem not_http(const std::string& why) { return {400, "invalid HTTP request: " + why}; }

/// Removes and returns the first line, up to CR LF, of `rest`.
std::string_view take_line(std::string_view& rest) {
    const std::size_t end = rest.find(end_of_line);
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + end_of_line.size());
    return line;
}

/// Parses METHOD SP TARGET SP HTTP/1.x with single spaces.
std::optional<HeadProblem> read_request_line(std::string_view line, RequestHead& head) {
    const std::size_t first = line.find(' '), last = line.rfind(' ');
    head.method = std::string(line.substr(0, first));
    if (first == std::string_view::npos)
        return not_http("its first line is not METHOD TARGET HTTP/1.1");
    head.target = std::string(
        line.substr(first + 1, last > first ? last - first - 1 : std::string_view::npos));
    const std::string_view version = last > first ? line.substr(last + 1) : std::string_view();
    if (!is_token(head.method) || head.target.empty() ||
        std::ranges::any_of(head.target, [](char c) { return c == ' ' || c == '\t'; })) {
        return not_http("its first line is not METHOD TARGET HTTP/1.1");
    }
    head.http_1_0 = version == "HTTP/1.0";
    if (head.http_1_0 || version == "HTTP/1.1") return std::nullopt;
    return not_http("only versions 1.0 and 1.1 are supported");
}

using Fields = std::vector<std::pair<std::string, std::string_view>>;  // names in lower case

std::optional<HeadProblem> read_fields(std::string_view rest, Fields& fields) {
    while (!rest.empty()) {
        const std::string_view line = take_line(rest);
        if (line.empty()) break;
        if (line.front() == ' ' || line.front() == '\t')
            return not_http("a header is folded over two lines");
        const std::size_t colon = line.find(':');
        const std::string_view name = line.substr(0, colon);
        if (colon == std::string_view::npos || !is_token(name))
            return not_http("a header is not \"Name: value\" without a space before the colon");
        fields.emplace_back(core::lower_case(name), without_space_around(line.substr(colon + 1)));
    }
    return std::nullopt;
}

std::vector<std::string_view> values_of(const Fields& fields, std::string_view name) {
    std::vector<std::string_view> values;
    for (const auto& [one, value] : fields) {
        if (one == name) values.push_back(value);
    }
    return values;
}

/// The length of the body must be given once and unambiguously.
std::optional<HeadProblem> check_framing(const Fields& fields, bool http_1_0) {
    const auto codings = values_of(fields, "transfer-encoding"),
               lengths = values_of(fields, "content-length");
    if (!codings.empty()) {
        if (http_1_0) return not_http("HTTP/1.0 has no Transfer-Encoding");
        if (!lengths.empty()) return not_http("it has both Transfer-Encoding and Content-Length");
        if (codings.size() > 1 || codings.front().empty())
            return not_http("Transfer-Encoding must occur once and be chunked");
        if (core::lower_case(codings.front()) != "chunked")
            return HeadProblem{501, "chunked is the only supported transfer coding"};
    }
    if (lengths.size() > 1) return not_http("Content-Length occurs more than once");
    const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
    if (!lengths.empty() &&
        (lengths.front().empty() || !std::ranges::all_of(lengths.front(), is_digit)))
        return not_http("Content-Length is not a number of bytes");
    return std::nullopt;
}

std::optional<HeadProblem> check_host(const Fields& fields, RequestHead& head) {
    const auto hosts = values_of(fields, "host");
    if (hosts.size() > 1) return not_http("Host occurs more than once");
    if (hosts.empty() && !head.http_1_0) return not_http("the header Host is missing");
    const auto host = hosts.empty() ? HostAndPort{} : host_and_port(hosts.front());
    if (!host) return not_http("Host is not HOST or HOST:PORT");
    head.host = host->host;
    return std::nullopt;
}

/// http://HOST/PATH becomes /PATH; its host overrides the header's (RFC 9112, 3.2.2).
std::optional<HeadProblem> read_target(RequestHead& head) {
    if (head.target.starts_with('/') || head.target == "*" || head.method == "CONNECT")
        return std::nullopt;
    const std::string scheme = core::lower_case(std::string_view(head.target).substr(0, 8));
    const std::size_t skipped = scheme.starts_with("http://") ? 7 : scheme == "https://" ? 8 : 0;
    if (skipped == 0) return not_http("its target begins with neither / nor http://");
    const std::size_t end = std::min(head.target.find_first_of("/?#", skipped), head.target.size());
    const auto host = host_and_port(std::string_view(head.target).substr(skipped, end - skipped));
    if (!host || host->host.empty()) return not_http("its target names no host");
    head.host = host->host;
    head.target = head.target.substr(end);
    if (!head.target.starts_with('/')) head.target.insert(0, "/");
    return std::nullopt;
}

std::optional<HeadProblem> read_head(std::string_view bytes, RequestHead& head) {
    if (const auto problem = read_request_line(take_line(bytes), head)) return problem;
    Fields fields;
    auto problem = read_fields(bytes, fields);
    for (const auto& [name, value] : fields) head.headers.emplace(name, std::string(value));
    if (problem) return problem;
    if (const auto wrong = check_framing(fields, head.http_1_0)) return wrong;
    if (const auto wrong = check_host(fields, head)) return wrong;
    head.expects_continue = !head.http_1_0 && head.headers.contains("expect") &&
                            core::lower_case(head.headers.find("expect")->second) == "100-continue";
    return read_target(head);
}

}  // namespace

std::size_t leading_empty_lines(std::string_view bytes) {
    std::size_t count = 0;
    while (bytes.substr(count).starts_with(end_of_line)) count += end_of_line.size();
    return count;
}

bool is_invalid_head(std::string_view bytes) {
    if (!bytes.empty() && bytes.front() != '\r' && !is_token_letter(bytes.front())) return true;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        if (bytes[i] == '\r' && (i + 1 == bytes.size() || bytes[i + 1] == '\n')) ++i;
        else if (is_control(bytes[i])) return true;
    }
    return false;
}

RequestHead read_request_head(std::string_view bytes) {
    RequestHead head;
    head.problem = is_invalid_head(bytes)
                       ? std::optional(not_http(
                             "a line does not end in CR LF or contains a control character"))
                       : std::nullopt;
    const auto problem = read_head(bytes, head);
    if (!head.problem) head.problem = problem;
    return head;
}

Request request_of(RequestHead&& head, const std::string& peer) {
    Request request;
    request.method = std::move(head.method);
    request.target = std::move(head.target);
    request.host = std::move(head.host);
    request.peer = peer;
    request.headers = std::move(head.headers);
    request.id = id_of(request.header("x-request-id"));
    return request;
}

}  // namespace atelier::server
