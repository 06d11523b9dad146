#include "atelier/parallel/sockets.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <thread>

#include "atelier/core/error.h"

namespace atelier::parallel {

namespace {

using Addresses = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

Addresses resolve(const std::string& host, std::uint16_t port, int type) {
    addrinfo wanted{}, *found = nullptr;
    wanted.ai_family = AF_UNSPEC;
    wanted.ai_socktype = type;
    const int problem = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &wanted, &found);
    if (problem != 0)
        core::fail(
            "{}: the host of rank 0 (MASTER_ADDR, or Slurm's first node) is unknown here ({})",
            host, ::gai_strerror(problem));
    return {found, &::freeaddrinfo};
}

bool is_loopback(const sockaddr& address) {
    if (address.sa_family == AF_INET) {
        const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
        return (ntohl(v4.sin_addr.s_addr) >> 24) == 127;
    }
    return address.sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6&>(address).sin6_addr);
}

std::string text_of(const sockaddr& address, socklen_t size) {
    std::array<char, NI_MAXHOST> text{};
    ::getnameinfo(&address, size, text.data(), text.size(), nullptr, 0, NI_NUMERICHOST);
    return text.data();
}

/// The first address of an interface that is up and leads out; "" where there is none.
std::string outer_address() {
    ifaddrs* all = nullptr;
    if (::getifaddrs(&all) != 0) return "";
    const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> owner(all, &::freeifaddrs);
    for (const ifaddrs* each = all; each != nullptr; each = each->ifa_next) {
        const bool usable = each->ifa_addr != nullptr && each->ifa_addr->sa_family == AF_INET &&
                            (each->ifa_flags & IFF_UP) != 0 &&
                            (each->ifa_flags & IFF_LOOPBACK) == 0;
        if (usable) return text_of(*each->ifa_addr, sizeof(sockaddr_in));
    }
    return "";
}

}  // namespace

Descriptor::~Descriptor() {
    if (number_ >= 0) ::close(number_);
}

bool is_loopback(const std::string& host) {
    if (host == "localhost") return true;
    in_addr v4{};
    in6_addr v6{};
    if (::inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
    return ::inet_pton(AF_INET6, host.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

std::string address_towards(const std::string& host, std::uint16_t port) {
    if (is_loopback(host)) return "127.0.0.1";
    const Addresses addresses = resolve(host, port, SOCK_DGRAM);
    for (const addrinfo* each = addresses.get(); each != nullptr; each = each->ai_next) {
        // A datagram socket that is connected sends nothing, but has a source address.
        const Descriptor probe(::socket(each->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        if (!probe.open() || ::connect(probe.number(), each->ai_addr, each->ai_addrlen) != 0)
            continue;
        sockaddr_storage own{};
        socklen_t size = sizeof own;
        auto& address = reinterpret_cast<sockaddr&>(own);
        if (::getsockname(probe.number(), &address, &size) != 0) continue;
        // Some systems give their own name a loopback address, which other machines cannot reach.
        const std::string outer = is_loopback(address) ? outer_address() : "";
        return outer.empty() ? text_of(address, size) : outer;
    }
    core::fail("{}: this machine has no way to the host of rank 0", host);
}

Descriptor listen_on(std::uint16_t port, bool loopback) {
    const int yes = 1, no = 0;
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(loopback ? INADDR_LOOPBACK : INADDR_ANY);
    sockaddr_in6 everywhere{};  // both versions of IP
    everywhere.sin6_family = AF_INET6;
    everywhere.sin6_port = htons(port);
    Descriptor listener(loopback ? -1 : ::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const bool both = listener.open() && ::setsockopt(listener.number(), IPPROTO_IPV6, IPV6_V6ONLY,
                                                      &no, sizeof no) == 0;
    if (!both) listener = Descriptor(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ::setsockopt(listener.number(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    const auto* chosen = both ? reinterpret_cast<const sockaddr*>(&everywhere)
                              : reinterpret_cast<const sockaddr*>(&address);
    const socklen_t size = both ? sizeof everywhere : sizeof address;
    if (!listener.open() || ::bind(listener.number(), chosen, size) != 0 ||
        ::listen(listener.number(), SOMAXCONN) != 0) {
        core::fail(
            "port {} cannot be listened on ({}); does another job's rank 0 run on this machine? "
            "Set "
            "MASTER_PORT to another one, the same for all ranks",
            port, std::strerror(errno));
    }
    return listener;
}

std::uint16_t port_of(const Descriptor& listener) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    if (::getsockname(listener.number(), reinterpret_cast<sockaddr*>(&address), &size) != 0)
        core::fail("the port of a socket is unknown ({})", std::strerror(errno));
    return ntohs(address.ss_family == AF_INET6
                     ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                     : reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

Descriptor connect_to(const std::string& host, std::uint16_t port, std::chrono::seconds within) {
    const auto deadline = std::chrono::steady_clock::now() + within;
    const Addresses addresses = resolve(host, port, SOCK_STREAM);
    int problem = ETIMEDOUT;
    do {
        for (const addrinfo* each = addresses.get(); each != nullptr; each = each->ai_next) {
            Descriptor socket(::socket(each->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
            if (!socket.open()) continue;
            if (::connect(socket.number(), each->ai_addr, each->ai_addrlen) == 0) {
                const int yes = 1;
                ::setsockopt(socket.number(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
                return socket;
            }
            problem = errno;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
    } while (std::chrono::steady_clock::now() < deadline);
    core::fail("{}:{}: rank 0 cannot be reached there ({})", host, port, std::strerror(problem));
}

}  // namespace atelier::parallel
