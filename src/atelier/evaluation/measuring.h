#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "atelier/data/dataset.h"
#include "atelier/evaluation/evaluate.h"
#include "atelier/evaluation/protocols.h"
#include "atelier/evaluation/report.h"
#include "atelier/inference/generator.h"

namespace atelier::evaluation {

/// Where the classifier lies whose features measure images, unless another is named; and the one
/// for pictures that the program composes with their captions.
inline constexpr const char* usual_classifier = "models/classifier";
inline constexpr const char* usual_caption_classifier = "models/captions/classifiers/garment";

/// What to measure models against.
struct Measuring {
    std::string data;                          // path of the held-out data
    std::string split = "test";
    std::string classifier =
        usual_classifier;  // for images; empty: pixels are compared (features.h: Thumbnails)
    std::string inception;                     // weights of Inception-v3 instead, for FID and its like
    std::string clip;                          // directory of a CLIPModel, for the CLIP score of captioned images
    std::string reference;                     // statistics (.npz) instead of data
    std::string save_reference;                // where to write the data's statistics; empty: nowhere
    at::Device device = at::kCPU;              // of the features
    NamedProtocol protocol{.name = "atelier"};
    std::int64_t count = 10000;
    std::vector<std::uint64_t> seeds{0};
    bool latency = true;
    std::filesystem::path earlier;  // an evaluation.json whose results are taken over where weights and protocol are the same; may be absent
};

/// Measures models (names them as given) against the same held-out data: {"order": [name...], "models": {name: result}}. A result is the
/// evaluation's (metrics, classes, protocol) with "latency", "evaluations" and "parameters" a sample, and "taken_from" where it is an earlier one.
nlohmann::json measure(const Measuring& measuring, const std::vector<std::pair<std::string, inference::Generator*>>& models);

/// The same of images that lie in a folder, zip, tar or .npz, whoever made them: a seeded sample of
/// `count` of them for each seed, or all, once, when there are no more. With `captions`, of which
/// number i belongs to image i in the order of names, also the CLIP score by `measuring.clip`; then
/// neither data nor reference need be there. `name` is what the result calls them, if not `path`.
nlohmann::json measure_images(Measuring measuring, const std::string& path,
                              std::span<const std::string> captions = {}, std::string name = {});

/// Throws core::Error, which names `where`, when data's samples have another shape than those to be
/// measured against them.
void check_shape(const data::Dataset& data, const models::DataForm& form, const std::string& where);

/// The features that images of so many channels are measured by: Inception's, the classifier's, or
/// pixels.
std::unique_ptr<FeatureSpace> open_space(const Measuring& measuring, std::int64_t channels);

/// What an evaluator is told of `measuring`; `reference` is where the reference came from.
Protocol protocol_of(const Measuring& measuring, std::string reference);

/// Figures worth a column, in their order, with the words for people; only those that `results` has.
std::vector<std::pair<std::string, std::string>> figures_of(const nlohmann::json& results);

/// The models' figures side by side.
Table comparison_table(const nlohmann::json& results);

/// A text rendering of a table for a terminal.
std::string text_of(const Table& table);

}  // namespace atelier::evaluation
