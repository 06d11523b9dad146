#pragma once

#include <filesystem>
#include <functional>
#include <span>

#include "atelier/cli/image_output.h"

namespace atelier::cli {

/// A folder of the pictures 000000.png, 000001.png, ... of one request, which several processes
/// fill. Nothing but the pictures says how far they are: each appears complete and carries in its
/// text chunks what it was made from, so that any part may be made again at any time.
class SharedPictures {
public:
    using Texts = std::function<ImageText(std::int64_t i)>;

    /// For `count` pictures. Throws core::Error when the folder cannot be made, and
    /// core::UsageError when it holds something that is none of these pictures.
    SharedPictures(std::filesystem::path folder, std::int64_t count);

    /// Throws core::UsageError when one of a few existing pictures was made from something else:
    /// its text chunks must include texts(i).
    void check_some(const Texts& texts) const;

    /// Whether all of these pictures are there. Throws core::UsageError when one of them was made
    /// from something else: its text chunks must be texts(i).
    bool hold(std::span<const std::int64_t> numbers, const Texts& texts) const;

    /// Writes pictures of those numbers: uint8 [n,H,W,C]. They appear together or not at all.
    void write(std::span<const std::int64_t> numbers, const Tensor& images,
               const Texts& texts) const;

    /// How many of all pictures are there.
    std::int64_t there() const;

private:
    std::vector<std::int64_t> numbers() const;
    [[noreturn]] void reject(const std::string& name, const std::string& why) const;

    std::filesystem::path folder_;
    std::int64_t count_;
};

}  // namespace atelier::cli
