#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "atelier/backends/torch/torch.h"
#include "atelier/conditions/prior.h"
#include "atelier/data/sample_spec.h"

namespace atelier::data {

/// Labelled samples in memory or on disk, seen as model-space tensors (images in [-1,1]: x/127.5 -
/// 1; points scaled as `spec` says).
class Dataset {
public:
    virtual ~Dataset() = default;

    virtual std::int64_t size() const = 0;
    virtual std::int64_t classes() const = 0;  // 0: unlabelled
    /// Samples at `indices`: float32 [n, shape...]. Thread-safe.
    virtual Tensor samples(std::span<const std::int64_t> indices) const = 0;
    /// The class of every sample (empty when unlabelled).
    virtual const std::vector<std::int64_t>& labels() const = 0;
    /// Whether there are samples; if not, there are only captions to condition on.
    virtual bool has_samples() const { return true; }
    /// The captions, which labels then index. Empty where labels are classes.
    virtual const std::vector<std::string>& captions() const;
    /// What the samples are: shape, kind, scaling, names of the classes.
    virtual const data::SampleSpec& spec() const = 0;
    /// SHA-256 that identifies the content.
    virtual const std::string& hash() const = 0;
};

/// How often each class occurs; an unlabelled data set has one class of weight 1.
conditions::Prior prior_of(const Dataset& dataset);

/// The samples whose class is one of `classes` (unlabelled ones are of class 0), increasing. Throws
/// core::Error when there is no such class.
std::vector<std::int64_t> indices_of(const Dataset& dataset, std::span<const std::int64_t> classes);

/// How captions are used: `automatic` prefers explicit classes, and captions to class folders;
/// `required` reads captions and rejects data without them; `ignored` never reads them.
enum class Captions { automatic, required, ignored };

struct DataRequest {
    std::filesystem::path path;   // a file, a folder, or toy:<name>
    std::string split = "train";  // "train" or "test", where the data distinguishes them
    std::int64_t limit = 0;       // only the first `limit` samples; 0: all
    Captions captions = Captions::automatic;
    bool gaps = false;  // accept classes without samples in a .npz: it is looked at or measured,
                        // not learned from
};

/// Opens a data set according to what is at the path (data_form.h): a safetensors file with
/// `points` and `labels` (points.h), a folder of IDX files, gzip or not (idx.h), an .npz of images
/// (image_npz.h), a folder, zip archive or tars of images with classes or captions
/// (arrange_images.h), prompts alone (prompt_list.h); or draws a toy (toy_points.h).
/// "captions:PATH" requires captions (captioned_images.h). Logs once what is passed over. The test
/// split has the classes and the model space of the training data; data without splits is the same
/// for both. Throws core::Error saying what was looked for, or what is wrong with the data: labels
/// out of range, differing sizes, mismatched counts.
std::shared_ptr<const Dataset> open_dataset(const DataRequest& request);

}  // namespace atelier::data
