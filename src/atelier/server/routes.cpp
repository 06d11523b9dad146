#include "atelier/server/routes.h"

#include <algorithm>

#include <fmt/format.h>

#include "atelier/core/lower_case.h"
#include "atelier/server/worker_protocol.h"

namespace atelier::server {

namespace {

bool is_health(std::string_view path) {
    return path == "/health" || path == "/health/live" || path == "/health/ready";
}

int hexadecimal(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/// Decodes %XX in a path; malformed sequences are kept.
std::string percent_decoded(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const int high = text[i] == '%' && i + 2 < text.size() ? hexadecimal(text[i + 1]) : -1,
                  low = high >= 0 ? hexadecimal(text[i + 2]) : -1;
        if (low < 0) out += text[i];
        else out += static_cast<char>(16 * high + low), i += 2;
    }
    return out;
}

std::string_view without_spaces_before(std::string_view text) {
    return text.substr(std::min(text.find_first_not_of(' '), text.size()));
}

/// Whether If-None-Match matches: it lists the tag, weak or strong, or is "*".
bool names_tag(std::string_view header, const std::string& tag) {
    return header == "*" || header.find(tag) != std::string_view::npos;
}

}  // namespace

const PageFile* page_file(std::string_view path) {
    const auto files = page_files();
    const auto found = std::ranges::find(files, path, &PageFile::path);
    return found == files.end() ? nullptr : &*found;
}

bool is_public(std::string_view path) { return is_health(path) || page_file(path) != nullptr; }

std::string model_of(std::string_view path) {
    if (!path.starts_with(models_path) || path.size() < models_path.size() + 2 ||
        path[models_path.size()] != '/')
        return "";
    return percent_decoded(path.substr(models_path.size() + 1));
}

std::string_view methods_of(std::string_view path) {
    if (path == images_path || path == draws_path) return "POST, OPTIONS";
    if (is_public(path) || path == models_path || path == metrics_path || !model_of(path).empty())
        return "GET, HEAD, OPTIONS";
    if (path == "*") return "OPTIONS";
    return "";
}

std::string route_of(std::string_view path) {
    if (!model_of(path).empty()) return "/v1/models/{id}";
    return methods_of(path).empty() ? "other" : std::string(path);
}

std::string_view key_of(const Request& request) {
    constexpr std::string_view scheme = "bearer ";
    const std::string_view authorization = request.header("authorization");
    if (core::lower_case(authorization.substr(0, scheme.size())) == scheme)
        return without_spaces_before(authorization.substr(scheme.size()));
    return request.header("x-api-key");
}

Response page_response(const PageFile& file, const Request& request) {
    const std::string tag = fmt::format("\"{}\"", file.hash);
    Response response{.content_type = std::string(file.content_type)};
    response.headers = {{"ETag", tag},
                        {"Cache-Control", "no-cache"},
                        {"Content-Security-Policy",
                         "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; "
                         "base-uri 'none'; form-action 'none'"},
                        {"Referrer-Policy", "no-referrer"}};
    if (names_tag(request.header("if-none-match"), tag)) response.status = 304;
    else response.body = file.bytes;
    return response;
}

void check_method(const Request& request) {
    const std::string_view methods = methods_of(request.path());
    if (methods.empty())
        throw HttpError(404,
                        "there is nothing at this path; look at /, /v1/models, "
                        "/v1/images/generations, /health and /metrics",
                        "", "not_found");
    const bool read = request.method == "GET" || request.method == "HEAD";
    if (request.method == "OPTIONS" || (read && methods.starts_with("GET")) ||
        (request.method == "POST" && methods.starts_with("POST")))
        return;
    throw HttpError(405, fmt::format("this path answers to {}", methods), "", "method_not_allowed",
                    {{"Allow", std::string(methods)}});
}

void check_content_type(const Request& request) {
    const std::string_view type =
        request.header("content-type").substr(0, request.header("content-type").find(';'));
    // Media types are case-insensitive and may have parameters.
    if (core::lower_case(type.substr(0, type.find_last_not_of(" \t") + 1)) == "application/json")
        return;
    throw HttpError(415, "the body must be JSON, with the header Content-Type: application/json",
                    "", "unsupported_media_type");
}

}  // namespace atelier::server
