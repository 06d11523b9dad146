#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "atelier/server/batcher.h"

namespace atelier::server {

/// Where a model comes from, now and whenever its files change.
struct Source {
    std::string id;
    /// Throws core::Error when it cannot be served.
    std::function<std::shared_ptr<const Generator>()> open;
    /// Words that differ whenever the files do.
    std::function<std::string()> stamp;
};

/// A model while it is served: those who hold it go on with it when the library has read it anew.
struct Served {
    std::string id;
    std::shared_ptr<const Generator> generator;
    std::vector<std::shared_ptr<Lane>> lanes;  // one for each student here
    std::int64_t since = 0;                    // seconds of the epoch
    std::string partition_hash;

    const Description& description() const { return generator->description(); }
    /// Null when the student is not here.
    std::shared_ptr<Lane> lane(std::int64_t student) const;
};

/// The models that are served. Reading any of them anew disturbs no request: the new one is ready before it takes the old one's place, and the old
/// one goes when its last request is answered.
class Library {
public:
    /// Opens all. Throws core::Error when one cannot be served, core::UsageError when two have the same id.
    Library(std::vector<Source> sources, Residents& residents, Metrics& metrics);

    /// In the order of the sources.
    std::vector<std::shared_ptr<const Served>> all() const;
    /// The first one for an empty id; null when there is none of that name.
    std::shared_ptr<const Served> find(const std::string& id) const;

    /// Loads students until all are in memory, or the budget is used up; then, while they answer already, prepares them.
    void warm_up();

    // Of one thread:
    /// Reads all anew; what cannot be read stays as it was, with a warning.
    void reload();
    /// Reads anew what changed on disk, once it has been the same for two calls. Also lets go of models that nobody holds any more; call it now and
    /// then.
    void look_after();

private:
    struct Shelf {
        Source source;
        std::string stamp, seen;  // when it was opened; at the last look
        std::shared_ptr<const Served> served;
    };

    void prepare(const Served& served);
    void reload(Shelf& shelf);
    void forget_retired();

    Residents& residents_;
    Metrics& metrics_;
    mutable std::mutex mutex_;  // of `served`
    std::vector<Shelf> shelves_;
    std::vector<std::shared_ptr<const Served>> retired_;
};

}  // namespace atelier::server
