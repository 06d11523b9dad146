#include "atelier/core/npy_file.h"

#include "atelier/core/error.h"

namespace atelier::core {

NpyFile::NpyFile(std::filesystem::path path) : file_(std::move(path)) {
    const std::string where = file_.path().string();
    const auto bytes = file_.bytes();
    const NpyHeaderRange range =
        npy_header_range(bytes.first(std::min(bytes.size(), npy_prefix)), where);
    if (range.end > bytes.size()) fail("{}: ends within its header; was it copied whole?", where);
    const auto text = bytes.subspan(range.begin, range.end - range.begin);
    header_ = parse_npy_header({reinterpret_cast<const char*>(text.data()), text.size()}, where);
    begin_ = range.end;
    const auto expected = bytes_of(header_.dtype, header_.shape);
    if (!expected || *expected != bytes.size() - begin_) {
        fail(
            "{}: holds {} bytes of elements, but its shape {} of {} needs another number; was it "
            "copied "
            "whole?",
            where, bytes.size() - begin_, to_string(header_.shape), name_of(header_.dtype));
    }
}

}  // namespace atelier::core
