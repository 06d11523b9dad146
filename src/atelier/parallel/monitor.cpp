#include "atelier/parallel/monitor.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "atelier/core/error.h"
#include "atelier/core/signals.h"
#include "atelier/core/terminal.h"
#include "atelier/parallel/rank_lost.h"

namespace atelier::parallel {

namespace {

using namespace std::chrono_literals;

constexpr auto sign_of_life = 1s, silence = 8s;
constexpr auto tick = 200ms;
// A process that fails for a reason that the others find too is not the reason why they end.
constexpr auto grace = 2s;
constexpr auto longest_goodbye = 3s, longest_doubt = 10s, longest_hello = 5s;
constexpr std::size_t longest_text = 4096;

// Kinds of messages: a byte, the length of the text in four, the text.
constexpr char hello = 'H', alive = 'A', stop = 'S', event = 'E', goodbye = 'B', verdict = 'V';
constexpr std::size_t header = 5;

std::string message_of(char kind, const std::string& text) {
    const auto size = static_cast<std::uint32_t>(std::min(text.size(), longest_text));
    std::string bytes(header, kind);
    std::memcpy(bytes.data() + 1, &size, sizeof size);
    return bytes + text.substr(0, size);
}

/// Takes the first whole message off `received`; false where there is none yet. A text that is too
/// long is none of ours.
bool take(std::string& received, char& kind, std::string& text) {
    if (received.size() < header) return false;
    std::uint32_t size = 0;
    std::memcpy(&size, received.data() + 1, sizeof size);
    if (size > longest_text) {
        received.clear();
        return false;
    }
    if (received.size() < header + size) return false;
    kind = received[0];
    text = received.substr(header, size);
    received.erase(0, header + size);
    return true;
}

/// "130 stopped at step 7": a code and what it means.
std::pair<int, std::string> coded(const std::string& text) {
    int code = 1;
    const char* const end = text.data() + text.size();
    const char* rest = std::from_chars(text.data(), end, code).ptr;
    if (rest != end) ++rest;
    return {code, {rest, end}};
}

std::string hello_text(std::uint64_t token, const Identity& identity) {
    return fmt::format("{} {} {} {}", token, identity.rank, identity.process, identity.host);
}

/// Waits for a whole hello with the right token; nullopt for strangers.
std::optional<Identity> read_hello(const Descriptor& socket, std::uint64_t token, int world) {
    const auto deadline = std::chrono::steady_clock::now() + longest_hello;
    std::string received, text;
    char kind = 0;
    while (!take(received, kind, text)) {
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
            deadline - std::chrono::steady_clock::now());
        pollfd readable{socket.number(), POLLIN, 0};
        std::array<char, 512> bytes{};
        if (left.count() <= 0 || received.size() > longest_text ||
            ::poll(&readable, 1, static_cast<int>(left.count())) <= 0)
            return std::nullopt;
        const ssize_t count = ::recv(socket.number(), bytes.data(), bytes.size(), 0);
        if (count <= 0) return std::nullopt;
        received.append(bytes.data(), static_cast<std::size_t>(count));
    }
    Identity identity{.world = world};
    std::uint64_t shown = 0;
    const char* at = text.data();
    const char* const end = at + text.size();
    const auto number = [&](auto& to) {
        const auto [rest, error] = std::from_chars(at, end, to);
        if (error != std::errc() || rest == end || *rest != ' ') return false;
        at = rest + 1;
        return true;
    };
    const bool whole = number(shown) && number(identity.rank) && number(identity.process);
    if (kind != hello || !whole || shown != token || identity.rank < 1 || identity.rank >= world)
        return std::nullopt;
    identity.host = {at, end};
    return identity;
}

bool has_closed(const Descriptor& socket) {
    char byte = 0;
    const ssize_t count = ::recv(socket.number(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR);
}

}  // namespace

std::string Identity::text() const {
    return fmt::format("rank {} of {} ({}, process {})", rank, world, host, process);
}

Monitor::Monitor(Identity self, Descriptor listener, std::uint64_t token,
                 std::chrono::seconds within)
    : self_(std::move(self)) {
    const auto deadline = Clock::now() + within;
    while (static_cast<int>(peers_.size()) + 1 < self_.world) {
        if (core::stop_requested())
            throw core::Interrupted("stopped while the other ranks were waited for");
        if (Clock::now() > deadline) {
            std::string missing;
            for (int rank = 1; rank < self_.world; ++rank) {
                const auto is = [rank](const Peer& peer) { return peer.identity.rank == rank; };
                if (std::ranges::none_of(peers_, is))
                    missing += (missing.empty() ? "" : ", ") + std::to_string(rank);
            }
            throw RankLost(fmt::format(
                "of {} ranks, these did not come within {} s: {}. Is the program started as often "
                "as the environment says, and can they reach {}?",
                self_.world, within.count(), missing, self_.host));
        }
        for (const Peer& peer : peers_) {
            if (has_closed(peer.socket))
                throw RankLost(peer.identity.text() + " has ended before all the others came");
        }
        pollfd waiting{listener.number(), POLLIN, 0};
        if (::poll(&waiting, 1, static_cast<int>(std::chrono::milliseconds(tick).count())) <= 0)
            continue;
        Descriptor socket(::accept4(listener.number(), nullptr, nullptr, SOCK_CLOEXEC));
        if (!socket.open()) continue;
        auto identity = read_hello(socket, token, self_.world);
        if (!identity) continue;
        const auto same = [&](const Peer& peer) { return peer.identity.rank == identity->rank; };
        if (std::ranges::any_of(peers_, same))
            core::fail("two processes say that they are rank {}: {} and one of {}", identity->rank,
                       std::ranges::find_if(peers_, same)->identity.text(), identity->host);
        peers_.push_back({std::move(socket), *identity});
    }
    for (Peer& peer : peers_) {
        peer.heard = Clock::now();
        send(peer, hello, hello_text(token, self_));
    }
    start();
}

Monitor::Monitor(Identity self, Descriptor leader, std::uint64_t token) : self_(std::move(self)) {
    Identity first{.rank = 0, .world = self_.world, .host = "rank 0's machine"};
    peers_.push_back({std::move(leader), first});
    send(peers_.front(), hello, hello_text(token, self_));
    start();
}

Monitor::~Monitor() { leave(1, "ended without saying why"); }

void Monitor::start() {
    wake_ = Descriptor(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    thread_ = std::thread([this] { watch(); });
}

void Monitor::set_position(Position position) {
    const std::lock_guard lock(mutex_);
    position_ = std::move(position);
}

void Monitor::announce(const std::string& name) {
    {
        const std::lock_guard lock(mutex_);
        if (!events_.insert(name).second) return;
        outbox_.emplace_back(event, name);
    }
    ::eventfd_write(wake_.number(), 1);
}

void Monitor::await(const std::string& name) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return events_.contains(name); });
}

void Monitor::await_end(const std::string& what) {
    needed_ = true;
    ::eventfd_write(wake_.number(), 1);
    std::this_thread::sleep_for(longest_doubt);
    // The monitor is ending the process if it has found anything.
    while (concluded_) std::this_thread::sleep_for(tick);
    throw RankLost(fmt::format("the connection to another rank broke: {}; {}", what, where()));
}

void Monitor::leave(int code, const std::string& why) {
    if (!thread_.joinable()) return;
    {
        const std::lock_guard lock(mutex_);
        outbox_.emplace_back(goodbye, fmt::format("{} {}", code, why));
        leaving_ = true;
    }
    ::eventfd_write(wake_.number(), 1);
    thread_.join();
}

void Monitor::watch() {
    auto sent = Clock::now(), looked = Clock::now(), left = Clock::time_point::max();
    for (;;) {
        std::vector<pollfd> readable{{wake_.number(), POLLIN, 0}};
        std::vector<Peer*> open;
        for (Peer& peer : peers_) {
            if (!peer.socket.open()) continue;
            readable.push_back({peer.socket.number(), POLLIN, 0});
            open.push_back(&peer);
        }
        ::poll(readable.data(), readable.size(),
               static_cast<int>(std::chrono::milliseconds(tick).count()));
        const auto now = Clock::now();
        // This process itself was not running: nobody else is to blame for the silence.
        if (now - looked > silence / 2)
            for (Peer& peer : peers_) peer.heard = now;
        looked = now;
        std::uint64_t ignored = 0;
        if (readable[0].revents != 0) ::eventfd_read(wake_.number(), &ignored);
        for (std::size_t i = 0; i < open.size(); ++i) {
            if (readable[i + 1].revents != 0) receive(*open[i]);
        }
        std::vector<std::pair<char, std::string>> messages;
        bool leaving = false;
        {
            const std::lock_guard lock(mutex_);
            messages.swap(outbox_);
            leaving = leaving_;
        }
        for (const auto& [kind, text] : messages) send_all(kind, text);
        if (core::stop_requested() && !std::exchange(stop_sent_, true)) send_all(stop, "");
        if (now - sent > sign_of_life) {
            sent = now;
            send_all(alive, "");
        }
        if (!leaving) {
            judge_silence();
            continue;
        }
        // Rank 0 goes last: it closes a connection when it has read the goodbye.
        if (self_.rank != 0) return drain(longest_goodbye);
        left = std::min(left, now);
        const bool all_left =
            std::ranges::none_of(peers_, [](const Peer& peer) { return peer.socket.open(); });
        if (all_left || now - left > longest_goodbye) return;
    }
}

void Monitor::drain(std::chrono::seconds within) {
    const auto until = Clock::now() + within;
    std::array<char, 512> bytes{};
    for (Peer& peer : peers_) {
        if (peer.socket.open()) ::shutdown(peer.socket.number(), SHUT_WR);
        while (peer.socket.open() && Clock::now() < until) {
            pollfd readable{peer.socket.number(), POLLIN, 0};
            if (::poll(&readable, 1, 50) > 0 &&
                ::recv(peer.socket.number(), bytes.data(), bytes.size(), MSG_DONTWAIT) <= 0)
                break;
        }
    }
}

void Monitor::receive(Peer& peer) {
    std::array<char, 4096> bytes{};
    const ssize_t count = ::recv(peer.socket.number(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (count > 0) {
        peer.heard = Clock::now();
        peer.received.append(bytes.data(), static_cast<std::size_t>(count));
        char kind = 0;
        std::string text;
        while (take(peer.received, kind, text)) handle(peer, kind, text);
        return;
    }
    peer.socket = Descriptor();
    if (!peer.left) lost(peer, "has ended");
}

void Monitor::handle(Peer& peer, char kind, const std::string& text) {
    if (kind == hello) {
        const std::size_t third = text.find(' ', text.find(' ', text.find(' ') + 1) + 1);
        const std::size_t second = text.find(' ', text.find(' ') + 1);
        if (third == std::string::npos) return;
        peer.identity.process = std::strtoll(text.c_str() + second, nullptr, 10);
        peer.identity.host = text.substr(third + 1);
    } else if (kind == stop) {
        core::request_stop();
        if (!std::exchange(stop_sent_, true)) send_all(stop, "", &peer);
    } else if (kind == event) {
        const std::lock_guard lock(mutex_);
        events_.insert(text);
        changed_.notify_all();
    } else if (kind == goodbye) {
        peer.left = true;
        const auto [code, why] = coded(text);
        if (code != 0) failed(peer, code, why);
    } else if (kind == verdict) {
        const auto [code, why] = coded(text);
        conclude(code, why, code != rank_lost);
    }
}

void Monitor::judge_silence() {
    for (const Peer& peer : peers_) {
        if (!peer.left && peer.socket.open() && Clock::now() - peer.heard > silence)
            lost(peer, fmt::format("has given no sign of life for {} s", silence.count()));
    }
}

void Monitor::send(Peer& peer, char kind, const std::string& text) {
    const std::string bytes = message_of(kind, text);
    // What cannot be sent is no concern of the sender: the other side is judged by what it sends.
    if (peer.socket.open()) [[maybe_unused]]
        const ssize_t sent =
            ::send(peer.socket.number(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

void Monitor::send_all(char kind, const std::string& text, const Peer* but) {
    for (Peer& peer : peers_) {
        if (&peer != but) send(peer, kind, text);
    }
}

std::string Monitor::where() const {
    Position at;
    {
        const std::lock_guard lock(mutex_);
        at = position_;
    }
    if (at.stage.empty())
        return "no stage was being trained; the same command goes on where it stopped";
    std::string checkpoint;
    try {
        if (at.checkpoint) checkpoint = at.checkpoint();
    } catch (const std::exception& unreadable) {
        checkpoint = fmt::format("its newest checkpoint ({})", unreadable.what());
    }
    return fmt::format("{} was at step {} of {}; the same command goes on from {}", at.stage,
                       at.step, at.steps,
                       checkpoint.empty() ? "the start of the stage" : checkpoint);
}

void Monitor::lost(const Peer& peer, const std::string& how) {
    {
        const std::lock_guard lock(mutex_);
        if (leaving_) return;
    }
    conclude(rank_lost, fmt::format("{} {}. {}", peer.identity.text(), how, where()), false);
}

void Monitor::failed(const Peer& peer, int code, const std::string& why) {
    conclude(code, fmt::format("{}: {}", peer.identity.text(), why), true);
}

void Monitor::conclude(int code, const std::string& message, bool with_grace) {
    if (self_.rank == 0) send_all(verdict, fmt::format("{} {}", code, message));
    const auto until = Clock::now() + grace;
    while (with_grace && !needed_ && Clock::now() < until) {
        {
            const std::lock_guard lock(mutex_);
            if (leaving_) return;
        }
        std::this_thread::sleep_for(20ms);
    }
    end(code, message);
}

void Monitor::end(int code, const std::string& message) {
    concluded_ = true;
    core::terminal::print_line("atelier: " + message);
    if (self_.rank == 0) drain(1s);
    ::_exit(code);
}

}  // namespace atelier::parallel
