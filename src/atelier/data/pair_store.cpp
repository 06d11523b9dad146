#include "atelier/data/pair_store.h"

#include "atelier/backends/torch/parameters.h"
#include "atelier/core/error.h"
#include "atelier/core/json_file.h"

namespace atelier::data {

namespace fs = std::filesystem;

namespace {

fs::path shard_path(const fs::path& folder, std::int64_t index) {
    return folder / fmt::format("shard-{:05}.safetensors", index);
}

std::int64_t shards(std::int64_t count, std::int64_t each) { return (count + each - 1) / each; }

std::vector<std::int64_t> batch_shape(std::int64_t n, const std::vector<std::int64_t>& shape) {
    std::vector<std::int64_t> all{n};
    all.insert(all.end(), shape.begin(), shape.end());
    return all;
}

void check_teacher(const fs::path& path, const std::string& made_by, const std::string& expected) {
    if (made_by == expected) return;
    core::fail(
        "{}: these pairs were made by another teacher ({}..., not {}...); delete the folder and "
        "make them again",
        path.string(), made_by.substr(0, 12), expected.substr(0, 12));
}

/// The metadata of a shard names its teacher, unless the shard comes from another program.
void check_teacher(const core::SafetensorsFile& shard, const std::string& expected) {
    const auto made_by = shard.metadata().find("teacher_hash");
    if (made_by != shard.metadata().end()) check_teacher(shard.path(), made_by->second, expected);
}

/// Throws core::Error unless a tensor has that type and shape according to the header.
void check_tensor(const core::SafetensorsFile& file, const std::string& name, core::DType type,
                  const std::vector<std::int64_t>& shape) {
    if (file.contains(name) && file.entry(name).dtype == type && file.entry(name).shape == shape)
        return;
    core::fail("{}: \"{}\" must be {} {}; delete the shard and make the pairs again",
               file.path().string(), name, type == core::DType::I64 ? "int64" : "float32",
               core::to_string(shape));
}

}  // namespace

PairStore::PairStore(const fs::path& folder, const std::string& teacher_hash) {
    const fs::path path = folder / "manifest.json";
    if (!fs::exists(path))
        core::fail(
            "{}: there are no finished pairs here (no manifest.json); make them with: atelier "
            "pairs CONFIG",
            folder.string());
    const nlohmann::json manifest = core::read_json(path);
    const core::JsonObject json(manifest, path.string());
    const std::string made_by = json.text("teacher_hash");
    if (!teacher_hash.empty()) check_teacher(path, made_by, teacher_hash);
    const std::int64_t count = json.integer("count", 1, 1'000'000'000),
                       each = json.integer("shard", 1, 1'000'000'000);
    const auto shape = json.integers("shape", 1, 1 << 20);
    pairs_per_shard_ = each;
    for (std::int64_t i = 0; i < shards(count, each); ++i) {
        const auto file = std::make_shared<const core::SafetensorsFile>(shard_path(folder, i));
        const std::int64_t rows = std::min(each, count - i * each);
        check_teacher(*file, made_by);
        for (const char* name : {"noise", "samples"})
            check_tensor(*file, name, core::DType::F32, batch_shape(rows, shape));
        check_tensor(*file, "labels", core::DType::I64, {rows});
        shards_.push_back(
            {backends::map_tensor(file, "noise"), backends::map_tensor(file, "samples")});
        const Tensor labels = backends::read_tensor(*file, "labels", /*keep_type=*/true);
        labels_.insert(labels_.end(), labels.const_data_ptr<std::int64_t>(),
                       labels.const_data_ptr<std::int64_t>() + rows);
    }
}

Pairs PairStore::at(const std::vector<std::int64_t>& indices) const {
    const auto shape = batch_shape(static_cast<std::int64_t>(indices.size()),
                                   shards_.front().noise.sizes().slice(1).vec());
    Pairs chosen{at::empty(shape, at::kFloat), at::empty(shape, at::kFloat), {}};
    for (std::size_t i = 0; i < indices.size(); ++i) {
        chosen.labels.push_back(labels_.at(static_cast<std::size_t>(indices[i])));
        const Shard& shard = shards_[static_cast<std::size_t>(indices[i] / pairs_per_shard_)];
        const auto row = static_cast<std::int64_t>(i);
        chosen.noise[row].copy_(shard.noise[indices[i] % pairs_per_shard_]);
        chosen.samples[row].copy_(shard.samples[indices[i] % pairs_per_shard_]);
    }
    return chosen;
}

std::int64_t PairSpec::pairs_of(const core::Shard& mine) const {
    std::int64_t pairs = 0;
    for (std::int64_t i = 0; i < shards(count, shard); ++i) {
        if (mine.owns(i)) pairs += std::min(shard, count - i * shard);
    }
    return pairs;
}

bool write_pairs(const fs::path& folder, const PairSpec& spec,
                 const std::function<Pairs(std::int64_t, std::int64_t)>& make,
                 const std::function<void(std::int64_t)>& after, const core::Shard& mine) {
    const std::int64_t files = shards(spec.count, spec.shard);
    std::int64_t done = 0;
    for (std::int64_t i = 0; i < files; ++i) {
        if (!mine.owns(i)) continue;
        const std::int64_t first = i * spec.shard, n = std::min(spec.shard, spec.count - first);
        if (fs::exists(shard_path(folder, i))) {
            check_teacher(core::SafetensorsFile(shard_path(folder, i)), spec.teacher_hash);
        } else {
            const Pairs pairs = make(first, n);
            backends::Parameters tensors({{"noise", pairs.noise},
                                          {"samples", pairs.samples},
                                          {"labels", at::tensor(pairs.labels, at::kLong)}});
            backends::write_parameters(shard_path(folder, i), tensors,
                                       {{"teacher_hash", spec.teacher_hash}});
        }
        after(done += n);
    }
    for (std::int64_t i = 0; i < files; ++i) {
        if (!fs::exists(shard_path(folder, i))) return false;
    }
    core::write_json(folder / "manifest.json", {{"count", spec.count},
                                                {"shard", spec.shard},
                                                {"shape", spec.shape},
                                                {"teacher_hash", spec.teacher_hash},
                                                {"sampler", spec.sampler}});
    return true;
}

}  // namespace atelier::data
