#include "atelier/metrics/evaluation_parts.h"

#include "atelier/core/error.h"
#include "atelier/core/signals.h"

namespace atelier::metrics {

namespace fs = std::filesystem;

namespace {

constexpr const char* request_file = "request.json";

/// Whether a result has that protocol. Those of images say nothing of classes, since none were
/// drawn.
bool has_protocol(const nlohmann::json& result, nlohmann::json protocol) {
    if (!result.is_object() || !result.contains("protocol")) return false;
    if (!result["protocol"].contains("classes")) protocol.erase("classes");
    return result["protocol"] == protocol;
}

}  // namespace

EvaluationParts::EvaluationParts(fs::path folder, fs::path result, const core::Shard& mine)
    : folder_(std::move(folder)), result_(std::move(result)), mine_(mine) {}

void EvaluationParts::begin(const nlohmann::json& request) {
    next_ = 0;
    missing_.clear();
    const fs::path file = folder_ / request_file;
    if (!fs::exists(file)) core::write_json(file, request);
    // Two processes may have written it at once.
    if (core::read_json(file) == request) return;
    throw core::UsageError(folder_.string() +
                           ": holds parts of another evaluation; delete it, or name another --out");
}

nlohmann::json EvaluationParts::finished(const nlohmann::json& protocols) const {
    if (!fs::exists(result_)) return nullptr;
    nlohmann::json results = core::read_json(result_);
    if (!results.is_object() || !results.contains("models")) return nullptr;
    const nlohmann::json& models = results.at("models");
    for (const auto& [name, protocol] : protocols.items()) {
        if (!models.contains(name) || !has_protocol(models[name], protocol)) return nullptr;
    }
    return results;
}

fs::path EvaluationParts::path_of(const std::string& set, std::int64_t first) const {
    return folder_ / fmt::format("{}-{:08}.safetensors", set, first);
}

void EvaluationParts::make(const std::string& set, std::int64_t first,
                           const std::function<backends::Parameters()>& measure) {
    const fs::path path = path_of(set, first);
    const bool mine = mine_.owns(next_++);
    if (fs::exists(path)) return;
    if (!mine) {
        missing_.push_back(path);
        return;
    }
    if (core::stop_requested())
        throw core::Interrupted(
            "interrupted while measuring; finished parts are kept, run the same command again to "
            "go "
            "on");
    backends::write_parameters(path, measure());
}

std::int64_t EvaluationParts::missing() const {
    std::erase_if(missing_, [](const fs::path& path) { return fs::exists(path); });
    return static_cast<std::int64_t>(missing_.size());
}

backends::Parameters EvaluationParts::read(const std::string& set, std::int64_t first,
                                           std::int64_t n) const {
    const fs::path path = path_of(set, first);
    backends::Parameters rows = backends::read_parameters(path, /*keep_types=*/true);
    for (const auto& [name, tensor] : rows.tensors()) {
        if (tensor.dim() == 0 || tensor.size(0) != n)
            core::fail("{}: \"{}\" must have {} rows; delete the file, it is made again",
                       path.string(), name, n);
    }
    return rows;
}

void EvaluationParts::remove() const {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
}

bool EvaluationParts::removed_by_another() const {
    return complete() && batches() > 0 && !fs::exists(folder_ / request_file);
}

std::string EvaluationParts::standing() const {
    return fmt::format(
        "shard {} is done; {} of {} parts are there, and the shard that finds them all writes {}",
        mine_.name(), batches() - missing(), batches(), result_.string());
}

}  // namespace atelier::metrics
