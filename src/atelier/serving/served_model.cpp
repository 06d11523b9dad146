#include "atelier/serving/served_model.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <numeric>

#include <fmt/ranges.h>

#include "atelier/core/error.h"
#include "atelier/models/diffusers_directory.h"
#include "atelier/models/ensemble.h"
#include "atelier/models/prompt_encoder.h"
#include "atelier/serving/served_student.h"

namespace atelier::serving {

namespace {

namespace fs = std::filesystem;

std::int64_t bytes_of(inference::Engine::Precision precision) {
    if (precision == inference::Engine::Precision::int8) return 1;
    return precision == inference::Engine::Precision::bf16 ? 2 : 4;
}

/// A description without engine and precision. `where` begins error messages.
server::Description description_of(const data::SampleSpec& spec, const data::SampleSpec& decoded,
                                   const conditions::Partition& partition,
                                   const conditions::Prior& prior, const std::string& where) {
    if (decoded.kind == data::SampleSpec::Kind::points)
        core::fail("{}: generates points; only image models are served", where);
    if (!spec.class_names.empty() && !partition.owner.empty() &&
        spec.class_names.size() != static_cast<std::size_t>(partition.classes()))
        core::fail("{}: names {} classes and has {}", where, spec.class_names.size(),
                   partition.classes());
    return {.class_names = spec.class_names,
            .partition = partition,
            .prior = prior,
            .width = static_cast<int>(decoded.shape.at(2)),
            .height = static_cast<int>(decoded.shape.at(1))};
}

void make_prompted(server::Description& description, const std::string& partition_hash) {
    description.reads_prompts = true;
    description.class_names.clear();
    description.partition.owner.clear();
    description.prompts_hash = partition_hash;
}

/// The description from ensemble.json alone.
server::Description description_of(const models::Ensemble& ensemble) {
    data::SampleSpec decoded = ensemble.spec;
    if (decoded.kind == data::SampleSpec::Kind::latent)
        decoded.shape =
            models::read_vae_config(ensemble.directory / "vae").image_shape(decoded.shape);
    server::Description description = description_of(ensemble.spec, decoded, ensemble.partition,
                                                     ensemble.prior, ensemble.directory.string());
    if (models::has_prompt_encoder(ensemble.directory))
        make_prompted(description, ensemble.partition_hash());
    return description;
}

server::Description description_of(const inference::Pipeline& pipeline, const fs::path& path) {
    server::Description description =
        description_of(pipeline.spec(), pipeline.decoded_spec(), pipeline.partition(),
                       pipeline.prior(), path.string());
    if (pipeline.reads_prompts()) make_prompted(description, pipeline.partition_hash());
    return description;
}

/// The students to serve: `requested`, or all if empty.
std::vector<std::int64_t> students_of(const fs::path& path, std::int64_t students,
                                      const std::vector<std::int64_t>& requested) {
    for (const std::int64_t k : requested) {
        if (k >= students)
            throw core::UsageError(fmt::format("--students: {} has no student {}; it has 0 to {}",
                                               path.string(), k, students - 1));
    }
    if (!requested.empty()) return requested;
    std::vector<std::int64_t> all(static_cast<std::size_t>(students));
    std::iota(all.begin(), all.end(), 0);
    return all;
}

/// Serves whatever a pipeline samples; a model without students is served as one.
class ServedModel : public server::Generator {
public:
    ServedModel(const fs::path& path, const ServingOptions& serving)
        : pipeline_(inference::Pipeline::load(path, {.engine = serving.engine})),
          max_batch_(serving.max_batch),
          description_(description_of(*pipeline_, path)) {
        description_.served_students = students_of(path, pipeline_->students(), serving.students);
        description_.evaluations = pipeline_->sampling().evaluations();
        description_.engine = name_of(pipeline_->engine().kind);
        description_.precision = name_of(pipeline_->engine().precision);
        for (std::int64_t k = 0; k < pipeline_->students(); ++k) {
            facts_.push_back(facts_of(k));
            facts_.back().available = std::ranges::binary_search(description_.served_students, k);
        }
        // An evicted student is loaded again from the same files, even if they were replaced.
        for (const std::int64_t k : description_.served_students) pipeline_->hold(k);
    }

    const server::Description& description() const override { return description_; }
    server::StudentFacts facts(std::int64_t k) const override {
        return facts_.at(static_cast<std::size_t>(k));
    }

    std::vector<server::EncodedPrompt> encode(std::span<const std::string> prompts) const override {
        const inference::Conditioning batch = pipeline_->encode(inference::conditions_of(prompts));
        const auto owners = pipeline_->router().assign(batch);
        std::vector<server::EncodedPrompt> encoded;
        for (std::size_t i = 0; i < prompts.size(); ++i)
            encoded.push_back({owners[i].student, owners[i].margin,
                               std::make_shared<const EncodedCondition>(
                                   batch.narrow(static_cast<std::int64_t>(i), 1)),
                               pipeline_->conditioner().truncated_tail(prompts[i])});
        return encoded;
    }

    std::unique_ptr<server::Student> load(std::int64_t k) const override {
        auto sampler = pipeline_->open_student(k);
        const std::string hash = pipeline_->is_diffusers() ? "" : sampler->hash();
        inference::Condition any;
        if (!description_.reads_prompts)
            any = inference::ClassId{description_.partition.cell(k).front()};
        auto student = std::make_unique<ServedStudent>(
            std::move(sampler), pipeline_->decoder(), image_origin(*pipeline_, k, hash),
            pipeline_->spec().shape, pipeline_->encode({&any, 1}), max_batch_);
        student->warm_up(1);
        return student;
    }

private:
    /// OpenVINO keeps a copy of a student's weights per compiled batch size; the other engines, and
    /// diffusers directories, which draw one image after another, one copy.
    server::StudentFacts facts_of(std::int64_t k) const {
        const std::int64_t parameters = pipeline_->size_of_student(k).parameters;
        const inference::Engine& engine = pipeline_->engine();
        std::int64_t copies = 1;
        if (engine.kind == inference::Engine::Kind::openvino && !pipeline_->is_diffusers()) {
            for (std::size_t batch = 4; batch <= max_batch_; batch *= 4) ++copies;
        }
        const bool native = engine.kind == inference::Engine::Kind::native;  // always float32
        return {parameters,
                parameters * copies *
                    bytes_of(native ? inference::Engine::Precision::fp32 : engine.precision)};
    }

    std::unique_ptr<inference::Pipeline> pipeline_;
    std::size_t max_batch_;
    server::Description description_;
    std::vector<server::StudentFacts> facts_;  // one per student
};

/// Routes prompts without conditioning, which a router does not need.
server::RoutedEnsemble::Encode prompt_router_for(const models::Ensemble& manifest) {
    const auto encoder = std::make_shared<const models::PromptEncoder>(
        models::read_prompt_encoder(manifest.directory));
    return [encoder, router = manifest.prompts->router()](std::span<const std::string> prompts) {
        const Tensor embeddings = encoder->embed(prompts).contiguous();
        std::vector<server::EncodedPrompt> encoded;
        for (std::int64_t i = 0; i < embeddings.size(0); ++i) {
            const auto route =
                router.decide({embeddings.const_data_ptr<float>() + i * embeddings.size(1),
                               static_cast<std::size_t>(embeddings.size(1))});
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
            .open = [=] { return std::make_shared<ServedModel>(path, serving); },
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
