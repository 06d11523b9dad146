#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "atelier/server/http.h"
#include "atelier/server/image_request.h"
#include "atelier/server/model_registry.h"

namespace atelier::server {

/// A parsed request for images and its response format: a client's image request (encoded files) or
/// a router's draw request (raw pixels).
class ParsedRequest {
public:
    virtual ~ParsedRequest() = default;
    virtual const std::string& model() const = 0;
    /// Throws HttpError for everything that can be checked before prompts are encoded.
    virtual void check_before_encoding(const Description& model) const = 0;
    virtual std::vector<std::string> prompts() const = 0;
    /// Chooses the student and its draws. `encoded`: one entry per element of `prompts()`, empty if
    /// the model takes classes. Throws HttpError.
    virtual ResolvedRequest resolve(const LoadedModel& served,
                                    std::span<const EncodedPrompt> encoded) const = 0;
    /// A response with content type and body only; the caller adds the headers.
    virtual Response answer(const ResolvedRequest& resolved, const Description& model,
                            std::span<const GeneratedImage> images) const = 0;
};

/// Parses a request for at most `max_images` images. Throws HttpError with status 400 if its body
/// is invalid.
std::shared_ptr<const ParsedRequest> parse_request(const Request& request, std::int64_t max_images);

}  // namespace atelier::server
