#pragma once

#include <span>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "atelier/server/batcher.h"
#include "atelier/server/http.h"
#include "atelier/server/image_request.h"

namespace atelier::server {

/// {"error":{"message","type","param","code"}}, with a Retry-After header if the error has one.
Response error_response(const HttpError& error);

/// The JSON body of OpenAI's images response; each image has an "atelier" object with its seed,
/// number, student, and class or prompt.
std::string images_body(const ImageRequest& request, const ResolvedRequest& resolved,
                        const Description& model, std::span<const GeneratedImage> images);

Response json_response(const nlohmann::json& body);

/// Standard base64 with padding, without line breaks.
std::string base64(std::span<const std::uint8_t> bytes);

/// The first 200 bytes of `text`, safe for one log line: bytes that are not printable ASCII, the
/// backslash and the quote are written as \xNN.
std::string printable(std::string_view text);

}  // namespace atelier::server
