#pragma once

#include "atelier/evaluation/measuring.h"
#include "atelier/inference/prompted_generator.h"

namespace atelier::evaluation {

/// Measures models that read prompts (names them as given) against captioned held-out data, in the
/// form of measure(). Each is asked for the captions of a seeded sample of `count` of the data's
/// pictures. Figures: the distances to held-out pictures in the space that `measuring` names; the
/// share of prompts that each student answers.
///
/// Of pictures that the program composes itself (captions:FOLDER) whose classifier is there, also:
/// for each attribute of the grammar the share of pictures in which a classifier, in a folder of
/// the attribute's name beside `measuring.classifier`, sees what the caption says; and the share of
/// paraphrases that go to one student. Other people's captions follow no grammar, so nothing is
/// said of attributes: distances are on Inception's features, on those of a classifier that was
/// named, or on pixels.
///
/// "real pictures" stand beside the models: those whose captions are asked for, as long as at least
/// as many are left for the reference, in which they have no part. Where none are left, what needs
/// no reference is measured of them all, and without any such figure the row is left out.
nlohmann::json measure_captions(const Measuring& measuring, const std::vector<std::pair<std::string, inference::PromptedGenerator*>>& models);

}  // namespace atelier::evaluation
