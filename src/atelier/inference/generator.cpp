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
class Ready {
public:
    /// `classes`: those that will be asked for; without, all.
    Ready(models::Model read, const Sampling& sampling, const Engine& engine, std::vector<std::int64_t> classes = {})
        : model(std::move(read)), sampling_(sampling), device_(engine.device) {
        if (sampling.method == Sampling::Method::one_step) one_step_ = open_one_step(model, engine, std::move(classes));
        else denoiser_ = open_denoiser(model, engine);
    }
    Ready(Ready&&) = delete;  // the sampler looks into the model

    /// Draws in batches of at most `largest_batch`.
    Tensor draw(const Wanted& wanted) const {
        at::NoGradGuard no_gradients;
        std::vector<Tensor> parts;
        for (std::size_t first = 0; first < wanted.numbers.size(); first += largest_batch) {
            const std::size_t count = std::min(largest_batch, wanted.numbers.size() - first);
            std::vector<Tensor> noise;
            for (const std::int64_t number : std::span(wanted.numbers).subspan(first, count)) {
                noise.push_back(diffusion::image_noise(wanted.seed, number, 1, model.network.data_shape));
            }
            parts.push_back(one_batch(at::cat(noise), std::span(wanted.classes).subspan(first, count)));
        }
        return at::cat(parts);
    }

    const models::Model model;

private:
    Tensor one_batch(const Tensor& z, std::span<const std::int64_t> classes) const {
        const auto solved = [&](auto solver) {
            const auto condition = diffusion::one_hot(classes, model.network.classes, device_);
            return solver(*denoiser_, z.to(device_), diffusion::sampling_levels(model.range, sampling_.steps), condition).to(at::kCPU);
        };
        switch (sampling_.method) {
            case Sampling::Method::one_step: return one_step_->draw(z, classes);
            case Sampling::Method::heun: return solved(diffusion::sample_heun);
            case Sampling::Method::ddim: return solved(diffusion::sample_ddim);
        }
        return {};
    }

    Sampling sampling_;
    at::Device device_;
    std::unique_ptr<OneStep> one_step_;            // one of these two
    std::unique_ptr<diffusion::Denoiser> denoiser_;
};

void check_classes(const std::vector<std::int64_t>& wanted, std::int64_t classes) {
    for (const std::int64_t c : wanted) {
        if (c < 0 || c >= classes) throw core::UsageError(fmt::format("class {} is out of range; this model knows 0 to {}", c, classes - 1));
    }
}

class SingleModel : public Generator {
public:
    SingleModel(models::Model model, Sampling sampling, const Engine& engine) : ready_(std::move(model), sampling, engine), sampling_(sampling), engine_(engine_for(engine, ready_.model)) {
        const auto provenance = ready_.model.config.value("provenance", nlohmann::json::object());
        const std::int64_t classes = std::max<std::int64_t>(1, ready_.model.network.classes);
        prior_.weights = provenance.value("prior", std::vector<double>(static_cast<std::size_t>(classes), 1.0));
        if (prior_.classes() != classes) prior_.weights.assign(static_cast<std::size_t>(classes), 1.0);
    }

    Tensor draw(const Wanted& wanted) override {
        check_classes(wanted.classes, prior_.classes());
        return ready_.draw(wanted);
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
        : ensemble_(std::move(ensemble)), router_(ensemble_.partition), loaded_(ensemble_.students.size()),
          engine_(engine_for(engine, models::read_model_config(ensemble_.students.front()))) {}

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
            all.index_copy_(0, at::tensor(group.positions, at::kLong), student(group.student).draw(part));
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
        if (!slot) {
            slot = std::make_unique<Ready>(models::read_student(ensemble_, k, engine_.device, engine_.weights()), sampling_, engine_,
                                           ensemble_.partition.cell(k));
        }
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
    models::Model model = models::read_model(path, engine.device, engine.weights());
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
