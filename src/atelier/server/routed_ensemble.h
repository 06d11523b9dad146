#pragma once

#include <functional>
#include <memory>

#include "atelier/server/upstreams.h"

namespace atelier::server {

/// An ensemble whose students other servers draw with. Nothing of them is in memory here.
class RoutedEnsemble : public Generator {
public:
    using Read = std::function<std::vector<Reading>(std::span<const std::string> prompts)>;
    struct Options {
        std::vector<std::string> urls;
        std::string key;          // shown to them; "": none
        std::size_t at_once = 1;  // batches on their way for one student
    };

    /// `read`, where the ensemble reads prompts, says whose they are; those who draw read them again. `model`: what the ensemble is called there. Looks at the servers before it returns; they may come and go. Throws core::UsageError on a URL that
    /// is none.
    RoutedEnsemble(const Options& options, const std::string& model, Description description, Read read = {});

    const Description& description() const override { return description_; }
    StudentFacts facts(std::int64_t k) const override;
    std::vector<Reading> read(std::span<const std::string> prompts) const override { return read_(prompts); }
    std::unique_ptr<Student> load(std::int64_t k) const override;
    void measure(Metrics& metrics, const std::string& model) const override { upstreams_->measure(metrics, model); }

private:
    Description description_;
    std::size_t at_once_;
    Read read_;
    std::shared_ptr<Upstreams> upstreams_;
};

}  // namespace atelier::server
