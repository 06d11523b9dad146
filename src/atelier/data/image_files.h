#pragma once

#include "atelier/data/encoded_images.h"

namespace atelier::data {

/// Images with their labels or captions, not decoded: their sizes may differ. Of folders, archives
/// and tars by the rules of arrange_images.h; of IDX files and .npz as numbers. "captions:PATH"
/// requires captions. Throws core::Error saying what was looked for.
EncodedImages images_in(const DataRequest& request);

}  // namespace atelier::data
