#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace atelier::metrics {

/// What captions say about an attribute of their images, and the classifier that recognises it.
struct CaptionAttribute {
    std::string name;
    /// The class that a caption mentions, in the classifier's numbering; nothing where the caption
    /// mentions none, or several.
    std::function<std::optional<std::int64_t>(std::string_view caption)> class_in;
    std::int64_t classes;
    std::filesystem::path classifier;  // its directory
};

/// The class whose phrase `caption` contains: `phrases[k]` are the phrases of class k, in lower
/// case; the caption's ASCII letters may be in either. Whole words count: with neither a letter, a
/// digit nor a hyphen next to them; where one matched phrase contains another ("ankle boot",
/// "boot"), the longest. Nothing where no phrase matches or the longest ones name several classes.
std::optional<std::int64_t> class_of_phrases(const std::vector<std::vector<std::string>>& phrases,
                                             std::string_view caption);

/// What a file says of captions: their attributes, and groups of captions that say the same.
struct CaptionAttributes {
    std::vector<CaptionAttribute> attributes;
    std::vector<std::vector<std::string>> paraphrases;
};

/// Reads attributes from a JSON file: {"attributes": [{"name": "colour", "classifier": DIRECTORY,
/// "values": [["red", "crimson"], ["blue"]]}]}, one list of phrases per class of the classifier, in
/// its order; a relative DIRECTORY is relative to the file. Where the file has them, also
/// {"paraphrases": [["a red disc", "a crimson circle"]]}. Throws core::Error naming file and key
/// where something is missing, empty, or given twice, or a group is not a list of at least two
/// captions.
CaptionAttributes read_caption_attributes(const std::filesystem::path& file);

}  // namespace atelier::metrics
