#include "atelier/data/image_npz.h"

#include <algorithm>
#include <cstring>

#include "atelier/core/error.h"
#include "atelier/core/npz.h"
#include "atelier/data/memory_dataset.h"

namespace atelier::data {

namespace {

constexpr std::size_t largest = std::size_t{1} << 34;
constexpr std::int64_t most_classes = 1'000'000;

Tensor images_of(const std::map<std::string, core::Array>& arrays, const std::string& where) {
    const auto found = arrays.find("arr_0");
    if (found == arrays.end())
        core::fail("{}: has no array \"arr_0\"; images are uint8 [N,H,W,C]", where);
    const core::Array& array = found->second;
    const core::Shape& shape = array.shape;
    if (array.dtype != core::DType::U8 || shape.size() != 4 || shape[0] < 1 || shape[1] < 1 ||
        shape[2] < 1 || (shape[3] != 1 && shape[3] != 3)) {
        core::fail("{}: \"arr_0\" is {} of {}; images are uint8 [N,H,W,C] with 1 or 3 channels",
                   where, core::to_string(shape), core::name_of(array.dtype));
    }
    // A clone: with one channel the permuted view already counts as contiguous, and would refer to
    // the bytes of the file after they are freed.
    const Tensor view = at::from_blob(const_cast<std::byte*>(array.bytes.data()), shape,
                                      at::TensorOptions(at::kByte))
                            .permute({0, 3, 1, 2});
    return view.clone(at::MemoryFormat::Contiguous);
}

std::vector<std::int64_t> labels_of(const std::map<std::string, core::Array>& arrays,
                                    std::int64_t count, const std::string& where) {
    const auto found = arrays.contains("labels") ? arrays.find("labels") : arrays.find("arr_1");
    if (found == arrays.end()) return {};
    const core::Array& array = found->second;
    if (array.dtype != core::DType::I64 || array.shape != core::Shape{count}) {
        core::fail("{}: \"{}\" is {} of {}; classes are int64 [{}]", where, found->first,
                   core::to_string(array.shape), core::name_of(array.dtype), count);
    }
    std::vector<std::int64_t> labels(static_cast<std::size_t>(count));
    std::memcpy(labels.data(), array.bytes.data(), array.bytes.size());
    for (const std::int64_t label : labels) {
        if (label < 0 || label >= most_classes)
            core::fail("{}: a class is {}; classes are 0 to {}", where, label, most_classes - 1);
    }
    return labels;
}

}  // namespace

std::shared_ptr<const Dataset> open_image_npz(const DataRequest& request) {
    const std::string where = request.path.string();
    const char* classes_array =
        core::names_in_npz(request.path).contains("labels") ? "labels" : "arr_1";
    const auto arrays = core::read_npz(request.path, {"arr_0", classes_array}, largest);
    const Tensor images = images_of(arrays, where);
    std::vector<std::int64_t> labels = labels_of(arrays, images.size(0), where);
    const std::int64_t classes = labels.empty() ? 0 : *std::ranges::max_element(labels) + 1;
    data::SampleSpec spec;
    spec.shape = {images.size(1), images.size(2), images.size(3)};
    return std::make_shared<MemoryDataset>(images, std::move(labels), classes, std::move(spec),
                                           request.limit);
}

}  // namespace atelier::data
