#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace atelier::data {

/// What a captioned picture shows, each attribute a number below its count of values: the garment (Fashion-MNIST's classes), how many and how large
/// (one large, one small, two small), where (left, middle, right), and whether it is white on black or black on white.
struct Scene {
    std::int64_t garment = 0, amount = 0, place = 0, colour = 0;

    bool operator==(const Scene&) const = default;
};

/// An attribute of scenes by its name: "garment", "amount", "place" or "colour".
struct Attribute {
    const char* name;
    std::int64_t values;
    std::int64_t Scene::*member;
};
const std::array<Attribute, 4>& attributes();
/// Throws core::UsageError naming the nearest when there is none of that name.
const Attribute& attribute(std::string_view name);

/// Every scene there is; the held-out ones are for testing alone: combinations that training never shows, though it shows each of their attributes.
std::vector<Scene> scenes(bool held_out);

/// All wordings of a scene: synonyms, and four orders of words, one of which does not say where.
std::vector<std::string> wordings(const Scene& scene);

/// What a caption says of an attribute, in the grammar's words; nothing where it does not say.
std::optional<std::int64_t> said(const Attribute& attribute, std::string_view caption);

}  // namespace atelier::data
