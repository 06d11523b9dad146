#pragma once

#include <functional>
#include <memory>

#include "atelier/server/worker_pool.h"

namespace atelier::server {

/// An ensemble whose students run on other servers; none is in memory here.
class RoutedEnsemble : public Generator {
public:
    using Encode = std::function<std::vector<EncodedPrompt>(std::span<const std::string> prompts)>;
    struct Options {
        std::vector<std::string> urls;
        std::string key;                         // API key for them; "": none
        std::size_t max_concurrent_batches = 1;  // in flight per student
    };

    /// `encode` routes prompts if the ensemble takes prompts; the workers encode them again.
    /// `model`: the ensemble's id on the workers. Checks the workers once before it returns; they
    /// may come and go. Throws core::UsageError on an invalid URL.
    RoutedEnsemble(const Options& options, const std::string& model, Description description,
                   Encode encode = {});

    const Description& description() const override { return description_; }
    StudentFacts facts(std::int64_t k) const override;
    std::vector<EncodedPrompt> encode(std::span<const std::string> prompts) const override {
        return encode_(prompts);
    }
    std::unique_ptr<Student> load(std::int64_t k) const override;
    void measure(Metrics& metrics, const std::string& model) const override {
        workers_->measure(metrics, model);
    }

private:
    Description description_;
    std::size_t max_concurrent_batches_;
    Encode encode_;
    std::shared_ptr<WorkerPool> workers_;
};

}  // namespace atelier::server
