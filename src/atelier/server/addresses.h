#pragma once

#include <optional>
#include <string>
#include <string_view>

/// Host names and addresses, in the forms in which people, URLs and Host headers write them.
namespace atelier::server {

/// "[::1]" -> "::1"; anything else as it is.
std::string without_brackets(std::string_view host);

/// As a URL has it: IPv6 addresses in brackets.
std::string host_in_url(std::string_view host);

bool is_ip_address(std::string_view host);

/// Whether only programs of this machine reach `host`: localhost and names below it, 127.0.0.0/8,
/// ::1, and the former written as IPv6.
bool is_loopback(std::string_view host);

struct HostAndPort {
    std::string host;  // without brackets, in lower case
    std::string port;  // empty: none
};

/// Of a Host header or a URL's authority: HOST or HOST:PORT, IPv6 addresses in brackets. Nothing
/// where it is neither; the host may be empty.
std::optional<HostAndPort> host_and_port(std::string_view text);

}  // namespace atelier::server
