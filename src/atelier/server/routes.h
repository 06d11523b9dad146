#pragma once

#include <string>
#include <string_view>

#include "atelier/server/http.h"
#include "atelier/server/page.h"

/// The paths of the server, their methods, and the headers they require.
namespace atelier::server {

constexpr std::string_view images_path = "/v1/images/generations";
constexpr std::string_view models_path = "/v1/models";
constexpr std::string_view metrics_path = "/metrics";

/// The page's file at `path`, or null.
const PageFile* page_file(std::string_view path);

/// Whether a path needs no API key: health and the page.
bool is_public(std::string_view path);

/// The model id in /v1/models/ID, or empty.
std::string model_of(std::string_view path);

/// The methods of a path as in an Allow header; empty if there is no such path.
std::string_view methods_of(std::string_view path);

/// The path as a metric label, of bounded cardinality whatever clients send.
std::string route_of(std::string_view path);

/// The API key: of Authorization: Bearer KEY, the scheme in any case (RFC 9110, 11.1), else of
/// X-Api-Key.
std::string_view key_of(const Request& request);

/// A file of the page, or 304 if the client has it.
Response page_response(const PageFile& file, const Request& request);

/// Throws HttpError 404 or 405 for a path or method that `methods_of` does not list.
void check_method(const Request& request);

/// Throws HttpError 415 unless the content type is JSON. Browsers send a CORS preflight before this
/// type, so pages of other origins cannot trigger image generation.
void check_content_type(const Request& request);

}  // namespace atelier::server
