#include "atelier/server/addresses.h"

#include <algorithm>
#include <boost/asio/ip/address.hpp>

#include "atelier/core/lower_case.h"

namespace atelier::server {

namespace {

namespace ip = boost::asio::ip;

std::optional<ip::address> parsed_address(std::string_view host) {
    boost::system::error_code error;
    const ip::address address = ip::make_address(without_brackets(host), error);
    return error ? std::nullopt : std::optional(address);
}

bool is_digits(std::string_view text) {
    return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

/// The characters of RFC 3986's reg-name.
bool is_name_of_host(std::string_view text) {
    constexpr std::string_view marks = "-._~%!$&'()*+,;=";
    return std::ranges::all_of(text, [&](char c) {
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
               marks.find(c) != std::string_view::npos;
    });
}

}  // namespace

std::string without_brackets(std::string_view host) {
    if (host.size() > 2 && host.front() == '[' && host.back() == ']')
        host = host.substr(1, host.size() - 2);
    return std::string(host);
}

std::string host_in_url(std::string_view host) {
    const std::string bare = without_brackets(host);
    return bare.find(':') == std::string::npos ? bare : "[" + bare + "]";
}

bool is_ip_address(std::string_view host) { return parsed_address(host).has_value(); }

bool is_loopback(std::string_view host) {
    if (const auto address = parsed_address(host)) {
        if (address->is_v6() && address->to_v6().is_v4_mapped())
            return ip::make_address_v4(ip::v4_mapped, address->to_v6()).is_loopback();
        return address->is_loopback();
    }
    std::string name = core::lower_case(host);
    if (name.ends_with('.')) name.pop_back();
    return name == "localhost" || name.ends_with(".localhost");
}

std::optional<HostAndPort> host_and_port(std::string_view text) {
    std::string_view host = text, port;
    if (text.starts_with('[')) {
        const std::size_t end = text.find(']');
        if (end == std::string_view::npos || !is_ip_address(text.substr(0, end + 1)))
            return std::nullopt;
        host = text.substr(0, end + 1);
        text.remove_prefix(end + 1);
        if (!text.empty() && text.front() != ':') return std::nullopt;
        if (!text.empty()) port = text.substr(1);
    } else {
        const std::size_t colon = text.find(':');
        host = text.substr(0, colon);
        if (colon != std::string_view::npos) port = text.substr(colon + 1);
        if (!is_name_of_host(host)) return std::nullopt;
    }
    if (!port.empty() && (!is_digits(port) || port.size() > 5)) return std::nullopt;
    return HostAndPort{core::lower_case(without_brackets(host)), std::string(port)};
}

}  // namespace atelier::server
