#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "atelier/data/dataset.h"

namespace atelier::data {

/// Points in the plane, in the user's coordinates.
struct Points {
    Tensor positions;                  // float32 [N,2]
    std::vector<std::int64_t> labels;  // N, or none
};

/// Reads `points` [N,2] (F32 or F64) and, if present, `labels` [N] (I64) of a safetensors file.
/// Throws core::Error naming file and tensor, and the row of a non-finite coordinate.
Points read_points(const std::filesystem::path& path);

/// `points` as a data set, of which the first `limit` are kept (0: all). Model space and classes
/// are those of `train`: its mean becomes 0, and its standard deviation over both dimensions 0.5
/// (sigma_data). Throws core::Error, beginning with `where`, when labels do not match or all points
/// of `train` are equal.
std::shared_ptr<const Dataset> make_points_dataset(const Points& train, const Points& points,
                                                   std::int64_t limit, const std::string& where);

/// Opens a safetensors file; the test split is the file <stem>-test.safetensors beside it, or the
/// same file when there is none.
std::shared_ptr<const Dataset> open_points(const DataRequest& request);

}  // namespace atelier::data
