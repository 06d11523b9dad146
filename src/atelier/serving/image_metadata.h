#pragma once

#include <map>
#include <optional>
#include <string>

#include <fmt/format.h>

#include "atelier/inference/pipeline.h"

namespace atelier::serving {

/// An image's generation metadata: everything needed to generate it again.
struct ImageOrigin {
    inference::SampleRequest request;
    std::int64_t student = 0;
    std::string model_hash;  // empty: of a diffusers directory, whose weights are not hashed
    inference::Sampling sampling;
    inference::Engine engine;
    std::vector<std::string> class_names;  // empty: classes have none
    std::optional<double> guidance;  // of models that read prompts, and of diffusers directories
    std::optional<std::string> negative;  // of diffusers directories
    bool reads_prompts = false;
};

inline std::map<std::string, std::string> image_metadata(const ImageOrigin& origin) {
    std::map<std::string, std::string> text{
        {"Software", "atelier " ATELIER_VERSION},
        {"seed", std::to_string(origin.request.seed)},
        {"number", std::to_string(origin.request.index)},
        {"sampler", inference::name_of(origin.sampling)},
        {"evaluations", std::to_string(origin.sampling.evaluations())}};
    if (!origin.model_hash.empty())
        text.insert({{"student", std::to_string(origin.student)},
                     {"model_hash", origin.model_hash},
                     {"engine", inference::name_of(origin.engine.kind)},
                     {"precision", inference::name_of(origin.engine.precision)}});
    if (origin.negative && origin.reads_prompts) text["negative"] = *origin.negative;
    if (origin.guidance) text["guidance"] = fmt::format("{}", *origin.guidance);
    if (origin.reads_prompts) {
        text["prompt"] = inference::prompt_of(origin.request.condition);
        return text;
    }
    const std::int64_t class_id = inference::class_of(origin.request.condition);
    text["class"] = std::to_string(class_id);
    if (!origin.class_names.empty())
        text["class_name"] = origin.class_names[static_cast<std::size_t>(class_id)];
    return text;
}

/// The metadata of a pipeline's images, without the request. `model_hash`: of the student.
inline ImageOrigin image_origin(const inference::Pipeline& pipeline, std::int64_t student,
                                std::string model_hash) {
    return {.request = {},
            .student = student,
            .model_hash = std::move(model_hash),
            .sampling = pipeline.sampling(),
            .engine = pipeline.engine(),
            .class_names = pipeline.spec().class_names,
            .guidance = pipeline.guidance(),
            .negative = pipeline.negative(),
            .reads_prompts = pipeline.reads_prompts()};
}

}  // namespace atelier::serving
