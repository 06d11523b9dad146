#include "atelier/serving/served_model.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <numeric>

#include <fmt/ranges.h>

#include "atelier/core/error.h"
#include "atelier/models/diffusers_directory.h"
#include "atelier/models/opened_model.h"
#include "atelier/serving/served_students.h"

namespace atelier::serving {

namespace {

namespace fs = std::filesystem;

std::int64_t bytes_of(inference::Engine::Precision precision) {
    if (precision == inference::Engine::Precision::int8) return 1;
    return precision == inference::Engine::Precision::bf16 ? 2 : 4;
}

/// The description from ensemble.json, without engine and precision.
server::Description description_of(const models::Ensemble& ensemble) {
    const data::SampleSpec& spec = ensemble.spec;
    const std::string where = ensemble.directory.string();
    if (spec.kind == data::SampleSpec::Kind::points)
        core::fail("{}: generates points; only image models are served", where);
    std::vector<std::int64_t> shape = spec.shape;
    if (spec.kind == data::SampleSpec::Kind::latent)
        shape = models::read_vae_config(ensemble.directory / "vae").image_shape(shape);
    server::Description description{.class_names = spec.class_names,
                                    .partition = ensemble.partition,
                                    .prior = ensemble.prior,
                                    .width = static_cast<int>(shape[2]),
                                    .height = static_cast<int>(shape[1])};
    if (models::has_prompt_encoder(ensemble.directory)) {
        description.reads_prompts = true;
        description.class_names.clear();
        description.partition.owner.clear();
        description.prompts_hash = ensemble.partition_hash();
    } else if (!spec.class_names.empty() &&
               spec.class_names.size() != static_cast<std::size_t>(ensemble.partition.classes())) {
        core::fail("{}: names {} classes and has {}", where, spec.class_names.size(),
                   ensemble.partition.classes());
    }
    return description;
}

/// The students to serve: `requested`, or all if empty.
std::vector<std::int64_t> students_of(const models::Ensemble& ensemble,
                                      const std::vector<std::int64_t>& requested) {
    const std::int64_t students = ensemble.partition.students;
    for (const std::int64_t k : requested) {
        if (k >= students)
            throw core::UsageError(fmt::format("--students: {} has no student {}; it has 0 to {}",
                                               ensemble.directory.string(), k, students - 1));
    }
    if (!requested.empty()) return requested;
    std::vector<std::int64_t> all(static_cast<std::size_t>(students));
    std::iota(all.begin(), all.end(), 0);
    return all;
}

/// Serves an ensemble or a single model, which is treated as an ensemble of one.
class ServedModel : public server::Generator {
public:
    ServedModel(models::Ensemble ensemble, const inference::Sampling& sampling,
                const ServingOptions& serving)
        : ensemble_(std::move(ensemble)),
          sampling_(sampling),
          max_batch_(serving.max_batch),
          description_(description_of(ensemble_)) {
        const models::Model first = models::read_model_config(ensemble_.students.front());
        engine_ = inference::engine_for(serving.engine, first);
        description_.served_students = students_of(ensemble_, serving.students);
        description_.evaluations = sampling.evaluations();
        description_.engine = name_of(engine_.kind);
        description_.precision = name_of(engine_.precision);
        for (std::size_t k = 0; k < ensemble_.students.size(); ++k) {
            facts_.push_back(
                facts_of(k == 0 ? first : models::read_model_config(ensemble_.students[k])));
            facts_.back().available = std::ranges::binary_search(description_.served_students,
                                                                 static_cast<std::int64_t>(k));
        }
        for (const std::int64_t k : description_.served_students) opened_.emplace(k, open(k));
        if (description_.reads_prompts) tools_ = tools_for_prompts(first);
    }

    const server::Description& description() const override { return description_; }
    server::StudentFacts facts(std::int64_t k) const override {
        return facts_.at(static_cast<std::size_t>(k));
    }

    std::vector<server::EncodedPrompt> encode(std::span<const std::string> prompts) const override {
        const inference::PromptReader::EncodedPrompts batch = tools_->reader.encode(prompts);
        std::vector<server::EncodedPrompt> encoded;
        for (std::int64_t i = 0; i < batch.conditioning.size(0); ++i) {
            const auto route = tools_->reader.route(batch.embeddings[i]);
            encoded.push_back({route.student, route.margin,
                               conditioning_of(batch.conditioning.narrow(0, i, 1)),
                               tools_->reader.encoder().tokenizer.truncated_tail(
                                   prompts[static_cast<std::size_t>(i)])});
        }
        return encoded;
    }

    std::unique_ptr<server::Student> load(std::int64_t k) const override {
        models::Model model =
            models::read_weights(opened_.at(k), engine_.device, engine_.weights());
        ImageOrigin origin{.draw = {},
                           .student = k,
                           .model_hash = model.hash(),
                           .sampling = sampling_,
                           .engine = engine_,
                           .class_names = ensemble_.spec.class_names,
                           .prompt = "",
                           .guidance = std::nullopt};
        if (tools_) origin.guidance = tools_->guidance;
        auto student = tools_ ? prompt_student(std::move(model), origin, tools_, max_batch_)
                              : class_student(std::move(model), origin, ensemble_.partition.cell(k),
                                              max_batch_);
        student->warm_up(1);
        return student;
    }

private:
    models::Model open(std::int64_t k) const {
        if (ensemble_.manifest.is_null()) return models::open_model(ensemble_.directory);
        return models::open_student(ensemble_, k);
    }

    std::shared_ptr<PromptTools> tools_for_prompts(const models::Model& first) const {
        std::optional<conditions::Router> router;
        if (ensemble_.prompts) router = ensemble_.prompts->router();
        auto tools = std::make_shared<PromptTools>(
            inference::PromptReader(ensemble_.directory, first.network, std::move(router)));
        if (!ensemble_.prompts) tools->guidance = first.guidance.value_or(1.0);
        if (ensemble_.spec.kind == data::SampleSpec::Kind::latent)
            tools->autoencoder.emplace(ensemble_.directory / "vae", engine_);
        return tools;
    }

    /// OpenVINO keeps a copy of the weights per compiled batch size, the other engines one copy.
    server::StudentFacts facts_of(const models::Model& student) const {
        std::int64_t parameters = 0;
        for (const auto& one : networks::trace(student.network).parameters)
            parameters += graph::elements(one.shape);
        std::int64_t copies = 1;
        if (engine_.kind == inference::Engine::Kind::openvino) {
            for (std::size_t batch = 4; batch <= max_batch_; batch *= 4) ++copies;
        }
        const bool native = engine_.kind == inference::Engine::Kind::native;  // always float32
        return {parameters,
                parameters * copies *
                    bytes_of(native ? inference::Engine::Precision::fp32 : engine_.precision)};
    }

    models::Ensemble ensemble_;
    inference::Sampling sampling_;
    inference::Engine engine_;
    std::size_t max_batch_;
    server::Description description_;
    std::vector<server::StudentFacts> facts_;  // one per student
    std::shared_ptr<PromptTools> tools_;       // of text-conditional models
    std::map<std::int64_t, models::Model>
        opened_;  // served students, held open so that an evicted student reloads the same weights
                  // even if its files were replaced meanwhile
};

/// A model directory as an ensemble of one student that owns every class, without a manifest.
models::Ensemble ensemble_of_one(const fs::path& path) {
    const models::Model model = models::read_model_config(path);
    models::Ensemble one;
    one.directory = path;
    one.students = {path};
    one.spec = model.spec;
    one.prior = inference::prior_of(model);
    one.partition = inference::whole_partition(one.prior.classes());
    return one;
}

std::shared_ptr<const server::Generator> open_ensemble(const fs::path& path,
                                                       const ServingOptions& serving) {
    if (models::is_diffusers_directory(path)) {
        throw core::UsageError(path.string() +
                               ": is a diffusers directory; what is served are its students, or "
                               "the teacher of a run (RUN/teacher)");
    }
    if (models::is_ensemble_directory(path))
        return std::make_shared<ServedModel>(models::read_ensemble(path), inference::Sampling{},
                                             serving);
    const inference::Sampling sampling =
        inference::default_sampling(models::read_model_config(path));
    return std::make_shared<ServedModel>(ensemble_of_one(path), sampling, serving);
}

/// Routes prompts without conditioning, which a router does not need.
server::RoutedEnsemble::Encode prompt_router_for(const models::Ensemble& manifest) {
    const auto encoder = std::make_shared<const models::PromptEncoder>(
        models::read_prompt_encoder(manifest.directory));
    return [encoder, router = manifest.prompts->router()](std::span<const std::string> prompts) {
        const Tensor embeddings = encoder->embed(prompts);
        std::vector<server::EncodedPrompt> encoded;
        for (std::int64_t i = 0; i < embeddings.size(0); ++i) {
            const auto route = inference::route_embedding(router, embeddings[i]);
            encoded.push_back(
                {route.student, route.margin, nullptr,
                 encoder->tokenizer.truncated_tail(prompts[static_cast<std::size_t>(i)])});
        }
        return encoded;
    };
}

/// Identity, size and times of the file that a path resolves to, through links. A file may be
/// replaced by one of the same size and mtime (`touch -r`, container images with fixed times), but
/// not by one of the same inode and ctime.
std::string stamp_of(const fs::path& path) {
    struct stat file{};
    if (::stat(path.c_str(), &file) != 0) return path.string() + " is not there";
    return fmt::format("{} {}:{} {} {}.{:09} {}.{:09}", path.string(), file.st_dev, file.st_ino,
                       file.st_size, file.st_mtim.tv_sec, file.st_mtim.tv_nsec, file.st_ctim.tv_sec,
                       file.st_ctim.tv_nsec);
}

bool is_of_a_model(const fs::path& file) {
    constexpr std::array<std::string_view, 3> endings{".json", ".safetensors",
                                                      ".txt"};  // .txt: tokenizers
    return std::ranges::find(endings, file.extension().string()) != endings.end();
}

/// Stamps all files of a model, an ensemble's students and its text encoder, following links but
/// skipping training folders.
std::string stamp_of_all(const fs::path& path) {
    constexpr int deepest = 3;
    std::vector<std::string> files;
    std::error_code ignored;
    for (auto entry = fs::recursive_directory_iterator(
             path, fs::directory_options::follow_directory_symlink, ignored);
         entry != fs::recursive_directory_iterator(); entry.increment(ignored)) {
        if (entry.depth() >= deepest || entry->path().filename() == "training")
            entry.disable_recursion_pending();
        if (is_of_a_model(entry->path())) files.push_back(stamp_of(entry->path()));
    }
    std::ranges::sort(files);
    return fmt::format("{}", fmt::join(files, "\n"));
}

}  // namespace

server::ModelSource served_source(const std::string& id, const fs::path& path,
                                  const ServingOptions& serving) {
    return {.id = id,
            .open = [=] { return open_ensemble(path, serving); },
            .stamp = [=] { return stamp_of_all(path); }};
}

server::ModelSource routed_source(const std::string& id, const fs::path& path,
                                  const server::RoutedEnsemble::Options& options) {
    const auto open = [=]() -> std::shared_ptr<const server::Generator> {
        const models::Ensemble manifest = models::read_manifest(path);
        return std::make_shared<server::RoutedEnsemble>(
            options, id, description_of(manifest),
            manifest.prompts ? prompt_router_for(manifest) : server::RoutedEnsemble::Encode{});
    };
    return {.id = id, .open = open, .stamp = [=] { return stamp_of(path / "ensemble.json"); }};
}

}  // namespace atelier::serving
