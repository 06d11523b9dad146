#include "atelier/data/shards.h"

#include "atelier/core/error.h"

namespace atelier::data {

namespace {

namespace fs = std::filesystem;

fs::path path_of(const fs::path& folder, std::int64_t index) {
    return folder / fmt::format("shard-{:05}.safetensors", index);
}

std::int64_t files_of(const ShardSpec& spec) {
    return (spec.count + spec.rows_per_shard - 1) / spec.rows_per_shard;
}

std::int64_t rows_in(const ShardSpec& spec, std::int64_t index) {
    return std::min(spec.rows_per_shard, spec.count - index * spec.rows_per_shard);
}

std::map<std::string, std::string> shard_metadata(const ShardSpec& spec, std::int64_t index) {
    auto metadata = spec.origin;
    metadata["rows"] = fmt::format("{} from {}", rows_in(spec, index), index * spec.rows_per_shard);
    return metadata;
}

bool is_complete(const fs::path& folder, const ShardSpec& spec, std::int64_t index) {
    const fs::path path = path_of(folder, index);
    return fs::exists(path) &&
           core::SafetensorsFile(path).metadata() == shard_metadata(spec, index);
}

void check_shapes(const core::SafetensorsFile& file, const core::SafetensorsFile& first,
                  std::int64_t rows) {
    for (const auto& [name, entry] : first.entries()) {
        core::Shape expected = entry.shape;
        if (expected.empty()) core::fail("{}: \"{}\" has no rows", first.path().string(), name);
        expected[0] = rows;
        if (!file.contains(name) || file.entry(name).shape != expected ||
            file.entry(name).dtype != entry.dtype) {
            core::fail("{}: \"{}\" must be {} {}; delete the shard, it is made again",
                       file.path().string(), name, core::name_of(entry.dtype),
                       core::to_string(expected));
        }
    }
}

}  // namespace

Shards::Shards(const fs::path& folder, const ShardSpec& spec)
    : count_(spec.count), rows_per_shard_(spec.rows_per_shard) {
    for (std::int64_t i = 0; i < files_of(spec); ++i) {
        const fs::path path = path_of(folder, i);
        if (!is_complete(folder, spec, i))
            core::fail("{}: is missing, or was made from other data or by another teacher",
                       path.string());
        files_.push_back(std::make_shared<const core::SafetensorsFile>(path));
        check_shapes(*files_.back(), *files_.front(), rows_in(spec, i));
    }
}

Tensor Shards::rows(const std::string& name, std::span<const std::int64_t> indices) const {
    std::vector<Tensor> found;
    for (const std::int64_t row : indices) {
        if (row < 0 || row >= count_) core::fail("there is no row {}; there are {}", row, count_);
        const auto& file = files_[static_cast<std::size_t>(row / rows_per_shard_)];
        found.push_back(backends::read_row(*file, name, row % rows_per_shard_));
    }
    return at::stack(found);
}

bool shards_complete(const fs::path& folder, const ShardSpec& spec) {
    for (std::int64_t i = 0; i < files_of(spec); ++i) {
        if (!is_complete(folder, spec, i)) return false;
    }
    return true;
}

std::int64_t ShardSpec::rows_of(const core::Shard& mine) const {
    std::int64_t rows = 0;
    for (std::int64_t i = 0; i < files_of(*this); ++i) {
        if (mine.owns(i)) rows += rows_in(*this, i);
    }
    return rows;
}

bool write_shards(const fs::path& folder, const ShardSpec& spec,
                  const std::function<backends::Parameters(std::int64_t, std::int64_t)>& make,
                  const std::function<void(std::int64_t)>& after, const core::Shard& mine) {
    fs::create_directories(folder);
    std::int64_t done = 0;
    for (std::int64_t i = 0; i < files_of(spec); ++i) {
        if (!mine.owns(i)) continue;
        const std::int64_t first = i * spec.rows_per_shard, count = rows_in(spec, i);
        if (!is_complete(folder, spec, i))
            backends::write_parameters(path_of(folder, i), make(first, count),
                                       shard_metadata(spec, i));
        after(done += count);
    }
    return mine.whole() || shards_complete(folder, spec);
}

}  // namespace atelier::data
