#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "atelier/server/generator.h"

namespace atelier::server {

enum class ImageFormat { png, jpeg, webp };

/// The body of POST /v1/images/generations.
struct ImageRequest {
    std::string model, prompt;  // empty if missing
    std::optional<std::int64_t> class_id, student;
    std::optional<std::uint64_t> seed;  // below 2^63
    std::optional<std::string> size;    // WxH
    std::int64_t n = 1;
    ImageFormat format = ImageFormat::png;
    int quality = 100;  // of jpeg and webp, 0 to 100; webp at 100 is lossless
};

/// Parses a body that asks for at most `max_images` images. Throws HttpError with status 400 naming
/// the field that is unknown, mistyped or out of range.
ImageRequest read_image_request(std::string_view body, std::int64_t max_images);

/// A request routed to its student, with one draw per image.
struct ResolvedRequest {
    std::int64_t student = 0;
    std::uint64_t seed = 0;
    std::vector<Draw> draws;
    double margin = 0;      // as in EncodedPrompt
    std::string truncated;  // as in EncodedPrompt
};

/// Resolves class and student: the class given by `class` or `prompt` (a case-insensitive name, or
/// an id), else classes of `student` drawn from the prior with the seed. Uses `random_seed` if the
/// request has no seed. Throws HttpError with status 400 if the fields contradict each other or the
/// model, 421 if the student is not served here.
ResolvedRequest resolve(const ImageRequest& request, const Description& model,
                        std::uint64_t random_seed);

/// The same for a model that takes prompts; `encoded`: the request's prompt.
ResolvedRequest resolve(const ImageRequest& request, const Description& model,
                        std::uint64_t random_seed, const EncodedPrompt& encoded);

/// Throws HttpError with status 400 for everything that can be checked before the prompt is
/// encoded: a missing prompt, a wrong size, a class, or an unknown student.
void check_before_encoding(const ImageRequest& request, const Description& model);

/// Throws HttpError with status 421 (Misdirected Request) unless `student` is served here. The
/// message names `what` ("class 3", or "" for the student itself), its student and those served.
void check_served_here(const Description& model, std::int64_t student, const std::string& what,
                       const std::string& field);

std::string_view name_of(ImageFormat format);

}  // namespace atelier::server
