#include "atelier/inference/generator.h"

#include <map>

#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/schema.h"
#include "atelier/diffusion/samplers.h"

namespace atelier::inference {

namespace {

constexpr std::size_t largest_batch = 256;

const std::map<std::string, Sampling::Method>& methods() {
    static const std::map<std::string, Sampling::Method> all{
        {"one-step", Sampling::Method::one_step}, {"heun", Sampling::Method::heun}, {"ddim", Sampling::Method::ddim}};
    return all;
}

/// A model and the engine that runs it.
struct Ready {
    Ready(models::Model read, const Engine& engine) : model(std::move(read)), denoiser(open_denoiser(model, engine)) {}
    Ready(Ready&&) = delete;  // the denoiser looks into the model

    models::Model model;
    std::unique_ptr<diffusion::Denoiser> denoiser;
};

/// Draws with one model, in batches.
Tensor draw_with(const Ready& ready, const Sampling& sampling, const Wanted& wanted, at::Device device) {
    at::NoGradGuard no_gradients;
    const models::Model& model = ready.model;
    const diffusion::Denoiser& denoiser = *ready.denoiser;
    const auto levels = diffusion::sampling_levels(model.range, sampling.steps);
    std::vector<Tensor> parts;
    for (std::size_t first = 0; first < wanted.numbers.size(); first += largest_batch) {
        const std::size_t end = std::min(first + largest_batch, wanted.numbers.size());
        std::vector<Tensor> noise;
        for (std::size_t i = first; i < end; ++i) {
            noise.push_back(diffusion::image_noise(wanted.seed, wanted.numbers[i], 1, model.network.data_shape));
        }
        const std::span<const std::int64_t> classes(wanted.classes.data() + first, end - first);
        const auto condition = diffusion::one_hot(classes, model.network.classes, device);
        const Tensor z = at::cat(noise).to(device);
        switch (sampling.method) {
            case Sampling::Method::one_step: parts.push_back(diffusion::sample_one_step(denoiser, z, model.range.sigma_max, condition)); break;
            case Sampling::Method::heun: parts.push_back(diffusion::sample_heun(denoiser, z, levels, condition)); break;
            case Sampling::Method::ddim: parts.push_back(diffusion::sample_ddim(denoiser, z, levels, condition)); break;
        }
    }
    return at::cat(parts).to(at::kCPU);
}

void check_classes(const std::vector<std::int64_t>& wanted, std::int64_t classes) {
    for (const std::int64_t c : wanted) {
        if (c < 0 || c >= classes) throw core::UsageError(fmt::format("class {} is out of range; this model knows 0 to {}", c, classes - 1));
    }
}

class SingleModel : public Generator {
public:
    SingleModel(models::Model model, Sampling sampling, const Engine& engine) : ready_(std::move(model), engine), sampling_(sampling), engine_(engine) {
        const auto provenance = ready_.model.config.value("provenance", nlohmann::json::object());
        const std::int64_t classes = std::max<std::int64_t>(1, ready_.model.network.classes);
        prior_.weights = provenance.value("prior", std::vector<double>(static_cast<std::size_t>(classes), 1.0));
        if (prior_.classes() != classes) prior_.weights.assign(static_cast<std::size_t>(classes), 1.0);
    }

    Tensor draw(const Wanted& wanted) override {
        check_classes(wanted.classes, prior_.classes());
        return draw_with(ready_, sampling_, wanted, engine_.device);
    }
    const models::DataForm& form() const override { return ready_.model.form; }
    const conditions::Prior& prior() const override { return prior_; }
    std::int64_t student_of(std::int64_t) const override { return 0; }
    std::int64_t students() const override { return 1; }
    std::string hash_of_student(std::int64_t) override { return ops::hash_of(ready_.model.parameters); }
    const Sampling& sampling() const override { return sampling_; }
    const Engine& engine() const override { return engine_; }
    std::int64_t parameters_of_student(std::int64_t) override { return ready_.model.parameters.count(); }

private:
    Ready ready_;
    conditions::Prior prior_;
    Sampling sampling_;
    Engine engine_;
};

/// Students are read when first asked for; a mixed batch is grouped by student and put back in order.
class RoutedEnsemble : public Generator {
public:
    RoutedEnsemble(models::Ensemble ensemble, const Engine& engine)
        : ensemble_(std::move(ensemble)), router_(ensemble_.partition), loaded_(ensemble_.students.size()), engine_(engine) {}

    Tensor draw(const Wanted& wanted) override {
        check_classes(wanted.classes, ensemble_.partition.classes());
        std::vector<std::int64_t> shape{static_cast<std::int64_t>(wanted.numbers.size())};
        shape.insert(shape.end(), ensemble_.form.shape.begin(), ensemble_.form.shape.end());
        Tensor all = at::empty(shape, at::kFloat);
        for (const conditions::Group& group : conditions::group_by_student(router_, wanted.classes)) {
            Wanted part{wanted.seed, {}, {}};
            for (const std::int64_t position : group.positions) {
                part.numbers.push_back(wanted.numbers[static_cast<std::size_t>(position)]);
                part.classes.push_back(wanted.classes[static_cast<std::size_t>(position)]);
            }
            all.index_copy_(0, at::tensor(group.positions, at::kLong), draw_with(student(group.student), sampling_, part, engine_.device));
        }
        return all;
    }
    const models::DataForm& form() const override { return ensemble_.form; }
    const conditions::Prior& prior() const override { return ensemble_.prior; }
    std::int64_t student_of(std::int64_t class_id) const override { return router_.route(class_id); }
    std::int64_t students() const override { return ensemble_.partition.students; }
    std::string hash_of_student(std::int64_t k) override { return ops::hash_of(student(k).model.parameters); }
    const Sampling& sampling() const override { return sampling_; }
    const Engine& engine() const override { return engine_; }
    std::int64_t parameters_of_student(std::int64_t k) override { return student(k).model.parameters.count(); }

private:
    const Ready& student(std::int64_t k) {
        auto& slot = loaded_[static_cast<std::size_t>(k)];
        if (!slot) slot = std::make_unique<Ready>(models::read_student(ensemble_, k, engine_.device), engine_);
        return *slot;
    }

    models::Ensemble ensemble_;
    conditions::Router router_;
    std::vector<std::unique_ptr<Ready>> loaded_;
    Sampling sampling_;
    Engine engine_;
};

}  // namespace

std::int64_t Sampling::evaluations() const {
    switch (method) {
        case Method::one_step: return 1;
        case Method::heun: return 2 * steps - 1;
        case Method::ddim: return steps;
    }
    return 0;
}

Sampling::Method sampling_method(const std::string& name) {
    const auto found = methods().find(name);
    if (found != methods().end()) return found->second;
    std::vector<std::string> known;
    for (const auto& [word, method] : methods()) known.push_back(word);
    const std::string near = core::nearest_word(name, known);
    throw core::UsageError(fmt::format("there is no sampler \"{}\"; {}known are one-step, heun and ddim", name,
                                       near.empty() ? "" : "did you mean \"" + near + "\"? "));
}

std::string name_of(Sampling::Method method) {
    for (const auto& [name, known] : methods()) {
        if (known == method) return name;
    }
    return "";
}

Wanted plan(std::int64_t count, std::uint64_t seed, const std::vector<std::int64_t>& classes, const conditions::Prior& prior) {
    Wanted wanted{seed, {}, {}};
    for (std::int64_t i = 0; i < count; ++i) {
        wanted.numbers.push_back(i);
        wanted.classes.push_back(classes.empty() ? conditions::draw_class(prior, seed, static_cast<std::uint64_t>(i))
                                                 : classes[static_cast<std::size_t>(i) % classes.size()]);
    }
    return wanted;
}

std::unique_ptr<Generator> open_generator(const std::filesystem::path& path, const std::optional<Sampling>& sampling, const Engine& engine) {
    if (models::is_ensemble_directory(path)) {
        if (sampling && sampling->method != Sampling::Method::one_step) {
            throw core::UsageError(path.string() + ": an ensemble's students take one step; --sampler " + name_of(sampling->method) +
                                   " is for the teacher");
        }
        return std::make_unique<RoutedEnsemble>(models::read_ensemble(path), engine);
    }
    if (!std::filesystem::exists(path)) core::fail("{}: there is no such model; name a model or ensemble directory", path.string());
    models::Model model = models::read_model(path, engine.device);
    const bool student = model.config.contains("place");
    const Sampling usual{student ? Sampling::Method::one_step : Sampling::Method::heun, 18};
    return std::make_unique<SingleModel>(std::move(model), sampling.value_or(usual), engine);
}

std::string hash_of(Generator& generator) {
    if (generator.students() == 1) return generator.hash_of_student(0);
    std::string all;
    for (std::int64_t k = 0; k < generator.students(); ++k) all += generator.hash_of_student(k);
    return core::sha256(all);
}

}  // namespace atelier::inference
