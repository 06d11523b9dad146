#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "atelier/server/batcher.h"

namespace atelier::server {

/// Opens a model, initially and after its files change.
struct ModelSource {
    std::string id;
    /// Throws core::Error if the model cannot be served.
    std::function<std::shared_ptr<const Generator>()> open;
    /// A fingerprint of the files, different whenever they are.
    std::function<std::string()> stamp;
};

/// A model being served. Holders keep using it after the registry has reloaded it.
struct LoadedModel {
    std::string id;
    std::shared_ptr<const Generator> generator;
    std::vector<std::shared_ptr<StudentQueue>> queues;  // one per served student
    std::int64_t created = 0;                           // Unix time in seconds
    std::string partition_hash;

    const Description& description() const { return generator->description(); }
    /// Null if the student is not served here.
    std::shared_ptr<StudentQueue> queue(std::int64_t student) const;
};

/// The served models. A reload does not disturb requests: the new model is loaded before it
/// replaces the old one, which is released after its last request.
class ModelRegistry {
public:
    /// Opens all models. Throws core::Error if one cannot be served, core::UsageError if two have
    /// the same id.
    ModelRegistry(std::vector<ModelSource> sources, ModelCache& cache, Metrics& metrics);

    /// In the order of the sources.
    std::vector<std::shared_ptr<const LoadedModel>> all() const;
    /// The model of this id, the first one for an empty id, or null.
    std::shared_ptr<const LoadedModel> find(const std::string& id) const;

    /// Loads students until all are in memory or the budget is used up, then prepares them, while
    /// they already serve requests.
    void warm_up();

    // The rest must be called from one thread.
    /// Reloads all models; one that cannot be reloaded stays as it was, with a warning.
    void reload();
    /// Reloads models whose files changed, once two successive calls saw the same files. Also
    /// releases replaced models that are no longer in use; call it periodically.
    void reload_changed();

private:
    struct Entry {
        ModelSource source;
        std::string stamp, last_stamp;  // when opened; at the last call of reload_changed
        std::shared_ptr<const LoadedModel> served;
    };

    void prepare(const LoadedModel& served);
    void reload(Entry& entry);
    void release_retired();

    ModelCache& cache_;
    Metrics& metrics_;
    mutable std::mutex mutex_;  // of `served`
    std::vector<Entry> entries_;
    std::vector<std::shared_ptr<const LoadedModel>> retired_;
};

}  // namespace atelier::server
