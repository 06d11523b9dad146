#include "atelier/data/shards.h"

#include "atelier/core/error.h"

namespace atelier::data {

namespace {

namespace fs = std::filesystem;

fs::path path_of(const fs::path& folder, std::int64_t index) { return folder / fmt::format("shard-{:05}.safetensors", index); }

std::int64_t files_of(const ShardPlan& plan) { return (plan.count + plan.each - 1) / plan.each; }

std::int64_t rows_in(const ShardPlan& plan, std::int64_t index) { return std::min(plan.each, plan.count - index * plan.each); }

std::map<std::string, std::string> described(const ShardPlan& plan, std::int64_t index) {
    auto metadata = plan.origin;
    metadata["rows"] = fmt::format("{} from {}", rows_in(plan, index), index * plan.each);
    return metadata;
}

bool is_made(const fs::path& folder, const ShardPlan& plan, std::int64_t index) {
    const fs::path path = path_of(folder, index);
    return fs::exists(path) && core::SafetensorsFile(path).metadata() == described(plan, index);
}

void check_shapes(const core::SafetensorsFile& file, const core::SafetensorsFile& first, std::int64_t rows) {
    for (const auto& [name, entry] : first.entries()) {
        core::Shape wanted = entry.shape;
        if (wanted.empty()) core::fail("{}: \"{}\" has no rows", first.path().string(), name);
        wanted[0] = rows;
        if (!file.contains(name) || file.entry(name).shape != wanted || file.entry(name).dtype != entry.dtype) {
            core::fail("{}: \"{}\" must be {} {}; delete the shard, it is made again", file.path().string(), name, core::name_of(entry.dtype), core::to_string(wanted));
        }
    }
}

}  // namespace

Shards::Shards(const fs::path& folder, const ShardPlan& plan) : count_(plan.count), each_(plan.each) {
    for (std::int64_t i = 0; i < files_of(plan); ++i) {
        const fs::path path = path_of(folder, i);
        if (!is_made(folder, plan, i)) core::fail("{}: is missing, or was made of other data or by another teacher", path.string());
        files_.push_back(std::make_shared<const core::SafetensorsFile>(path));
        check_shapes(*files_.back(), *files_.front(), rows_in(plan, i));
    }
}

Tensor Shards::rows(const std::string& name, std::span<const std::int64_t> numbers) const {
    std::vector<Tensor> found;
    for (const std::int64_t number : numbers) {
        if (number < 0 || number >= count_) core::fail("there is no row {}; there are {}", number, count_);
        const auto& file = files_[static_cast<std::size_t>(number / each_)];
        found.push_back(ops::read_row(*file, name, number % each_));
    }
    return at::stack(found);
}

bool shards_are_made(const fs::path& folder, const ShardPlan& plan) {
    for (std::int64_t i = 0; i < files_of(plan); ++i) {
        if (!is_made(folder, plan, i)) return false;
    }
    return true;
}

void write_shards(const fs::path& folder, const ShardPlan& plan, const std::function<ops::Parameters(std::int64_t, std::int64_t)>& make,
                  const std::function<void(std::int64_t)>& after) {
    fs::create_directories(folder);
    for (std::int64_t i = 0; i < files_of(plan); ++i) {
        const std::int64_t first = i * plan.each, count = rows_in(plan, i);
        if (!is_made(folder, plan, i)) ops::write_parameters(path_of(folder, i), make(first, count), described(plan, i));
        after(first + count);
    }
}

}  // namespace atelier::data
