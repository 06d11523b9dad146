#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "atelier/data/memory_dataset.h"

namespace atelier::data {

/// uint8 [N,1,H,W] of an IDX file of images (the format of MNIST: magic 0x803, count, rows,
/// columns, bytes), gzip or plain. Throws core::Error naming the file when it is not such a file,
/// declares more than it can hold, or is longer or shorter than its header says.
Tensor read_idx_images(const std::filesystem::path& path);

/// The labels of an IDX file (magic 0x801, count, bytes). Throws like read_idx_images.
std::vector<std::int64_t> read_idx_labels(const std::filesystem::path& path);

/// Whether a folder holds `train-images-idx3-ubyte` or `t10k-images-idx3-ubyte` (or with a dot
/// before idx3; also .gz).
bool is_idx_folder(const std::filesystem::path& folder);

/// Reads a split of such a folder; the classes are those of the training labels. In a folder whose
/// name contains "fashion" they have the names of Fashion-MNIST (Xiao et al. 2017). Throws
/// core::Error when files are missing or counts or labels do not fit.
StoredImages read_idx_folder(const DataRequest& request);

}  // namespace atelier::data
