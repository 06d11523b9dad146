#pragma once

#include <map>
#include <optional>
#include <string>

#include <fmt/format.h>

#include "atelier/inference/generator.h"

namespace atelier::serving {

/// An image's generation metadata: everything needed to generate it again.
struct ImageOrigin {
    inference::Draw draw;
    std::int64_t student = 0;
    std::string model_hash;
    inference::Sampling sampling;
    inference::Engine engine;
    std::vector<std::string> class_names;  // empty: classes have none
    std::string prompt;                    // of text-conditional models, instead of the class
    std::optional<double> guidance;        // of text-conditional models; empty: class-conditional
};

inline std::map<std::string, std::string> image_metadata(const ImageOrigin& origin) {
    std::map<std::string, std::string> text{
        {"Software", "atelier " ATELIER_VERSION},
        {"seed", std::to_string(origin.draw.seed)},
        {"number", std::to_string(origin.draw.number)},
        {"student", std::to_string(origin.student)},
        {"model_hash", origin.model_hash},
        {"sampler", inference::name_of(origin.sampling)},
        {"evaluations", std::to_string(origin.sampling.evaluations())},
        {"engine", inference::name_of(origin.engine.kind)},
        {"precision", inference::name_of(origin.engine.precision)}};
    if (origin.guidance) {
        text["prompt"] = origin.prompt;
        text["guidance"] = fmt::format("{}", *origin.guidance);
        return text;
    }
    text["class"] = std::to_string(origin.draw.class_id);
    if (!origin.class_names.empty())
        text["class_name"] = origin.class_names[static_cast<std::size_t>(origin.draw.class_id)];
    return text;
}

}  // namespace atelier::serving
