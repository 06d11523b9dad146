#include <cmath>
#include <cstring>

#include "atelier/conditions/prompt_partition.h"
#include "atelier/core/error.h"
#include "atelier/core/json_file.h"
#include "atelier/core/safetensors.h"

namespace atelier::conditions {

namespace {

constexpr const char* json_name = "partition.json";
constexpr const char* centroids_name = "centroids.safetensors";
constexpr std::int64_t version = 1;

core::TensorBytes tensor(const std::string& name, core::Shape shape,
                         const std::vector<float>& values) {
    return {name, core::DType::F32, std::move(shape), std::as_bytes(std::span(values))};
}

/// The values of tensor `name`, which must be F32 of `rank` dimensions and finite.
std::vector<float> read_values(const core::SafetensorsFile& file, const std::string& name,
                               std::size_t rank) {
    const auto& entry = file.entry(name);
    if (entry.dtype != core::DType::F32 || entry.shape.size() != rank) {
        core::fail("{}: tensor \"{}\" is {} of {}; it must be F32 with {} dimensions",
                   file.path().string(), name, core::to_string(entry.shape),
                   core::name_of(entry.dtype), rank);
    }
    const auto bytes = file.bytes(name);
    std::vector<float> values(bytes.size() / sizeof(float));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    for (const float x : values) {
        if (!std::isfinite(x))
            core::fail("{}: tensor \"{}\" holds values that are not finite", file.path().string(),
                       name);
    }
    return values;
}

}  // namespace

void write_prompt_partition(const std::filesystem::path& directory,
                            const PromptPartition& partition) {
    const auto students = partition.students();
    const auto length = static_cast<std::int64_t>(partition.centroids.at(0).size());
    std::vector<float> all;
    for (const auto& centroid : partition.centroids)
        all.insert(all.end(), centroid.begin(), centroid.end());
    core::write_safetensors(directory / centroids_name,
                            {tensor("centroids", {students, length}, all),
                             tensor("offsets", {students}, partition.offsets)});
    core::write_json(directory / json_name, {{"version", version},
                                             {"condition", "prompts"},
                                             {"students", students},
                                             {"length", length},
                                             {"method", partition.method},
                                             {"encoder", partition.encoder},
                                             {"null_owner", partition.null_owner},
                                             {"centroids", centroids_name},
                                             {"hash", partition.hash()}});
}

PromptPartition read_prompt_partition(const std::filesystem::path& directory) {
    const auto path = directory / json_name;
    const nlohmann::json json = core::read_json(path);
    const core::JsonObject object(json, path.string());
    object.integer("version", version, version);
    if (object.text("condition") != "prompts")
        core::fail("{}: is not a partition of prompts", path.string());
    const core::SafetensorsFile file(directory / centroids_name);
    const std::vector<float> all = read_values(file, "centroids", 2);
    const core::Shape& shape = file.entry("centroids").shape;
    const std::int64_t students = object.integer("students", 1, std::int64_t{1} << 20),
                       length = object.integer("length", 1, std::int64_t{1} << 20);
    PromptPartition partition;
    partition.offsets = read_values(file, "offsets", 1);
    if (shape != core::Shape{students, length} ||
        partition.offsets.size() != static_cast<std::size_t>(students)) {
        core::fail("{}: holds {} centroids, partition.json says {} of {} elements",
                   file.path().string(), core::to_string(shape), students, length);
    }
    for (std::int64_t k = 0; k < students; ++k)
        partition.centroids.emplace_back(all.begin() + k * length, all.begin() + (k + 1) * length);
    partition.method = object.text("method");
    partition.encoder = object.text_or("encoder", "");
    partition.null_owner = object.integer("null_owner", 0, students - 1);
    if (object.text("hash") != partition.hash()) {
        core::fail(
            "{}: its hash does not fit {}; was one of them exchanged or edited? Make the partition "
            "again",
            path.string(), centroids_name);
    }
    return partition;
}

}  // namespace atelier::conditions
