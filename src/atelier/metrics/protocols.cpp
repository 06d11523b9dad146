#include "atelier/metrics/protocols.h"

#include <array>

#include "atelier/core/error.h"
#include "atelier/core/random_streams.h"
#include "atelier/core/schema.h"

namespace atelier::metrics {

namespace {

struct ClassDrawsEntry {
    ClassDraws draws;
    const char* name;
    const char* description;
};

constexpr std::array<ClassDrawsEntry, 4> all_draws{
    {{ClassDraws::prior, "prior", "by the training prior, low discrepancy"},
     {ClassDraws::uniform, "uniform", "uniform, low discrepancy"},
     {ClassDraws::iid, "iid", "uniform, independent"},
     {ClassDraws::equal, "equal", "the same count of each"}}};

const ClassDrawsEntry& of(ClassDraws draws) { return all_draws[static_cast<std::size_t>(draws)]; }

/// The classes with positive weight.
std::vector<std::int64_t> known_classes(const conditions::Prior& prior) {
    std::vector<std::int64_t> known;
    for (std::int64_t i = 0; i < prior.classes(); ++i) {
        if (prior.weights[static_cast<std::size_t>(i)] > 0) known.push_back(i);
    }
    return known;
}

conditions::Prior uniform_over(const std::vector<std::int64_t>& classes, std::int64_t all) {
    conditions::Prior prior{std::vector<double>(static_cast<std::size_t>(all), 0.0)};
    for (const std::int64_t i : classes) prior.weights[static_cast<std::size_t>(i)] = 1;
    return prior;
}

}  // namespace

NamedProtocol named_protocol(const std::string& name, bool of_captions) {
    NamedProtocol protocol{.name = name};
    if (name == "atelier") return protocol;
    protocol.count = of_captions ? 30000 : 50000;
    if (name == "edm") {
        protocol.classes = ClassDraws::iid;
        return protocol;
    }
    if (name == "clean-fid") {  // it draws no classes: independent, as EDM
        protocol.classes = ClassDraws::iid;
        protocol.resize = InceptionResize::clean;
        return protocol;
    }
    if (name != "dmd2") {
        throw core::UsageError(
            fmt::format("there is no protocol \"{}\"{}; known are atelier, edm, dmd2 and clean-fid",
                        name, core::did_you_mean(name, {"atelier", "edm", "dmd2", "clean-fid"})));
    }
    protocol.classes = ClassDraws::equal;
    if (!of_captions) return protocol;
    protocol.resize = InceptionResize::clean;
    protocol.side = 256;
    protocol.caption_prefix = "A photo depicts ";
    return protocol;
}

ClassDraws class_draws(const std::string& name) {
    std::vector<std::string> known;
    for (const ClassDrawsEntry& one : all_draws) {
        if (name == one.name) return one.draws;
        known.emplace_back(one.name);
    }
    throw core::UsageError(
        fmt::format("classes cannot be drawn by \"{}\"{}; known are prior, uniform, iid and equal",
                    name, core::did_you_mean(name, known)));
}

std::string name_of(ClassDraws draws) { return of(draws).name; }
std::string description_of(ClassDraws draws) { return of(draws).description; }

std::vector<inference::SampleRequest> drawn_classes(ClassDraws draws, std::int64_t count,
                                                    std::uint64_t seed,
                                                    const conditions::Prior& prior) {
    if (draws == ClassDraws::prior) return inference::class_requests(count, seed, {}, prior);
    const std::vector<std::int64_t> known = known_classes(prior);
    const auto classes = static_cast<std::int64_t>(known.size());
    if (draws == ClassDraws::uniform)
        return inference::class_requests(count, seed, {}, uniform_over(known, prior.classes()));
    auto requests = inference::class_requests(count, seed, known, prior);
    if (draws == ClassDraws::equal) {
        if (count % classes != 0) {
            throw core::UsageError(
                fmt::format("{} samples cannot be the same count of each of {} classes; ask for a "
                            "multiple (--count {}), or draw classes otherwise (--classes)",
                            count, classes,
                            std::max<std::int64_t>(1, (count + classes / 2) / classes) * classes));
        }
        return requests;
    }
    for (std::size_t i = 0; i < requests.size(); ++i) {
        requests[i].condition =
            inference::ClassId{known[core::RandomStream(seed, "class/iid", i)
                                         .below(static_cast<std::uint64_t>(classes))]};
    }
    return requests;
}

}  // namespace atelier::metrics
