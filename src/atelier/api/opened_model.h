#pragma once

#include <memory>

#include "atelier/atelier.h"
#include "atelier/backends/torch/torch.h"

namespace atelier::api {

/// A model of any kind, behind the public Pipeline. Not thread-safe; throws core's errors.
class OpenedModel {
public:
    virtual ~OpenedModel() = default;

    const Information& information() const { return information_; }

    /// `user`: uint8 [N,H,W,C] or float32 [N,D].
    struct Drawn {
        Tensor user;
        std::vector<Condition> conditions;
    };
    /// Samples `first` to `first` + `count` - 1; `conditions` as in Pipeline::sample.
    virtual Drawn draw(const std::vector<Condition>& conditions, std::int64_t count,
                       std::uint64_t seed, std::int64_t first) = 0;
    virtual std::int64_t route(const Condition& condition) = 0;
    virtual std::map<std::string, double> evaluate(const std::string& data, std::int64_t count,
                                                   std::uint64_t seed,
                                                   const EvaluationOptions& options) = 0;

protected:
    Information information_;
};

/// Opens a model directory, an ensemble, a run's ensemble or a diffusers directory.
std::unique_ptr<OpenedModel> open_model(const std::filesystem::path& path, const Options& options);

}  // namespace atelier::api
