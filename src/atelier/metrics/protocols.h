#pragma once

#include <string>
#include <vector>

#include "atelier/conditions/prior.h"
#include "atelier/inference/condition.h"
#include "atelier/metrics/inception.h"

/// Named evaluation protocols. Metrics of different protocols are not comparable: they depend on
/// how images are resized and how classes are drawn.
namespace atelier::metrics {

/// How the classes of samples are drawn.
enum class ClassDraws {
    prior,    // by the training prior, low discrepancy: each class's count near its share
    uniform,  // uniform, low discrepancy
    iid,      // uniform, each sample independently
    equal     // exactly the same count of each class
};

struct NamedProtocol {
    std::string name;
    ClassDraws classes = ClassDraws::prior;
    InceptionResize resize = InceptionResize::tensorflow;
    std::int64_t count = 10000;  // samples to evaluate
    std::int64_t side =
        0;  // images are first resized to side x side pixels with Lanczos; 0: not resized
    std::string caption_prefix;  // prepended to each caption for the CLIP score
};

/// "atelier", "edm", "dmd2" or "clean-fid", for caption- or class-conditional images. Throws
/// core::UsageError on another name.
NamedProtocol named_protocol(const std::string& name, bool of_captions);

/// "prior", "uniform", "iid" or "equal". Throws core::UsageError on another name.
ClassDraws class_draws(const std::string& name);
std::string name_of(ClassDraws draws);
/// A description for a result's protocol.
std::string description_of(ClassDraws draws);

/// Requests for samples 0..count-1 of `seed` with classes drawn by `draws`; classes of weight 0 in
/// `prior` are never drawn. Throws core::UsageError when `equal` is impossible for `count`.
std::vector<inference::SampleRequest> drawn_classes(ClassDraws draws, std::int64_t count,
                                                    std::uint64_t seed,
                                                    const conditions::Prior& prior);

}  // namespace atelier::metrics
