#include "atelier/conditions/partition.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/ranges.h>

#include "atelier/conditions/kmeans.h"
#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/json_file.h"
#include "atelier/core/random_streams.h"
#include "atelier/core/schema.h"

namespace atelier::conditions {

namespace {

constexpr std::int64_t max_classes = 1 << 24;

Partition consecutive(const PartitionRequest& request) {
    Partition partition{request.students, request.method, {}};
    for (std::int64_t k = 0; k < request.students; ++k) {
        const bool larger = k < request.classes % request.students;
        partition.owner.insert(
            partition.owner.end(),
            static_cast<std::size_t>(request.classes / request.students + larger), k);
    }
    return partition;
}

Partition shuffled(const PartitionRequest& request) {
    Partition partition{request.students, request.method,
                        std::vector<std::int64_t>(static_cast<std::size_t>(request.classes))};
    const auto order = core::RandomStream(request.seed, "partition").permutation(request.classes);
    for (std::size_t i = 0; i < order.size(); ++i) {
        partition.owner[static_cast<std::size_t>(order[i])] =
            static_cast<std::int64_t>(i) % request.students;
    }
    return partition;
}

Partition by_kmeans(const PartitionRequest& request) {
    if (request.embeddings.size() != static_cast<std::size_t>(request.classes)) {
        throw core::UsageError(
            fmt::format("partition.method \"{}\" needs an embedding for each of the {} "
                        "classes, there are {}",
                        request.method, request.classes, request.embeddings.size()));
    }
    KMeansOptions settings;
    settings.clusters = request.students;
    settings.seed = request.seed;
    return {request.students, request.method,
            spherical_kmeans(request.embeddings, settings).assignment};
}

std::vector<std::size_t> hardest_first(const std::vector<double>& difficulty) {
    std::vector<std::size_t> order(difficulty.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return difficulty[a] > difficulty[b]; });
    return order;
}

Partition by_difficulty(const PartitionRequest& request) {
    if (request.difficulty.size() != static_cast<std::size_t>(request.classes)) {
        throw core::UsageError(
            fmt::format("partition.method \"{}\" needs the difficulty of each of the {} "
                        "classes, there are {}",
                        request.method, request.classes, request.difficulty.size()));
    }
    for (std::size_t i = 0; i < request.difficulty.size(); ++i) {
        if (!std::isfinite(request.difficulty[i]) || request.difficulty[i] < 0) {
            core::fail("the difficulty of class {} is {}; it must be finite and not negative", i,
                       request.difficulty[i]);
        }
    }
    struct Load {
        double difficulty = 0;
        std::int64_t members = 0;  // decides between equal loads, so that no cell stays empty when
                                   // classes cost nothing
        auto operator<=>(const Load&) const = default;
    };
    std::vector<Load> loads(static_cast<std::size_t>(request.students));
    Partition partition{request.students, request.method,
                        std::vector<std::int64_t>(request.difficulty.size())};
    for (const std::size_t i : hardest_first(request.difficulty)) {
        const auto lightest = std::min_element(loads.begin(), loads.end());
        lightest->difficulty += request.difficulty[i];
        ++lightest->members;
        partition.owner[i] = lightest - loads.begin();
    }
    return partition;
}

std::vector<std::int64_t> owner_of_cells(const nlohmann::json& cells, std::int64_t classes,
                                         const std::string& where) {
    if (!cells.is_array())
        core::fail("{}: \"cells\" must be a list with one list of classes per student", where);
    std::vector<std::int64_t> owner(static_cast<std::size_t>(classes), -1);
    for (std::size_t k = 0; k < cells.size(); ++k) {
        const nlohmann::json json{{"cell", cells[k]}};
        const core::JsonObject cell(json, fmt::format("{}: cells[{}]", where, k));
        for (const std::int64_t i : cell.integers("cell", 0, classes - 1)) {
            std::int64_t& owner_of_class = owner[static_cast<std::size_t>(i)];
            if (owner_of_class >= 0)
                core::fail("{}: class {} is in cells {} and {}; keep one", where, i, owner_of_class,
                           k);
            owner_of_class = static_cast<std::int64_t>(k);
        }
    }
    return owner;
}

Partition from_file(const PartitionRequest& request) {
    if (request.file.empty()) {
        throw core::UsageError(
            "partition.method \"file\" needs partition.file, a JSON file with \"owner\" or "
            "\"cells\"");
    }
    const nlohmann::json json = core::read_json(request.file);
    const core::JsonObject object(json, request.file);
    if (object.has("hash"))
        partition_from_json(json,
                            request.file);  // rejects a file of this program that was edited
    if (object.has("owner") == object.has("cells"))
        core::fail("{}: give either \"owner\" or \"cells\"", request.file);
    Partition partition{request.students, request.method, {}};
    partition.owner = object.has("owner")
                          ? object.integers("owner", 0, max_classes)
                          : owner_of_cells(json["cells"], request.classes, request.file);
    if (object.has("cells") && json["cells"].size() != static_cast<std::size_t>(request.students)) {
        core::fail("{}: has {} cells, partition.students is {}; make them equal", request.file,
                   json["cells"].size(), request.students);
    }
    if (partition.classes() != request.classes) {
        core::fail("{}: has owners for {} classes, the data has {}; make them equal", request.file,
                   partition.classes(), request.classes);
    }
    check(partition, request.file);
    return partition;
}

struct Method {
    std::string name;
    PartitionNeeds needs;
    Partition (*make)(const PartitionRequest&);
};

const std::vector<Method>& methods() {
    using Needs = PartitionNeeds;
    static const std::vector<Method> list{
        {"consecutive", Needs::nothing, consecutive},
        {"random", Needs::nothing, shuffled},
        {"kmeans", Needs::embeddings, by_kmeans},
        {"balanced", Needs::difficulty, by_difficulty},
        {"file", Needs::file, from_file},
    };
    return list;
}

const Method& method_named(const std::string& name) {
    for (const Method& method : methods()) {
        if (method.name == name) return method;
    }
    const std::vector<std::string> names = partition_methods();
    const std::string nearest = core::nearest_word(name, names);
    throw core::UsageError(
        fmt::format("partition.method is \"{}\"; {}known are {}", name,
                    nearest.empty() ? "" : fmt::format("did you mean \"{}\"? ", nearest),
                    fmt::join(names, ", ")));
}

}  // namespace

std::vector<std::int64_t> Partition::cell(std::int64_t student) const {
    std::vector<std::int64_t> classes_owned;
    for (std::size_t i = 0; i < owner.size(); ++i) {
        if (owner[i] == student) classes_owned.push_back(static_cast<std::int64_t>(i));
    }
    return classes_owned;
}

std::string Partition::hash() const {
    return core::sha256(nlohmann::json{{"students", students}, {"owner", owner}}.dump());
}

void check(const Partition& partition, const std::string& where) {
    if (partition.students < 1)
        core::fail("{}: the partition has {} students; it needs at least 1", where,
                   partition.students);
    if (partition.students > partition.classes()) {
        core::fail("{}: {} students share {} classes, so some would own nothing; use at most {}",
                   where, partition.students, partition.classes(), partition.classes());
    }
    std::vector<bool> owns(static_cast<std::size_t>(partition.students));
    for (std::size_t i = 0; i < partition.owner.size(); ++i) {
        const std::int64_t k = partition.owner[i];
        if (k < 0) {
            core::fail("{}: class {} has no owner; give it to one of the students 0 to {}", where,
                       i, partition.students - 1);
        }
        if (k >= partition.students) {
            core::fail("{}: class {} belongs to student {}; students are 0 to {}", where, i, k,
                       partition.students - 1);
        }
        owns[static_cast<std::size_t>(k)] = true;
    }
    const auto idle = std::find(owns.begin(), owns.end(), false);
    if (idle != owns.end()) {
        core::fail("{}: student {} owns no class; give it one or use fewer students", where,
                   idle - owns.begin());
    }
}

nlohmann::json to_json(const Partition& partition) {
    return {{"students", partition.students},
            {"method", partition.method},
            {"owner", partition.owner},
            {"hash", partition.hash()}};
}

Partition partition_from_json(const nlohmann::json& json, const std::string& where) {
    const core::JsonObject object(json, where);
    Partition partition{object.integer("students", 1, max_classes),
                        object.text_or("method", "file"),
                        object.integers("owner", -1, max_classes)};
    check(partition, where);
    if (object.has("hash") && object.text("hash") != partition.hash()) {
        core::fail(
            "{}: the partition's hash does not fit its content; was it edited? Students trained "
            "with it need it as it was",
            where);
    }
    return partition;
}

std::vector<std::string> partition_methods() {
    std::vector<std::string> names;
    for (const Method& method : methods()) names.push_back(method.name);
    return names;
}

PartitionNeeds needs_of(const std::string& method) { return method_named(method).needs; }

Partition partition_classes(const PartitionRequest& request) {
    const Method& method = method_named(request.method);
    if (request.students < 1) {
        throw core::UsageError(fmt::format("partition.students is {}; at least 1 student is needed",
                                           request.students));
    }
    if (request.students > request.classes) {
        throw core::UsageError(
            fmt::format("partition.students is {}, but the data has {} classes; use at most {}",
                        request.students, request.classes, request.classes));
    }
    return method.make(request);
}

}  // namespace atelier::conditions
