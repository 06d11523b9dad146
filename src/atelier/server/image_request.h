#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "atelier/server/generator.h"

namespace atelier::server {

enum class PictureFormat { png, jpeg, webp };

/// The body of POST /v1/images/generations.
struct ImageRequest {
    std::string model, prompt;                     // empty: not given
    std::optional<std::int64_t> class_id, student;
    std::optional<std::uint64_t> seed;             // below 2^63
    std::optional<std::string> size;               // WxH
    std::int64_t n = 1;
    PictureFormat format = PictureFormat::png;
    int quality = 100;                             // of jpeg and webp, 0 to 100; webp at 100 loses nothing
};

/// Reads a body that asks for at most `most_pictures`. Throws Refusal with status 400, naming the field that is unknown, mistyped or out of range.
ImageRequest read_image_request(std::string_view body, std::int64_t most_pictures);

/// What a request asks of which student.
struct Plan {
    std::int64_t student = 0;
    std::uint64_t seed = 0;
    std::vector<Draw> draws;
    double margin = 0;   // of a prompt's Reading
    std::string unread;  // the same
};

/// Finds class and student: the class that `class` or `prompt` (a name, in any case, or an id) names, else classes of `student`'s own drawn from the
/// prior as the seed says. Without a seed takes `fresh_seed`. Throws Refusal with status 400 when they contradict each other or the model, 421 when the
/// student is not here.
Plan plan_of(const ImageRequest& request, const Description& model, std::uint64_t fresh_seed);

/// The same for a model that reads prompts; `reading` is of the request's.
Plan plan_of(const ImageRequest& request, const Description& model, std::uint64_t fresh_seed, const Reading& reading);

/// Throws Refusal with status 400 for what can be told before the prompt is read: it is missing, too long, or what else is asked is not for such a model.
void check_before_reading(const ImageRequest& request, const Description& model);

/// Throws Refusal with status 421 (Misdirected Request) that names `student`, whose `what` is ("class 3", or nothing), and those here, unless it is among them.
void check_here(const Description& model, std::int64_t student, const std::string& what, const std::string& field);

std::string_view name_of(PictureFormat format);

}  // namespace atelier::server
