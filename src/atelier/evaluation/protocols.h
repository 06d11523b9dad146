#pragma once

#include <string>
#include <vector>

#include "atelier/conditions/prior.h"
#include "atelier/evaluation/inception.h"
#include "atelier/inference/generator.h"

/// Ways of measuring that have a name. Figures of different ones must not be set beside each other:
/// what images are resized with, and how classes are drawn, moves them.
namespace atelier::evaluation {

/// How the classes of samples are drawn.
enum class ClassDraws {
    prior,    // by the training prior, each class within a few of its share
    uniform,  // all classes alike, each within a few of its share
    iid,      // each sample's class alone, all classes alike
    equal     // exactly the same count of each class
};

struct NamedProtocol {
    std::string name;
    ClassDraws classes = ClassDraws::prior;
    InceptionResize resize = InceptionResize::tensorflow;
    std::int64_t count = 10000;  // samples that it measures
    std::int64_t side =
        0;  // images are brought to squares of so many pixels by Lanczos first; 0: as they are
    std::string caption_prefix;  // before each caption, for the CLIP score
};

/// "atelier", "edm" or "dmd2", for images of captions or of classes. Throws core::UsageError on
/// another name.
NamedProtocol named_protocol(const std::string& name, bool of_captions);

/// "prior", "uniform", "iid" or "equal". Throws core::UsageError on another name.
ClassDraws class_draws(const std::string& name);
std::string name_of(ClassDraws draws);
/// For people, and for a result's protocol.
std::string words_of(ClassDraws draws);

/// `count` samples of `seed`, numbered from 0, of classes so drawn; those of weight 0 in `prior`
/// are not. Throws core::UsageError when `equal` cannot be.
inference::Wanted drawn_classes(ClassDraws draws, std::int64_t count, std::uint64_t seed,
                                const conditions::Prior& prior);

}  // namespace atelier::evaluation
