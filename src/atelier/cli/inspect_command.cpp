#include <CLI/CLI.hpp>
#include <iostream>

#include "atelier/cli/commands.h"
#include "atelier/conditions/prompt_partition.h"
#include "atelier/core/error.h"
#include "atelier/data/captioned_images.h"
#include "atelier/data/dataset.h"
#include "atelier/data/pair_store.h"
#include "atelier/data/toy_points.h"
#include "atelier/evaluation/features.h"
#include "atelier/models/diffusers_directory.h"
#include "atelier/models/ensemble.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

nlohmann::json of_model(const fs::path& path) {
    const models::Model model = models::read_model(path);
    nlohmann::json about{{"kind", model.config.contains("place") ? "student" : "model"},
                         {"architecture", model.network.architecture},
                         {"parameters", model.parameter_count()},
                         {"flops_an_evaluation", networks::trace(model.network).flops},
                         {"data_shape", model.network.data_shape},
                         {"hash", ops::hash_of(model.parameters)}};
    if (model.config.value("condition", "") == "text") about.update({{"condition", "text"}, {"text_width", model.network.classes}});
    else about["classes"] = model.network.classes;
    for (const char* key : {"place", "provenance"}) {
        if (model.config.contains(key)) about[key] = model.config.at(key);
    }
    return about;
}

nlohmann::json of_ensemble(const fs::path& path) {
    const models::Ensemble ensemble = models::read_ensemble(path);
    nlohmann::json students = nlohmann::json::array();
    for (std::int64_t k = 0; k < ensemble.partition.students; ++k) {
        const models::Model student = models::read_student(ensemble, k);
        students.push_back({{"student", k}, {"parameters", student.parameter_count()}, {"hash", ops::hash_of(student.parameters)}});
        if (!ensemble.prompts) students.back()["cell"] = ensemble.partition.cell(k);
    }
    return {{"kind", "ensemble"}, {"K", ensemble.partition.students}, {"condition", ensemble.prompts ? "text" : "class"},
            {"partition", ensemble.prompts ? ensemble.prompts->method : ensemble.partition.method}, {"partition_hash", ensemble.partition_hash()}, {"data_shape", ensemble.form.shape}, {"students", students}};
}

nlohmann::json of_classifier(const fs::path& path) {
    const evaluation::FeatureExtractor extractor(path);
    return {{"kind", "classifier"}, {"classes", extractor.config().classes}, {"features", extractor.config().features}, {"hash", extractor.hash()}};
}

nlohmann::json of_run(const fs::path& path) {
    nlohmann::json stages = nlohmann::json::object();
    for (const auto& entry : fs::recursive_directory_iterator(path)) {
        if (entry.path().filename() == "stage.json") {
            stages[entry.path().parent_path().lexically_relative(path).string()] = core::read_json(entry.path()).value("status", "?");
        }
    }
    return {{"kind", "run"}, {"stages", stages}, {"ensemble", models::is_ensemble_directory(path / "ensemble")}};
}

nlohmann::json of_prompt_partition(const fs::path& path) {
    const conditions::PromptPartition partition = conditions::read_prompt_partition(path);
    return {{"kind", "partition of prompts"}, {"K", partition.students()}, {"numbers_an_embedding", partition.centroids[0].size()}, {"method", partition.method},
            {"encoder", partition.encoder}, {"null_owner", partition.null_owner}, {"partition_hash", partition.hash()}};
}

nlohmann::json of_data(const fs::path& path) {
    const auto data = data::open_dataset({.path = path, .split = "train", .limit = 0});
    if (!data->captions().empty()) {
        return {{"kind", "captioned data set"}, {"samples", data->size()}, {"shape", data->form().shape}, {"captions", data->captions().size()},
                {"first_caption", data->captions()[static_cast<std::size_t>(data->labels().front())]}, {"hash", data->hash()}};
    }
    nlohmann::json histogram = nlohmann::json::object();
    const auto prior = data::prior_of(*data);
    const auto& names = data->form().class_names;
    for (std::int64_t c = 0; c < data->classes(); ++c) {
        const auto i = static_cast<std::size_t>(c);
        histogram[names.empty() ? std::to_string(c) : names[i]] = prior.weights[i];
    }
    return {{"kind", "data set"}, {"samples", data->size()}, {"shape", data->form().shape}, {"classes", data->classes()},
            {"histogram", histogram}, {"hash", data->hash()}};
}

nlohmann::json about(const fs::path& path) {
    if (!data::is_toy(path) && !data::is_captioned(path) && !fs::exists(path)) core::fail("{}: there is nothing at this path", path.string());
    if (models::is_diffusers_directory(path)) return models::DiffusersDirectory(path).about();
    if (models::is_ensemble_directory(path)) return of_ensemble(path);
    if (fs::exists(path / "config.json")) {
        return core::read_json(path / "config.json").value("architecture", "") == "classifier" ? of_classifier(path) : of_model(path);
    }
    if (fs::exists(path / "manifest.json")) {
        const data::PairStore pairs(path, "");
        return {{"kind", "pairs"}, {"count", pairs.size()}, {"manifest", core::read_json(path / "manifest.json")}};
    }
    if (fs::exists(path / "centroids.safetensors")) return of_prompt_partition(path);
    if (fs::exists(path / "teacher" / "stage.json") || fs::exists(path / "partition.json")) return of_run(path);
    return of_data(path);
}

void print(const nlohmann::json& value, const std::string& indent) {
    for (const auto& [key, entry] : value.items()) {
        if (entry.is_structured() && entry.dump().size() > 90) {
            std::cout << indent << key << ":\n";
            print(entry, indent + "  ");
        } else {
            std::cout << indent << key << ": " << (entry.is_string() ? entry.get<std::string>() : entry.dump()) << "\n";
        }
    }
}

}  // namespace

void add_inspect_command(CLI::App& app) {
    auto path = std::make_shared<std::string>();
    auto json = std::make_shared<bool>(false);
    CLI::App* command = app.add_subcommand("inspect", "Say what a model, ensemble, data set, pair store or run is, and whether it is sound");
    command->add_option("PATH", *path, "a directory or file")->required();
    command->add_flag("--json", *json, "as JSON");
    command->footer("Examples:\n  atelier inspect models/fashion-mnist/k4\n  atelier inspect /usr/share/datasets/fashion-mnist\n  atelier inspect toy:ring");
    command->callback([path, json] {
        const nlohmann::json what = about(*path);
        if (*json) std::cout << what.dump() << std::endl;
        else print(what, "");
    });
}

}  // namespace atelier::cli
