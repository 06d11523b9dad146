#pragma once

#include <optional>

#include "atelier/core/pickle.h"
#include "atelier/core/zip_file.h"
#include "atelier/ops/parameters.h"

namespace atelier::models {

/// A file written by Python's pickle or by torch.save (as a zip archive or in the older form), read as data: nothing in it is run. Globals that
/// no checkpoint needs are refused by name.
class TorchFile {
public:
    /// Throws core::Error naming the file.
    explicit TorchFile(const std::filesystem::path& path);

    const std::string& where() const { return pickle_->where(); }
    core::PickleValue root() const { return pickle_->root(); }

    static bool is_tensor(const core::PickleValue& value);

    /// The tensor of `value`, contiguous, of its own type. Throws core::Error when its sizes do not fit its storage, and when all tensors asked for
    /// together are larger than the file.
    Tensor tensor(const core::PickleValue& value);

private:
    struct Storage {
        at::ScalarType type;
        std::span<const std::byte> bytes;
    };

    void open_zip(const std::filesystem::path& path);
    void open_legacy(std::span<const std::byte> bytes);
    Storage nested_storage(const core::PickleValue& call) const;
    Storage keyed_storage(const core::PickleValue& persistent) const;
    /// Throws when more bytes were asked for than the file has, as by tensors that share storages without end.
    void spend(std::uint64_t bytes);

    std::unique_ptr<core::MappedFile> file_;  // one of the two
    std::unique_ptr<core::ZipFile> zip_;
    std::string inside_;               // the folder of a zip archive in which all lies
    std::optional<core::Pickle> pickle_;
    std::map<std::string, Storage, std::less<>> legacy_;  // storages by key
    std::uint64_t left_ = 0;
};

}  // namespace atelier::models
