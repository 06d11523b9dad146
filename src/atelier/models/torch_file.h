#pragma once

#include <optional>

#include "atelier/backends/torch/parameters.h"
#include "atelier/core/pickle.h"
#include "atelier/core/zip_file.h"

namespace atelier::models {

/// A file written by Python's pickle or by torch.save (as a zip archive or in the older form), read
/// as data: no code in it is executed. Globals that no checkpoint needs are rejected by name.
class TorchFile {
public:
    /// Throws core::Error naming the file.
    explicit TorchFile(const std::filesystem::path& path);

    const std::string& where() const { return pickle_->where(); }
    core::PickleValue root() const { return pickle_->root(); }

    static bool is_tensor(const core::PickleValue& value);

    /// The tensor of `value`, contiguous, in its stored type. Throws core::Error if its sizes do
    /// not fit its storage, or if all tensors read so far are together larger than the file.
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
    /// Counts bytes read; throws core::Error when they exceed the file's size, as with many tensors
    /// sharing one storage.
    void count_bytes(std::uint64_t bytes);

    std::unique_ptr<core::MappedFile> file_;  // one of file_ and zip_ is set
    std::unique_ptr<core::ZipFile> zip_;
    std::string root_folder_;  // of a zip archive's entries
    std::optional<core::Pickle> pickle_;
    std::map<std::string, Storage, std::less<>> legacy_;  // storages by key
    std::uint64_t bytes_left_ = 0;
};

}  // namespace atelier::models
