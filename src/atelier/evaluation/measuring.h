#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "atelier/data/dataset.h"
#include "atelier/evaluation/evaluate.h"
#include "atelier/evaluation/report.h"
#include "atelier/inference/generator.h"

namespace atelier::evaluation {

/// What to measure models against.
struct Measuring {
    std::string data;                          // path of the held-out data
    std::string split = "test";
    std::string classifier = "models/classifier";  // for images
    std::string inception;                     // weights of Inception-v3 instead, for FID and its like
    std::string clip;                          // directory of a CLIPModel, for the CLIP score of captioned images
    std::string reference;                     // statistics (.npz) instead of data
    std::string save_reference;                // where to write the data's statistics; empty: nowhere
    at::Device device = at::kCPU;              // of the features
    std::int64_t count = 10000;
    std::vector<std::uint64_t> seeds{0};
    bool latency = true;
    std::filesystem::path earlier;  // an evaluation.json whose results are taken over where weights and protocol are the same; may be absent
};

/// Measures models (names them as given) against the same held-out data: {"order": [name...], "models": {name: result}}. A result is the
/// evaluation's (metrics, classes, protocol) with "latency", "evaluations" and "parameters" a sample, and "taken_from" where it is an earlier one.
nlohmann::json measure(const Measuring& measuring, const std::vector<std::pair<std::string, inference::Generator*>>& models);

/// The same of images that lie in a folder, zip, tar or .npz, whoever made them: the first `count` of them (all when there are fewer), once. With `captions`, of which
/// number i belongs to image i in the order of names, also the CLIP score by `measuring.clip`.
nlohmann::json measure_images(Measuring measuring, const std::string& path, std::span<const std::string> captions = {});

/// Figures worth a column, in their order, with the words for people; only those that `results` has.
std::vector<std::pair<std::string, std::string>> figures_of(const nlohmann::json& results);

/// The models' figures side by side.
Table comparison_table(const nlohmann::json& results);

/// A text rendering of a table for a terminal.
std::string text_of(const Table& table);

}  // namespace atelier::evaluation
