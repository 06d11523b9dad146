#pragma once

#include <functional>
#include <map>
#include <string>

#include "atelier/ops/torch.h"

namespace atelier::cli {

/// The text chunks of picture `number`, or of a grid of pictures "0-15".
using PictureTexts = std::function<std::map<std::string, std::string>(const std::string& number)>;

/// Writes pictures uint8 [N,H,W,C] as `out` ends: .npz one array, .png one picture or a grid, else a folder of PNGs. Atomically.
void write_pictures(const std::string& out, const Tensor& pictures, const PictureTexts& texts);

}  // namespace atelier::cli
