#include "atelier/server/responses.h"

#include <openssl/evp.h>

#include <ctime>

#include <fmt/format.h>

#include "atelier/core/image_file.h"

namespace atelier::server {

namespace {

using nlohmann::json;

std::string_view type_of(unsigned status) {
    switch (status) {
        case 401:
            return "authentication_error";
        case 404:
            return "not_found_error";
        case 429:
            return "rate_limit_error";
        case 503:
            return "unavailable_error";
        default:
            return status < 500 ? "invalid_request_error" : "server_error";
    }
}

json or_null(const std::string& text) { return text.empty() ? json(nullptr) : json(text); }

/// Invalid UTF-8 (in class names, for example) is replaced instead of throwing.
std::string dumped(const json& value) {
    return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::vector<std::uint8_t> file_of(const GeneratedImage& generated, const ImageRequest& request) {
    switch (request.format) {
        case ImageFormat::png:
            return core::encode_png(generated.image, generated.text);
        case ImageFormat::jpeg:
            return core::encode_jpeg(generated.image, request.quality);
        case ImageFormat::webp:
            return core::encode_webp(generated.image, request.quality);
    }
    return {};
}

}  // namespace

Response json_response(const json& body) {
    return {.body = dumped(body) + "\n", .headers = {{"Cache-Control", "no-store"}}};
}

Response error_response(const HttpError& error) {
    Response response = json_response({{"error",
                                        {{"message", error.what()},
                                         {"type", type_of(error.status)},
                                         {"param", or_null(error.param)},
                                         {"code", or_null(error.code)}}}});
    response.status = error.status;
    if (error.retry_after)
        response.headers.emplace_back("Retry-After", std::to_string(*error.retry_after));
    response.headers.insert(response.headers.end(), error.headers.begin(), error.headers.end());
    return response;
}

std::string base64(std::span<const std::uint8_t> bytes) {
    std::string text(4 * ((bytes.size() + 2) / 3) + 1, '\0');  // the function also writes a NUL
    const int length = ::EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                                         bytes.data(), static_cast<int>(bytes.size()));
    text.resize(static_cast<std::size_t>(length));
    return text;
}

std::string images_body(const ImageRequest& request, const ResolvedRequest& resolved,
                        const Description& model, std::span<const GeneratedImage> images) {
    std::string list;
    for (std::size_t i = 0; i < images.size(); ++i) {
        const Draw& draw = resolved.draws[i];
        json about{{"seed", draw.seed}, {"number", draw.number}, {"student", resolved.student}};
        if (model.reads_prompts)
            about.update({{"prompt", draw.prompt}, {"margin", resolved.margin}});
        else about["class"] = draw.class_id;
        if (!resolved.truncated.empty()) about["prompt_truncated"] = resolved.truncated;
        if (!model.class_names.empty())
            about["class_name"] = model.class_names[static_cast<std::size_t>(draw.class_id)];
        list += fmt::format(R"({}{{"b64_json":"{}","atelier":{}}})", i == 0 ? "" : ",",
                            base64(file_of(images[i], request)), dumped(about));
    }
    return fmt::format(R"({{"created":{},"output_format":"{}","size":"{}x{}","data":[{}]}})",
                       std::time(nullptr), name_of(request.format), model.width, model.height,
                       list) +
           "\n";
}

std::string printable(std::string_view text) {
    std::string out;
    for (const char c : text.substr(0, 200)) {
        if (c >= ' ' && c < 0x7f && c != '\\' && c != '"') out += c;
        else out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
    return out;
}

}  // namespace atelier::server
