#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "atelier/server/image_request.h"

/// What a router and the servers behind it say to each other: POST draws_path with a DrawRequest as JSON, answered by a parcel of pictures.
namespace atelier::server {

inline constexpr std::string_view draws_path = "/v1/atelier/draws";
inline constexpr std::uint64_t largest_draws_body =
    1 << 20;  // bytes; a router asks for what would not fit in several requests

struct DrawRequest {
    std::string model;
    std::string partition;    // its hash; draws for another one are misdirected. Empty: any
    std::vector<Draw> draws;  // of classes or prompts of one student; at least one
};

std::string to_body(const DrawRequest& request);

/// Reads a body that asks for at most `most_pictures`. Throws Refusal with status 400, naming the field that is unknown, mistyped or out of range.
DrawRequest read_draw_request(std::string_view body, std::int64_t most_pictures);

/// Throws Refusal with status 400 when a class is unknown or another student's, 421 when partition or student are not those here. `hash`: of the
/// model's partition. `readings`: one of each draw's prompt, where the model reads prompts.
Plan plan_of(const DrawRequest& request, const Description& model, const std::string& hash, std::span<const Reading> readings = {});

/// Throws Refusal with status 400 when a draw has no prompt.
void check_before_reading(const DrawRequest& request);

/// A line of JSON (sides, channels, every picture's text, and the digest of `draws`, which they are
/// of), then the pixels of one picture after the other.
std::string parcel_of(std::span<const Picture> pictures, std::span<const Draw> draws);

/// Reads a parcel of pictures of `draws`, of `width` x `height`. Throws core::Error, beginning with
/// `where`, when it holds anything else.
std::vector<Picture> read_parcel(std::string_view parcel, std::span<const Draw> draws, int width,
                                 int height, const std::string& where);

/// Bytes that no parcel of so many pictures exceeds.
std::uint64_t largest_parcel(std::size_t count, int width, int height);

}  // namespace atelier::server
