#pragma once

#include <map>
#include <string>

#include "atelier/inference/generator.h"

namespace atelier::cli {

/// What a picture says of itself: everything that is needed to draw it again.
struct PictureOrigin {
    inference::Draw draw;
    std::int64_t student = 0;
    std::string model_hash;
    inference::Sampling sampling;
    inference::Engine engine;
    std::vector<std::string> class_names;  // empty: classes have none
};

inline std::map<std::string, std::string> picture_text(const PictureOrigin& origin) {
    std::map<std::string, std::string> text{{"Software", "atelier " ATELIER_VERSION},
                                            {"seed", std::to_string(origin.draw.seed)},
                                            {"number", std::to_string(origin.draw.number)},
                                            {"class", std::to_string(origin.draw.class_id)},
                                            {"student", std::to_string(origin.student)},
                                            {"model_hash", origin.model_hash},
                                            {"sampler", inference::name_of(origin.sampling.method)},
                                            {"evaluations", std::to_string(origin.sampling.evaluations())},
                                            {"engine", inference::name_of(origin.engine.kind)},
                                            {"precision", inference::name_of(origin.engine.precision)}};
    if (!origin.class_names.empty()) text["class_name"] = origin.class_names[static_cast<std::size_t>(origin.draw.class_id)];
    return text;
}

}  // namespace atelier::cli
