#pragma once

#include <string>
#include <string_view>

#include "atelier/server/http.h"
#include "atelier/server/page.h"

/// Which paths there are, what each answers to, and what a request's head must say there.
namespace atelier::server {

constexpr std::string_view images_path = "/v1/images/generations";
constexpr std::string_view models_path = "/v1/models";
constexpr std::string_view metrics_path = "/metrics";

/// The page's file at `path`; null where there is none.
const PageFile* page_file(std::string_view path);

/// Whether a path is answered without a key: health, and the page.
bool is_public(std::string_view path);

/// The model that a path of one names; empty where it names none.
std::string model_of(std::string_view path);

/// The methods that a path answers to; empty when there is no such path.
std::string_view methods_of(std::string_view path);

/// The path as a metric's label. Few words, whatever clients send.
std::string route_of(std::string_view path);

/// "Bearer KEY", the scheme in any case (RFC 9110, 11.1), or X-Api-Key.
std::string_view key_of(const Request& request);

/// A file of the page, or 304 where the client has it.
Response page_answer(const PageFile& file, const Request& request);

/// Throws Refusal 404 or 405 for what `methods_of` does not name.
void check_method(const Request& request);

/// Throws Refusal 415 unless the body is JSON. A browser asks before it sends this type to another
/// origin, so a foreign page cannot set us to work.
void check_content_type(const Request& request);

}  // namespace atelier::server
