#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace atelier::data {

/// What a captioned image shows; each attribute is an index below its number of values: the garment
/// (Fashion-MNIST's classes), amount and size (one large, one small, two small), place (left,
/// middle, right), and colour (white on black, black on white).
struct Scene {
    std::int64_t garment = 0, amount = 0, place = 0, colour = 0;

    bool operator==(const Scene&) const = default;
};

/// An attribute of scenes by its name: "garment", "amount", "place" or "colour".
struct Attribute {
    const char* name;
    std::int64_t values;
    std::int64_t Scene::* member;
};
const std::array<Attribute, 4>& attributes();
/// Throws core::UsageError naming the nearest when there is no attribute of that name.
const Attribute& attribute(std::string_view name);

/// Whether `text` contains `phrase` as whole words: with neither a letter (any byte of one outside
/// ASCII), a digit nor a hyphen next to it. Both in lower case.
bool contains_phrase(std::string_view text, std::string_view phrase);

/// All scenes of training, or the held-out ones for testing: combinations that training never
/// shows, though it shows each of their attributes.
std::vector<Scene> scenes(bool held_out);

/// All wordings of a scene: synonyms, and four word orders, one of which does not mention the
/// place.
std::vector<std::string> wordings(const Scene& scene);

/// The value of an attribute according to a caption in the grammar's words; nothing where the
/// caption does not mention it.
std::optional<std::int64_t> attribute_in_caption(const Attribute& attribute,
                                                 std::string_view caption);

}  // namespace atelier::data
