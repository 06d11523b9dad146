#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace atelier::data {

/// A line of a metadata.jsonl or metadata.csv: an image's file name, relative to the folder of the
/// metadata, and its caption.
struct CaptionLine {
    std::string file_name, caption;
    std::string where;  // file and line, for messages
};

/// The lines of Hugging Face's imagefolder: JSON objects with "file_name" and "text" (or "caption",
/// "prompt", "description"), or a table with such columns. Empty where the first line has no such
/// text: then the metadata describes something else. Throws core::Error, beginning with `where` and
/// the line, when one is broken or not UTF-8.
std::vector<CaptionLine> caption_lines_of_json(std::string_view text, const std::string& where);
std::vector<CaptionLine> caption_lines_of_csv(std::string_view text, const std::string& where);

/// The caption in a sample's JSON, as img2dataset writes it; "" when there is none.
std::string caption_in_json(std::string_view text, const std::string& where);

/// The caption without surrounding white space. Throws core::Error, beginning with `where`, when it
/// is longer than 64 KB or not UTF-8.
std::string checked_caption(std::string_view text, const std::string& where);

}  // namespace atelier::data
