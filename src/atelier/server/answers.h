#pragma once

#include <span>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "atelier/server/batcher.h"
#include "atelier/server/http.h"
#include "atelier/server/image_request.h"

namespace atelier::server {

/// {"error":{"message","type","param","code"}}, with Retry-After where the refusal says when.
Response error_response(const Refusal& refusal);

/// OpenAI's answer to an image request; each picture's "atelier" says what it is and from whom.
std::string images_body(const ImageRequest& request, const Plan& plan, const Description& model, std::span<const Picture> pictures);

Response json_response(const nlohmann::json& body);

/// Picture files as base64 need 4 bytes for 3.
std::string base64(std::span<const std::uint8_t> bytes);

/// `text` on one line of a log: what is not printable ASCII, and the backslash and the quote, as \xNN; at most 200 bytes of it.
std::string printable(std::string_view text);

}  // namespace atelier::server
