#include "atelier/server/routed_ensemble.h"

#include <numeric>
#include <utility>

namespace atelier::server {

namespace {

class RemoteStudent : public Student {
public:
    RemoteStudent(std::shared_ptr<Upstreams> upstreams, std::int64_t k) : upstreams_(std::move(upstreams)), k_(k) {}

    std::vector<Picture> generate(std::span<const Draw> draws, Clock::time_point until) override { return upstreams_->draw(k_, draws, until); }

private:
    std::shared_ptr<Upstreams> upstreams_;
    std::int64_t k_;
};

/// Every student is asked here, whoever has it.
Description routed(Description description) {
    description.routes = true;
    description.engine = description.precision = "upstream";
    description.here.resize(static_cast<std::size_t>(description.partition.students));
    std::iota(description.here.begin(), description.here.end(), 0);
    return description;
}

}  // namespace

RoutedEnsemble::RoutedEnsemble(const Options& options, const std::string& model, Description description, Read read)
    : description_(routed(std::move(description))), at_once_(options.at_once), read_(std::move(read)),
      upstreams_(std::make_shared<Upstreams>(options.urls, options.key, model, description_)) {}

StudentFacts RoutedEnsemble::facts(std::int64_t k) const {
    StudentFacts facts = upstreams_->facts(k);
    facts.at_once = at_once_;
    return facts;
}

std::unique_ptr<Student> RoutedEnsemble::load(std::int64_t k) const { return std::make_unique<RemoteStudent>(upstreams_, k); }

}  // namespace atelier::server
