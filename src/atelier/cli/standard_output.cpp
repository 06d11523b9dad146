#include "atelier/cli/standard_output.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <iostream>

namespace atelier::cli {

StandardOutput::StandardOutput() : buffer_(std::size_t{1} << 14) {
    setp(buffer_.data(), buffer_.data() + buffer_.size());
    std::cout.flush();
    before_ = std::cout.rdbuf(this);
}

StandardOutput::~StandardOutput() {
    write_out();
    std::cout.rdbuf(before_);
}

bool StandardOutput::write_out() {
    const char* at = pbase();
    while (!problem_ && at < pptr()) {
        const ssize_t written = ::write(STDOUT_FILENO, at, static_cast<std::size_t>(pptr() - at));
        if (written >= 0) at += written;
        else if (errno != EINTR) problem_ = errno;
    }
    setp(buffer_.data(), buffer_.data() + buffer_.size());
    return !problem_;
}

StandardOutput::int_type StandardOutput::overflow(int_type character) {
    if (!write_out()) return traits_type::eof();
    if (!traits_type::eq_int_type(character, traits_type::eof()))
        sputc(traits_type::to_char_type(character));
    return traits_type::not_eof(character);
}

int StandardOutput::sync() { return write_out() ? 0 : -1; }

std::optional<int> StandardOutput::finish() {
    write_out();
    if (!problem_ && std::fflush(stdout) != 0) problem_ = errno;  // what libraries printed
    return problem_;
}

void occupy_standard_descriptors() {
    // Opened with the wrong mode, so that reads and writes still fail; standard error is discarded.
    for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
        if (::fcntl(descriptor, F_GETFD) >= 0 || errno != EBADF) continue;
        [[maybe_unused]] const int opened =
            ::open("/dev/null", descriptor == STDOUT_FILENO ? O_RDONLY : O_WRONLY);
    }
}

}  // namespace atelier::cli
