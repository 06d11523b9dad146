#include "atelier/data/idx.h"

#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <string>

#include "atelier/core/error.h"
#include "atelier/core/regular_file.h"
#include "atelier/data/labels.h"
#include "atelier/data/memory_dataset.h"

namespace atelier::data {

namespace {

constexpr std::uint32_t images_magic = 0x803, labels_magic = 0x801;
constexpr std::int64_t most_pixels_a_side = 4096;

/// The bytes of a file, unpacked where it is gzip.
class Unpacked {
public:
    explicit Unpacked(const std::filesystem::path& path) : where_(path.string()) {
        const core::RegularFile file(path);
        // Deflate packs at most 1032:1, so a header that promises more than this lies.
        most_ = std::min<std::uint64_t>(file.size(), std::numeric_limits<std::int64_t>::max() / 1100) * 1032;
        const int descriptor = ::dup(file.descriptor());
        file_ = descriptor < 0 ? nullptr : gzdopen(descriptor, "rb");
        if (file_ == nullptr) {
            if (descriptor >= 0) ::close(descriptor);
            core::fail("{}: cannot be read ({})", where_, std::strerror(errno));
        }
    }
    ~Unpacked() { gzclose(file_); }
    Unpacked(const Unpacked&) = delete;
    Unpacked& operator=(const Unpacked&) = delete;

    std::uint32_t number() {
        std::array<std::uint8_t, 4> bytes;
        read(bytes);
        return std::uint32_t{bytes[0]} << 24 | std::uint32_t{bytes[1]} << 16 | std::uint32_t{bytes[2]} << 8 | bytes[3];
    }

    /// Throws before anything is allocated when the file cannot hold so many bytes.
    void promise(std::uint64_t bytes) const {
        if (bytes > most_) {
            core::fail("{}: its header promises {} bytes, more than the file can hold; is it damaged?", where_, bytes);
        }
    }

    void read(std::span<std::uint8_t> out) {
        while (!out.empty()) {
            const auto piece = static_cast<unsigned>(std::min<std::size_t>(out.size(), 1 << 30));
            const int got = gzread(file_, out.data(), piece);
            if (got < 0) fail_unpacking();
            if (got == 0) core::fail("{}: ends before what its header promises; was it cut off?", where_);
            out = out.subspan(static_cast<std::size_t>(got));
        }
    }

    void expect_end() {
        std::uint8_t byte;
        const int got = gzread(file_, &byte, 1);
        if (got < 0) fail_unpacking();
        if (got > 0) core::fail("{}: is longer than its header says; is it damaged?", where_);
    }

    const std::string& where() const { return where_; }

private:
    [[noreturn]] void fail_unpacking() {
        int code = 0;
        core::fail("{}: cannot be unpacked ({}); was it cut off?", where_, gzerror(file_, &code));
    }

    std::string where_;
    std::uint64_t most_ = 0;
    gzFile file_ = nullptr;
};

void expect_magic(Unpacked& file, std::uint32_t magic, const char* content) {
    const std::uint32_t found = file.number();
    if (found != magic) {
        core::fail("{}: begins with {:#010x}; an IDX file of {} begins with {:#010x}", file.where(), found, content, magic);
    }
}

std::int64_t side_of(Unpacked& file, const char* name) {
    const std::int64_t pixels = file.number();
    if (pixels < 1 || pixels > most_pixels_a_side) {
        core::fail("{}: images have {} {}; from 1 to {} are possible", file.where(), pixels, name, most_pixels_a_side);
    }
    return pixels;
}

std::optional<std::filesystem::path> find_file(const std::filesystem::path& folder, const std::string& split,
                                               const std::string& content, int dimensions) {
    const std::string prefix = split == "test" ? "t10k" : split;
    for (const char dot : {'-', '.'}) {
        for (const char* ending : {"", ".gz"}) {
            auto path = folder / fmt::format("{}-{}{}idx{}-ubyte{}", prefix, content, dot, dimensions, ending);
            if (std::filesystem::exists(path)) return path;
        }
    }
    return std::nullopt;
}

std::filesystem::path labels_path(const std::filesystem::path& folder, const std::string& split) {
    if (const auto path = find_file(folder, split, "labels", 1)) return *path;
    core::fail("{}: there are no {} labels ({}-labels-idx1-ubyte or .gz) beside the images", folder.string(), split,
               split == "test" ? "t10k" : split);
}

bool is_called_fashion(const std::filesystem::path& folder) {
    std::string name = std::filesystem::canonical(folder).filename().string();
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    return name.find("fashion") != std::string::npos;
}

std::vector<std::string> class_names(const std::filesystem::path& folder, std::int64_t classes) {
    static const std::vector<std::string> fashion{"t-shirt", "trouser", "pullover", "dress", "coat",
                                                  "sandal",  "shirt",   "sneaker",  "bag",   "ankle boot"};
    const bool fits = classes == static_cast<std::int64_t>(fashion.size());
    return fits && is_called_fashion(folder) ? fashion : std::vector<std::string>{};
}

}  // namespace

Tensor read_idx_images(const std::filesystem::path& path) {
    Unpacked file(path);
    expect_magic(file, images_magic, "grey images");
    const std::int64_t count = file.number();
    const std::int64_t rows = side_of(file, "rows"), columns = side_of(file, "columns");
    if (count == 0) core::fail("{}: holds no images", file.where());
    file.promise(static_cast<std::uint64_t>(count * rows * columns));
    Tensor images = at::empty({count, 1, rows, columns}, at::kByte);
    file.read({images.mutable_data_ptr<std::uint8_t>(), static_cast<std::size_t>(images.numel())});
    file.expect_end();
    return images;
}

std::vector<std::int64_t> read_idx_labels(const std::filesystem::path& path) {
    Unpacked file(path);
    expect_magic(file, labels_magic, "labels");
    const std::uint32_t count = file.number();
    file.promise(count);
    std::vector<std::uint8_t> bytes(count);
    file.read(bytes);
    file.expect_end();
    return {bytes.begin(), bytes.end()};
}

bool is_idx_folder(const std::filesystem::path& folder) {
    return find_file(folder, "train", "images", 3) || find_file(folder, "test", "images", 3);
}

std::shared_ptr<const Dataset> open_idx_folder(const DataRequest& request) {
    const auto images_path = find_file(request.path, request.split, "images", 3);
    if (!images_path) {
        core::fail("{}: holds no IDX images of the {} split; fetch that file too", request.path.string(), request.split);
    }
    const auto own_labels_path = labels_path(request.path, request.split);
    auto labels = read_idx_labels(own_labels_path);
    const auto train_labels_path = labels_path(request.path, "train");
    const std::int64_t classes =
        count_classes(request.split == "train" ? labels : read_idx_labels(train_labels_path), train_labels_path.string());
    check_labels(labels, classes, own_labels_path.string());
    Tensor images = read_idx_images(*images_path);
    if (images.size(0) != static_cast<std::int64_t>(labels.size())) {
        core::fail("{}: holds {} images, {} holds {} labels; they belong to different data sets", images_path->string(),
                   images.size(0), own_labels_path.string(), labels.size());
    }
    models::DataForm form;
    form.shape = images.sizes().slice(1).vec();
    form.class_names = class_names(request.path, classes);
    return std::make_shared<MemoryDataset>(std::move(images), std::move(labels), classes, std::move(form), request.limit);
}

}  // namespace atelier::data
