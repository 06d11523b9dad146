#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/server/server.h"
#include "core/soon.h"
#include "core/test_folder.h"

namespace atelier::server {

using namespace std::chrono_literals;

inline const std::string red = R"({"prompt":"red","seed":5})",
                         green = R"({"prompt":"green","seed":6})";

/// Four classes (red, green, blue, 7up), two students: even classes are student 0's. An image is
/// 2x2, with class, student, number and seed as its pixels.
class FakeGenerator : public Generator {
public:
    /// Controls and records what the students of all fake generators do.
    struct Behaviour {
        std::mutex mutex;
        std::condition_variable changed;
        bool held = false;              // `generate` blocks until it is false
        bool preparation_held = false;  // `prepare` blocks
        bool encoding_held = false;     // `encode` blocks
        Clock::duration takes{};        // per batch
        std::uint64_t failing_seed = 666;
        std::vector<std::size_t> batches;        // sizes, in order
        std::vector<std::uint64_t> seeds;        // drawn, in order
        std::atomic<int> loads = 0, loaded = 0;  // in total; currently
        std::atomic<int> prepared = 0;
        std::atomic<int> prompts = 0;  // encoded

        void hold_encoding(bool on) {
            const std::lock_guard lock(mutex);
            encoding_held = on;
            changed.notify_all();
        }

        void hold(bool on) {
            const std::lock_guard lock(mutex);
            held = preparation_held = encoding_held = on;
            changed.notify_all();
        }
        std::size_t drawn() {
            const std::lock_guard lock(mutex);
            return batches.size();
        }
    };

    explicit FakeGenerator(Behaviour& behaviour, std::int64_t bytes = 100,
                           std::vector<std::int64_t> here = {0, 1})
        : behaviour_(behaviour), bytes_(bytes) {
        description_ = {.class_names = {"red", "green", "blue", "7up"},
                        .partition = {.students = 2, .method = "file", .owner = {0, 1, 0, 1}},
                        .prior = {{1, 1, 1, 1}},
                        .served_students = std::move(here),
                        .width = 2,
                        .height = 2,
                        .engine = "none",
                        .precision = "fp32"};
    }

    /// A generator that takes prompts: those of odd length are student 1's, and an image's first
    /// pixel is the length.
    static std::shared_ptr<FakeGenerator> of_prompts(Behaviour& behaviour,
                                                     std::vector<std::int64_t> here = {0, 1}) {
        auto fake = std::make_shared<FakeGenerator>(behaviour, 100, std::move(here));
        fake->description_.class_names.clear();
        fake->description_.partition.owner.clear();
        fake->description_.prior = {};
        fake->description_.reads_prompts = true;
        fake->description_.prompts_hash = "of lengths";
        return fake;
    }

    std::vector<EncodedPrompt> encode(std::span<const std::string> prompts) const override {
        std::unique_lock lock(behaviour_.mutex);
        behaviour_.changed.wait(lock, [&] { return !behaviour_.encoding_held; });
        std::vector<EncodedPrompt> encoded;
        for (const std::string& prompt : prompts) {
            if (prompt == "unreadable") throw core::Error("this prompt\ncannot be read");
            const std::size_t bar = prompt.find(" | ");  // the rest is truncated
            encoded.push_back({static_cast<std::int64_t>(prompt.size() % 2), 0.5,
                               std::make_shared<const LengthConditioning>(prompt.size()),
                               bar == std::string::npos ? "" : prompt.substr(bar + 3)});
            ++behaviour_.prompts;
        }
        return encoded;
    }

    const Description& description() const override { return description_; }
    StudentFacts facts(std::int64_t k) const override {
        return {.parameters = 10 * (k + 1),
                .bytes = bytes_,
                .available = std::ranges::binary_search(description_.served_students, k)};
    }

    std::unique_ptr<Student> load(std::int64_t k) const override {
        ++behaviour_.loads;
        return std::make_unique<FakeStudent>(behaviour_, k);
    }

private:
    struct LengthConditioning : Conditioning {
        explicit LengthConditioning(std::size_t with_length) : length(with_length) {}
        std::size_t length;
    };

    class FakeStudent : public Student {
    public:
        FakeStudent(Behaviour& behaviour, std::int64_t k) : behaviour_(behaviour), k_(k) {
            ++behaviour_.loaded;
        }
        ~FakeStudent() override { --behaviour_.loaded; }

        std::vector<GeneratedImage> generate(std::span<const Draw> draws,
                                             Clock::time_point) override {
            std::unique_lock lock(behaviour_.mutex);
            behaviour_.batches.push_back(draws.size());
            behaviour_.changed.notify_all();
            behaviour_.changed.wait(lock, [&] { return !behaviour_.held; });
            const Clock::duration takes = behaviour_.takes;
            lock.unlock();
            std::this_thread::sleep_for(takes);
            lock.lock();
            std::vector<GeneratedImage> images;
            for (const Draw& draw : draws) {
                if (draw.seed == behaviour_.failing_seed) throw core::Error("this seed\nfails");
                behaviour_.seeds.push_back(draw.seed);
                GeneratedImage& generated = images.emplace_back();
                generated.image = {2, 2, 1, std::vector<std::uint8_t>(4)};
                const std::uint64_t first =
                    draw.conditioning
                        ? dynamic_cast<const LengthConditioning&>(*draw.conditioning).length
                        : static_cast<std::uint64_t>(draw.class_id);
                std::ranges::copy(
                    std::array<std::uint64_t, 4>{first, std::uint64_t(k_),
                                                 std::uint64_t(draw.number), draw.seed},
                    generated.image.pixels.begin());
                generated.text["seed"] = std::to_string(draw.seed);
                if (!draw.prompt.empty()) generated.text["prompt"] = draw.prompt;
            }
            return images;
        }

        void prepare() override {
            std::unique_lock lock(behaviour_.mutex);
            behaviour_.changed.wait(lock, [&] { return !behaviour_.preparation_held; });
            ++behaviour_.prepared;
        }

    private:
        Behaviour& behaviour_;
        std::int64_t k_;
    };

    Behaviour& behaviour_;
    std::int64_t bytes_;
    Description description_;
};

using core::soon;

struct Answer {
    int status = 0;  // 0: the connection ended without a response
    std::string head, body;

    nlohmann::json json() const { return nlohmann::json::parse(body, nullptr, false); }
    std::string header(const std::string& name) const {
        const std::size_t at = head.find("\r\n" + name + ": ");
        if (at == std::string::npos) return "";
        const std::size_t first = at + name.size() + 4;
        return head.substr(first, head.find("\r\n", first) - first);
    }
};

/// A client connection that can send arbitrary bytes.
class Client {
public:
    /// Not connected yet.
    Client() : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {}
    explicit Client(std::uint16_t port) : Client() { connect(port); }

    void connect(std::uint16_t port) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(port);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        const timeval timeout{10, 0};
        ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
        connected = ::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    }
    ~Client() { leave(); }
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;

    void leave() {
        if (socket_ >= 0) ::close(std::exchange(socket_, -1));
    }
    /// Closes the sending side; the client can still receive.
    void half_close() const { ::shutdown(socket_, SHUT_WR); }
    bool send(const std::string& bytes) const {
        return ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
               static_cast<ssize_t>(bytes.size());
    }

    /// The next response on this connection.
    Answer receive(bool with_body = true) {
        Answer answer;
        while (read_.find("\r\n\r\n") == std::string::npos) {
            if (!more()) return answer;
        }
        const std::size_t end = read_.find("\r\n\r\n") + 4;
        answer.head = read_.substr(0, end);
        answer.status = std::atoi(answer.head.substr(9, 3).c_str());
        const std::string length = answer.header("Content-Length");
        const std::size_t size = length.empty() || !with_body ? 0 : std::stoul(length);
        while (read_.size() < end + size) {
            if (!more()) return answer;
        }
        answer.body = read_.substr(end, size);
        read_.erase(0, end + size);
        return answer;
    }

    /// The statuses of all responses until the server closes the connection.
    std::vector<int> statuses() {
        std::vector<int> all;
        for (Answer answer = receive(); answer.status != 0; answer = receive())
            all.push_back(answer.status);
        return all;
    }

    /// Whether the server closes the connection without sending more.
    bool ended() { return !more(); }

    Answer ask(const std::string& method, const std::string& target, const std::string& body = "",
               const std::string& headers = "") {
        send(method + " " + target + " HTTP/1.1\r\nHost: localhost\r\n" + headers +
             "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
        return receive(method != "HEAD");
    }
    Answer images(const std::string& body, const std::string& headers = "") {
        return ask("POST", "/v1/images/generations", body,
                   "Content-Type: application/json\r\n" + headers);
    }

    bool connected = false;

private:
    bool more() {
        char bytes[65536];
        const ssize_t count = ::recv(socket_, bytes, sizeof bytes, 0);
        if (count > 0) read_.append(bytes, static_cast<std::size_t>(count));
        return count > 0;
    }

    int socket_;
    std::string read_;
};

/// A server with one fake model, "fake", unless a test starts another.
class LiveServer : public ::testing::Test {
protected:
    LiveServer() { core::log::set_quiet(true); }
    ~LiveServer() override { behaviour.hold(false); }

    ModelSource source(const std::string& id = "fake") {
        return {
            .id = id,
            .open =
                [this] { return std::make_shared<FakeGenerator>(behaviour, bytes_per_student); },
            .stamp =
                [this] {
                    const std::lock_guard lock(behaviour.mutex);
                    return stamp;
                }};
    }
    std::uint16_t start() {
        options.port = 0;
        server = std::make_unique<Server>(options, std::vector<ModelSource>{source()});
        server->warm_up();
        return server->port();
    }
    std::string metric(const std::string& line) {
        const std::string text = Client(server->port()).ask("GET", "/metrics").body;
        const std::size_t at = text.find("\n" + line + " ");
        return at == std::string::npos
                   ? ""
                   : text.substr(at + line.size() + 2,
                                 text.find('\n', at + 1) - at - line.size() - 2);
    }

    FakeGenerator::Behaviour behaviour;
    std::int64_t bytes_per_student = 100;
    std::string stamp = "first";
    Options options;
    std::unique_ptr<Server> server;
};

}  // namespace atelier::server
