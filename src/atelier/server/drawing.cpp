#include "atelier/server/drawing.h"

#include <algorithm>

#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/json_file.h"
#include "atelier/server/request_fields.h"

namespace atelier::server {

namespace {

using nlohmann::json;

constexpr std::uint64_t largest_head = 1024,
                        largest_text =
                            6 * longest_prompt +
                            (8 << 10);       // bytes as JSON escapes them; the latter a picture
constexpr std::size_t longest_keyword = 79;  // of a PNG's text

bool is_keyword(const std::string& keyword) {
    const auto printable = [](char c) { return c >= ' ' && c < 0x7f; };
    return !keyword.empty() && keyword.size() <= longest_keyword &&
           std::ranges::all_of(keyword, printable);
}

/// Of all that a picture depends on, however it is written.
std::string digest_of(std::span<const Draw> draws) {
    std::string all;
    for (const Draw& draw : draws)
        all += fmt::format("{} {} {} {} {}\n", draw.seed, draw.number, draw.class_id,
                           draw.prompt.size(), draw.prompt);
    return core::sha256(all);
}

std::map<std::string, std::string> text_of(const json& fields, const std::string& where) {
    if (!fields.is_object()) core::fail("{}: a picture's text is {}, not an object", where, fields.type_name());
    std::map<std::string, std::string> text;
    for (const auto& [keyword, value] : fields.items()) {
        if (!value.is_string() || !is_keyword(keyword))
            core::fail("{}: a picture's text holds what no PNG can", where);
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
    return json{{"model", request.model}, {"partition", request.partition}, {"draws", std::move(draws)}}.dump();
}

DrawRequest read_draw_request(std::string_view body, std::int64_t most_pictures) {
    const json read = json_of_body(body);
    const RequestFields given(read, {"model", "partition", "draws"});
    DrawRequest request{.model = given.text("model", longest_name).value_or(""),
                        .partition = given.text("partition", longest_word).value_or("")};
    const json* draws = given.array("draws");
    if (draws == nullptr || draws->empty()) refuse_field("draws", "\"draws\" is missing; give a list of seed, number and class", "missing_required_parameter");
    if (draws->size() > static_cast<std::size_t>(most_pictures)) {
        refuse_field("draws", fmt::format("\"draws\" are {}; at most {} are drawn for one request", draws->size(), most_pictures));
    }
    for (std::size_t i = 0; i < draws->size(); ++i) {
        const RequestFields one((*draws)[i], {"seed", "number", "class", "prompt"}, fmt::format("draws[{}].", i));
        Draw draw{.seed = static_cast<std::uint64_t>(one.needed_integer("seed", 0, largest_integer)), .number = one.needed_integer("number", 0, largest_integer)};
        draw.prompt = one.text("prompt", longest_prompt).value_or("");
        if (draw.prompt.empty()) draw.class_id = one.needed_integer("class", 0, largest_integer);
        request.draws.push_back(std::move(draw));
    }
    return request;
}

void check_before_reading(const DrawRequest& request) {
    for (std::size_t i = 0; i < request.draws.size(); ++i) {
        if (request.draws[i].prompt.empty()) refuse_field(fmt::format("draws[{}].prompt", i), "this model reads prompts; give one", "missing_required_parameter");
    }
}

namespace {

/// Draws of prompts, with what was read of them.
Plan prompted(const DrawRequest& request, const Description& model, std::span<const Reading> readings) {
    const std::int64_t student = readings.front().student;
    check_here(model, student, "draws[0].prompt", "draws[0].prompt");
    Plan plan{student, request.draws.front().seed, request.draws, readings.front().margin, ""};
    for (std::size_t i = 0; i < readings.size(); ++i) {
        if (readings[i].student != student) {
            refuse_field(fmt::format("draws[{}].prompt", i), fmt::format("it is student {}'s, the first one is student {}'s; ask for one student's at a time",
                                                                         readings[i].student, student));
        }
        plan.draws[i].told = readings[i].told;
    }
    return plan;
}

}  // namespace

Plan plan_of(const DrawRequest& request, const Description& model, const std::string& hash, std::span<const Reading> readings) {
    if (!request.partition.empty() && request.partition != hash) {
        throw Refusal(421, "this model has another partition here; is it the same ensemble?", "partition", "misdirected_request");
    }
    if (model.reads_prompts) return prompted(request, model, readings);
    const auto owner_of = [&](std::size_t i) {
        const std::int64_t class_id = request.draws[i].class_id;
        const std::string field = fmt::format("draws[{}].class", i);
        if (!request.draws[i].prompt.empty()) refuse_field(fmt::format("draws[{}].prompt", i), "this model knows classes and reads no prompts");
        if (class_id >= model.partition.classes()) {
            refuse_field(field, fmt::format("class {} is out of range; this model knows 0 to {}", class_id, model.partition.classes() - 1), "unknown_class");
        }
        return model.partition.owner[static_cast<std::size_t>(class_id)];
    };
    const std::int64_t student = owner_of(0);
    for (std::size_t i = 1; i < request.draws.size(); ++i) {
        if (owner_of(i) == student) continue;
        refuse_field(fmt::format("draws[{}].class", i), fmt::format("class {} is student {}'s, the first one is student {}'s; ask for one student's at a time",
                                                                    request.draws[i].class_id, owner_of(i), student));
    }
    check_here(model, student, fmt::format("class {}", request.draws.front().class_id), "class");
    return {student, request.draws.front().seed, request.draws, 0, ""};
}

std::string parcel_of(std::span<const Picture> pictures, std::span<const Draw> draws) {
    const core::Image& first = pictures.front().image;
    json texts = json::array();
    for (const Picture& picture : pictures) texts.push_back(picture.text);
    const json head{{"width", first.width},
                    {"height", first.height},
                    {"channels", first.channels},
                    {"draws", digest_of(draws)},
                    {"texts", std::move(texts)}};
    std::string parcel = head.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
    for (const Picture& picture : pictures) parcel.append(picture.image.pixels.begin(), picture.image.pixels.end());
    return parcel;
}

std::vector<Picture> read_parcel(std::string_view parcel, std::span<const Draw> draws, int width,
                                 int height, const std::string& where) {
    const std::size_t count = draws.size();
    const std::size_t line = parcel.find('\n');
    if (line == std::string_view::npos) core::fail("{}: this is no parcel of pictures", where);
    const json read = core::parse_json(parcel.substr(0, line), where);
    const core::JsonObject head(read, where);
    if (head.integer("width", 1, largest_integer) != width || head.integer("height", 1, largest_integer) != height) {
        core::fail("{}: pictures of {}x{} came, {}x{} were asked for", where, read["width"].dump(), read["height"].dump(), width, height);
    }
    const auto channels = static_cast<int>(head.integer("channels", 1, 3));
    if (channels == 2) core::fail("{}: pictures have 1 or 3 channels, not 2", where);
    if (head.text("draws") != digest_of(draws))
        core::fail("{}: these are pictures of something else than was asked for", where);
    const json texts = read.value("texts", json());
    const std::size_t size = static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * static_cast<std::size_t>(channels);
    parcel.remove_prefix(line + 1);
    if (!texts.is_array() || texts.size() != count || parcel.size() != count * size) {
        core::fail("{}: {} bytes of pixels and {} texts came for {} pictures of {} bytes", where, parcel.size(), texts.size(), count, size);
    }
    std::vector<Picture> pictures;
    for (std::size_t i = 0; i < count; ++i) {
        const std::string_view pixels = parcel.substr(i * size, size);
        pictures.push_back({{height, width, channels, {pixels.begin(), pixels.end()}}, text_of(texts[i], where)});
    }
    return pictures;
}

std::uint64_t largest_parcel(std::size_t count, int width, int height) {
    return largest_head + count * (largest_text + std::uint64_t{3} * static_cast<std::uint64_t>(width) * static_cast<std::uint64_t>(height));
}

}  // namespace atelier::server
