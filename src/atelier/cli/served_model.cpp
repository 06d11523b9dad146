#include "atelier/cli/served_model.h"

#include <algorithm>
#include <mutex>
#include <numeric>

#include <fmt/ranges.h>

#include "atelier/cli/picture_text.h"
#include "atelier/core/error.h"
#include "atelier/inference/generator.h"
#include "atelier/models/opened_model.h"
#include "atelier/models/prompt_encoder.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

class ReadyStudent : public server::Student {
public:
    /// `origin`: all but the draw. `classes`: the student's own.
    ReadyStudent(models::Model model, PictureOrigin origin, const std::vector<std::int64_t>& classes, std::size_t largest_batch)
        : origin_(std::move(origin)), ready_(std::move(model), origin_.sampling, origin_.engine, classes), any_class_(classes.front()), largest_batch_(largest_batch) {}

    std::vector<server::Picture> generate(std::span<const server::Draw> draws, server::Clock::time_point) override {
        std::vector<inference::Draw> wanted;
        for (const server::Draw& draw : draws) wanted.push_back({draw.seed, draw.number, draw.class_id});
        const std::lock_guard alone(busy_);
        const Tensor user = models::to_user_space(ready_.model.form, ready_.draw(wanted));
        std::vector<server::Picture> pictures;
        for (std::size_t i = 0; i < wanted.size(); ++i) {
            origin_.draw = wanted[i];
            pictures.push_back({models::image_of(user[static_cast<std::int64_t>(i)]), picture_text(origin_)});
        }
        return pictures;
    }

    /// OpenVINO compiles for batches of 1, 4, 16, ... pictures when they are first drawn.
    void prepare() override {
        for (std::size_t batch = 4; batch <= largest_batch_; batch *= 4) draw_some(batch);
    }
    void draw_some(std::size_t count) { generate(std::vector<server::Draw>(count, {0, 0, any_class_}), {}); }

private:
    PictureOrigin origin_;
    std::mutex busy_;  // generate and prepare
    inference::ReadyModel ready_;
    std::int64_t any_class_;
    std::size_t largest_batch_;
};

std::int64_t bytes_of(inference::Engine::Precision precision) {
    if (precision == inference::Engine::Precision::int8) return 1;
    return precision == inference::Engine::Precision::bf16 ? 2 : 4;
}

/// What ensemble.json says; who computes is not in it.
server::Description description_of(const models::Ensemble& ensemble) {
    models::refuse_prompts(ensemble.directory);
    const models::DataForm& form = ensemble.form;
    const std::string where = ensemble.directory.string();
    if (form.kind != models::DataForm::Kind::image) core::fail("{}: draws points; only models of pictures are served", where);
    if (!form.class_names.empty() && form.class_names.size() != static_cast<std::size_t>(ensemble.partition.classes())) {
        core::fail("{}: names {} classes and has {}", where, form.class_names.size(), ensemble.partition.classes());
    }
    return {.class_names = form.class_names, .partition = ensemble.partition, .prior = ensemble.prior, .width = static_cast<int>(form.shape[2]),
            .height = static_cast<int>(form.shape[1])};
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
        : ensemble_(std::move(ensemble)), sampling_(sampling),
          engine_(inference::engine_for(serving.engine, models::read_model_config(ensemble_.students.front()))), largest_batch_(serving.largest_batch),
          description_(description_of(ensemble_)) {
        description_.here = students_of(ensemble_, serving.students);
        description_.evaluations = sampling.evaluations();
        description_.engine = name_of(engine_.kind);
        description_.precision = name_of(engine_.precision);
        for (std::size_t k = 0; k < ensemble_.students.size(); ++k) {
            facts_.push_back(facts_of(ensemble_.students[k]));
            facts_.back().present = std::ranges::binary_search(description_.here, static_cast<std::int64_t>(k));
        }
        for (const std::int64_t k : description_.here) opened_.emplace(k, open(k));
    }

    const server::Description& description() const override { return description_; }
    server::StudentFacts facts(std::int64_t k) const override { return facts_.at(static_cast<std::size_t>(k)); }

    std::unique_ptr<server::Student> load(std::int64_t k) const override {
        models::Model model = models::read_weights(opened_.at(k), engine_.device, engine_.weights());
        PictureOrigin origin{.student = k, .model_hash = ops::hash_of(model.parameters), .sampling = sampling_, .engine = engine_,
                             .class_names = ensemble_.form.class_names};
        const std::vector<std::int64_t> cell = ensemble_.partition.cell(k);
        auto student = std::make_unique<ReadyStudent>(std::move(model), std::move(origin), cell, largest_batch_);
        student->draw_some(1);
        return student;
    }

private:
    models::Model open(std::int64_t k) const {
        if (ensemble_.manifest.is_null()) return models::open_model(ensemble_.directory);
        return models::open_student(ensemble_, k);
    }

    /// OpenVINO arranges the weights once for each batch size that it compiles for.
    server::StudentFacts facts_of(const fs::path& student) const {
        std::int64_t parameters = 0;
        for (const auto& one : networks::trace(models::read_model_config(student).network).parameters) {
            std::int64_t size = 1;
            for (const std::int64_t side : one.shape) size *= side;
            parameters += size;
        }
        std::int64_t copies = 1;
        if (engine_.kind == inference::Engine::Kind::openvino) {
            for (std::size_t batch = 4; batch <= largest_batch_; batch *= 4) ++copies;
        }
        return {parameters, parameters * copies * bytes_of(engine_.precision)};
    }

    models::Ensemble ensemble_;
    inference::Sampling sampling_;
    inference::Engine engine_;
    std::size_t largest_batch_;
    server::Description description_;
    std::vector<server::StudentFacts> facts_;        // a student each
    std::map<std::int64_t, models::Model> opened_;  // those here; who was put out of memory comes back as it was, whatever lies in its place by then
};

/// A model directory seen as an ensemble whose only student owns every class; it has no manifest.
models::Ensemble ensemble_of_one(const fs::path& path) {
    const models::Model model = models::read_model_config(path);
    models::Ensemble one{.directory = path, .prior = inference::prior_of(model), .form = model.form, .students = {path}};
    one.partition = inference::whole_partition(one.prior.classes());
    return one;
}

std::shared_ptr<const server::Generator> opened(const fs::path& path, const Serving& serving) {
    if (models::is_ensemble_directory(path)) return std::make_shared<ServedModel>(models::read_ensemble(path), inference::Sampling{}, serving);
    const inference::Sampling sampling = inference::usual_sampling(models::read_model_config(path));
    return std::make_shared<ServedModel>(ensemble_of_one(path), sampling, serving);
}

std::string stamp_of(const fs::directory_entry& file) {
    std::error_code ignored;
    return fmt::format("{} {} {}", file.path().string(), file.last_write_time(ignored).time_since_epoch().count(), file.file_size(ignored));
}

std::string stamp_of_all(const fs::path& path) {
    std::vector<std::string> files;
    std::error_code ignored;
    for (auto entry = fs::recursive_directory_iterator(path, ignored); entry != fs::recursive_directory_iterator(); entry.increment(ignored)) {
        const std::string name = entry->path().filename().string();
        if (name == "ensemble.json" || name == "config.json" || name == "model.safetensors") files.push_back(stamp_of(*entry));
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
        return std::make_shared<server::RoutedEnsemble>(options, id, description_of(models::read_manifest(path)));
    };
    return {.id = id, .open = open, .stamp = [=] {
                std::error_code ignored;
                return stamp_of(fs::directory_entry(path / "ensemble.json", ignored));
            }};
}

}  // namespace atelier::cli
