#include "server/server_fixtures.h"

#include "atelier/server/metrics.h"

namespace atelier::server {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::uint64_t growth = std::uint64_t{1} << 30;  // a sanitizer's own memory grows as well
#else
constexpr std::uint64_t growth = std::uint64_t{8} << 20;
#endif

TEST_F(LiveServer, queued_requests_are_batched) {
    options.batching.max_batch = 4;
    const std::uint16_t port = start();
    behaviour.hold(true);
    std::vector<std::jthread> clients;
    clients.emplace_back([&] { EXPECT_EQ(Client(port).images(red).status, 200); });
    ASSERT_TRUE(soon([&] { return behaviour.drawn() == 1; }));
    for (int i = 0; i < 6; ++i)
        clients.emplace_back([&] { EXPECT_EQ(Client(port).images(red).status, 200); });
    ASSERT_TRUE(
        soon([&] { return metric(R"(atelier_queue_depth{model="fake",student="0"})") == "6"; }));
    behaviour.hold(false);
    clients.clear();
    EXPECT_EQ(behaviour.batches, (std::vector<std::size_t>{1, 4, 2}));
}

/// Runs two batches concurrently; image 0 is ready only after image 1.
class Overtaking : public FakeGenerator {
public:
    using FakeGenerator::FakeGenerator;
    StudentFacts facts(std::int64_t k) const override {
        StudentFacts facts = FakeGenerator::facts(k);
        facts.max_concurrent_batches = 2;
        return facts;
    }
    std::unique_ptr<Student> load(std::int64_t) const override {
        return std::make_unique<Second>();
    }

private:
    struct Second : Student {
        std::vector<GeneratedImage> generate(std::span<const Draw> draws,
                                             Clock::time_point) override {
            const auto number = static_cast<std::uint8_t>(draws.front().number);
            if (number == 0) overtaken.wait(false);
            if (number == 1) {
                overtaken = true;
                overtaken.notify_all();
            }
            return {{{1, 1, 1, {number}}, {}}};
        }
        std::atomic<bool> overtaken = false;
    };
};

TEST_F(LiveServer, images_of_batches_that_finish_out_of_order_are_put_in_order) {
    options.port = 0;
    options.batching.max_batch = 1;
    options.batching.workers = 2;
    const ModelSource overtaking{.id = "fake",
                                 .open = [this] { return std::make_shared<Overtaking>(behaviour); },
                                 .stamp = [] { return ""; }};
    server = std::make_unique<Server>(options, std::vector<ModelSource>{overtaking});
    const Answer frame =
        Client(server->port())
            .ask("POST", "/v1/atelier/draws",
                 R"({"draws":[{"seed":1,"number":0,"class":0},{"seed":1,"number":1,"class":0}]})",
                 "Content-Type: application/json\r\n");
    ASSERT_EQ(frame.status, 200) << frame.body;
    EXPECT_EQ(frame.body.substr(frame.body.find('\n') + 1), std::string("\0\1", 2));
}

TEST_F(LiveServer, a_full_queue_answers_with_retry_after_and_does_not_affect_other_students) {
    options.batching.max_queue = 4;
    const std::uint16_t port = start();
    behaviour.hold(true);
    std::jthread first([&] { EXPECT_EQ(Client(port).images(red).status, 200); });
    ASSERT_TRUE(soon([&] { return behaviour.drawn() == 1; }));
    std::jthread second(
        [&] { EXPECT_EQ(Client(port).images(R"({"class":0,"n":4})").status, 200); });
    ASSERT_TRUE(
        soon([&] { return metric(R"(atelier_queue_depth{model="fake",student="0"})") == "4"; }));
    const Answer refused = Client(port).images(red);
    EXPECT_EQ(refused.status, 429);
    EXPECT_GE(std::stoi(refused.header("Retry-After")), 1);
    EXPECT_EQ(refused.json().at("error").at("type"), "rate_limit_error");
    std::jthread other([&] { EXPECT_EQ(Client(port).images(green).status, 200); });
    behaviour.hold(false);
}

TEST_F(LiveServer, a_disconnected_client_frees_only_its_own_places) {
    options.batching.max_queue = 4;
    options.batching.max_batch = 1;
    const std::uint16_t port = start();
    behaviour.hold(true);
    std::jthread first([&] { EXPECT_EQ(Client(port).images(red).status, 200); });
    ASSERT_TRUE(soon([&] { return behaviour.drawn() == 1; }));
    Client leaving(port);
    const std::string body = R"({"class":0,"n":3,"seed":99})";
    leaving.send(
        "POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
        "application/json\r\nContent-Length: " +
        std::to_string(body.size()) + "\r\n\r\n" + body);
    ASSERT_TRUE(
        soon([&] { return metric(R"(atelier_queue_depth{model="fake",student="0"})") == "3"; }));
    std::jthread staying([&] { EXPECT_EQ(Client(port).images(red).status, 200); });
    ASSERT_TRUE(
        soon([&] { return metric(R"(atelier_queue_depth{model="fake",student="0"})") == "4"; }));
    leaving.leave();
    ASSERT_TRUE(
        soon([&] { return metric(R"(atelier_queue_depth{model="fake",student="0"})") == "1"; }));
    EXPECT_EQ(metric(R"(atelier_rejected_total{reason="left"})"), "1");
    behaviour.hold(false);
    first.join();
    staying.join();
    EXPECT_EQ(behaviour.seeds, (std::vector<std::uint64_t>{5, 5}))
        << "nothing was drawn for the disconnected client";
}

TEST_F(LiveServer, a_request_past_its_deadline_gets_504) {
    options.service.deadline = 100ms;
    const std::uint16_t port = start();
    behaviour.hold(true);
    Client client(port);
    EXPECT_EQ(client.images(red).status, 504);
    behaviour.hold(false);
    EXPECT_EQ(client.images(red).status, 200) << "the connection stays open";
}

TEST_F(LiveServer, many_concurrent_clients_get_their_own_images) {
    const std::uint16_t port = start();
    std::atomic<int> right = 0;
    {
        std::vector<std::jthread> clients;
        for (int i = 0; i < 50; ++i) {
            clients.emplace_back([&, i] {
                Client client(port);
                for (int j = 0; j < 20; ++j) {
                    const std::string seed = std::to_string(i * 1000 + j + 1000);
                    right += client
                                 .images(R"({"class":)" + std::to_string(i % 4) + R"(,"seed":)" +
                                         seed + "}")
                                 .header("X-Atelier-Seed") == seed;
                }
            });
        }
    }
    EXPECT_EQ(right, 1000);
}

TEST_F(LiveServer, ten_times_its_capacity_is_answered_or_rejected_without_leaking_memory) {
    options.batching.max_queue = 16;
    options.batching.max_batch = 8;
    behaviour.takes = 10ms;
    const std::uint16_t port = start();
    std::atomic<int> answered = 0, refused = 0, other = 0;
    const auto storm = [&] {
        std::vector<std::jthread> clients;
        for (int i = 0; i < 160; ++i) {
            clients.emplace_back([&] {
                Client client(port);
                for (int j = 0; j < 10; ++j) {
                    const int status = client.images(red).status;
                    ++(status == 200 ? answered : status == 429 ? refused : other);
                }
            });
        }
    };
    storm();
    const std::uint64_t before = resident_bytes();
    storm();
    EXPECT_EQ(other, 0);
    EXPECT_GT(answered, 100);
    EXPECT_GT(refused, 0);
    EXPECT_LT(resident_bytes(), before + growth);
}

TEST_F(LiveServer, stopping_answers_accepted_requests_and_rejects_the_rest) {
    const std::uint16_t port = start();
    behaviour.hold(true);
    std::vector<std::jthread> clients;
    std::atomic<int> answered = 0;
    for (int i = 0; i < 8; ++i)
        clients.emplace_back([&] { answered += Client(port).images(red).status == 200; });
    // In the held batch or queued; an open connection's request may not have been read yet.
    const auto accepted = [&] {
        const std::string waiting = metric(R"(atelier_queue_depth{model="fake",student="0"})");
        const std::lock_guard lock(behaviour.mutex);
        return behaviour.batches.size() == 1 &&
               behaviour.batches[0] + std::stoul("0" + waiting) == 8;
    };
    ASSERT_TRUE(soon(accepted));
    std::jthread stopping([&] { EXPECT_TRUE(server->drain(10s)); });
    ASSERT_TRUE(soon([&] { return Client(port).ask("GET", "/health/ready").status == 503; }));
    const Answer refused = Client(port).images(red);
    EXPECT_EQ(refused.status, 503);
    EXPECT_EQ(refused.json().at("error").at("code"), "draining");
    EXPECT_EQ(refused.header("Connection"), "close");
    EXPECT_EQ(Client(port).ask("GET", "/health/live").status, 200);
    behaviour.hold(false);
    stopping.join();
    clients.clear();
    EXPECT_EQ(answered, 8);
}

TEST_F(LiveServer, stopping_under_load_is_safe) {
    const std::uint16_t port = start();
    behaviour.takes = 2ms;
    std::vector<std::jthread> clients;
    for (int i = 0; i < 16; ++i) {
        clients.emplace_back([&] {
            for (Client client(port); client.images(red).status != 0;) {
            }
        });
    }
    ASSERT_TRUE(soon([&] { return behaviour.drawn() > 20; }));
    server.reset();
}

TEST_F(LiveServer, a_changed_model_is_reloaded_without_a_lost_request) {
    const std::uint16_t port = start();
    behaviour.takes = 1ms;
    std::atomic<bool> over = false;
    std::atomic<int> answered = 0, lost = 0;
    std::vector<std::jthread> clients;
    for (int i = 0; i < 4; ++i) {
        clients.emplace_back([&] {
            for (Client client(port); !over;)
                ++(client.images(red).status == 200 ? answered : lost);
        });
    }
    for (int i = 0; i < 20; ++i) {
        {
            const std::lock_guard lock(behaviour.mutex);
            stamp = std::to_string(i);
        }
        server->registry().reload_changed();
        EXPECT_EQ(behaviour.loads, 2 + 2 * i) << "not before two calls saw the same stamp";
        server->registry().reload_changed();
        EXPECT_EQ(behaviour.loads, 4 + 2 * i);
        const int before = answered;
        ASSERT_TRUE(soon([&] { return answered > before + 4; }));
    }
    over = true;
    clients.clear();
    server->registry().reload_changed();
    EXPECT_EQ(lost, 0);
    EXPECT_EQ(behaviour.loaded, 2) << "the old ones are gone";
}

TEST_F(LiveServer, images_are_drawn_while_students_are_still_being_prepared) {
    options.port = 0;
    behaviour.preparation_held = true;
    server = std::make_unique<Server>(options, std::vector<ModelSource>{source()});
    std::jthread warming([&] { server->warm_up(); });
    Client client(server->port());
    EXPECT_EQ(client.images(red).status, 200);
    EXPECT_EQ(client.images(green).status, 200);
    EXPECT_EQ(client.ask("GET", "/health/ready").status, 503);
    EXPECT_EQ(behaviour.prepared, 0);
    behaviour.hold(false);
    warming.join();
    EXPECT_EQ(client.ask("GET", "/health/ready").status, 200);
    EXPECT_EQ(behaviour.prepared, 2);
}

TEST_F(LiveServer, a_model_that_cannot_be_reloaded_stays) {
    bool broken = false;
    options.port = 0;
    ModelSource fragile = source();
    fragile.open = [&, open = fragile.open] {
        return broken ? throw core::Error("broken") : open();
    };
    server = std::make_unique<Server>(options, std::vector<ModelSource>{fragile});
    broken = true;
    server->registry().reload();
    EXPECT_EQ(Client(server->port()).images(red).status, 200);
    EXPECT_EQ(metric(R"(atelier_reloads_total{model="fake",outcome="failed"})"), "1");
}

TEST_F(LiveServer, students_are_evicted_to_keep_a_memory_budget) {
    options.memory_budget = 150;
    const std::uint16_t port = start();
    EXPECT_EQ(behaviour.loaded, 1);
    Client client(port);
    for (int i = 0; i < 5; ++i) {
        EXPECT_EQ(client.images(red).status, 200);
        EXPECT_EQ(client.images(green).status, 200);
        EXPECT_EQ(behaviour.loaded, 1);
    }
    EXPECT_EQ(behaviour.loads, 10);
    EXPECT_EQ(metric(R"(atelier_student_unloads_total{model="fake",student="0"})"), "5");
}

}  // namespace
}  // namespace atelier::server
