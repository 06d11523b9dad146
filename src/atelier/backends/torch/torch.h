#pragma once

// The part of LibTorch that the project uses; precompiled once for all modules that use torch.
#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/autograd.h>

namespace atelier {

using at::Tensor;

}  // namespace atelier
