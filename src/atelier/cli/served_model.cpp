#include "atelier/cli/served_model.h"

#include <algorithm>

#include <fmt/ranges.h>

#include "atelier/cli/picture_text.h"
#include "atelier/core/error.h"
#include "atelier/inference/generator.h"
#include "atelier/models/ensemble.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

class ReadyStudent : public server::Student {
public:
    /// `origin`: all but the draw. `classes`: the student's own.
    ReadyStudent(models::Model model, PictureOrigin origin, const std::vector<std::int64_t>& classes)
        : origin_(std::move(origin)), ready_(std::move(model), origin_.sampling, origin_.engine, classes) {}

    std::vector<server::Picture> generate(std::span<const server::Draw> draws) override {
        std::vector<inference::Draw> wanted;
        for (const server::Draw& draw : draws) wanted.push_back({draw.seed, draw.number, draw.class_id});
        const Tensor user = models::to_user_space(ready_.model.form, ready_.draw(wanted));
        std::vector<server::Picture> pictures;
        for (std::size_t i = 0; i < wanted.size(); ++i) {
            origin_.draw = wanted[i];
            pictures.push_back({models::image_of(user[static_cast<std::int64_t>(i)]), picture_text(origin_)});
        }
        return pictures;
    }

private:
    PictureOrigin origin_;
    inference::ReadyModel ready_;
};

std::int64_t bytes_of(inference::Engine::Precision precision) {
    if (precision == inference::Engine::Precision::int8) return 1;
    return precision == inference::Engine::Precision::bf16 ? 2 : 4;
}

/// Both an ensemble and a single model, which is an ensemble of one.
class ServedModel : public server::Generator {
public:
    ServedModel(models::Ensemble ensemble, const inference::Sampling& sampling, const inference::Engine& engine, std::size_t largest_batch)
        : ensemble_(std::move(ensemble)), sampling_(sampling), engine_(inference::engine_for(engine, models::read_model_config(ensemble_.students.front()))),
          largest_batch_(largest_batch) {
        const models::DataForm& form = ensemble_.form;
        const std::string where = ensemble_.directory.string();
        if (form.kind != models::DataForm::Kind::image) core::fail("{}: draws points; only models of pictures are served", where);
        if (!form.class_names.empty() && form.class_names.size() != static_cast<std::size_t>(ensemble_.partition.classes())) {
            core::fail("{}: names {} classes and has {}", where, form.class_names.size(), ensemble_.partition.classes());
        }
        description_ = {.class_names = form.class_names, .partition = ensemble_.partition, .prior = ensemble_.prior, .width = static_cast<int>(form.shape[2]),
                        .height = static_cast<int>(form.shape[1]), .evaluations = sampling.evaluations(), .engine = name_of(engine_.kind),
                        .precision = name_of(engine_.precision)};
        for (const fs::path& student : ensemble_.students) description_.students.push_back(facts_of(student));
    }

    const server::Description& description() const override { return description_; }

    std::unique_ptr<server::Student> load(std::int64_t k) const override {
        models::Model model = read(k);
        PictureOrigin origin{.student = k, .model_hash = ops::hash_of(model.parameters), .sampling = sampling_, .engine = engine_,
                             .class_names = ensemble_.form.class_names};
        const std::vector<std::int64_t> cell = ensemble_.partition.cell(k);
        auto student = std::make_unique<ReadyStudent>(std::move(model), std::move(origin), cell);
        for (std::size_t batch = 1; batch <= largest_batch_; batch *= 4) student->generate(std::vector<server::Draw>(batch, {0, 0, cell.front()}));
        return student;
    }

private:
    models::Model read(std::int64_t k) const {
        if (ensemble_.manifest.is_null()) return models::read_model(ensemble_.directory, engine_.device, engine_.weights());
        return models::read_student(ensemble_, k, engine_.device, engine_.weights());
    }

    /// OpenVINO arranges the weights once for each batch size that it compiles for.
    server::Description::StudentFacts facts_of(const fs::path& student) const {
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
};

/// A model directory seen as an ensemble whose only student owns every class; it has no manifest.
models::Ensemble ensemble_of_one(const fs::path& path) {
    const models::Model model = models::read_model_config(path);
    models::Ensemble one{.directory = path, .prior = inference::prior_of(model), .form = model.form, .students = {path}};
    one.partition = inference::whole_partition(one.prior.classes());
    return one;
}

std::shared_ptr<const server::Generator> opened(const fs::path& path, const inference::Engine& engine, std::size_t largest_batch) {
    if (models::is_ensemble_directory(path)) return std::make_shared<ServedModel>(models::read_ensemble(path), inference::Sampling{}, engine, largest_batch);
    const inference::Sampling sampling = inference::usual_sampling(models::read_model_config(path));
    return std::make_shared<ServedModel>(ensemble_of_one(path), sampling, engine, largest_batch);
}

std::string stamp_of(const fs::path& path) {
    std::vector<std::string> files;
    std::error_code ignored;
    for (auto entry = fs::recursive_directory_iterator(path, ignored); entry != fs::recursive_directory_iterator(); entry.increment(ignored)) {
        const std::string name = entry->path().filename().string();
        if (name != "ensemble.json" && name != "config.json" && name != "model.safetensors") continue;
        files.push_back(fmt::format("{} {} {}", entry->path().string(), entry->last_write_time(ignored).time_since_epoch().count(), entry->file_size(ignored)));
    }
    std::ranges::sort(files);
    return fmt::format("{}", fmt::join(files, "\n"));
}

}  // namespace

server::Source served_source(const std::string& id, const fs::path& path, const inference::Engine& engine, std::size_t largest_batch) {
    return {.id = id, .open = [=] { return opened(path, engine, largest_batch); }, .stamp = [=] { return stamp_of(path); }};
}

}  // namespace atelier::cli
