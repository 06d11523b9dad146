#pragma once

#include "atelier/inference/prompted_generator.h"
#include "atelier/metrics/measuring.h"

namespace atelier::metrics {

/// Evaluates text-conditional models, listed under the given names, on captioned held-out data;
/// returns the format of measure(). Each model samples the captions of a seeded sample of
/// `config.count` held-out images. Metrics: the distances to held-out images in the feature space
/// that `config` selects, and the share of prompts routed to each student.
///
/// On images composed by this program (captions:FOLDER) whose classifiers exist, also: for each
/// attribute of the grammar, the share of images in which a classifier agrees with the caption (the
/// classifiers lie beside `config.classifier`, in folders named after the attributes), and the
/// share of paraphrase pairs routed to one student. Other captions follow no grammar and have no
/// attribute metrics; distances then use Inception features, the features of the named classifier,
/// or pixels.
///
/// The row "real pictures" is a baseline: the held-out images whose captions are sampled, provided
/// that at least as many remain as a disjoint reference. Otherwise all images are measured by the
/// metrics that need no reference; the row is omitted when there is no such metric.
nlohmann::json measure_captions(
    const EvaluationConfig& config,
    const std::vector<std::pair<std::string, inference::PromptedGenerator*>>& models);

}  // namespace atelier::metrics
