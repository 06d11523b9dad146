#include "atelier/models/torch_file.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "atelier/core/error.h"

namespace atelier::models {

namespace {

using core::PickleValue;
using Bytes = std::span<const std::byte>;

constexpr std::array storages{std::pair{"torch.FloatStorage", at::kFloat},
                              std::pair{"torch.HalfStorage", at::kHalf},
                              std::pair{"torch.BFloat16Storage", at::kBFloat16},
                              std::pair{"torch.DoubleStorage", at::kDouble},
                              std::pair{"torch.LongStorage", at::kLong},
                              std::pair{"torch.IntStorage", at::kInt},
                              std::pair{"torch.ByteStorage", at::kByte},
                              std::pair{"torch.BoolStorage", at::kBool}};

// Globals that checkpoints use, also by their Python 2 names. None of them is executed; all others
// are rejected.
constexpr std::array harmless{"torch._utils._rebuild_tensor_v2",
                              "torch._utils._rebuild_parameter",
                              "torch._utils._rebuild_parameter_with_state",
                              "torch.storage._load_from_bytes",
                              "torch.nn.parameter.Parameter",
                              "torch.Size",
                              "torch.device",
                              "torch.float32",
                              "torch.float16",
                              "torch.bfloat16",
                              "torch.float64",
                              "collections.OrderedDict",
                              "builtins.set",
                              "__builtin__.set",
                              "builtins.object",
                              "__builtin__.object",
                              "copyreg._reconstructor",
                              "copy_reg._reconstructor",
                              "_codecs.encode",
                              "numpy.dtype",
                              "numpy.ndarray",
                              "numpy.core.multiarray.scalar",
                              "numpy._core.multiarray.scalar",
                              "numpy.core.multiarray._reconstruct",
                              "numpy._core.multiarray._reconstruct",
                              "torch_utils.persistence._reconstruct_persistent_obj",
                              "dnnlib.util.EasyDict"};

bool allowed(const std::string& global) {
    return global.starts_with("torch.nn.modules.") ||
           std::ranges::find(harmless, global) != harmless.end() ||
           std::ranges::find(storages, global, [](const auto& entry) {
               return std::string_view(entry.first);
           }) != storages.end();
}

/// The first bytes of torch.save's older format: protocol 2, and a ten-byte long integer.
constexpr std::array legacy_start{0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c,
                                  0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};

bool begins_legacy(Bytes bytes) {
    const auto same = [](int number, std::byte byte) {
        return std::to_integer<int>(byte) == number;
    };
    return bytes.size() > legacy_start.size() &&
           std::equal(legacy_start.begin(), legacy_start.end(), bytes.begin(), same);
}

bool begins_zip(const std::filesystem::path& path) {
    const core::MappedFile file(path);
    return file.bytes().size() > 4 && std::memcmp(file.bytes().data(), "PK\3\4", 4) == 0;
}

/// ("storage", torch.FloatStorage, key, device, count, ...)
struct StorageName {
    at::ScalarType type;
    std::string_view key;
    std::int64_t count;
};

StorageName read_name(const PickleValue& persistent, const std::string& where) {
    const auto parts = persistent.arguments();
    if (parts.size() < 5 || !parts[1].is_global())
        core::fail("{}: a tensor's storage is described in an unknown way", where);
    const auto found = std::ranges::find(
        storages, parts[1].text(), [](const auto& entry) { return std::string_view(entry.first); });
    if (found == storages.end())
        core::fail("{}: a tensor has the unknown storage type \"{}\"", where, parts[1].text());
    if (parts.size() > 5 && !parts[5].is_none())
        core::fail("{}: a storage is a view of another one, which is not supported", where);
    return {found->second, parts[2].text(), parts[4].integer()};
}

/// The consecutive pickles and storages of torch.save's older format.
class LegacyStream {
public:
    LegacyStream(Bytes bytes, const std::string& where) : remaining_(bytes), where_(where) {
        next();  // the magic number
        next();  // the version
        const core::Pickle system = next();
        if (!system.root()["little_endian"].is_number() ||
            system.root()["little_endian"].real() != 1)
            core::fail("{}: was written on a big-endian machine", where);
    }

    core::Pickle next() {
        core::Pickle pickle(remaining_, where_, allowed);
        remaining_ = remaining_.subspan(pickle.size());
        return pickle;
    }

    /// Reads a storage: its element count, then its elements.
    Bytes storage(const StorageName& name) {
        std::int64_t count = 0;
        if (remaining_.size() < sizeof count) core::fail("{}: ends within its storages", where_);
        std::memcpy(&count, remaining_.data(), sizeof count);
        const auto element_size = static_cast<std::int64_t>(c10::elementSize(name.type));
        if (count != name.count || count < 0 ||
            count > static_cast<std::int64_t>(remaining_.size() - sizeof count) / element_size) {
            core::fail(
                "{}: storage \"{}\" claims {} elements, {} were declared and {} bytes are left",
                where_, name.key, count, name.count, remaining_.size());
        }
        const Bytes bytes =
            remaining_.subspan(sizeof count, static_cast<std::size_t>(count * element_size));
        remaining_ = remaining_.subspan(sizeof count + bytes.size());
        return bytes;
    }

private:
    Bytes remaining_;
    const std::string& where_;
};

std::vector<std::int64_t> integers(const PickleValue& list) {
    std::vector<std::int64_t> values;
    for (const PickleValue& item : list.items()) values.push_back(item.integer());
    return values;
}

/// The number of elements of a dense tensor at `offset` in a storage of `count`. Throws core::Error
/// if it is not dense or exceeds the storage.
std::int64_t dense_elements(std::int64_t offset, const graph::Shape& sizes,
                            const graph::Shape& strides, std::int64_t count,
                            const std::string& where) {
    constexpr std::int64_t largest = std::int64_t{1} << 40;
    bool fits =
        sizes.size() == strides.size() && sizes.size() <= 8 && offset >= 0 && offset <= count;
    std::int64_t elements = 1, reach = 1;
    for (std::size_t i = 0; fits && i < sizes.size(); ++i) {
        fits = sizes[i] >= 0 && sizes[i] <= largest && strides[i] >= 0 && strides[i] <= largest;
        if (!fits) break;
        // Products bounded by the storage's size cannot overflow.
        elements = sizes[i] == 0                 ? 0
                   : elements > count / sizes[i] ? count + 1
                                                 : elements * sizes[i];
        reach += sizes[i] > 1 && strides[i] > 0
                     ? std::min((sizes[i] - 1), largest / strides[i]) * strides[i]
                     : 0;
        fits = elements <= count;
    }
    if (!fits || (elements > 0 && (reach != elements || offset > count - elements))) {
        core::fail("{}: a tensor of {} with strides {} does not fit the {} elements of its storage",
                   where, core::to_string(sizes), core::to_string(strides), count);
    }
    return elements;
}

}  // namespace

TorchFile::TorchFile(const std::filesystem::path& path) {
    if (begins_zip(path)) {
        open_zip(path);
        return;
    }
    file_ = std::make_unique<core::MappedFile>(path);
    bytes_left_ = file_->bytes().size();
    if (begins_legacy(file_->bytes())) {
        open_legacy(file_->bytes());
        return;
    }
    if (file_->bytes().empty() || file_->bytes()[0] != std::byte{0x80})
        core::fail("{}: is no pickle and no file of torch.save's", path.string());
    pickle_.emplace(file_->bytes(), path.string(), allowed);
}

void TorchFile::open_zip(const std::filesystem::path& path) {
    zip_ = std::make_unique<core::ZipFile>(path);
    bytes_left_ = std::filesystem::file_size(path);
    const auto& entries = zip_->entries();
    const auto object = std::ranges::find_if(
        entries, [](const auto& entry) { return entry.name.ends_with("/data.pkl"); });
    if (object == entries.end())
        core::fail("{}: is a zip archive, but none of torch.save's (no data.pkl)", path.string());
    root_folder_ = object->name.substr(0, object->name.size() - std::string("data.pkl").size());
    pickle_.emplace(zip_->stored(*object), path.string(), allowed);
}

void TorchFile::open_legacy(Bytes bytes) {
    const std::string where = file_->path().string();
    LegacyStream stream(bytes, where);
    pickle_.emplace(stream.next());
    std::map<std::string, StorageName, std::less<>> names;
    for (const PickleValue& persistent : pickle_->calls("persistent_id")) {
        const StorageName name = read_name(persistent, where);
        names.emplace(name.key, name);
    }
    const core::Pickle keys = stream.next();
    for (const PickleValue& key : keys.root().items()) {
        const auto name = names.find(key.text());
        if (name == names.end())
            core::fail("{}: storage \"{}\" belongs to no tensor", where, key.text());
        legacy_.emplace(key.text(), Storage{name->second.type, stream.storage(name->second)});
    }
}

TorchFile::Storage TorchFile::keyed_storage(const PickleValue& persistent) const {
    const StorageName name = read_name(persistent, where());
    if (!zip_) {
        const auto found = legacy_.find(name.key);
        if (found == legacy_.end()) core::fail("{}: storage \"{}\" is missing", where(), name.key);
        return found->second;
    }
    const core::ZipFile::Entry* entry = zip_->find(root_folder_ + "data/" + std::string(name.key));
    if (entry == nullptr) core::fail("{}: storage \"{}\" is missing", where(), name.key);
    return {name.type, zip_->stored(*entry)};
}

TorchFile::Storage TorchFile::nested_storage(const PickleValue& value) const {
    if (!value.is_call("torch.storage._load_from_bytes") || value.arguments().size() != 1)
        core::fail("{}: a tensor has no storage", where());
    const Bytes bytes = value.arguments()[0].bytes();
    if (!begins_legacy(bytes))
        core::fail("{}: a tensor's storage is packed in an unknown way", where());
    LegacyStream stream(bytes, where());
    const core::Pickle object = stream.next();
    if (!object.root().is_call("persistent_id"))
        core::fail("{}: a tensor's storage is packed in an unknown way", where());
    const StorageName name = read_name(object.root(), where());
    stream.next();  // the list of its single key
    return {name.type, stream.storage(name)};
}

bool TorchFile::is_tensor(const PickleValue& value) {
    return value.is_call("torch._utils._rebuild_tensor_v2") ||
           value.is_call("torch._utils._rebuild_parameter") ||
           value.is_call("torch._utils._rebuild_parameter_with_state");
}

void TorchFile::count_bytes(std::uint64_t bytes) {
    if (bytes > bytes_left_)
        core::fail("{}: its tensors are larger than the file; they overlap", where());
    bytes_left_ -= bytes;
}

Tensor TorchFile::tensor(const PickleValue& value) {
    const auto parts = value.arguments();
    if (!value.is_call("torch._utils._rebuild_tensor_v2")) {
        if (parts.empty() || !parts[0].is_call("torch._utils._rebuild_tensor_v2"))
            core::fail("{}: a parameter holds no tensor", where());
        return tensor(parts[0]);
    }
    if (parts.size() < 4) core::fail("{}: a tensor lacks sizes or strides", where());
    const bool keyed = parts[0].is_call("persistent_id");
    const Storage from = keyed ? keyed_storage(parts[0]) : nested_storage(parts[0]);
    const auto element_size = static_cast<std::int64_t>(c10::elementSize(from.type));
    const std::int64_t offset = parts[1].integer(),
                       count = static_cast<std::int64_t>(from.bytes.size()) / element_size;
    const graph::Shape sizes = integers(parts[2]), strides = integers(parts[3]);
    const std::int64_t elements = dense_elements(offset, sizes, strides, count, where());
    const auto size = static_cast<std::uint64_t>(elements * element_size);
    count_bytes(keyed ? size : parts[0].arguments()[0].bytes().size());
    if (elements == 0) return at::empty(sizes, from.type);
    const Tensor flat =
        at::empty({elements}, from.type);  // aligned, as the file's bytes may not be
    std::memcpy(flat.mutable_data_ptr(), from.bytes.data() + offset * element_size, size);
    return flat.as_strided(sizes, strides).contiguous();
}

}  // namespace atelier::models
