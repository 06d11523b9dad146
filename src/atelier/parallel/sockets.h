#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

/// TCP as ranks need it to find and to watch each other.
namespace atelier::parallel {

/// A descriptor, closed by its owner.
class Descriptor {
public:
    Descriptor() = default;
    explicit Descriptor(int number) : number_(number) {}
    Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
    Descriptor& operator=(Descriptor&& other) noexcept {
        std::swap(number_, other.number_);
        return *this;
    }
    ~Descriptor();
    int number() const { return number_; }
    bool open() const { return number_ >= 0; }
    /// Gives the descriptor away.
    int release() { return std::exchange(number_, -1); }

private:
    int number_ = -1;
};

/// Whether a host is this machine's loopback address or a name of it.
bool is_loopback(const std::string& host);

/// The address from which this machine reaches `host`, e.g. "10.1.0.7"; "127.0.0.1" for itself.
/// Throws core::Error where the name is unknown or nothing leads there.
std::string address_towards(const std::string& host, std::uint16_t port);

/// Listens on a port (0: any free one), on the loopback interface or on all. Throws core::Error,
/// naming the port, where it is taken.
Descriptor listen_on(std::uint16_t port, bool loopback);
std::uint16_t port_of(const Descriptor& listener);

/// Connects within the time. Throws core::Error.
Descriptor connect_to(const std::string& host, std::uint16_t port, std::chrono::seconds within);

}  // namespace atelier::parallel
