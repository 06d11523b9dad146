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

/// Fields of OpenAI's API whose values here change nothing, which clients send unasked. Any other
/// value would ask for another picture than is drawn.
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
        const auto word = given.text(field, longest_word);
        if (!word || std::ranges::find(values, *word) != values.end()) continue;
        refuse_field(field, fmt::format("\"{0}\" can only be {1} here; leave it out", field,
                                        fmt::join(values, " or ")));
    }
    if (given.flag("stream").value_or(false))
        refuse_field("stream", "pictures are answered whole; \"stream\" can only be false");
    if (given.integer("partial_images", 0, largest_integer).value_or(0) > 0) {
        refuse_field("partial_images",
                     "pictures are answered whole; \"partial_images\" can only be 0");
    }
}

PictureFormat format_of(const std::string& name) {
    for (const PictureFormat format : {PictureFormat::png, PictureFormat::jpeg, PictureFormat::webp}) {
        if (name == name_of(format)) return format;
    }
    refuse_field("output_format", fmt::format("there is no output_format \"{}\"; known are png, jpeg and webp", name));
}

std::int64_t class_named(const std::string& prompt, const Description& model) {
    try {
        return conditions::class_named(prompt, model.class_names, model.partition.classes());
    } catch (const core::UsageError& error) {
        refuse_field("prompt", error.what(), "unknown_class");
    }
}

std::optional<std::int64_t> class_of(const ImageRequest& request, const Description& model) {
    if (request.class_id && *request.class_id >= model.partition.classes()) {
        refuse_field("class", fmt::format("class {} is out of range; this model knows 0 to {}", *request.class_id, model.partition.classes() - 1), "unknown_class");
    }
    if (request.prompt.empty()) return request.class_id;
    const std::int64_t named = class_named(request.prompt, model);
    if (request.class_id && *request.class_id != named) {
        refuse_field("class", fmt::format("\"class\" is {} and \"prompt\" names class {}; give one of them", *request.class_id, named));
    }
    return named;
}

void check_student_exists(const ImageRequest& request, const Description& model) {
    const std::int64_t students = model.partition.students;
    if (!request.student || *request.student < students) return;
    refuse_field("student", fmt::format("student {} is out of range; this model has 0 to {}", *request.student, students - 1), "unknown_student");
}

std::int64_t student_of(const ImageRequest& request, const Description& model, const std::optional<std::int64_t>& class_id) {
    check_student_exists(request, model);
    if (!class_id) return *request.student;
    const std::int64_t owner = model.partition.owner[static_cast<std::size_t>(*class_id)];
    if (request.student && *request.student != owner) {
        refuse_field("student", fmt::format("class {} is student {}'s, not student {}'s; leave \"student\" out", *class_id, owner, *request.student));
    }
    return owner;
}

void check_size(const ImageRequest& request, const Description& model) {
    const std::string own = fmt::format("{}x{}", model.width, model.height);
    if (!request.size || *request.size == "auto" || *request.size == own) return;
    refuse_field("size", fmt::format("this model draws {} only; leave \"size\" out, or \"auto\"", own));
}

}  // namespace

std::string_view name_of(PictureFormat format) {
    switch (format) {
        case PictureFormat::png: return "png";
        case PictureFormat::jpeg: return "jpeg";
        case PictureFormat::webp: return "webp";
    }
    return "";
}

ImageRequest read_image_request(std::string_view body, std::int64_t most_pictures) {
    const json read = json_of_body(body);
    const RequestFields given(read, fields);
    ImageRequest request;
    request.model = given.text("model", longest_name).value_or("");
    request.prompt = given.text("prompt", longest_prompt).value_or("");
    request.class_id = given.integer("class", 0, largest_integer);
    request.student = given.integer("student", 0, largest_integer);
    request.seed = given.integer("seed", 0, largest_integer);
    request.size = given.text("size", longest_word);
    request.n = given.integer("n", 1, most_pictures).value_or(1);
    request.format = format_of(given.text("output_format", longest_word).value_or("png"));
    request.quality = static_cast<int>(given.integer("output_compression", 0, 100).value_or(100));
    if (given.text("response_format", longest_word).value_or("b64_json") != "b64_json") {
        refuse_field("response_format", "pictures are answered in the response: \"response_format\" can only be b64_json");
    }
    given.text("user", any_length);
    check_neutral_fields(given);
    if (request.prompt.empty() && !request.class_id && !request.student) {
        refuse_field("prompt", "\"prompt\" is missing; give a class's name or id, or \"class\", or \"student\"", "missing_required_parameter");
    }
    return request;
}

void check_here(const Description& model, std::int64_t student, const std::string& what, const std::string& field) {
    if (std::ranges::binary_search(model.here, student)) return;
    const std::string whose = what.empty() ? fmt::format("student {} is", student) : fmt::format("{} is student {}'s, which is", what, student);
    throw Refusal(421, fmt::format("{} not served here; students here: {}", whose, fmt::join(model.here, ", ")), field, "misdirected_request");
}

void check_before_reading(const ImageRequest& request, const Description& model) {
    check_size(request, model);
    if (request.class_id) refuse_field("class", "this model reads prompts and knows no classes; leave \"class\" out");
    if (request.prompt.empty()) refuse_field("prompt", "\"prompt\" is missing; say in words what to draw", "missing_required_parameter");
    check_student_exists(request, model);
}

Plan plan_of(const ImageRequest& request, const Description& model, std::uint64_t fresh_seed, const Reading& reading) {
    if (request.student && *request.student != reading.student) {
        refuse_field("student", fmt::format("this prompt is student {}'s, not student {}'s; leave \"student\" out", reading.student, *request.student));
    }
    check_here(model, reading.student, "this prompt", "prompt");
    Plan plan{
        reading.student, request.seed.value_or(fresh_seed), {}, reading.margin, reading.unread};
    for (std::int64_t i = 0; i < request.n; ++i) plan.draws.push_back({.seed = plan.seed, .number = i, .prompt = request.prompt, .told = reading.told});
    return plan;
}

Plan plan_of(const ImageRequest& request, const Description& model, std::uint64_t fresh_seed) {
    check_size(request, model);
    const auto class_id = class_of(request, model);
    Plan plan{student_of(request, model, class_id), request.seed.value_or(fresh_seed), {}, 0, ""};
    check_here(model, plan.student, class_id ? fmt::format("class {}", *class_id) : "", class_id ? "class" : "student");
    conditions::Prior own;
    if (!class_id) own = conditions::restricted(model.prior, model.partition.cell(plan.student));
    for (std::int64_t i = 0; i < request.n; ++i) {
        plan.draws.push_back({.seed = plan.seed, .number = i, .class_id = class_id ? *class_id : conditions::draw_class(own, plan.seed, static_cast<std::uint64_t>(i))});
    }
    return plan;
}

}  // namespace atelier::server
