#include "server/server_fixtures.h"

#include "atelier/server/metrics.h"

namespace atelier::server {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::uint64_t growth = std::uint64_t{1} << 30;  // a sanitizer's own memory grows, too
#else
constexpr std::uint64_t growth = std::uint64_t{8} << 20;
#endif

TEST_F(LiveServer, what_waits_together_is_drawn_together) {
    options.batching.largest_batch = 4;
    const std::uint16_t port = start();
    behaviour.hold(true);
    std::vector<std::jthread> clients;
    clients.emplace_back([&] { EXPECT_EQ(Client(port).images(red).status, 200); });
    ASSERT_TRUE(soon([&] { return behaviour.drawn() == 1; }));
    for (int i = 0; i < 6; ++i) clients.emplace_back([&] { EXPECT_EQ(Client(port).images(red).status, 200); });
    ASSERT_TRUE(soon([&] { return metric(R"(atelier_queue_depth{model="fake",student="0"})") == "6"; }));
    behaviour.hold(false);
    clients.clear();
    EXPECT_EQ(behaviour.batches, (std::vector<std::size_t>{1, 4, 2}));
}

/// Draws two batches at a time; picture 0 is ready only after picture 1.
class Overtaking : public FakeGenerator {
public:
    using FakeGenerator::FakeGenerator;
    StudentFacts facts(std::int64_t k) const override {
        StudentFacts facts = FakeGenerator::facts(k);
        facts.at_once = 2;
        return facts;
    }
    std::unique_ptr<Student> load(std::int64_t) const override { return std::make_unique<Second>(); }

private:
    struct Second : Student {
        std::vector<Picture> generate(std::span<const Draw> draws, Clock::time_point) override {
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

TEST_F(LiveServer, pictures_of_batches_that_overtake_each_other_are_put_in_order) {
    options.port = 0;
    options.batching.largest_batch = 1;
    options.batching.workers = 2;
    const Source overtaking{.id = "fake", .open = [this] { return std::make_shared<Overtaking>(behaviour); }, .stamp = [] { return ""; }};
    server = std::make_unique<Server>(options, std::vector<Source>{overtaking});
    const Answer parcel = Client(server->port()).ask("POST", "/v1/atelier/draws", R"({"draws":[{"seed":1,"number":0,"class":0},{"seed":1,"number":1,"class":0}]})",
                                                     "Content-Type: application/json\r\n");
    ASSERT_EQ(parcel.status, 200) << parcel.body;
    EXPECT_EQ(parcel.body.substr(parcel.body.find('\n') + 1), std::string("\0\1", 2));
}

TEST_F(LiveServer, a_full_queue_says_when_to_come_back_and_other_students_are_not_touched) {
    options.batching.longest_queue = 4;
    const std::uint16_t port = start();
    behaviour.hold(true);
    std::jthread first([&] { EXPECT_EQ(Client(port).images(red).status, 200); });
    ASSERT_TRUE(soon([&] { return behaviour.drawn() == 1; }));
    std::jthread second([&] { EXPECT_EQ(Client(port).images(R"({"class":0,"n":4})").status, 200); });
    ASSERT_TRUE(soon([&] { return metric(R"(atelier_queue_depth{model="fake",student="0"})") == "4"; }));
    const Answer refused = Client(port).images(red);
    EXPECT_EQ(refused.status, 429);
    EXPECT_GE(std::stoi(refused.header("Retry-After")), 1);
    EXPECT_EQ(refused.json().at("error").at("type"), "rate_limit_error");
    std::jthread other([&] { EXPECT_EQ(Client(port).images(green).status, 200); });
    behaviour.hold(false);
}

TEST_F(LiveServer, a_client_that_leaves_frees_its_place_and_nobody_elses) {
    options.batching.longest_queue = 4;
    options.batching.largest_batch = 1;
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
    ASSERT_TRUE(soon([&] { return metric(R"(atelier_queue_depth{model="fake",student="0"})") == "3"; }));
    std::jthread staying([&] { EXPECT_EQ(Client(port).images(red).status, 200); });
    ASSERT_TRUE(soon([&] { return metric(R"(atelier_queue_depth{model="fake",student="0"})") == "4"; }));
    leaving.leave();
    ASSERT_TRUE(soon([&] { return metric(R"(atelier_queue_depth{model="fake",student="0"})") == "1"; }));
    EXPECT_EQ(metric(R"(atelier_rejected_total{reason="left"})"), "1");
    behaviour.hold(false);
    first.join();
    staying.join();
    EXPECT_EQ(behaviour.seeds, (std::vector<std::uint64_t>{5, 5})) << "nothing was drawn for the one who left";
}

TEST_F(LiveServer, a_request_that_waits_too_long_is_told_so) {
    options.service.deadline = 100ms;
    const std::uint16_t port = start();
    behaviour.hold(true);
    Client client(port);
    EXPECT_EQ(client.images(red).status, 504);
    behaviour.hold(false);
    EXPECT_EQ(client.images(red).status, 200) << "the connection lives on";
}

TEST_F(LiveServer, many_clients_at_once_all_get_their_own_picture) {
    const std::uint16_t port = start();
    std::atomic<int> right = 0;
    {
        std::vector<std::jthread> clients;
        for (int i = 0; i < 50; ++i) {
            clients.emplace_back([&, i] {
                Client client(port);
                for (int j = 0; j < 20; ++j) {
                    const std::string seed = std::to_string(i * 1000 + j + 1000);
                    right += client.images(R"({"class":)" + std::to_string(i % 4) + R"(,"seed":)" + seed + "}").header("X-Atelier-Seed") == seed;
                }
            });
        }
    }
    EXPECT_EQ(right, 1000);
}

TEST_F(LiveServer, ten_times_more_than_it_can_is_answered_or_refused_at_once_and_leaves_no_memory_behind) {
    options.batching.longest_queue = 16;
    options.batching.largest_batch = 8;
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

TEST_F(LiveServer, stopping_answers_what_was_accepted_and_refuses_the_rest) {
    const std::uint16_t port = start();
    behaviour.hold(true);
    std::vector<std::jthread> clients;
    std::atomic<int> answered = 0;
    for (int i = 0; i < 8; ++i) clients.emplace_back([&] { answered += Client(port).images(red).status == 200; });
    // In the batch that is held, or waiting: a connection may be open before its request was read.
    const auto accepted = [&] {
        const std::string waiting = metric(R"(atelier_queue_depth{model="fake",student="0"})");
        const std::lock_guard lock(behaviour.mutex);
        return behaviour.batches.size() == 1 && behaviour.batches[0] + std::stoul("0" + waiting) == 8;
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

TEST_F(LiveServer, stopping_in_the_middle_of_everything_is_safe) {
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

TEST_F(LiveServer, a_changed_model_is_read_anew_without_a_lost_request) {
    const std::uint16_t port = start();
    behaviour.takes = 1ms;
    std::atomic<bool> over = false;
    std::atomic<int> answered = 0, lost = 0;
    std::vector<std::jthread> clients;
    for (int i = 0; i < 4; ++i) {
        clients.emplace_back([&] {
            for (Client client(port); !over;) ++(client.images(red).status == 200 ? answered : lost);
        });
    }
    for (int i = 0; i < 20; ++i) {
        {
            const std::lock_guard lock(behaviour.mutex);
            stamp = std::to_string(i);
        }
        server->library().look_after();
        EXPECT_EQ(behaviour.loads, 2 + 2 * i) << "not before it has settled";
        server->library().look_after();
        EXPECT_EQ(behaviour.loads, 4 + 2 * i);
        const int before = answered;
        ASSERT_TRUE(soon([&] { return answered > before + 4; }));
    }
    over = true;
    clients.clear();
    server->library().look_after();
    EXPECT_EQ(lost, 0);
    EXPECT_EQ(behaviour.loaded, 2) << "the old ones are gone";
}

TEST_F(LiveServer, pictures_are_drawn_while_students_are_still_being_prepared) {
    options.port = 0;
    behaviour.preparing_held = true;
    server = std::make_unique<Server>(options, std::vector<Source>{source()});
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

TEST_F(LiveServer, a_model_that_cannot_be_read_anew_stays) {
    bool broken = false;
    options.port = 0;
    Source fragile = source();
    fragile.open = [&, open = fragile.open] { return broken ? throw core::Error("broken") : open(); };
    server = std::make_unique<Server>(options, std::vector<Source>{fragile});
    broken = true;
    server->library().reload();
    EXPECT_EQ(Client(server->port()).images(red).status, 200);
    EXPECT_EQ(metric(R"(atelier_reloads_total{model="fake",outcome="failed"})"), "1");
}

TEST_F(LiveServer, within_a_memory_budget_students_take_turns) {
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
