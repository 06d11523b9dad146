#include "atelier/data/pair_store.h"

#include "atelier/core/error.h"
#include "atelier/core/json_file.h"
#include "atelier/ops/parameters.h"

namespace atelier::data {

namespace fs = std::filesystem;

namespace {

fs::path shard_path(const fs::path& folder, std::int64_t index) { return folder / fmt::format("shard-{:05}.safetensors", index); }

std::int64_t shards(std::int64_t count, std::int64_t each) { return (count + each - 1) / each; }

std::vector<std::int64_t> batch_shape(std::int64_t n, const std::vector<std::int64_t>& shape) {
    std::vector<std::int64_t> all{n};
    all.insert(all.end(), shape.begin(), shape.end());
    return all;
}

void check_teacher(const fs::path& path, const std::string& made_by, const std::string& wanted) {
    if (made_by == wanted) return;
    core::fail("{}: these pairs were made by another teacher ({}..., not {}...); delete the folder and make them again", path.string(),
               made_by.substr(0, 12), wanted.substr(0, 12));
}

/// A shard says whose samples it holds, unless it comes from elsewhere.
void check_teacher(const core::SafetensorsFile& shard, const std::string& wanted) {
    const auto made_by = shard.metadata().find("teacher_hash");
    if (made_by != shard.metadata().end()) check_teacher(shard.path(), made_by->second, wanted);
}

ops::Parameters read_shard(const fs::path& path, std::int64_t wanted, const std::vector<std::int64_t>& shape, const std::string& teacher_hash) {
    const core::SafetensorsFile file(path);
    check_teacher(file, teacher_hash);
    ops::Parameters shard = ops::read_parameters(file, true);
    for (const char* name : {"noise", "samples"}) {
        if (!shard.contains(name) || shard.at(name).sizes().vec() != batch_shape(wanted, shape) ||
            shard.at(name).scalar_type() != at::kFloat) {
            core::fail("{}: \"{}\" must be float32 {}; delete the shard and make the pairs again", path.string(), name,
                       core::to_string(batch_shape(wanted, shape)));
        }
    }
    if (!shard.contains("labels") || shard.at("labels").sizes().vec() != std::vector<std::int64_t>{wanted} ||
        shard.at("labels").scalar_type() != at::kLong) {
        core::fail("{}: \"labels\" must be int64 [{}]; delete the shard and make the pairs again", path.string(), wanted);
    }
    return shard;
}

}  // namespace

PairStore::PairStore(const fs::path& folder, const std::string& teacher_hash) {
    const fs::path path = folder / "manifest.json";
    if (!fs::exists(path))
        core::fail("{}: there are no finished pairs here (no manifest.json); make them with: atelier pairs CONFIG",
                   folder.string());
    const nlohmann::json manifest = core::read_json(path);
    const core::JsonObject json(manifest, path.string());
    const std::string made_by = json.text("teacher_hash");
    if (!teacher_hash.empty()) check_teacher(path, made_by, teacher_hash);
    const std::int64_t count = json.integer("count", 1, 1'000'000'000), each = json.integer("shard", 1, 1'000'000'000);
    const auto shape = json.integers("shape", 1, 1 << 20);
    std::vector<Tensor> noise, samples;
    for (std::int64_t i = 0; i < shards(count, each); ++i) {
        const ops::Parameters shard = read_shard(shard_path(folder, i), std::min(each, count - i * each), shape, made_by);
        noise.push_back(shard.at("noise"));
        samples.push_back(shard.at("samples"));
        const auto* labels = shard.at("labels").const_data_ptr<std::int64_t>();
        all_.labels.insert(all_.labels.end(), labels, labels + shard.at("labels").numel());
    }
    all_.noise = at::cat(noise);
    all_.samples = at::cat(samples);
}

Pairs PairStore::at(const std::vector<std::int64_t>& indices) const {
    const Tensor rows = at::tensor(indices, at::kLong);
    Pairs chosen{all_.noise.index_select(0, rows), all_.samples.index_select(0, rows), {}};
    for (const std::int64_t i : indices) chosen.labels.push_back(all_.labels.at(static_cast<std::size_t>(i)));
    return chosen;
}

void write_pairs(const fs::path& folder, const PairPlan& plan, const std::function<Pairs(std::int64_t, std::int64_t)>& make,
                 const std::function<void(std::int64_t)>& after) {
    for (std::int64_t i = 0; i < shards(plan.count, plan.shard); ++i) {
        const std::int64_t first = i * plan.shard, n = std::min(plan.shard, plan.count - first);
        if (fs::exists(shard_path(folder, i))) {
            check_teacher(core::SafetensorsFile(shard_path(folder, i)), plan.teacher_hash);
        } else {
            const Pairs pairs = make(first, n);
            ops::Parameters tensors(
                {{"noise", pairs.noise}, {"samples", pairs.samples}, {"labels", at::tensor(pairs.labels, at::kLong)}});
            ops::write_parameters(shard_path(folder, i), tensors, {{"teacher_hash", plan.teacher_hash}});
        }
        after(first + n);
    }
    core::write_json(folder / "manifest.json", {{"count", plan.count},
                                                {"shard", plan.shard},
                                                {"shape", plan.shape},
                                                {"teacher_hash", plan.teacher_hash},
                                                {"sampler", plan.sampler}});
}

}  // namespace atelier::data
