#include "atelier/server/worker_protocol.h"

#include <algorithm>

#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/json_file.h"
#include "atelier/server/request_fields.h"

namespace atelier::server {

namespace {

using nlohmann::json;

constexpr std::uint64_t max_header_bytes = 1024,
                        max_text_bytes =
                            6 * max_prompt_bytes + (8 << 10);  // per image, escaped as JSON
constexpr std::size_t max_keyword_bytes = 79;                  // of PNG text

bool is_keyword(const std::string& keyword) {
    const auto printable = [](char c) { return c >= ' ' && c < 0x7f; };
    return !keyword.empty() && keyword.size() <= max_keyword_bytes &&
           std::ranges::all_of(keyword, printable);
}

/// The SHA-256 of everything that the images depend on, independent of JSON formatting.
std::string digest_of(std::span<const Draw> draws) {
    std::string all;
    for (const Draw& draw : draws)
        all += fmt::format("{} {} {} {} {}\n", draw.seed, draw.number, draw.class_id,
                           draw.prompt.size(), draw.prompt);
    return core::sha256(all);
}

std::map<std::string, std::string> text_of(const json& fields, const std::string& where) {
    if (!fields.is_object())
        core::fail("{}: an image's text is {}, not an object", where, fields.type_name());
    std::map<std::string, std::string> text;
    for (const auto& [keyword, value] : fields.items()) {
        if (!value.is_string() || !is_keyword(keyword))
            core::fail("{}: an image's text cannot be stored in a PNG", where);
        text[keyword] = value.get<std::string>();
    }
    return text;
}

}  // namespace

std::string to_body(const DrawRequest& request) {
    json draws = json::array();
    for (const Draw& draw : request.draws) {
        json one{{"seed", draw.seed}, {"number", draw.number}};
        if (draw.prompt.empty()) one["class"] = draw.class_id;
        else one["prompt"] = draw.prompt;
        draws.push_back(std::move(one));
    }
    return json{
        {"model", request.model}, {"partition", request.partition}, {"draws", std::move(draws)}}
        .dump();
}

DrawRequest read_draw_request(std::string_view body, std::int64_t max_images) {
    const json read = json_of_body(body);
    const RequestFields given(read, {"model", "partition", "draws"});
    DrawRequest request{.model = given.text("model", max_name_bytes).value_or(""),
                        .partition = given.text("partition", max_word_bytes).value_or("")};
    const json* draws = given.array("draws");
    if (draws == nullptr || draws->empty())
        reject_field("draws", "\"draws\" is missing; give a list of seed, number and class",
                     "missing_required_parameter");
    if (draws->size() > static_cast<std::size_t>(max_images)) {
        reject_field("draws",
                     fmt::format("\"draws\" has {} elements; at most {} are allowed per request",
                                 draws->size(), max_images));
    }
    for (std::size_t i = 0; i < draws->size(); ++i) {
        const RequestFields one((*draws)[i], {"seed", "number", "class", "prompt"},
                                fmt::format("draws[{}].", i));
        Draw draw{.seed = static_cast<std::uint64_t>(one.required_integer("seed", 0, max_integer)),
                  .number = one.required_integer("number", 0, max_integer)};
        draw.prompt = one.text("prompt", max_prompt_bytes).value_or("");
        if (draw.prompt.empty()) draw.class_id = one.required_integer("class", 0, max_integer);
        request.draws.push_back(std::move(draw));
    }
    return request;
}

void check_before_encoding(const DrawRequest& request) {
    for (std::size_t i = 0; i < request.draws.size(); ++i) {
        if (request.draws[i].prompt.empty())
            reject_field(fmt::format("draws[{}].prompt", i), "this model takes prompts; give one",
                         "missing_required_parameter");
    }
}

namespace {

/// Resolves draws of prompts with their encoded prompts.
ResolvedRequest prompted(const DrawRequest& request, const Description& model,
                         std::span<const EncodedPrompt> encoded) {
    const std::int64_t student = encoded.front().student;
    check_served_here(model, student, "draws[0].prompt", "draws[0].prompt");
    ResolvedRequest resolved{student, request.draws.front().seed, request.draws,
                             encoded.front().margin, ""};
    for (std::size_t i = 0; i < encoded.size(); ++i) {
        if (encoded[i].student != student) {
            reject_field(fmt::format("draws[{}].prompt", i),
                         fmt::format("it is student {}'s, the first one is student {}'s; ask for "
                                     "one student's at a time",
                                     encoded[i].student, student));
        }
        resolved.draws[i].conditioning = encoded[i].conditioning;
    }
    return resolved;
}

}  // namespace

ResolvedRequest resolve(const DrawRequest& request, const Description& model,
                        const std::string& hash, std::span<const EncodedPrompt> encoded) {
    if (!request.partition.empty() && request.partition != hash) {
        throw HttpError(421, "this model has another partition here; is it the same ensemble?",
                        "partition", "misdirected_request");
    }
    if (model.reads_prompts) return prompted(request, model, encoded);
    const auto owner_of = [&](std::size_t i) {
        const std::int64_t class_id = request.draws[i].class_id;
        const std::string field = fmt::format("draws[{}].class", i);
        if (!request.draws[i].prompt.empty())
            reject_field(fmt::format("draws[{}].prompt", i),
                         "this model takes classes, not prompts");
        if (class_id >= model.partition.classes()) {
            reject_field(field,
                         fmt::format("class {} is out of range; this model knows 0 to {}", class_id,
                                     model.partition.classes() - 1),
                         "unknown_class");
        }
        return model.partition.owner[static_cast<std::size_t>(class_id)];
    };
    const std::int64_t student = owner_of(0);
    for (std::size_t i = 1; i < request.draws.size(); ++i) {
        if (owner_of(i) == student) continue;
        reject_field(fmt::format("draws[{}].class", i),
                     fmt::format("class {} is student {}'s, the first one is student {}'s; ask for "
                                 "one student's at a time",
                                 request.draws[i].class_id, owner_of(i), student));
    }
    check_served_here(model, student, fmt::format("class {}", request.draws.front().class_id),
                      "class");
    return {student, request.draws.front().seed, request.draws, 0, ""};
}

std::string to_frame(std::span<const GeneratedImage> images, std::span<const Draw> draws) {
    const core::Image& first = images.front().image;
    json texts = json::array();
    for (const GeneratedImage& generated : images) texts.push_back(generated.text);
    const json head{{"width", first.width},
                    {"height", first.height},
                    {"channels", first.channels},
                    {"draws", digest_of(draws)},
                    {"texts", std::move(texts)}};
    std::string frame = head.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
    for (const GeneratedImage& generated : images)
        frame.append(generated.image.pixels.begin(), generated.image.pixels.end());
    return frame;
}

std::vector<GeneratedImage> read_frame(std::string_view frame, std::span<const Draw> draws,
                                       int width, int height, const std::string& where) {
    const std::size_t count = draws.size();
    const std::size_t line = frame.find('\n');
    if (line == std::string_view::npos) core::fail("{}: not a frame of images", where);
    const json read = core::parse_json(frame.substr(0, line), where);
    const core::JsonObject head(read, where);
    if (head.integer("width", 1, max_integer) != width ||
        head.integer("height", 1, max_integer) != height) {
        core::fail("{}: received images of {}x{}, requested {}x{}", where, read["width"].dump(),
                   read["height"].dump(), width, height);
    }
    const auto channels = static_cast<int>(head.integer("channels", 1, 3));
    if (channels == 2) core::fail("{}: images have 1 or 3 channels, not 2", where);
    if (head.text("draws") != digest_of(draws))
        core::fail("{}: these are images of other draws than requested", where);
    const json texts = read.value("texts", json());
    const std::size_t size = static_cast<std::size_t>(width) * static_cast<std::size_t>(height) *
                             static_cast<std::size_t>(channels);
    frame.remove_prefix(line + 1);
    if (!texts.is_array() || texts.size() != count || frame.size() != count * size) {
        core::fail("{}: received {} bytes of pixels and {} texts for {} images of {} bytes", where,
                   frame.size(), texts.size(), count, size);
    }
    std::vector<GeneratedImage> images;
    for (std::size_t i = 0; i < count; ++i) {
        const std::string_view pixels = frame.substr(i * size, size);
        images.push_back(
            {{height, width, channels, {pixels.begin(), pixels.end()}}, text_of(texts[i], where)});
    }
    return images;
}

std::uint64_t max_frame_bytes(std::size_t count, int width, int height) {
    return max_header_bytes +
           count * (max_text_bytes + std::uint64_t{3} * static_cast<std::uint64_t>(width) *
                                         static_cast<std::uint64_t>(height));
}

}  // namespace atelier::server
