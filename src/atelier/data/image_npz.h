#pragma once

#include <memory>

#include "atelier/data/dataset.h"

namespace atelier::data {

/// Opens a .npz of images as `atelier sample` and guided-diffusion's tools write them: `arr_0`
/// uint8 [N,H,W,C] with 1 or 3 channels, and classes in `labels` or `arr_1` int64 [N], which may be
/// absent. Throws core::Error naming the file.
std::shared_ptr<const Dataset> open_image_npz(const DataRequest& request);

}  // namespace atelier::data
