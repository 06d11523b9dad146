#include "atelier/server/image_request.h"

#include <algorithm>

#include <fmt/ranges.h>

#include "atelier/conditions/class_names.h"
#include "atelier/core/error.h"
#include "atelier/core/schema.h"
#include "atelier/server/http.h"
#include "atelier/server/request_fields.h"

namespace atelier::server {

namespace {

using nlohmann::json;

const std::vector<std::string> fields{"prompt",
                                      "model",
                                      "n",
                                      "size",
                                      "seed",
                                      "class",
                                      "student",
                                      "response_format",
                                      "output_format",
                                      "output_compression",
                                      "user",
                                      "quality",
                                      "style",
                                      "background",
                                      "moderation",
                                      "input_fidelity",
                                      "stream",
                                      "partial_images"};

/// Fields of OpenAI's API that clients send by default, with the values that have no effect here.
/// Other values are rejected, since they would ask for a different image.
struct Neutral {
    const char* field;
    std::vector<std::string> values;
};
const std::vector<Neutral> neutral_fields{{"quality", {"auto", "standard"}},
                                          {"style", {"vivid"}},
                                          {"background", {"auto", "opaque"}},
                                          {"moderation", {"auto", "low"}},
                                          {"input_fidelity", {"low"}}};

void check_neutral_fields(const RequestFields& given) {
    for (const auto& [field, values] : neutral_fields) {
        const auto word = given.text(field, max_word_bytes);
        if (!word || std::ranges::find(values, *word) != values.end()) continue;
        reject_field(field, fmt::format("\"{0}\" can only be {1} here; leave it out", field,
                                        fmt::join(values, " or ")));
    }
    if (given.flag("stream").value_or(false))
        reject_field("stream", "images are returned whole; \"stream\" can only be false");
    if (given.integer("partial_images", 0, max_integer).value_or(0) > 0) {
        reject_field("partial_images",
                     "images are returned whole; \"partial_images\" can only be 0");
    }
}

ImageFormat format_of(const std::string& name) {
    for (const ImageFormat format : {ImageFormat::png, ImageFormat::jpeg, ImageFormat::webp}) {
        if (name == name_of(format)) return format;
    }
    reject_field("output_format",
                 fmt::format("unknown output_format \"{}\"; use png, jpeg or webp", name));
}

std::int64_t parse_class(const std::string& prompt, const Description& model) {
    try {
        return conditions::parse_class(prompt, model.class_names, model.partition.classes());
    } catch (const core::UsageError& error) {
        reject_field("prompt", error.what(), "unknown_class");
    }
}

std::optional<std::int64_t> class_of(const ImageRequest& request, const Description& model) {
    if (request.class_id && *request.class_id >= model.partition.classes()) {
        reject_field("class",
                     fmt::format("class {} is out of range; this model knows 0 to {}",
                                 *request.class_id, model.partition.classes() - 1),
                     "unknown_class");
    }
    if (request.prompt.empty()) return request.class_id;
    const std::int64_t named = parse_class(request.prompt, model);
    if (request.class_id && *request.class_id != named) {
        reject_field("class",
                     fmt::format("\"class\" is {} and \"prompt\" names class {}; give one of them",
                                 *request.class_id, named));
    }
    return named;
}

void check_student_exists(const ImageRequest& request, const Description& model) {
    const std::int64_t students = model.partition.students;
    if (!request.student || *request.student < students) return;
    reject_field("student",
                 fmt::format("student {} is out of range; this model has 0 to {}", *request.student,
                             students - 1),
                 "unknown_student");
}

std::int64_t student_of(const ImageRequest& request, const Description& model,
                        const std::optional<std::int64_t>& class_id) {
    check_student_exists(request, model);
    if (!class_id) return *request.student;
    const std::int64_t owner = model.partition.owner[static_cast<std::size_t>(*class_id)];
    if (request.student && *request.student != owner) {
        reject_field(
            "student",
            fmt::format("class {} is student {}'s, not student {}'s; leave \"student\" out",
                        *class_id, owner, *request.student));
    }
    return owner;
}

void check_size(const ImageRequest& request, const Description& model) {
    const std::string own = fmt::format("{}x{}", model.width, model.height);
    if (!request.size || *request.size == "auto" || *request.size == own) return;
    reject_field("size",
                 fmt::format("this model draws {} only; leave \"size\" out, or \"auto\"", own));
}

}  // namespace

std::string_view name_of(ImageFormat format) {
    switch (format) {
        case ImageFormat::png:
            return "png";
        case ImageFormat::jpeg:
            return "jpeg";
        case ImageFormat::webp:
            return "webp";
    }
    return "";
}

ImageRequest read_image_request(std::string_view body, std::int64_t max_images) {
    const json read = json_of_body(body);
    const RequestFields given(read, fields);
    ImageRequest request;
    request.model = given.text("model", max_name_bytes).value_or("");
    request.prompt = given.text("prompt", max_prompt_bytes).value_or("");
    request.class_id = given.integer("class", 0, max_integer);
    request.student = given.integer("student", 0, max_integer);
    request.seed = given.integer("seed", 0, max_integer);
    request.size = given.text("size", max_word_bytes);
    request.n = given.integer("n", 1, max_images).value_or(1);
    request.format = format_of(given.text("output_format", max_word_bytes).value_or("png"));
    request.quality = static_cast<int>(given.integer("output_compression", 0, 100).value_or(100));
    if (given.text("response_format", max_word_bytes).value_or("b64_json") != "b64_json") {
        reject_field(
            "response_format",
            "images are returned in the response: \"response_format\" can only be b64_json");
    }
    given.text("user", unlimited);
    check_neutral_fields(given);
    if (request.prompt.empty() && !request.class_id && !request.student) {
        reject_field(
            "prompt",
            "\"prompt\" is missing; give a class's name or id, or \"class\", or \"student\"",
            "missing_required_parameter");
    }
    return request;
}

void check_served_here(const Description& model, std::int64_t student, const std::string& what,
                       const std::string& field) {
    if (std::ranges::binary_search(model.served_students, student)) return;
    const std::string whose = what.empty()
                                  ? fmt::format("student {} is", student)
                                  : fmt::format("{} is student {}'s, which is", what, student);
    throw HttpError(421,
                    fmt::format("{} not served here; students here: {}", whose,
                                fmt::join(model.served_students, ", ")),
                    field, "misdirected_request");
}

void check_before_encoding(const ImageRequest& request, const Description& model) {
    check_size(request, model);
    if (request.class_id)
        reject_field("class", "this model takes prompts, not classes; leave \"class\" out");
    if (request.prompt.empty())
        reject_field("prompt", "\"prompt\" is missing; describe the image",
                     "missing_required_parameter");
    check_student_exists(request, model);
}

ResolvedRequest resolve(const ImageRequest& request, const Description& model,
                        std::uint64_t random_seed, const EncodedPrompt& encoded) {
    if (request.student && *request.student != encoded.student) {
        reject_field(
            "student",
            fmt::format("this prompt is student {}'s, not student {}'s; leave \"student\" out",
                        encoded.student, *request.student));
    }
    check_served_here(model, encoded.student, "this prompt", "prompt");
    ResolvedRequest resolved{
        encoded.student, request.seed.value_or(random_seed), {}, encoded.margin, encoded.truncated};
    for (std::int64_t i = 0; i < request.n; ++i)
        resolved.draws.push_back({.seed = resolved.seed,
                                  .number = i,
                                  .prompt = request.prompt,
                                  .conditioning = encoded.conditioning});
    return resolved;
}

ResolvedRequest resolve(const ImageRequest& request, const Description& model,
                        std::uint64_t random_seed) {
    check_size(request, model);
    const auto class_id = class_of(request, model);
    ResolvedRequest resolved{
        student_of(request, model, class_id), request.seed.value_or(random_seed), {}, 0, ""};
    check_served_here(model, resolved.student, class_id ? fmt::format("class {}", *class_id) : "",
                      class_id ? "class" : "student");
    conditions::Prior own;
    if (!class_id)
        own = conditions::restricted(model.prior, model.partition.cell(resolved.student));
    for (std::int64_t i = 0; i < request.n; ++i) {
        resolved.draws.push_back(
            {.seed = resolved.seed,
             .number = i,
             .class_id = class_id ? *class_id
                                  : conditions::draw_class(own, resolved.seed,
                                                           static_cast<std::uint64_t>(i))});
    }
    return resolved;
}

}  // namespace atelier::server
