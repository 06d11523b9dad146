#include "atelier/server/routed_ensemble.h"

#include <numeric>
#include <utility>

namespace atelier::server {

namespace {

class RemoteStudent : public Student {
public:
    RemoteStudent(std::shared_ptr<WorkerPool> workers, std::int64_t k)
        : workers_(std::move(workers)), k_(k) {}

    std::vector<GeneratedImage> generate(std::span<const Draw> draws,
                                         Clock::time_point deadline) override {
        return workers_->draw(k_, draws, deadline);
    }

private:
    std::shared_ptr<WorkerPool> workers_;
    std::int64_t k_;
};

/// A router serves every student.
Description routed(Description description) {
    description.routes = true;
    description.engine = description.precision = "upstream";
    description.served_students.resize(static_cast<std::size_t>(description.partition.students));
    std::iota(description.served_students.begin(), description.served_students.end(), 0);
    return description;
}

}  // namespace

RoutedEnsemble::RoutedEnsemble(const Options& options, const std::string& model,
                               Description description, Encode encode)
    : description_(routed(std::move(description))),
      max_concurrent_batches_(options.max_concurrent_batches),
      encode_(std::move(encode)),
      workers_(std::make_shared<WorkerPool>(options.urls, options.key, model, description_)) {}

StudentFacts RoutedEnsemble::facts(std::int64_t k) const {
    StudentFacts facts = workers_->facts(k);
    facts.max_concurrent_batches = max_concurrent_batches_;
    return facts;
}

std::unique_ptr<Student> RoutedEnsemble::load(std::int64_t k) const {
    return std::make_unique<RemoteStudent>(workers_, k);
}

}  // namespace atelier::server
