#include "atelier/data/image_npz.h"

#include <cstring>

#include "atelier/core/error.h"
#include "atelier/core/npz.h"
#include "atelier/data/labels.h"

namespace atelier::data {

namespace {

constexpr std::size_t largest = std::size_t{1} << 34;

bool is_of_images(core::DType dtype, const core::Shape& shape) {
    return dtype == core::DType::U8 && shape.size() == 4 && shape[0] >= 1 && shape[1] >= 1 &&
           shape[2] >= 1 && (shape[3] == 1 || shape[3] == 3);
}

Tensor images_of(const std::map<std::string, core::Array>& arrays, const std::string& where) {
    const auto found = arrays.find("arr_0");
    if (found == arrays.end())
        core::fail("{}: has no array \"arr_0\"; images are uint8 [N,H,W,C]", where);
    const core::Array& array = found->second;
    const core::Shape& shape = array.shape;
    if (!is_of_images(array.dtype, shape)) {
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
    return labels;
}

}  // namespace

StoredImages read_image_npz(const DataRequest& request) {
    const std::string where = request.path.string();
    const char* classes_array =
        core::names_in_npz(request.path).contains("labels") ? "labels" : "arr_1";
    const auto arrays = core::read_npz(request.path, {"arr_0", classes_array}, largest);
    Tensor images = images_of(arrays, where);
    std::vector<std::int64_t> labels = labels_of(arrays, images.size(0), where);
    const std::int64_t classes =
        request.gaps ? count_classes_with_gaps(labels, where) : count_classes(labels, where);
    data::SampleSpec spec;
    spec.shape = {images.size(1), images.size(2), images.size(3)};
    return {std::move(images), std::move(labels), classes, std::move(spec)};
}

bool is_image_npz(const std::filesystem::path& path) {
    const auto header = core::header_in_npz(path, "arr_0");
    return header && is_of_images(header->dtype, header->shape);
}

}  // namespace atelier::data
