#pragma once

#include <memory>
#include <span>
#include <string>

#include "atelier/conditions/clip_tokenizer.h"
#include "atelier/inference/autoencoder.h"
#include "atelier/inference/named_network.h"
#include "atelier/models/low_rank_file.h"

namespace atelier::inference {

/// The networks of a diffusers directory, each loaded on first use. Not thread-safe.
class DiffusersModel {
public:
    /// `low_rank`: deltas that the networks are changed by.
    DiffusersModel(const std::filesystem::path& path, const Engine& engine,
                   std::span<const models::LowRankFile> low_rank = {});
    ~DiffusersModel();

    const models::DiffusersDirectory& directory() const { return directory_; }
    /// The decoder and encoder.
    Autoencoder& autoencoder() { return autoencoder_; }
    /// The network that denoises.
    NamedNetwork& denoiser();

    /// Its prediction, epsilon, v or the velocity, shaped like `inputs`' x; see
    /// networks::NamedFunction. Throws core::Error when sizes do not fit.
    Tensor predict(const NamedTensors& inputs);

    struct Text {
        Tensor hidden,  // [N,T,D]
            pooled;     // [N,P]
    };
    /// Runs the text encoders on `ids` [N,T] int64, the second one on `second_ids` where they are
    /// given. Of Stable Diffusion 1 and 2: the states after the final normalisation, and the one at
    /// the end-of-text token. Of SDXL the penultimate states of both, side by side, and the
    /// projected state of the second; of Stable Diffusion 3 the same, padded to the transformer's
    /// width and followed by as many rows of zeros for the encoder that is not there, and the
    /// projected states of both. Throws core::Error on ids out of range or too many tokens.
    Text read(const Tensor& ids, const Tensor& second_ids = {});
    /// The same of prompts.
    Text encode(std::span<const std::string> prompts);

    /// The width P of pooled texts.
    std::int64_t pooled_width() const;

    /// The first tokenizer.
    const conditions::ClipTokenizer& tokenizer();
    /// The padded token ids of prompts, [N,77].
    Tensor tokens(std::span<const std::string> prompts);

private:
    struct Tower;
    const std::vector<std::unique_ptr<Tower>>& towers();
    std::int64_t context_width() const;

    models::DiffusersDirectory directory_;
    Engine engine_;
    models::PartDeltas deltas_;
    std::unique_ptr<NamedNetwork> denoiser_;
    std::vector<std::unique_ptr<Tower>> towers_;
    Autoencoder autoencoder_;
};

}  // namespace atelier::inference
