#include "atelier/server/image_request.h"

#include <algorithm>
#include <limits>

#include "atelier/conditions/class_names.h"
#include "atelier/core/error.h"
#include "atelier/core/json_file.h"
#include "atelier/core/schema.h"
#include "atelier/server/http.h"

namespace atelier::server {

namespace {

using nlohmann::json;

constexpr std::int64_t largest = std::numeric_limits<std::int64_t>::max();
constexpr std::size_t longest_name = 200;

const std::vector<std::string> fields{"prompt", "model", "n", "size", "seed", "class", "student", "response_format", "output_format", "output_compression", "user"};

[[noreturn]] void refuse(const std::string& field, const std::string& message, const std::string& code = "invalid_value") {
    throw Refusal(400, message, field, code);
}

json parsed(std::string_view body) {
    try {
        return core::parse_json(body, "the request's body");
    } catch (const core::Error& error) {
        throw Refusal(400, error.what(), "", "invalid_json");
    }
}

/// Clients write null for what they leave out.
bool given(const json& body, const std::string& field) { return body.contains(field) && !body.at(field).is_null(); }

std::optional<std::int64_t> integer(const json& body, const std::string& field, std::int64_t least, std::int64_t most) {
    if (!given(body, field)) return std::nullopt;
    const json& value = body.at(field);
    if (!value.is_number_integer()) refuse(field, fmt::format("\"{}\" must be a whole number, not {}", field, value.type_name()), "invalid_type");
    const bool huge = value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(largest);
    if (huge || value.get<std::int64_t>() < least || value.get<std::int64_t>() > most) {
        refuse(field, fmt::format("\"{}\" is {}; it must be from {} to {}", field, value.dump(), least, most));
    }
    return value.get<std::int64_t>();
}

std::optional<std::string> text(const json& body, const std::string& field) {
    if (!given(body, field)) return std::nullopt;
    const json& value = body.at(field);
    if (!value.is_string()) refuse(field, fmt::format("\"{}\" must be text, not {}", field, value.type_name()), "invalid_type");
    auto words = value.get<std::string>();
    if (words.size() > longest_name) refuse(field, fmt::format("\"{}\" is {} bytes long; at most {} are read", field, words.size(), longest_name));
    return words;
}

PictureFormat format_of(const std::string& name) {
    for (const PictureFormat format : {PictureFormat::png, PictureFormat::jpeg, PictureFormat::webp}) {
        if (name == name_of(format)) return format;
    }
    refuse("output_format", fmt::format("there is no output_format \"{}\"; known are png, jpeg and webp", name));
}

void check_fields(const json& body) {
    if (!body.is_object()) refuse("", fmt::format("the request's body must be a JSON object, not {}", body.type_name()), "invalid_type");
    for (const auto& [field, value] : body.items()) {
        if (std::ranges::find(fields, field) != fields.end()) continue;
        const std::string shown = field.substr(0, longest_name);
        refuse(shown, fmt::format("there is no field \"{}\"{}", shown, core::did_you_mean(shown, fields)), "unknown_parameter");
    }
}

std::int64_t class_named(const std::string& prompt, const Description& model) {
    try {
        return conditions::class_named(prompt, model.class_names, model.partition.classes());
    } catch (const core::UsageError& error) {
        refuse("prompt", error.what(), "unknown_class");
    }
}

std::optional<std::int64_t> class_of(const ImageRequest& request, const Description& model) {
    if (request.class_id && *request.class_id >= model.partition.classes()) {
        refuse("class", fmt::format("class {} is out of range; this model knows 0 to {}", *request.class_id, model.partition.classes() - 1), "unknown_class");
    }
    if (request.prompt.empty()) return request.class_id;
    const std::int64_t named = class_named(request.prompt, model);
    if (request.class_id && *request.class_id != named) {
        refuse("class", fmt::format("\"class\" is {} and \"prompt\" names class {}; give one of them", *request.class_id, named));
    }
    return named;
}

std::int64_t student_of(const ImageRequest& request, const Description& model, const std::optional<std::int64_t>& class_id) {
    const std::int64_t students = model.partition.students;
    if (request.student && *request.student >= students) {
        refuse("student", fmt::format("student {} is out of range; this model has 0 to {}", *request.student, students - 1), "unknown_student");
    }
    if (!class_id) return *request.student;
    const std::int64_t owner = model.partition.owner[static_cast<std::size_t>(*class_id)];
    if (request.student && *request.student != owner) {
        refuse("student", fmt::format("class {} is student {}'s, not student {}'s; leave \"student\" out", *class_id, owner, *request.student));
    }
    return owner;
}

void check_size(const ImageRequest& request, const Description& model) {
    const std::string own = fmt::format("{}x{}", model.width, model.height);
    if (!request.size || *request.size == "auto" || *request.size == own) return;
    refuse("size", fmt::format("this model draws {} only; leave \"size\" out, or \"auto\"", own));
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
    const json read = parsed(body);
    check_fields(read);
    ImageRequest request;
    request.model = text(read, "model").value_or("");
    request.prompt = text(read, "prompt").value_or("");
    request.class_id = integer(read, "class", 0, largest);
    request.student = integer(read, "student", 0, largest);
    request.seed = integer(read, "seed", 0, largest);
    request.size = text(read, "size");
    request.n = integer(read, "n", 1, most_pictures).value_or(1);
    request.format = format_of(text(read, "output_format").value_or("png"));
    request.quality = static_cast<int>(integer(read, "output_compression", 0, 100).value_or(100));
    if (text(read, "response_format").value_or("b64_json") != "b64_json") {
        refuse("response_format", "pictures are answered in the response: \"response_format\" can only be b64_json");
    }
    text(read, "user");
    if (request.prompt.empty() && !request.class_id && !request.student) {
        refuse("prompt", "\"prompt\" is missing; give a class's name or id, or \"class\", or \"student\"", "missing_required_parameter");
    }
    return request;
}

Plan plan_of(const ImageRequest& request, const Description& model, std::uint64_t fresh_seed) {
    check_size(request, model);
    const auto class_id = class_of(request, model);
    Plan plan{student_of(request, model, class_id), request.seed.value_or(fresh_seed), {}};
    conditions::Prior own;
    if (!class_id) own = conditions::restricted(model.prior, model.partition.cell(plan.student));
    for (std::int64_t i = 0; i < request.n; ++i) {
        plan.draws.push_back({plan.seed, i, class_id ? *class_id : conditions::draw_class(own, plan.seed, static_cast<std::uint64_t>(i))});
    }
    return plan;
}

}  // namespace atelier::server
