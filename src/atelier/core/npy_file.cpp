#include "atelier/core/npy_file.h"

#include "atelier/core/error.h"

namespace atelier::core {

NpyFile::NpyFile(std::filesystem::path path) : file_(std::move(path)) {
    const std::string where = file_.path().string();
    const auto bytes = file_.bytes();
    const NpyHeaderPlace place = npy_header_place(bytes.first(std::min(bytes.size(), npy_prefix)), where);
    if (place.end > bytes.size()) fail("{}: ends within its header; was it copied whole?", where);
    const auto text = bytes.subspan(place.begin, place.end - place.begin);
    header_ = parse_npy_header({reinterpret_cast<const char*>(text.data()), text.size()}, where);
    begin_ = place.end;
    const auto wanted = bytes_of(header_.dtype, header_.shape);
    if (!wanted || *wanted != bytes.size() - begin_) {
        fail("{}: holds {} bytes of numbers, its shape {} of {} needs another count; was it copied whole?", where, bytes.size() - begin_,
             to_string(header_.shape), name_of(header_.dtype));
    }
}

}  // namespace atelier::core
