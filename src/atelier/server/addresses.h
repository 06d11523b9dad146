#pragma once

#include <optional>
#include <string>
#include <string_view>

/// Host names and addresses as people, URLs and Host headers write them.
namespace atelier::server {

/// "[::1]" -> "::1"; anything else unchanged.
std::string without_brackets(std::string_view host);

/// The host as written in a URL: IPv6 addresses in brackets.
std::string host_in_url(std::string_view host);

bool is_ip_address(std::string_view host);

/// Whether `host` is reachable from this machine only: localhost and its subdomains, 127.0.0.0/8,
/// ::1, and IPv4-mapped loopback addresses.
bool is_loopback(std::string_view host);

struct HostAndPort {
    std::string host;  // without brackets, in lower case
    std::string port;  // empty: none
};

/// Parses a Host header or a URL's authority: HOST or HOST:PORT, IPv6 addresses in brackets.
/// Returns nullopt if it is malformed; the host may be empty.
std::optional<HostAndPort> host_and_port(std::string_view text);

}  // namespace atelier::server
