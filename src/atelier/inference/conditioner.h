#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "atelier/conditions/clip_tokenizer.h"
#include "atelier/conditions/router.h"
#include "atelier/inference/condition.h"
#include "atelier/inference/engine.h"
#include "atelier/models/prompt_encoder.h"

namespace atelier::inference {

/// The encoded conditions of N samples: classes, or what a network reads of prompts.
struct Conditioning {
    std::vector<std::int64_t> classes;  // N; empty for prompts
    Tensor rows{};        // for the network: [N,D], or states of all tokens [N,T,D]; undefined for
                          // classes; of diffusers directories [N,P,T,D] (see there)
    Tensor embeddings{};  // [N,D] of unit length, for the router; undefined where nothing routes
    Tensor pooled{};      // [N,P,W], of diffusers directories that read pooled texts

    std::int64_t size() const;
    Conditioning select(std::span<const std::int64_t> positions) const;
    Conditioning narrow(std::int64_t first, std::int64_t count) const;
    /// All samples of `parts`, which must be of one kind, in their order.
    static Conditioning joined(std::span<const Conditioning> parts);
};

/// Encodes conditions, once for the router and the network together. Thread-safe.
class Conditioner {
public:
    virtual ~Conditioner() = default;

    /// Throws core::UsageError on conditions of another kind and on classes out of range,
    /// core::Error on a prompt that is not valid UTF-8.
    virtual Conditioning encode(std::span<const Condition> conditions) const = 0;

    /// The tokenizer of prompts; null for classes.
    virtual const conditions::ClipTokenizer* tokenizer() const { return nullptr; }
    bool reads_prompts() const { return tokenizer() != nullptr; }
    /// The end of a prompt that exceeds the model's tokens; usually empty.
    std::string truncated_tail(const std::string& prompt) const;
};

/// For models of `classes` classes, at least 1; of unconditional models 1.
std::unique_ptr<Conditioner> class_conditioner(std::int64_t classes);

/// For models conditioned on prompts.
class PromptConditioner final : public Conditioner {
public:
    /// `directory` contains the prompt encoder; `network` is that of any of the conditioned models.
    /// Prompts are encoded on `device`, to rows on the CPU. Throws core::Error naming the file.
    PromptConditioner(const std::filesystem::path& directory, const networks::Network& network,
                      at::Device device = at::kCPU);

    Conditioning encode(std::span<const Condition> conditions) const override;
    const conditions::ClipTokenizer* tokenizer() const override { return &encoder_.tokenizer; }

    /// The rows of the empty prompt, [1,...].
    const Tensor& empty_prompt() const { return empty_prompt_; }

private:
    models::PromptEncoder encoder_;
    bool reads_states_;
    Tensor empty_prompt_;
};

/// Assigns encoded conditions to students.
class Router {
public:
    using Decision = conditions::Router::Decision;

    Router() = default;  // one student owns everything
    explicit Router(conditions::Router owners) : owners_(std::move(owners)) {}

    std::int64_t students() const { return owners_ ? owners_->students() : 1; }
    /// One decision per sample; of classes without scores.
    std::vector<Decision> assign(const Conditioning& conditioning) const;

private:
    std::optional<conditions::Router> owners_;
};

}  // namespace atelier::inference
