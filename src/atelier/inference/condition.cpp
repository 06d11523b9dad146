#include "atelier/inference/condition.h"

#include "atelier/core/error.h"

namespace atelier::inference {

namespace {

void check_count(std::int64_t count) {
    constexpr std::int64_t max_count = 100'000'000;
    if (count < 1 || count > max_count)
        throw core::UsageError(
            fmt::format("{} samples cannot be drawn; request 1 to {}", count, max_count));
}

}  // namespace

std::vector<SampleRequest> class_requests(std::int64_t count, std::uint64_t seed,
                                          std::span<const std::int64_t> classes,
                                          const conditions::Prior& prior) {
    check_count(count);
    std::vector<SampleRequest> requests;
    for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t class_id =
            classes.empty() ? conditions::draw_class(prior, seed, static_cast<std::uint64_t>(i))
                            : classes[static_cast<std::size_t>(i) % classes.size()];
        requests.push_back({seed, i, ClassId{class_id}});
    }
    return requests;
}

std::vector<SampleRequest> prompt_requests(std::int64_t count, std::uint64_t seed,
                                           std::span<const std::string> prompts) {
    check_count(count);
    if (prompts.empty()) throw core::UsageError("prompts are missing; give one or more");
    std::vector<SampleRequest> requests;
    for (std::int64_t i = 0; i < count; ++i)
        requests.push_back({seed, i, prompts[static_cast<std::size_t>(i) % prompts.size()]});
    return requests;
}

std::int64_t class_of(const Condition& condition) {
    if (std::holds_alternative<std::string>(condition))
        throw core::UsageError("this model knows classes and reads no prompts");
    const auto* class_id = std::get_if<ClassId>(&condition);
    return class_id == nullptr ? 0 : class_id->value;
}

std::vector<std::int64_t> classes_of(std::span<const SampleRequest> requests) {
    std::vector<std::int64_t> classes;
    for (const SampleRequest& request : requests) classes.push_back(class_of(request.condition));
    return classes;
}

const std::string& prompt_of(const Condition& condition) {
    static const std::string none;
    if (std::holds_alternative<ClassId>(condition))
        throw core::UsageError("this model reads prompts and knows no classes");
    const auto* prompt = std::get_if<std::string>(&condition);
    return prompt == nullptr ? none : *prompt;
}

std::vector<Condition> conditions_of(std::span<const SampleRequest> requests) {
    std::vector<Condition> conditions;
    for (const SampleRequest& request : requests) conditions.push_back(request.condition);
    return conditions;
}

std::vector<Condition> conditions_of(std::span<const std::string> prompts) {
    return {prompts.begin(), prompts.end()};
}

}  // namespace atelier::inference
