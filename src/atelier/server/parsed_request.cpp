#include "atelier/server/parsed_request.h"

#include <random>

#include "atelier/server/responses.h"
#include "atelier/server/worker_protocol.h"

namespace atelier::server {

namespace {

/// A seed that JavaScript can hold exactly.
std::uint64_t random_seed() {
    thread_local std::random_device device;
    return ((std::uint64_t{device()} << 32) | device()) & ((std::uint64_t{1} << 53) - 1);
}

class ParsedImageRequest final : public ParsedRequest {
public:
    explicit ParsedImageRequest(ImageRequest request) : request_(std::move(request)) {}

    const std::string& model() const override { return request_.model; }
    void check_before_encoding(const Description& model) const override {
        server::check_before_encoding(request_, model);
    }
    std::vector<std::string> prompts() const override { return {request_.prompt}; }
    ResolvedRequest resolve(const LoadedModel& served,
                            std::span<const EncodedPrompt> encoded) const override {
        if (encoded.empty()) return server::resolve(request_, served.description(), random_seed());
        return server::resolve(request_, served.description(), random_seed(), encoded.front());
    }
    Response answer(const ResolvedRequest& resolved, const Description& model,
                    std::span<const GeneratedImage> images) const override {
        return {.body = images_body(request_, resolved, model, images)};
    }

private:
    ImageRequest request_;
};

class ParsedDrawRequest final : public ParsedRequest {
public:
    explicit ParsedDrawRequest(DrawRequest request) : request_(std::move(request)) {}

    const std::string& model() const override { return request_.model; }
    void check_before_encoding(const Description&) const override {
        server::check_before_encoding(request_);
    }
    std::vector<std::string> prompts() const override {
        std::vector<std::string> all;
        for (const Draw& draw : request_.draws) all.push_back(draw.prompt);
        return all;
    }
    ResolvedRequest resolve(const LoadedModel& served,
                            std::span<const EncodedPrompt> encoded) const override {
        return server::resolve(request_, served.description(), served.partition_hash, encoded);
    }
    Response answer(const ResolvedRequest&, const Description&,
                    std::span<const GeneratedImage> images) const override {
        return {.content_type = "application/octet-stream",
                .body = to_frame(images, request_.draws)};
    }

private:
    DrawRequest request_;
};

}  // namespace

std::shared_ptr<const ParsedRequest> parse_request(const Request& request,
                                                   std::int64_t max_images) {
    if (request.path() == draws_path)
        return std::make_shared<ParsedDrawRequest>(read_draw_request(request.body, max_images));
    return std::make_shared<ParsedImageRequest>(read_image_request(request.body, max_images));
}

}  // namespace atelier::server
