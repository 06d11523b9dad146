#pragma once

#include <openvino/runtime/infer_request.hpp>

#include "atelier/models/model_directory.h"

namespace atelier::inference {

/// A model compiled by OpenVINO for this CPU, once for every batch size that it meets. The preconditioning around the network is float32
/// whatever the network's precision. Holds a reference: the model must outlive it. One thread at a time.
class OpenVinoDenoiser : public diffusion::Denoiser {
public:
    OpenVinoDenoiser(const models::Model& model, bool bfloat16);

    Tensor denoise(const Tensor& x_t, const Tensor& sigma, const diffusion::Condition& condition) const override;

private:
    ov::InferRequest& request_for(std::int64_t batch) const;

    const models::Model& model_;
    bool bfloat16_;
    mutable std::map<std::int64_t, ov::InferRequest> requests_;  // by batch size
};

}  // namespace atelier::inference
