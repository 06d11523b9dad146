#pragma once

#include "atelier/metrics/caption_attributes.h"
#include "atelier/metrics/measuring.h"

namespace atelier::metrics {

/// Evaluates text-conditional models, listed under the given names, on captioned held-out data;
/// returns the format of measure(). Each model samples the captions of a seeded sample of
/// `config.count` held-out images. Metrics: the distances to held-out images in the feature space
/// that `config` selects, and the share of prompts routed to each student.
///
/// Where the captions have attributes (attributes_of), also: for each attribute, the share of
/// images in which its classifier agrees with the caption, among captions that mention it, and
/// their mean. Where the file names paraphrases, also the share of their pairs that are routed to
/// one student.
///
/// The row "real pictures" is a baseline: the held-out images whose captions are sampled, provided
/// that at least as many remain as a disjoint reference. Otherwise all images are measured by the
/// metrics that need no reference; the row is omitted when there is no such metric.
nlohmann::json measure_captions(const EvaluationConfig& config, const EvaluatedModels& models);

/// What the file `config.attributes` says of captions; nothing without one. Throws core::Error
/// where the file is not as read_caption_attributes() wants it.
CaptionAttributes attributes_of(const EvaluationConfig& config);

/// The classifier of an attribute of images like `spec`. Throws core::Error where it is missing, or
/// reads other images or another number of classes.
FeatureExtractor open_attribute_classifier(const CaptionAttribute& attribute,
                                           const data::SampleSpec& spec, at::Device device);

}  // namespace atelier::metrics
