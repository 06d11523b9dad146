#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "atelier/data/dataset.h"
#include "atelier/inference/pipeline.h"
#include "atelier/metrics/evaluate.h"
#include "atelier/metrics/protocols.h"

namespace atelier::metrics {

/// The path of the default classifier for image features.
inline constexpr const char* default_classifier = "models/classifier";

/// Models by the names under which they are listed.
using EvaluatedModels = std::vector<std::pair<std::string, inference::Pipeline*>>;

/// What models are evaluated against, and how.
struct EvaluationConfig {
    std::string data;  // path of the held-out data
    std::string split = "test";
    std::string classifier =
        default_classifier;  // for images; empty: pixels are compared (features.h: Thumbnails)
    std::string attributes;  // of captions: their phrases and classifiers (caption_attributes.h)
    // Networks instead, several together; the first that is given is the main space (evaluate.h).
    std::string inception;       // weights of Inception-v3, for FID, KID, Inception Score
    std::string dinov2;          // weights of DINOv2
    std::string clip_features;   // directory of a CLIPModel, for distances on its features
    std::string real;            // real images apart from the data, for FDr^k (add_ratios)
    std::string clip;            // directory of a CLIPModel, for the CLIP score of captioned images
    std::string reference;       // statistics (.npz) instead of data
    std::string save_reference;  // where to write the data's statistics; empty: not written
    at::Device device = at::kCPU;  // of the feature networks
    NamedProtocol protocol{.name = "atelier"};
    std::int64_t count = 10000;
    std::vector<std::uint64_t> seeds{0};
    bool latency = true;
    std::filesystem::path earlier;  // an evaluation.json whose results are reused where weights and
                                    // protocol are the same; may be absent
    std::shared_ptr<EvaluationParts> parts;  // of an evaluation that several processes share
    conditions::Partition partition;         // set by `measure`, for rows by cell
};

/// Evaluates models, listed under the given names, on the same held-out data: {"order": [name...],
/// "models": {name: result}}. A result is Evaluator's (metrics, classes, protocol) with "latency",
/// "evaluations" and "parameters" per sample, and "taken_from" if it was reused. Models that read
/// prompts are measured by measure_captions; the models must all be of one kind. With
/// An ensemble's partition gives every row its cells, and `config.real` a row "real images" and
/// FDr^k. With `config.parts` this process's parts are made first, and the result is null until all
/// are there; where it was written before, it is read.
nlohmann::json measure(const EvaluationConfig& config, const EvaluatedModels& models);

using NamedTarget = std::pair<std::string, EvaluationTarget>;

/// Makes this process's parts of an evaluation of `targets` that several processes share by
/// `config.parts`. Returns the result where the caller has nothing more to do: null while parts of
/// other processes are missing, or what was written before. Otherwise all parts are there, and
/// `evaluator` has read those of the reference.
std::optional<nlohmann::json> share_parts(const EvaluationConfig& config, Evaluator& evaluator,
                                          std::span<const NamedTarget> targets);

/// `measure`'s result. Two processes may find all parts at the same time: for the one whose parts
/// the other removes, `measure` is called once more, and reads what was written.
nlohmann::json with_parts(const EvaluationConfig& config,
                          const std::function<nlohmann::json()>& measure);

/// The result in `path` for the same weights and protocol, or null. A missing or invalid file is
/// ignored.
nlohmann::json earlier_result(const std::filesystem::path& path, const nlohmann::json& protocol);

/// Evaluates existing images in a folder, zip, tar or .npz: a seeded sample of `config.count` of
/// them per seed, or all of them once if there are no more. With `captions` (caption i belongs to
/// image i in order of file names) also the CLIP score by `config.clip`; data and reference are
/// optional then. `name` is the result's name, by default `path`. `config.parts`: as in `measure`;
/// the CLIP score has none.
nlohmann::json measure_images(EvaluationConfig config, const std::string& path,
                              std::span<const std::string> captions = {}, std::string name = {});

/// Throws core::Error naming `where` when the data's samples differ in shape from `spec`, the
/// samples to be evaluated.
void check_shape(const data::Dataset& data, const data::SampleSpec& spec, const std::string& where);

/// The feature spaces for images of `channels` channels, the main one first: those of the networks
/// that are given, else the classifier's, else pixels.
std::vector<std::unique_ptr<FeatureSpace>> open_spaces(const EvaluationConfig& config,
                                                       std::int64_t channels);
FeatureSpaces spaces_of(const std::vector<std::unique_ptr<FeatureSpace>>& opened);

/// The images of `config.real`, at the protocol's size.
std::shared_ptr<const data::Dataset> open_real(const EvaluationConfig& config);

/// Adds "fdr" to the metrics of every result but `real`'s, and to the rows of cells that both have:
/// FDr^k (Yang et al. 2026, arXiv 2604.28190), the mean over the k spaces of a Frechet distance
/// divided by that of real images, `real`'s, to the same reference. 1 is as far from the reference
/// as other real images of the same count are. Nothing is added for spaces that `real` lacks.
/// "fdr" beside "metrics" names the distances and the real images' row.
void add_ratios(nlohmann::json& models, const std::string& real);

/// The evaluator's protocol for `config`; `reference` is the path of the reference.
Protocol protocol_of(const EvaluationConfig& config, std::string reference);

}  // namespace atelier::metrics
