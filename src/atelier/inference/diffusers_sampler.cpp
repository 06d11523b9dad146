#include "atelier/inference/diffusers_sampler.h"

#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/inference/images_together.h"

namespace atelier::inference {

using models::DiffusersFamily;

namespace {

constexpr std::size_t prompts_on_accelerators = 64;  // that go through the text towers together

std::variant<diffusion::DdpmSchedule, diffusion::FlowSchedule> schedule_of(
    const models::DiffusersDirectory& directory) {
    const nlohmann::json json = directory.scheduler_config();
    const core::JsonObject config(json, directory.scheduler_file().string());
    if (directory.family() == DiffusersFamily::sd3) return diffusion::FlowSchedule::of(config);
    return diffusion::DdpmSchedule::of(config);
}

}  // namespace

double DiffusersGuidance::usual_scale(DiffusersFamily family) {
    switch (family) {
        case DiffusersFamily::stable_diffusion:
            return 7.5;
        case DiffusersFamily::sdxl:
            return 5;
        case DiffusersFamily::sd3:
            return 7;
        case DiffusersFamily::dit:
            break;
    }
    return 4;
}

DiffusersConditioner::DiffusersConditioner(const std::filesystem::path& path,
                                           const DiffusersOptions& options)
    : model_(path, options.engine, options.low_rank),
      guidance_(options.guidance),
      prompts_together_(options.engine.device.is_cpu() ? 1 : prompts_on_accelerators) {
    model_.directory().require_readable_text();
    model_.tokenizer();  // reads it, so that `tokenizer` is thread-safe
}

Conditioning DiffusersConditioner::encode(std::span<const Condition> conditions) const {
    const at::NoGradGuard no_gradients;
    const std::lock_guard alone(busy_);
    const bool zeros = guidance_.guides() && guidance_.negative.empty() &&
                       model_.directory().zeros_for_no_prompt();
    std::vector<std::string> distinct;
    std::map<std::string, std::size_t> known;
    for (const Condition& condition : conditions) {
        if (known.emplace(prompt_of(condition), distinct.size()).second)
            distinct.push_back(prompt_of(condition));
    }
    std::vector<DiffusersModel::Text> texts;
    for (std::size_t i = 0; i < distinct.size(); i += prompts_together_) {
        // On a CPU each with the negative prompt, so that a row does not depend on other prompts.
        std::vector<std::string> prompts;
        if (guidance_.guides()) prompts.push_back(guidance_.negative);
        const auto begin = static_cast<std::int64_t>(prompts.size());
        for (std::size_t k = i; k < std::min(distinct.size(), i + prompts_together_); ++k)
            prompts.push_back(distinct[k]);
        const DiffusersModel::Text text = model_.encode(prompts);
        if (zeros) {
            text.hidden[0].zero_();
            text.pooled[0].zero_();
        }
        for (auto row = begin; row < static_cast<std::int64_t>(prompts.size()); ++row) {
            const auto with_negative = [&](const Tensor& all) {
                if (begin == 0) return all.narrow(0, row, 1);
                return at::stack({all[0], all[row]});
            };
            texts.push_back({with_negative(text.hidden), with_negative(text.pooled)});
        }
    }
    std::vector<Tensor> rows, pooled;
    for (const Condition& condition : conditions) {
        const DiffusersModel::Text& text = texts[known.at(prompt_of(condition))];
        rows.push_back(text.hidden);
        pooled.push_back(text.pooled);
    }
    return {.classes = {}, .rows = at::stack(rows), .pooled = at::stack(pooled)};
}

DiffusersSampler::DiffusersSampler(const std::filesystem::path& path, const Sampling& sampling,
                                   const DiffusersOptions& options)
    : model_(path, options.engine, options.low_rank),
      sampling_(sampling),
      guidance_(options.guidance),
      shape_(options.shape),
      factor_(model_.directory().vae().factor()),
      classes_(model_.directory().classes()),
      device_(options.engine.device),
      schedule_(schedule_of(model_.directory())) {}

Tensor DiffusersSampler::predict(const Tensor& x, double t,
                                 const Conditioning& conditioning) const {
    const std::int64_t n = x.size(0);
    NamedTensors inputs;
    std::int64_t of_one =
        1;  // evaluations of a sample: without a condition, where guided, and with
    if (conditioning.rows.defined()) {
        of_one = conditioning.rows.size(1);
        inputs["hidden"] = conditioning.rows.flatten(0, 1);
        inputs["pooled"] = conditioning.pooled.flatten(0, 1);
        const auto height = static_cast<float>(shape_[1] * factor_),
                   width = static_cast<float>(shape_[2] * factor_);
        inputs["time_ids"] =
            at::tensor({height, width, 0.0F, 0.0F, height, width}).expand({n * of_one, 6});
    } else {
        std::vector<std::int64_t> labels;
        for (const std::int64_t label : conditioning.classes) {
            if (guidance_.guides()) labels.push_back(classes_);
            labels.push_back(label);
        }
        of_one = guidance_.guides() ? 2 : 1;
        inputs["labels"] = at::tensor(labels, at::kLong);
    }
    inputs["x"] = x.unsqueeze(1).expand({n, of_one, -1, -1, -1}).flatten(0, 1);
    inputs["t"] = at::full({n * of_one}, t, at::kFloat);
    const Tensor all = model_.predict(inputs);
    if (of_one == 1) return all;
    const Tensor pairs = all.unflatten(0, {n, of_one});
    return pairs.select(1, 0) + guidance_.scale * (pairs.select(1, 1) - pairs.select(1, 0));
}

Tensor DiffusersSampler::draw_together(std::span<const SampleRequest> requests,
                                       const Conditioning& conditioning,
                                       const OnEvaluation& on_evaluation) const {
    std::vector<Tensor> noises;
    for (const SampleRequest& request : requests) noises.push_back(noise_of(request, shape_));
    const Tensor noise = at::cat(noises);
    const diffusion::Predictor predict_at = [&](const Tensor& x, double t) {
        const Tensor predicted = predict(x, t, conditioning);
        for (std::size_t i = 0; i < requests.size() && on_evaluation; ++i) on_evaluation();
        return predicted;
    };
    if (const auto* flow = std::get_if<diffusion::FlowSchedule>(&schedule_))
        return sample_euler(*flow, predict_at, noise, sampling_.steps);
    const auto& schedule = std::get<diffusion::DdpmSchedule>(schedule_);
    switch (sampling_.method) {
        case Sampling::Method::ddim:
            return sample_ddim(schedule, predict_at, noise, sampling_.steps);
        case Sampling::Method::euler:
            return sample_euler(schedule, predict_at, noise, sampling_.steps);
        case Sampling::Method::dpm:
            return sample_dpm(schedule, predict_at, noise, sampling_.steps);
        case Sampling::Method::one_step:
        case Sampling::Method::few_step:
        case Sampling::Method::heun:
        case Sampling::Method::stochastic:
            break;
    }
    core::fail("a diffusers directory is sampled with ddim, dpm or euler, not with this sampler");
}

Tensor DiffusersSampler::draw(std::span<const SampleRequest> requests,
                              const Conditioning& conditioning,
                              const OnEvaluation& on_evaluation) const {
    const at::NoGradGuard no_gradients;
    const auto together = static_cast<std::size_t>(
        images_together(device_, shape_[1] * factor_, shape_[2] * factor_));
    std::vector<Tensor> latents;
    for (std::size_t i = 0; i < requests.size(); i += together) {
        const std::size_t count = std::min(together, requests.size() - i);
        latents.push_back(draw_together(
            requests.subspan(i, count),
            conditioning.narrow(static_cast<std::int64_t>(i), static_cast<std::int64_t>(count)),
            on_evaluation));
    }
    return at::cat(latents);
}

Tensor DiffusersSampler::evaluate(const Tensor& z, const Conditioning& conditioning) const {
    const at::NoGradGuard no_gradients;
    const auto* flow = std::get_if<diffusion::FlowSchedule>(&schedule_);
    const std::int64_t last =
        flow ? flow->steps : std::get<diffusion::DdpmSchedule>(schedule_).steps() - 1;
    return predict(z, static_cast<double>(last), conditioning);
}

const std::string& DiffusersSampler::hash() const {
    if (hash_.empty()) hash_ = hash_of(model_.directory());
    return hash_;
}

std::int64_t DiffusersSampler::parameter_count() const {
    return model_.directory().denoiser_weights().count();
}

std::vector<std::int64_t> latent_shape(const models::DiffusersDirectory& directory,
                                       std::int64_t height, std::int64_t width) {
    std::vector<std::int64_t> shape = directory.latent_shape();
    const networks::SdVae vae = directory.vae();
    if (directory.family() == DiffusersFamily::dit && (height != 0 || width != 0))
        throw core::UsageError("--height and --width: " + directory.path().string() +
                               " draws images of its own size only");
    const std::int64_t unit =
        vae.factor() * directory.denoiser().functions().at("denoise").multiple;
    const auto set = [&](std::size_t axis, std::int64_t pixels, const char* option) {
        if (pixels % unit != 0)
            throw core::UsageError(fmt::format("--{}: {} must be a multiple of {} for this model",
                                               option, pixels, unit));
        if (pixels != 0) shape[axis] = pixels / vae.factor();
    };
    set(1, height, "height");
    set(2, width, "width");
    return shape;
}

std::string hash_of(const models::DiffusersDirectory& directory) {
    // The order in which hashes were joined before directories had more parts.
    std::string weights;
    const auto all = directory.all_weights();
    std::vector<std::string> parts{directory.denoiser_part(), "vae"};
    for (const std::string& part : directory.text_parts()) parts.push_back(part);
    for (const std::string& part : parts) {
        for (const std::filesystem::path& file : all.at(part).files())
            weights += core::sha256_of_file(file);
    }
    return core::sha256(weights);
}

}  // namespace atelier::inference
