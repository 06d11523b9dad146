#pragma once

#include <optional>
#include <streambuf>
#include <string>
#include <vector>

namespace atelier::cli {

/// Standard output that remembers why it could not be written: std::cout alone would go silent, and the program would say
/// that all is well. Stands in for std::cout's buffer while it lives.
class StandardOutput final : public std::streambuf {
public:
    StandardOutput();
    ~StandardOutput() override;
    StandardOutput(const StandardOutput&) = delete;
    StandardOutput& operator=(const StandardOutput&) = delete;

    /// Writes what is left; the system's error number of the first write that failed, or nothing.
    std::optional<int> finish();

private:
    int_type overflow(int_type character) override;
    int sync() override;
    bool write_out();

    std::vector<char> buffer_;
    std::streambuf* before_;
    std::optional<int> problem_;
};

/// Opens what the caller closed of standard input, output and error, so that no file of ours takes their numbers and what is
/// printed fails as it should.
void occupy_standard_descriptors();

}  // namespace atelier::cli
