#include "atelier/data/caption_grammar.h"

#include <algorithm>

#include <fmt/format.h>

#include "atelier/core/error.h"
#include "atelier/core/random_streams.h"
#include "atelier/core/schema.h"

namespace atelier::data {

namespace {

constexpr std::size_t held_out_per_garment = 2;  // of the 18 scenes of a garment

using Words = std::vector<std::string_view>;

/// The synonyms of a garment, singular and plural.
struct Garment {
    Words one, several;
};

const std::array<Garment, 10>& garments() {
    static const std::array<Garment, 10> all{{
        {{"t-shirt", "tee"}, {"t-shirts", "tees"}},
        {{"pair of trousers", "pair of pants"}, {"pairs of trousers", "pairs of pants"}},
        {{"pullover", "sweater"}, {"pullovers", "sweaters"}},
        {{"dress", "gown"}, {"dresses", "gowns"}},
        {{"coat", "jacket"}, {"coats", "jackets"}},
        {{"sandal", "open shoe"}, {"sandals", "open shoes"}},
        {{"shirt", "blouse"}, {"shirts", "blouses"}},
        {{"sneaker", "running shoe"}, {"sneakers", "running shoes"}},
        {{"bag", "handbag"}, {"bags", "handbags"}},
        {{"ankle boot", "boot"}, {"ankle boots", "boots"}},
    }};
    return all;
}

const Words large{"large", "big"}, small{"small", "little"};
const std::array<Words, 3> places{{{"on the left", "at the left"},
                                   {"in the middle", "in the centre"},
                                   {"on the right", "at the right"}}};
const std::array<std::string_view, 2> colours{"white", "black"}, grounds{"black", "white"};

bool holds_any(std::string_view text, const Words& words) {
    return std::ranges::any_of(words,
                               [&](std::string_view word) { return contains_phrase(text, word); });
}

std::optional<std::int64_t> garment_in(std::string_view caption) {
    // The longest match counts: an "ankle boot" is not also a "boot".
    std::optional<std::int64_t> found;
    std::size_t longest = 0;
    for (std::size_t i = 0; i < garments().size(); ++i) {
        for (const Words* words : {&garments()[i].one, &garments()[i].several}) {
            for (const std::string_view word : *words) {
                if (word.size() > longest && contains_phrase(caption, word))
                    found = static_cast<std::int64_t>(i), longest = word.size();
            }
        }
    }
    return found;
}

std::optional<std::int64_t> amount_in(std::string_view caption) {
    if (contains_phrase(caption, "two")) return 2;
    if (holds_any(caption, small)) return 1;
    if (holds_any(caption, large)) return 0;
    return std::nullopt;
}

std::optional<std::int64_t> place_in(std::string_view caption) {
    for (std::size_t i = 0; i < places.size(); ++i) {
        if (holds_any(caption, places[i])) return static_cast<std::int64_t>(i);
    }
    return std::nullopt;
}

std::optional<std::int64_t> colour_in(std::string_view caption) {
    const std::size_t white = caption.find("white"),
                      black = caption.find("black");  // the object is named before its background
    if (white == black) return std::nullopt;
    return white < black ? 0 : 1;
}

}  // namespace

bool contains_phrase(std::string_view text, std::string_view phrase) {
    const auto joins = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
               static_cast<unsigned char>(c) >= 0x80;
    };
    for (std::size_t at = text.find(phrase); at != text.npos; at = text.find(phrase, at + 1)) {
        const std::size_t end = at + phrase.size();
        if ((at == 0 || !joins(text[at - 1])) && (end == text.size() || !joins(text[end])))
            return true;
    }
    return false;
}

const std::array<Attribute, 4>& attributes() {
    static const std::array<Attribute, 4> all{{{"garment", 10, &Scene::garment},
                                               {"amount", 3, &Scene::amount},
                                               {"place", 3, &Scene::place},
                                               {"colour", 2, &Scene::colour}}};
    return all;
}

const Attribute& attribute(std::string_view name) {
    std::vector<std::string> known;
    for (const Attribute& one : attributes()) {
        if (name == one.name) return one;
        known.emplace_back(one.name);
    }
    throw core::UsageError(fmt::format(
        "captions have no attribute \"{}\"{}; known are garment, amount, place and colour", name,
        core::did_you_mean(std::string(name), known)));
}

std::vector<Scene> scenes(bool held_out) {
    std::vector<Scene> chosen;
    for (std::int64_t garment = 0; garment < attribute("garment").values; ++garment) {
        const auto order =
            core::RandomStream(0, "captions/held out", static_cast<std::uint64_t>(garment))
                .permutation(18);
        for (std::size_t i = 0; i < order.size(); ++i) {
            if ((i < held_out_per_garment) == held_out)
                chosen.push_back({garment, order[i] / 6, order[i] / 2 % 3, order[i] % 2});
        }
    }
    return chosen;
}

std::vector<std::string> wordings(const Scene& scene) {
    const Garment& garment = garments()[static_cast<std::size_t>(scene.garment)];
    const auto place = static_cast<std::size_t>(scene.place),
               colour = static_cast<std::size_t>(scene.colour);
    const bool two = scene.amount == 2;
    std::vector<std::string> all;
    for (const std::string_view size : scene.amount == 0 ? large : small) {
        for (const std::string_view what : two ? garment.several : garment.one) {
            const std::string things =
                fmt::format("{} {} {} {}", two ? "two" : "a", size, colours[colour], what);
            all.push_back(fmt::format("{} on {}", things, grounds[colour]));
            for (const std::string_view where : places[place]) {
                all.push_back(fmt::format("{} on {}, {}", things, grounds[colour], where));
                all.push_back(fmt::format("{}, {} on {}", where, things, grounds[colour]));
                all.push_back(fmt::format("a picture of {} {} on a {} background", things, where,
                                          grounds[colour]));
            }
        }
    }
    return all;
}

std::optional<std::int64_t> attribute_in_caption(const Attribute& attribute,
                                                 std::string_view caption) {
    if (attribute.member == &Scene::garment) return garment_in(caption);
    if (attribute.member == &Scene::amount) return amount_in(caption);
    if (attribute.member == &Scene::place) return place_in(caption);
    return colour_in(caption);
}

}  // namespace atelier::data
