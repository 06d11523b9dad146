#include "server/server_fixtures.h"

#include <malloc.h>

#include <set>

#include "atelier/server/metrics.h"

namespace atelier::server {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool measures_memory = false;  // a sanitizer's own memory grows as well
#else
constexpr bool measures_memory = true;
#endif

std::string of_class(std::int64_t class_id, std::uint64_t seed) {
    return R"({"class":)" + std::to_string(class_id) + R"(,"seed":)" + std::to_string(seed) + "}";
}

/// Simulates a leak: its students keep some memory for every image.
class LeakingGenerator : public FakeGenerator {
public:
    static constexpr std::size_t leak = 4096;  // bytes per image

    using FakeGenerator::FakeGenerator;
    std::unique_ptr<Student> load(std::int64_t k) const override {
        return std::make_unique<Leaking>(FakeGenerator::load(k));
    }

private:
    struct Leaking : Student {
        explicit Leaking(std::unique_ptr<Student> with_student)
            : student(std::move(with_student)) {}
        std::vector<GeneratedImage> generate(std::span<const Draw> draws,
                                             Clock::time_point deadline) override {
            for (std::size_t i = 0; i < draws.size(); ++i) kept.emplace_back(leak, 'x');
            return student->generate(draws, deadline);
        }
        std::unique_ptr<Student> student;
        std::deque<std::string> kept;
    };
};

class MemoryGrowth : public LiveServer {
protected:
    /// Growth of allocated memory per request, in bytes: least squares over many requests of every
    /// kind, after as many for warm-up. Resident memory would also grow and shrink by what the
    /// allocator keeps.
    double bytes_per_request(std::function<std::shared_ptr<const Generator>()> open) {
        options.port = 0;
        server = std::make_unique<Server>(
            options, std::vector<ModelSource>{
                         {.id = "fake", .open = std::move(open), .stamp = [] { return ""; }}});
        constexpr int points = 20, requests = 200;
        for (int i = 0; i < points * requests; ++i) ask(i);
        double sum_x = 0, sum_y = 0, sum_xx = 0, sum_xy = 0;
        for (int x = 0; x < points; ++x) {
            const auto y = allocated_bytes();
            sum_x += x, sum_y += y, sum_xx += x * x, sum_xy += x * y;
            for (int i = 0; i < requests; ++i) ask(i);
        }
        return (points * sum_xy - sum_x * sum_y) / (points * sum_xx - sum_x * sum_x) / requests;
    }

private:
    static double allocated_bytes() {
        const struct mallinfo2 heap = ::mallinfo2();
        return static_cast<double>(heap.uordblks) + static_cast<double>(heap.hblkhd);
    }

    void ask(int i) {
        if (i % 50 == 0) client_ = std::make_unique<Client>(server->port());
        if (i % 10 == 7) client_->images("{");
        else if (i % 100 == 8) client_->images(of_class(0, 666));
        else if (i % 10 == 9) client_->ask("GET", i % 20 == 9 ? "/metrics" : "/");
        else EXPECT_EQ(client_->images(of_class(i % 4, 5)).status, 200);
    }

    std::unique_ptr<Client> client_;
};

TEST_F(MemoryGrowth, requests_do_not_leak) {
    if (!measures_memory) GTEST_SKIP();
    EXPECT_LT(bytes_per_request([this] { return std::make_shared<FakeGenerator>(behaviour); }),
              256);
}

/// The control: the measurement must detect a real leak.
TEST_F(MemoryGrowth, a_leak_is_detected) {
    if (!measures_memory) GTEST_SKIP();
    EXPECT_GT(bytes_per_request([this] { return std::make_shared<LeakingGenerator>(behaviour); }),
              LeakingGenerator::leak / 2);
}

/// Every accepted request is drawn and answered: the seeds of both sides are the same. Others get
/// 503 or no response, and were not drawn.
TEST_F(LiveServer, stopping_under_load_loses_no_accepted_request) {
    options.batching.max_queue = 32;
    options.batching.max_batch = 4;
    behaviour.takes = 5ms;
    const std::uint16_t port = start();
    std::mutex mutex;
    std::set<std::uint64_t> received;
    std::atomic<int> full = 0, draining = 0, silent = 0, other = 0;
    std::vector<std::jthread> clients;
    for (std::uint64_t c = 1; c <= 32; ++c) {
        clients.emplace_back([&, c] {
            Client client(port);
            for (std::uint64_t seed = 1000 * c;; ++seed) {
                const Answer answer =
                    client.images(of_class(static_cast<std::int64_t>(c % 4), seed));
                if (answer.status == 429) {
                    ++full;
                    continue;
                }
                if (answer.status != 200) {
                    ++(answer.status == 503 ? draining : answer.status == 0 ? silent : other);
                    return;
                }
                EXPECT_EQ(answer.json().at("data").size(), 1u) << "complete";
                const std::lock_guard lock(mutex);
                received.insert(seed);
            }
        });
    }
    const std::vector<std::unique_ptr<Client>> unsent = [&] {
        std::vector<std::unique_ptr<Client>> some;
        for (int i = 0; i < 8; ++i) some.push_back(std::make_unique<Client>(port));
        for (int i = 0; i < 4; ++i)
            some[static_cast<std::size_t>(i)]->send(
                "POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\n");
        return some;
    }();
    ASSERT_TRUE(soon([&] { return behaviour.drawn() > 40; }));
    EXPECT_TRUE(server->drain(10s)) << "connections without a request are not waited for";
    server.reset();
    clients.clear();
    EXPECT_EQ(other, 0);
    EXPECT_EQ(draining + silent, 32);
    const std::set<std::uint64_t> drawn(behaviour.seeds.begin(), behaviour.seeds.end());
    EXPECT_EQ(drawn, received);
    EXPECT_GT(drawn.size(), 40u);
    for (const auto& client : unsent) EXPECT_EQ(client->receive().status, 0);
}

/// Its students are always unavailable.
class UnavailableGenerator : public FakeGenerator {
public:
    using FakeGenerator::FakeGenerator;
    std::unique_ptr<Student> load(std::int64_t) const override {
        return std::make_unique<UnavailableStudent>();
    }

private:
    struct UnavailableStudent : Student {
        std::vector<GeneratedImage> generate(std::span<const Draw>, Clock::time_point) override {
            throw HttpError(503, "no worker at the moment", "", "student_unavailable");
        }
    };
};

/// All requests of a batch get the same error.
TEST_F(LiveServer, an_http_error_of_a_batch_reaches_every_request_in_it) {
    options.port = 0;
    options.batching.max_wait = 2ms;
    server = std::make_unique<Server>(
        options, std::vector<ModelSource>{
                     {.id = "fake",
                      .open = [this] { return std::make_shared<UnavailableGenerator>(behaviour); },
                      .stamp = [] { return ""; }}});
    std::atomic<int> matching = 0;
    {
        std::vector<std::jthread> clients;
        for (int c = 0; c < 8; ++c) {
            clients.emplace_back([&] {
                Client client(server->port());
                for (std::uint64_t i = 0; i < 25; ++i)
                    matching += client.images(of_class(0, i)).json().at("error").at("message") ==
                                "no worker at the moment";
            });
        }
    }
    EXPECT_EQ(matching, 200);
    EXPECT_LT(std::stoi(metric(R"(atelier_batch_size_count{model="fake",student="0"})")), 150)
        << "batches of several";
}

TEST_F(LiveServer,
       a_changed_model_is_reloaded_without_a_lost_request_within_a_tight_memory_budget) {
    options.memory_budget = 150;  // one student's
    const std::uint16_t port = start();
    behaviour.takes = 1ms;
    std::atomic<bool> over = false;
    std::atomic<int> answered = 0, lost = 0;
    std::vector<std::jthread> clients;
    for (int i = 0; i < 4; ++i) {
        clients.emplace_back([&, i] {
            for (Client client(port); !over;)
                ++(client.images(of_class(i, 5)).status == 200 ? answered : lost);
        });
    }
    for (int i = 0; i < 20; ++i) {
        server->registry().reload();
        server->registry().reload_changed();
        const int before = answered;
        ASSERT_TRUE(soon([&] { return answered > before + 8; }));
        EXPECT_LE(behaviour.loaded, 3) << "one, plus the old and the new one during a reload";
    }
    over = true;
    clients.clear();
    server->registry().reload_changed();
    EXPECT_EQ(lost, 0);
    EXPECT_LE(behaviour.loaded, 1) << "the old ones are gone";
    EXPECT_EQ(metric(R"(atelier_reloads_total{model="fake",outcome="done"})"), "20");
}

}  // namespace
}  // namespace atelier::server
