#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "atelier/parallel/sockets.h"

namespace atelier::parallel {

/// One rank as the others name it.
struct Identity {
    int rank = 0, world = 1;
    std::string host;
    std::int64_t process = 0;

    /// "rank 1 of 4 (node7, process 4711)"
    std::string text() const;
};

/// What a process is doing, for messages about a rank that is gone.
struct Position {
    std::string stage;  // "student 1 dm"
    std::int64_t step = 0, steps = 0;
    /// The file from which the stage would go on; called on the monitor's thread.
    std::function<std::string()> checkpoint;
};

/// Exit code of a process that ends because another rank is gone.
inline constexpr int rank_lost = 75;

/// Watches the other ranks on a thread of its own, over one connection from each of them to rank 0
/// on which both sides give a sign of life every second. A connection that closes without a word,
/// or a silence of 8 s, means that the rank is gone: then every other process prints who, and where
/// they were, and ends at once with exit code 75, whatever its other threads do. A rank that ends
/// by an error says so first, and the others end with its exit code. A request to stop one of them
/// reaches all.
class Monitor {
public:
    /// Of rank 0: waits until all others have connected and shown `token`. Throws core::Error,
    /// naming those that are missing.
    Monitor(Identity self, Descriptor listener, std::uint64_t token, std::chrono::seconds within);
    /// Of another rank; `leader` is connected to rank 0.
    Monitor(Identity self, Descriptor leader, std::uint64_t token);
    ~Monitor();
    Monitor(const Monitor&) = delete;
    Monitor& operator=(const Monitor&) = delete;

    void set_position(Position position);

    /// Rank 0: something is there that other ranks wait for.
    void announce(const std::string& event);
    /// Others: waits until rank 0 has announced it.
    void await(const std::string& event);

    /// Something that needs the other ranks has failed: waits until the monitor has found out why
    /// and ends the process. Throws RankLost if it finds nothing within 10 s.
    [[noreturn]] void await_end(const std::string& what);

    /// Tells the others that this rank ends by itself, with which exit code and why, and ends the
    /// watch.
    void leave(int code, const std::string& why);

private:
    using Clock = std::chrono::steady_clock;
    struct Peer {
        Descriptor socket;
        Identity identity;
        std::string received{};  // the beginning of a message
        Clock::time_point heard = Clock::now();
        bool left = false;
    };

    void start();
    void watch();
    void receive(Peer& peer);
    void handle(Peer& peer, char kind, const std::string& text);
    void judge_silence();
    void send(Peer& peer, char kind, const std::string& text = "");
    void send_all(char kind, const std::string& text, const Peer* but = nullptr);
    /// Closes this side, and reads until the others have closed theirs: a socket that is closed
    /// with unread bytes takes back what was sent on it.
    void drain(std::chrono::seconds within);
    /// A peer ended without a word, or with one.
    void lost(const Peer& peer, const std::string& how);
    void failed(const Peer& peer, int code, const std::string& why);
    void conclude(int code, const std::string& message, bool with_grace);
    [[noreturn]] void end(int code, const std::string& message);
    std::string where() const;

    Identity self_;
    std::vector<Peer> peers_;  // of rank 0 all others; of others rank 0
    Descriptor wake_;
    std::thread thread_;

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    Position position_;
    std::set<std::string> events_;
    std::vector<std::pair<char, std::string>> outbox_;
    bool leaving_ = false, stop_sent_ = false;
    std::atomic<bool> needed_ = false;  // the main thread waits for the end
    std::atomic<bool> concluded_ = false;
};

}  // namespace atelier::parallel
