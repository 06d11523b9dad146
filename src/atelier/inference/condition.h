#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "atelier/conditions/prior.h"

namespace atelier::inference {

struct ClassId {
    std::int64_t value = 0;

    bool operator==(const ClassId&) const = default;
};

/// What a sample is conditioned on: nothing, a class, or a prompt.
using Condition = std::variant<std::monostate, ClassId, std::string>;

/// Standard normal noise that samples are drawn from instead of their seeds': a row for each index,
/// of samples of `shape`.
struct GivenNoise {
    std::vector<std::int64_t> shape;
    std::vector<float> values;
};

/// One sample to draw. Seed and index determine its noise, unless there is a row of `noise`.
struct SampleRequest {
    std::uint64_t seed = 0;
    std::int64_t index = 0;
    Condition condition;
    std::shared_ptr<const GivenNoise> noise{};

    bool operator==(const SampleRequest&) const = default;
};

/// Requests for samples 0..count-1 of `seed`. Their classes cycle through `classes`, or are drawn
/// from the prior when `classes` is empty. Throws core::UsageError when `count` is below 1 or above
/// 100 million.
std::vector<SampleRequest> class_requests(std::int64_t count, std::uint64_t seed,
                                          std::span<const std::int64_t> classes,
                                          const conditions::Prior& prior);

/// The same for prompts, of which there must be at least one.
std::vector<SampleRequest> prompt_requests(std::int64_t count, std::uint64_t seed,
                                           std::span<const std::string> prompts);

/// The class of a condition; 0 for no condition. Throws core::UsageError on a prompt.
std::int64_t class_of(const Condition& condition);
std::vector<std::int64_t> classes_of(std::span<const SampleRequest> requests);

/// The prompt of a condition; empty for no condition. Throws core::UsageError on a class.
const std::string& prompt_of(const Condition& condition);

std::vector<Condition> conditions_of(std::span<const SampleRequest> requests);
std::vector<Condition> conditions_of(std::span<const std::string> prompts);

}  // namespace atelier::inference
