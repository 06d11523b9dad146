#include "atelier/cli/served_model.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <numeric>

#include <fmt/ranges.h>

#include "atelier/cli/served_students.h"
#include "atelier/core/error.h"
#include "atelier/models/diffusers_directory.h"
#include "atelier/models/opened_model.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

std::int64_t bytes_of(inference::Engine::Precision precision) {
    if (precision == inference::Engine::Precision::int8) return 1;
    return precision == inference::Engine::Precision::bf16 ? 2 : 4;
}

/// What ensemble.json says; who computes is not in it.
server::Description description_of(const models::Ensemble& ensemble) {
    const models::DataForm& form = ensemble.form;
    const std::string where = ensemble.directory.string();
    if (form.kind == models::DataForm::Kind::points) core::fail("{}: draws points; only models of pictures are served", where);
    std::vector<std::int64_t> shape = form.shape;
    if (form.kind == models::DataForm::Kind::latent) shape = models::read_vae_config(ensemble.directory / "vae").image_shape(shape);
    server::Description description{.class_names = form.class_names, .partition = ensemble.partition, .prior = ensemble.prior,
                                    .width = static_cast<int>(shape[2]), .height = static_cast<int>(shape[1])};
    if (models::has_prompt_encoder(ensemble.directory)) {
        description.reads_prompts = true;
        description.class_names.clear();
        description.partition.owner.clear();
        description.prompts_hash = ensemble.partition_hash();
    } else if (!form.class_names.empty() && form.class_names.size() != static_cast<std::size_t>(ensemble.partition.classes())) {
        core::fail("{}: names {} classes and has {}", where, form.class_names.size(), ensemble.partition.classes());
    }
    return description;
}

/// The students to be asked here: `wanted`, or all.
std::vector<std::int64_t> students_of(const models::Ensemble& ensemble, const std::vector<std::int64_t>& wanted) {
    const std::int64_t students = ensemble.partition.students;
    for (const std::int64_t k : wanted) {
        if (k >= students) throw core::UsageError(fmt::format("--students: {} has no student {}; it has 0 to {}", ensemble.directory.string(), k, students - 1));
    }
    if (!wanted.empty()) return wanted;
    std::vector<std::int64_t> all(static_cast<std::size_t>(students));
    std::iota(all.begin(), all.end(), 0);
    return all;
}

/// Both an ensemble and a single model, which is an ensemble of one.
class ServedModel : public server::Generator {
public:
    ServedModel(models::Ensemble ensemble, const inference::Sampling& sampling, const Serving& serving)
        : ensemble_(std::move(ensemble)), sampling_(sampling), largest_batch_(serving.largest_batch), description_(description_of(ensemble_)) {
        const models::Model first = models::read_model_config(ensemble_.students.front());
        engine_ = inference::engine_for(serving.engine, first);
        description_.here = students_of(ensemble_, serving.students);
        description_.evaluations = sampling.evaluations();
        description_.engine = name_of(engine_.kind);
        description_.precision = name_of(engine_.precision);
        for (std::size_t k = 0; k < ensemble_.students.size(); ++k) {
            facts_.push_back(facts_of(k == 0 ? first : models::read_model_config(ensemble_.students[k])));
            facts_.back().present = std::ranges::binary_search(description_.here, static_cast<std::int64_t>(k));
        }
        for (const std::int64_t k : description_.here) opened_.emplace(k, open(k));
        if (description_.reads_prompts) tools_ = tools_for_prompts(first);
    }

    const server::Description& description() const override { return description_; }
    server::StudentFacts facts(std::int64_t k) const override { return facts_.at(static_cast<std::size_t>(k)); }

    std::vector<server::Reading> read(std::span<const std::string> prompts) const override {
        const inference::PromptReader::Reading reading = tools_->reader.read(prompts);
        std::vector<server::Reading> readings;
        for (std::int64_t i = 0; i < reading.told.size(0); ++i) {
            const auto place = tools_->reader.place(reading.embeddings[i]);
            readings.push_back(
                {place.student, place.margin, told_of(reading.told.narrow(0, i, 1)),
                 tools_->reader.encoder().tokenizer.unread(prompts[static_cast<std::size_t>(i)])});
        }
        return readings;
    }

    std::unique_ptr<server::Student> load(std::int64_t k) const override {
        models::Model model = models::read_weights(opened_.at(k), engine_.device, engine_.weights());
        PictureOrigin origin{.draw = {}, .student = k, .model_hash = model.hash(), .sampling = sampling_, .engine = engine_,
                             .class_names = ensemble_.form.class_names, .prompt = "", .guidance = std::nullopt};
        if (tools_) origin.guidance = tools_->guidance;
        auto student = tools_ ? prompt_student(std::move(model), origin, tools_, largest_batch_) : class_student(std::move(model), origin, ensemble_.partition.cell(k), largest_batch_);
        student->draw_some(1);
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
        auto tools = std::make_shared<PromptTools>(inference::PromptReader(ensemble_.directory, first.network, std::move(router)));
        if (!ensemble_.prompts) tools->guidance = first.config.value("guidance", 1.0);
        if (ensemble_.form.kind == models::DataForm::Kind::latent) tools->autoencoder.emplace(ensemble_.directory / "vae", engine_);
        return tools;
    }

    /// OpenVINO arranges the weights once for each batch size that it compiles for, the other engines once.
    server::StudentFacts facts_of(const models::Model& student) const {
        std::int64_t parameters = 0;
        for (const auto& one : networks::trace(student.network).parameters) parameters += ops::elements(one.shape);
        std::int64_t copies = 1;
        if (engine_.kind == inference::Engine::Kind::openvino) {
            for (std::size_t batch = 4; batch <= largest_batch_; batch *= 4) ++copies;
        }
        const bool native = engine_.kind == inference::Engine::Kind::native;  // float32, whatever was asked for
        return {parameters, parameters * copies * bytes_of(native ? inference::Engine::Precision::fp32 : engine_.precision)};
    }

    models::Ensemble ensemble_;
    inference::Sampling sampling_;
    inference::Engine engine_;
    std::size_t largest_batch_;
    server::Description description_;
    std::vector<server::StudentFacts> facts_;        // a student each
    std::shared_ptr<PromptTools> tools_;             // where prompts are read
    std::map<std::int64_t, models::Model> opened_;  // those here; who was put out of memory comes back as it was, whatever lies in its place by then
};

/// A model directory seen as an ensemble whose only student owns every class; it has no manifest.
models::Ensemble ensemble_of_one(const fs::path& path) {
    const models::Model model = models::read_model_config(path);
    models::Ensemble one;
    one.directory = path;
    one.students = {path};
    one.form = model.form;
    one.prior = inference::prior_of(model);
    one.partition = inference::whole_partition(one.prior.classes());
    return one;
}

std::shared_ptr<const server::Generator> opened(const fs::path& path, const Serving& serving) {
    if (models::is_diffusers_directory(path)) {
        throw core::UsageError(path.string() + ": is a diffusers directory; what is served are its students, or the teacher of a run (RUN/teacher)");
    }
    if (models::is_ensemble_directory(path)) return std::make_shared<ServedModel>(models::read_ensemble(path), inference::Sampling{}, serving);
    const inference::Sampling sampling = inference::usual_sampling(models::read_model_config(path));
    return std::make_shared<ServedModel>(ensemble_of_one(path), sampling, serving);
}

/// Of a router, who needs no more of a prompt than whose it is.
server::RoutedEnsemble::Read reader_for(const models::Ensemble& manifest) {
    const auto encoder = std::make_shared<const models::PromptEncoder>(models::read_prompt_encoder(manifest.directory));
    return [encoder, router = manifest.prompts->router()](std::span<const std::string> prompts) {
        const Tensor embeddings = encoder->embed(prompts);
        std::vector<server::Reading> readings;
        for (std::int64_t i = 0; i < embeddings.size(0); ++i) {
            const auto place = inference::place_of(router, embeddings[i]);
            readings.push_back({place.student, place.margin, nullptr,
                                encoder->tokenizer.unread(prompts[static_cast<std::size_t>(i)])});
        }
        return readings;
    };
}

/// Of the file that a path leads to, through links: which one it is, and when its content or its
/// place was changed last. A file may be replaced by one of the same size and time (`touch -r`,
/// images built with fixed times), but not by one of the same inode and change time.
std::string stamp_of(const fs::path& path) {
    struct stat file{};
    if (::stat(path.c_str(), &file) != 0) return path.string() + " is not there";
    return fmt::format("{} {}:{} {} {}.{:09} {}.{:09}", path.string(), file.st_dev, file.st_ino,
                       file.st_size, file.st_mtim.tv_sec, file.st_mtim.tv_nsec, file.st_ctim.tv_sec,
                       file.st_ctim.tv_nsec);
}

bool is_of_a_model(const fs::path& file) {
    constexpr std::array<std::string_view, 3> endings{".json", ".safetensors",
                                                      ".txt"};  // the last of tokenizers
    return std::ranges::find(endings, file.extension().string()) != endings.end();
}

/// Looks into the folders of a model, an ensemble's students and its text encoder, also where they
/// are links, but not into what training left beside.
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

server::Source served_source(const std::string& id, const fs::path& path, const Serving& serving) {
    return {.id = id, .open = [=] { return opened(path, serving); }, .stamp = [=] { return stamp_of_all(path); }};
}

server::Source routed_source(const std::string& id, const fs::path& path, const server::RoutedEnsemble::Options& options) {
    const auto open = [=]() -> std::shared_ptr<const server::Generator> {
        const models::Ensemble manifest = models::read_manifest(path);
        return std::make_shared<server::RoutedEnsemble>(options, id, description_of(manifest), manifest.prompts ? reader_for(manifest) : server::RoutedEnsemble::Read{});
    };
    return {.id = id, .open = open, .stamp = [=] { return stamp_of(path / "ensemble.json"); }};
}

}  // namespace atelier::cli
