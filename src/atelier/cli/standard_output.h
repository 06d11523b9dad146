#pragma once

#include <optional>
#include <streambuf>
#include <string>
#include <vector>

namespace atelier::cli {

/// Replaces std::cout's buffer during its lifetime and records the first write error, which
/// std::cout alone would swallow.
class StandardOutput final : public std::streambuf {
public:
    StandardOutput();
    ~StandardOutput() override;
    StandardOutput(const StandardOutput&) = delete;
    StandardOutput& operator=(const StandardOutput&) = delete;

    /// Flushes; returns the errno of the first failed write, or nullopt.
    std::optional<int> finish();

private:
    int_type overflow(int_type character) override;
    int sync() override;
    bool write_out();

    std::vector<char> buffer_;
    std::streambuf* before_;
    std::optional<int> problem_;
};

/// Opens any of stdin, stdout and stderr that the caller closed, so that no other file gets their
/// descriptors and writes to them fail as expected.
void occupy_standard_descriptors();

}  // namespace atelier::cli
