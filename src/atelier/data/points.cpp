#include "atelier/data/points.h"

#include <cmath>
#include <cstring>

#include "atelier/core/error.h"
#include "atelier/core/safetensors.h"
#include "atelier/data/labels.h"
#include "atelier/data/memory_dataset.h"

namespace atelier::data {

namespace {

void expect_finite(const Tensor& positions, const std::string& where) {
    const float* values = positions.const_data_ptr<float>();
    for (std::int64_t i = 0; i < positions.numel(); ++i) {
        if (!std::isfinite(values[i]))
            core::fail("{}: row {} of \"points\" is not finite in float32; remove it", where,
                       i / 2);
    }
}

Tensor positions_in(const core::SafetensorsFile& file) {
    const std::string where = file.path().string();
    const core::TensorEntry& entry = file.entry("points");
    const bool is_double = entry.dtype == core::DType::F64;
    if ((!is_double && entry.dtype != core::DType::F32) || entry.shape.size() != 2 ||
        entry.shape[1] != 2 || entry.shape[0] < 1) {
        core::fail(
            "{}: \"points\" is {} {}; points lie in the plane: F32 or F64 [N,2] with N of at least "
            "1",
            where, core::name_of(entry.dtype), core::to_string(entry.shape));
    }
    Tensor positions = at::empty(entry.shape, is_double ? at::kDouble : at::kFloat);
    std::memcpy(positions.mutable_data_ptr(), file.bytes("points").data(), positions.nbytes());
    positions = positions.to(at::kFloat);
    expect_finite(positions, where);
    return positions;
}

std::vector<std::int64_t> labels_in(const core::SafetensorsFile& file, std::int64_t count) {
    if (!file.contains("labels")) return {};
    const core::TensorEntry& entry = file.entry("labels");
    if (entry.dtype != core::DType::I64 || entry.shape != core::Shape{count}) {
        core::fail("{}: \"labels\" is {} {}; for these points it must be I64 [{}]",
                   file.path().string(), core::name_of(entry.dtype), core::to_string(entry.shape),
                   count);
    }
    std::vector<std::int64_t> labels(static_cast<std::size_t>(count));
    std::memcpy(labels.data(), file.bytes("labels").data(), labels.size() * sizeof(labels[0]));
    return labels;
}

/// Sums run in the order of the points, on one thread: the result is part of a model and must not
/// depend on the number of threads.
data::SampleSpec spec_of(const Tensor& positions, const std::string& where) {
    if (at::equal(positions, positions[0].expand_as(positions))) {
        core::fail("{}: all points are equal; there is nothing to learn", where);
    }
    data::SampleSpec spec;
    spec.kind = data::SampleSpec::Kind::points;
    spec.shape = {positions.size(1)};
    spec.offset.assign(static_cast<std::size_t>(positions.size(1)), 0.0);
    const auto values =
        std::span(positions.const_data_ptr<float>(), static_cast<std::size_t>(positions.numel()));
    const auto count = static_cast<double>(positions.size(0));
    const std::size_t dimensions = spec.offset.size();
    for (std::size_t i = 0; i < values.size(); ++i)
        spec.offset[i % dimensions] += values[i] / count;
    double squares = 0;
    for (std::size_t i = 0; i < values.size(); ++i)
        squares += std::pow(values[i] - spec.offset[i % dimensions], 2);
    spec.scale = 2 * std::sqrt(squares / static_cast<double>(values.size()));
    if (spec.scale < 1e-30 || spec.scale > 1e30) {
        core::fail(
            "{}: the points' standard deviation is {:.3g}; scale them, so that it is nearer to 1",
            where, spec.scale / 2);
    }
    return spec;
}

}  // namespace

Points read_points(const std::filesystem::path& path) {
    const core::SafetensorsFile file(path);
    Points points;
    points.positions = positions_in(file);
    points.labels = labels_in(file, points.positions.size(0));
    return points;
}

std::shared_ptr<const Dataset> make_points_dataset(const Points& train, const Points& points,
                                                   std::int64_t limit, const std::string& where) {
    const std::int64_t classes = count_classes(train.labels, where);
    if (train.labels.empty() != points.labels.empty()) {
        core::fail("{}: of train and test points, one has \"labels\", the other not", where);
    }
    check_labels(points.labels, classes, where);
    return std::make_shared<MemoryDataset>(points.positions, points.labels, classes,
                                           spec_of(train.positions, where), limit);
}

std::shared_ptr<const Dataset> open_points(const DataRequest& request) {
    const Points train = read_points(request.path);
    auto path = request.path;
    path.replace_filename(request.path.stem().string() + "-test.safetensors");
    const bool other = request.split == "test" && std::filesystem::exists(path);
    return make_points_dataset(train, other ? read_points(path) : train, request.limit,
                               (other ? path : request.path).string());
}

}  // namespace atelier::data
