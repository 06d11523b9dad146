#pragma once

#include <chrono>
#include <memory>
#include <string>

#include <torch/csrc/distributed/c10d/Store.hpp>

#include "atelier/parallel/group.h"

namespace atelier::parallel {

/// Ranks wait for each other as long as they live, which the monitor watches: one of them may be
/// measuring a probe, or writing a checkpoint.
constexpr auto operation_timeout = std::chrono::hours(24 * 30);

/// The function that libatelier_nccl.so exports as nccl_module_entry. Throws where LibTorch does.
using MakeNcclGroup = Group* (*)(const c10::intrusive_ptr<c10d::Store>* store, int rank, int world);
constexpr const char* nccl_module_entry = "atelier_make_nccl_group";

/// What came of opening the module: its function, or why there is none.
struct NcclModule {
    MakeNcclGroup make = nullptr;
    std::string problem{};
};

/// Opens libatelier_nccl.so beside the program or library that this code is in, or in ../lib from
/// there. LibTorch's CUDA library must be loaded (inference::device_of does that). The module stays
/// open.
NcclModule open_nccl_module();

}  // namespace atelier::parallel
