#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "atelier/conditions/partition.h"
#include "atelier/core/random_streams.h"
#include "atelier/models/ensemble.h"

#include "core/test_folder.h"

/// Fixtures of the models and inference tests: models and ensembles small enough to be created in
/// every test.
namespace atelier::models {

inline nlohmann::json tiny_config() {
    return {
        {"architecture", "mlp"},
        {"dimensions", 2},
        {"classes", 4},
        {"hidden", 8},
        {"blocks", 1},
        {"sigma_data", 0.7},
        {"sigma_min", 0.01},
        {"sigma_max", 20.0},
        {"data", {{"kind", "points"}, {"shape", {2}}, {"offset", {1.0, -2.0}}, {"scale", 3.0}}}};
}

/// A network whose output depends on its inputs: the last layers of newly initialised networks are
/// zero.
inline Model tiny_model(const nlohmann::json& config, std::uint64_t seed) {
    Model model = init_model(config, seed);
    for (const auto& [name, tensor] : model.parameters.tensors()) {
        core::RandomStream stream(seed, "noise/" + name);
        float* values = tensor.mutable_data_ptr<float>();
        for (std::int64_t i = 0; i < tensor.numel(); ++i)
            values[i] += static_cast<float>(0.3 * stream.normal());
    }
    return model;
}

/// Classes 0 and 2 belong to student 0, classes 1 and 3 to student 1.
inline conditions::Partition odd_and_even() { return {2, "file", {0, 1, 0, 1}}; }
inline conditions::Prior uneven_prior() { return {{4, 3, 2, 1}}; }

/// A finished student in its own folder, as training writes it.
inline std::filesystem::path write_student(const std::filesystem::path& path,
                                           const conditions::Partition& partition,
                                           std::int64_t student,
                                           nlohmann::json config = tiny_config()) {
    config["place"] = {
        {"student", student}, {"cell", partition.cell(student)}, {"partition", partition.hash()}};
    write_model(path, tiny_model(config, static_cast<std::uint64_t>(100 + student)));
    return path;
}

/// The ensemble of two students in `folder`/ensemble.
inline std::filesystem::path write_tiny_ensemble(const core::TestFolder& folder) {
    const auto partition = odd_and_even();
    write_ensemble(folder / "ensemble", partition, uneven_prior(),
                   {write_student(folder / "made/0", partition, 0),
                    write_student(folder / "made/1", partition, 1)},
                   "teacher's hash", {{"fid", 1.5}});
    return folder / "ensemble";
}

/// Changes a JSON file in place.
template <class Change>
void edit_json(const std::filesystem::path& path, Change change) {
    nlohmann::json json = core::read_json(path);
    change(json);
    core::write_json(path, json);
}

}  // namespace atelier::models
