#include "atelier/inference/pipeline.h"

#include <map>
#include <mutex>

#include "atelier/backends/torch/deterministic.h"
#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/signals.h"
#include "atelier/graph/cost.h"
#include "atelier/inference/diffusers_sampler.h"
#include "atelier/inference/images_together.h"
#include "atelier/models/ensemble.h"
#include "atelier/models/latent_model.h"
#include "atelier/models/opened_model.h"
#include "atelier/networks/network.h"

namespace atelier::inference {

namespace {

namespace fs = std::filesystem;

/// The class frequencies that a model was trained on; uniform when its config has none.
conditions::Prior prior_of(const models::Model& model) {
    const auto classes =
        static_cast<std::size_t>(std::max<std::int64_t>(1, model.network.label_dim));
    conditions::Prior prior{model.provenance.prior.value_or(std::vector<double>(classes, 1.0))};
    if (prior.weights.size() != classes) prior.weights.assign(classes, 1.0);
    return prior;
}

/// A model directory as an ensemble of one student that owns everything, without a manifest.
models::Ensemble ensemble_of_one(const fs::path& path, const models::Model& model) {
    models::Ensemble one;
    one.directory = path;
    one.students = {path};
    one.spec = model.spec;
    one.prior = prior_of(model);
    one.partition = {
        .students = 1,
        .method = "whole",
        .owner = std::vector<std::int64_t>(static_cast<std::size_t>(one.prior.classes()), 0)};
    return one;
}

/// The students of an ensemble, or a single model.
class DirectoryModels final : public Pipeline::Models {
public:
    DirectoryModels(models::Ensemble ensemble, const Engine& engine, const Tensor& empty_prompt,
                    double guidance)
        : ensemble_(std::move(ensemble)),
          engine_(engine),
          empty_prompt_(empty_prompt),
          guidance_(guidance) {}

    std::unique_ptr<Sampler> open(std::int64_t student, const Sampling& sampling) const override {
        std::vector<std::int64_t> classes;
        if (!empty_prompt_.defined()) classes = ensemble_.partition.cell(student);
        return open_sampler(
            models::read_weights(opened(student), engine_.device, engine_.weights()), sampling,
            engine_, std::move(classes), empty_prompt_, guidance_);
    }

    Pipeline::NetworkSize size(std::int64_t student) const override {
        const auto traced = networks::trace(
            models::read_model_config(ensemble_.students.at(static_cast<std::size_t>(student)))
                .network);
        Pipeline::NetworkSize size{0, traced.flops};
        for (const auto& one : traced.parameters) size.parameters += graph::elements(one.shape);
        return size;
    }

    void hold(std::int64_t student) const override {
        const models::Model model = opened(student);
        const std::lock_guard alone(busy_);
        held_.emplace(student, model);
    }

private:
    models::Model opened(std::int64_t student) const {
        {
            const std::lock_guard alone(busy_);
            if (const auto found = held_.find(student); found != held_.end()) return found->second;
        }
        if (ensemble_.manifest.is_null()) return models::open_model(ensemble_.directory);
        return models::open_student(ensemble_, student);
    }

    models::Ensemble ensemble_;
    Engine engine_;
    Tensor empty_prompt_;  // undefined for classes
    double guidance_;
    mutable std::mutex busy_;
    mutable std::map<std::int64_t, models::Model> held_;
};

class DiffusersModels final : public Pipeline::Models {
public:
    DiffusersModels(const fs::path& path, DiffusersOptions options)
        : path_(path), options_(std::move(options)) {}

    std::unique_ptr<Sampler> open(std::int64_t, const Sampling& sampling) const override {
        return std::make_unique<DiffusersSampler>(path_, sampling, options_);
    }

    Pipeline::NetworkSize size(std::int64_t) const override {
        const models::DiffusersDirectory directory(path_);
        constexpr std::int64_t tokens_of_clip = 77;
        const networks::NamedFunction denoise = directory.denoiser().functions().at("denoise");
        std::vector<graph::Shape> shapes;
        for (const auto& port : denoise.inputs) {
            graph::Shape shape = port.name == "x" ? options_.shape : port.shape;
            for (std::int64_t& size : shape) size = size < 0 ? tokens_of_clip : size;
            shape.insert(shape.begin(), 1);
            shapes.push_back(shape);
        }
        return {directory.denoiser_weights().count(),
                graph::flops(graph::record(shapes, denoise.record))};
    }

private:
    fs::path path_;
    DiffusersOptions options_;
};

void check_no_stop() {
    if (core::stop_requested())
        throw core::Interrupted("interrupted while sampling; nothing was written");
}

}  // namespace

std::unique_ptr<Pipeline> Pipeline::load(const fs::path& path, const PipelineOptions& options) {
    std::unique_ptr<Pipeline> pipeline(new Pipeline);
    if (models::is_diffusers_directory(path)) pipeline->load_diffusers(path, options);
    else pipeline->load_models(path, options);
    pipeline->loaded_.resize(static_cast<std::size_t>(pipeline->students()));
    return pipeline;
}

void Pipeline::load_models(const fs::path& path, const PipelineOptions& options) {
    const fs::path parts = parts_directory(path);
    const bool prompts = models::has_prompt_encoder(parts);
    const auto sampling = sampling_of(options.sampler, options.steps);
    if (!options.negative.empty() || options.height != 0 || options.width != 0)
        throw core::UsageError("--negative, --height and --width are for diffusers directories; " +
                               path.string() + " is none");
    if (!options.low_rank.empty())
        throw core::UsageError("--lora is for diffusers directories; " + path.string() +
                               " is none");
    if (options.guidance && !prompts)
        throw core::UsageError(path.string() +
                               ": guidance is for teachers that read prompts, and this model knows "
                               "classes");
    models::Ensemble ensemble;
    models::Model first;
    bool student = true;
    if (models::is_ensemble_directory(path)) {
        ensemble = models::read_ensemble(path);
        first = models::read_model_config(ensemble.students.front());
        for (const fs::path& one : ensemble.students) {
            const Sampling its = default_sampling(models::read_card(one));
            if (its.method == Sampling::Method::few_step &&
                (sampling_.method == Sampling::Method::one_step || its.steps > sampling_.steps))
                sampling_ = its;
        }
    } else {
        first = models::read_model_config(path);
        student = first.is_student();
        ensemble = ensemble_of_one(path, first);
        sampling_ = default_sampling(first);
    }
    const bool several = sampling && sampling->method != Sampling::Method::one_step;
    if (prompts && student && (several || options.guidance))
        throw core::UsageError(
            path.string() +
            ": an ensemble's students take the steps they were trained for, guided "
            "as their teacher was; --sampler and --guidance are for the teacher");
    if (several && !ensemble.manifest.is_null())
        throw core::UsageError(path.string() +
                               ": an ensemble's students take the steps they were trained for; "
                               "--sampler " +
                               name_of(sampling->method) + " is for the teacher");
    if (sampling) sampling_ = *sampling;
    engine_ = engine_for(options.engine, first);
    spec_ = ensemble.spec;
    partition_ = ensemble.partition;
    Tensor empty_prompt;
    if (prompts) {
        auto conditioner =
            std::make_unique<PromptConditioner>(parts, first.network, engine_.device);
        empty_prompt = conditioner->empty_prompt();
        conditioner_ = std::move(conditioner);
        guidance_ = student ? 1 : options.guidance.value_or(first.guidance.value_or(1.0));
        prior_ = {{1.0}};
        partition_.owner.clear();
        if (ensemble.prompts) {
            router_ = Router(ensemble.prompts->router());
            partition_.method = ensemble.prompts->method;
            partition_hash_ = ensemble.prompts->hash();
        }
    } else {
        prior_ = ensemble.prior;
        conditioner_ = class_conditioner(partition_.classes());
        router_ = Router(conditions::Router(partition_));
        partition_hash_ = partition_.hash();
    }
    decoder_ = spec_.kind == data::SampleSpec::Kind::latent && models::has_autoencoder(parts)
                   ? latent_decoder(parts / "vae", spec_.shape, engine_)
                   : plain_decoder(spec_);
    models_ = std::make_unique<DirectoryModels>(std::move(ensemble), engine_, empty_prompt,
                                                guidance_.value_or(1));
}

void Pipeline::load_diffusers(const fs::path& path, const PipelineOptions& options) {
    const models::DiffusersDirectory directory(path);
    const DiffusersGuidance guidance{
        options.guidance.value_or(DiffusersGuidance::usual_scale(directory.family())),
        options.negative};
    if (!options.negative.empty() && !directory.reads_prompts())
        throw core::UsageError("--negative: " + path.string() + " knows classes, not prompts");
    sampling_ = diffusers_sampling(directory, options.sampler, options.steps);
    engine_ = options.engine;
    if (engine_.precision == Engine::Precision::automatic)
        engine_.precision = Engine::Precision::fp32;
    guidance_ = guidance.scale;
    negative_ = guidance.negative;
    spec_.kind = data::SampleSpec::Kind::latent;
    spec_.shape = latent_shape(directory, options.height, options.width);
    prior_ = {{1.0}};
    partition_ = {.students = 1, .method = "whole"};
    const DiffusersOptions how{engine_, guidance, spec_.shape, options.low_rank};
    if (directory.reads_prompts()) {
        conditioner_ = std::make_unique<DiffusersConditioner>(path, how);
    } else {
        const auto classes = static_cast<std::size_t>(directory.classes());
        spec_.class_names = directory.class_names();
        prior_.weights.assign(classes, 1.0);
        partition_.owner.assign(classes, 0);
        conditioner_ = class_conditioner(directory.classes());
    }
    decoder_ = latent_decoder(path / "vae", spec_.shape, engine_);
    models_ = std::make_unique<DiffusersModels>(path, how);
}

const Sampler& Pipeline::student(std::int64_t k) {
    auto& slot = loaded_.at(static_cast<std::size_t>(k));
    if (!slot) slot = open_student(k);
    return *slot;
}

std::vector<Router::Decision> Pipeline::route(std::span<const Condition> conditions) const {
    std::vector<Router::Decision> all;
    for (std::size_t first = 0; first < conditions.size(); first += largest_batch) {
        const auto batch = router_.assign(conditioner_->encode(conditions.subspan(
            first, std::min<std::size_t>(largest_batch, conditions.size() - first))));
        all.insert(all.end(), batch.begin(), batch.end());
    }
    return all;
}

std::vector<std::vector<std::int64_t>> Pipeline::batches(
    std::span<const SampleRequest> requests) const {
    const std::size_t in_memory = largest_batch * static_cast<std::size_t>(students()),
                      together = is_diffusers() ? decoded_together() : largest_batch;
    std::vector<std::vector<std::int64_t>> all;
    for (std::size_t first = 0; first < requests.size(); first += in_memory) {
        const auto block = requests.subspan(first, std::min(in_memory, requests.size() - first));
        std::vector<std::vector<std::int64_t>> groups(static_cast<std::size_t>(students()));
        const std::vector<Router::Decision> owners = route(conditions_of(block));
        for (std::size_t i = 0; i < owners.size(); ++i)
            groups[static_cast<std::size_t>(owners[i].student)].push_back(
                static_cast<std::int64_t>(first + i));
        for (const auto& group : groups) {
            for (std::size_t i = 0; i < group.size(); i += together)
                all.emplace_back(group.begin() + static_cast<std::ptrdiff_t>(i),
                                 group.begin() + static_cast<std::ptrdiff_t>(
                                                     std::min(i + together, group.size())));
        }
    }
    return all;
}

Tensor Pipeline::draw(std::span<const SampleRequest> requests,
                      const Sampler::OnEvaluation& on_evaluation) {
    const Conditioning encoded = conditioner_->encode(conditions_of(requests));
    if (students() == 1) return student(0).draw(requests, encoded, on_evaluation);
    std::vector<std::vector<std::int64_t>> groups(static_cast<std::size_t>(students()));
    const std::vector<Router::Decision> decisions = router_.assign(encoded);
    for (std::size_t i = 0; i < decisions.size(); ++i)
        groups[static_cast<std::size_t>(decisions[i].student)].push_back(
            static_cast<std::int64_t>(i));
    std::vector<std::int64_t> shape{static_cast<std::int64_t>(requests.size())};
    shape.insert(shape.end(), spec_.shape.begin(), spec_.shape.end());
    Tensor all = at::empty(shape, at::kFloat);
    for (std::size_t k = 0; k < groups.size(); ++k) {
        if (groups[k].empty()) continue;
        std::vector<SampleRequest> own;
        for (const std::int64_t i : groups[k]) own.push_back(requests[static_cast<std::size_t>(i)]);
        all.index_copy_(0, at::tensor(groups[k], at::kLong),
                        student(static_cast<std::int64_t>(k))
                            .draw(own, encoded.select(groups[k]), on_evaluation));
    }
    return all;
}

/// Latents that are decoded together.
std::size_t Pipeline::decoded_together() const {
    const std::vector<std::int64_t>& image = decoder_->spec().shape;
    return static_cast<std::size_t>(images_together(engine_.device, image.at(1), image.at(2)));
}

/// Latents take long to decode, so a stop is looked for between them. Those of a batch are decoded
/// together, so that it has the same bytes alone.
Tensor Pipeline::decode_all(const Tensor& samples, std::span<const SampleRequest> requests) {
    if (spec_.kind != data::SampleSpec::Kind::latent) return decode(samples);
    const std::size_t together = decoded_together();
    std::vector<std::vector<std::int64_t>> all(1);
    if (together > 1 && students() > 1) {
        all = batches(requests);
    } else {
        for (std::int64_t i = 0; i < samples.size(0); ++i) all.front().push_back(i);
    }
    std::vector<Tensor> decoded(requests.size());
    for (const std::vector<std::int64_t>& batch : all) {
        for (std::size_t i = 0; i < batch.size(); i += together) {
            check_no_stop();
            const at::ArrayRef<std::int64_t> some(batch.data() + i,
                                                  std::min(together, batch.size() - i));
            const Tensor images = decode(samples.index_select(0, at::tensor(some, at::kLong)));
            for (std::size_t k = 0; k < some.size(); ++k)
                decoded[static_cast<std::size_t>(some[k])] =
                    images.narrow(0, static_cast<std::int64_t>(k), 1);
        }
    }
    return at::cat(decoded);
}

Tensor Pipeline::in_batches(std::span<const SampleRequest> requests, bool decoded,
                            const OnProgress& on_progress,
                            const Sampler::OnEvaluation& on_evaluation) {
    const backends::Deterministic deterministic;
    const std::size_t batch_size =
        static_cast<std::size_t>(largest_batch) * static_cast<std::size_t>(students());
    const Sampler::OnEvaluation each_evaluation = [&] {
        check_no_stop();
        if (on_evaluation) on_evaluation();
    };
    std::vector<Tensor> all;
    for (std::size_t first = 0; first < requests.size(); first += batch_size) {
        check_no_stop();
        const std::size_t count = std::min(batch_size, requests.size() - first);
        const auto some = requests.subspan(first, count);
        const Tensor samples = draw(some, each_evaluation);
        all.push_back(decoded ? decode_all(samples, some) : samples);
        if (on_progress) on_progress(static_cast<std::int64_t>(first + count));
    }
    return at::cat(all);
}

Tensor Pipeline::sample(std::span<const SampleRequest> requests, const OnProgress& on_progress,
                        const Sampler::OnEvaluation& on_evaluation) {
    return in_batches(requests, true, on_progress, on_evaluation);
}

Tensor Pipeline::draw_all(std::span<const SampleRequest> requests, const OnProgress& on_progress) {
    return in_batches(requests, false, on_progress, {});
}

Tensor Pipeline::draw_decoded(std::span<const SampleRequest> requests) {
    if (spec_.kind != data::SampleSpec::Kind::latent) return draw_all(requests);
    return data::to_model_space(decoded_spec(), sample(requests));
}

std::string Pipeline::hash_of_student(std::int64_t k) { return student(k).hash(); }

std::vector<std::string> Pipeline::hashes() {
    std::vector<std::string> all;
    for (std::int64_t k = 0; k < students(); ++k) all.push_back(hash_of_student(k));
    return all;
}

std::string Pipeline::hash() { return hash_of(hashes()); }

std::int64_t Pipeline::parameters_of_student(std::int64_t k) {
    return student(k).parameter_count();
}

fs::path parts_directory(const fs::path& path) {
    if (models::has_prompt_encoder(path)) return path;
    const fs::path students =
        fs::absolute(path / "").lexically_normal().parent_path().parent_path();
    if (students.filename() == "students" && models::has_prompt_encoder(students.parent_path()))
        return students.parent_path();
    return path;
}

bool reads_prompts(const fs::path& path) {
    if (models::is_diffusers_directory(path))
        return models::DiffusersDirectory(path).reads_prompts();
    return models::has_prompt_encoder(parts_directory(path));
}

std::string hash_of(std::span<const std::string> hashes) {
    if (hashes.size() == 1) return hashes.front();
    std::string all;
    for (const std::string& hash : hashes) all += hash;
    return core::sha256(all);
}

}  // namespace atelier::inference
