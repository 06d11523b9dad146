#include "atelier/server/asked.h"

#include <random>

#include "atelier/server/answers.h"
#include "atelier/server/drawing.h"

namespace atelier::server {

namespace {

/// A seed that JavaScript can hold exactly.
std::uint64_t fresh_seed() {
    thread_local std::random_device device;
    return ((std::uint64_t{device()} << 32) | device()) & ((std::uint64_t{1} << 53) - 1);
}

class AskedImages final : public Asked {
public:
    explicit AskedImages(ImageRequest request) : request_(std::move(request)) {}

    const std::string& model() const override { return request_.model; }
    void check_before_reading(const Description& model) const override { server::check_before_reading(request_, model); }
    std::vector<std::string> prompts() const override { return {request_.prompt}; }
    Plan plan(const Served& served, std::span<const Reading> readings) const override {
        if (readings.empty()) return plan_of(request_, served.description(), fresh_seed());
        return plan_of(request_, served.description(), fresh_seed(), readings.front());
    }
    Response answer(const Plan& plan, const Description& model, std::span<const Picture> pictures) const override {
        return {.body = images_body(request_, plan, model, pictures)};
    }

private:
    ImageRequest request_;
};

class AskedDraws final : public Asked {
public:
    explicit AskedDraws(DrawRequest request) : request_(std::move(request)) {}

    const std::string& model() const override { return request_.model; }
    void check_before_reading(const Description&) const override { server::check_before_reading(request_); }
    std::vector<std::string> prompts() const override {
        std::vector<std::string> all;
        for (const Draw& draw : request_.draws) all.push_back(draw.prompt);
        return all;
    }
    Plan plan(const Served& served, std::span<const Reading> readings) const override {
        return plan_of(request_, served.description(), served.partition_hash, readings);
    }
    Response answer(const Plan&, const Description&, std::span<const Picture> pictures) const override {
        return {.content_type = "application/octet-stream",
                .body = parcel_of(pictures, request_.draws)};
    }

private:
    DrawRequest request_;
};

}  // namespace

std::shared_ptr<const Asked> asked_by(const Request& request, std::int64_t most_pictures) {
    if (request.path() == draws_path) return std::make_shared<AskedDraws>(read_draw_request(request.body, most_pictures));
    return std::make_shared<AskedImages>(read_image_request(request.body, most_pictures));
}

}  // namespace atelier::server
