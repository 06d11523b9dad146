#pragma once

#include "atelier/evaluation/measuring.h"
#include "atelier/inference/prompted_generator.h"

namespace atelier::evaluation {

/// Measures models that read prompts (names them as given) against captioned held-out data, in the form of measure(). Each is asked for the captions of the data's
/// first `count` pictures. Figures: the feature distance to all held-out pictures on the features of the classifier `measuring.classifier`; for each attribute of the
/// grammar the share of pictures in which a classifier, in a folder of the attribute's name beside that one, sees what the caption says; the share of
/// paraphrases that go to one student; the share of prompts that each student answers. The pictures themselves stand beside the models as "real pictures".
nlohmann::json measure_captions(const Measuring& measuring, const std::vector<std::pair<std::string, inference::PromptedGenerator*>>& models);

}  // namespace atelier::evaluation
