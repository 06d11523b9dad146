#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "atelier/server/image_request.h"

/// The wire protocol between a router and its workers: POST draws_path with a DrawRequest as JSON,
/// answered by a frame of raw images.
namespace atelier::server {

inline constexpr std::string_view draws_path = "/v1/atelier/draws";
/// A router splits a request whose body would be larger.
inline constexpr std::uint64_t max_draws_body_bytes = 1 << 20;

struct DrawRequest {
    std::string model;
    std::string partition;    // its hash; a mismatch is rejected with 421. Empty: any
    std::vector<Draw> draws;  // classes or prompts of one student; at least one
};

std::string to_body(const DrawRequest& request);

/// Parses a body that asks for at most `max_images` images. Throws HttpError with status 400 naming
/// the field that is unknown, mistyped or out of range.
DrawRequest read_draw_request(std::string_view body, std::int64_t max_images);

/// Resolves the draws to their student. `hash`: of the model's partition. `encoded`: one entry per
/// draw if the model takes prompts. Throws HttpError with status 400 if a class is unknown or
/// belongs to another student, 421 if the partition differs or the student is not served here.
ResolvedRequest resolve(const DrawRequest& request, const Description& model,
                        const std::string& hash, std::span<const EncodedPrompt> encoded = {});

/// Throws HttpError with status 400 if a draw has no prompt.
void check_before_encoding(const DrawRequest& request);

/// Serialises images: one line of JSON (width, height, channels, the text of every image, and the
/// digest of their `draws`), then the uint8 pixels [H,W,C] of each image in order.
std::string to_frame(std::span<const GeneratedImage> images, std::span<const Draw> draws);

/// Parses a frame with one `width` x `height` image per element of `draws`. Throws core::Error,
/// prefixed with `where`, if the frame holds anything else.
std::vector<GeneratedImage> read_frame(std::string_view frame, std::span<const Draw> draws,
                                       int width, int height, const std::string& where);

/// An upper bound in bytes for a frame of `count` images.
std::uint64_t max_frame_bytes(std::size_t count, int width, int height);

}  // namespace atelier::server
