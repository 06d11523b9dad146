#include "server/server_fixtures.h"

#include <cstdlib>
#include <fstream>
#include <random>

namespace atelier::server {
namespace {

std::string post(const std::string& body, const std::string& headers = "") {
    return "POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
           "application/json\r\n" +
           headers + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

void expect_well_formed_error(const Answer& answer, const std::string& about) {
    EXPECT_GE(answer.status, 400) << about;
    EXPECT_LT(answer.status, 500) << about;
    EXPECT_TRUE(answer.json().is_object() && answer.json().contains("error") &&
                answer.json().at("error").contains("message"))
        << about << answer.body;
}

TEST_F(LiveServer, bodies_and_headers_that_are_too_large_are_rejected_before_they_are_read) {
    start();
    Client body(server->port());
    body.send(
        "POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
        "application/json\r\nContent-Length: 9000000000\r\n\r\n{");
    EXPECT_EQ(body.receive().status, 413);
    EXPECT_TRUE(body.ended());
    Client chunked(server->port());
    std::string pieces;
    for (int i = 0; i < 20; ++i) pieces += "2000\r\n" + std::string(0x2000, ' ') + "\r\n";
    chunked.send(
        "POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
        "application/json\r\nTransfer-Encoding: chunked\r\n\r\n" +
        pieces);
    EXPECT_EQ(chunked.receive().status, 413);
    Client headers(server->port());
    headers.send("GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: " + std::string(100'000, 'a') +
                 "\r\n\r\n");
    EXPECT_EQ(headers.receive().status, 431);
    Client expecting(server->port());
    expecting.send(
        "POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
        "application/json\r\nExpect: 100-continue\r\nContent-Length: 25\r\n\r\n");
    EXPECT_EQ(expecting.receive().status, 100);
    expecting.send(red);
    EXPECT_EQ(expecting.receive().status, 200);
}

TEST_F(LiveServer, an_unfinished_request_times_out_with_408) {
    options.client_timeout = 200ms;
    const std::uint16_t port = start();
    Client in_body(port), in_headers(port), dripping(port);
    in_body.send(
        "POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
        "application/json\r\nContent-Length: 100\r\n\r\n{");
    in_headers.send("GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ");
    std::jthread drops([&] {
        for (int i = 0;
             i < 100 &&
             dripping.send(i == 0 ? "GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: " : "a");
             ++i)
            std::this_thread::sleep_for(10ms);
    });
    for (Client* slow : {&in_body, &in_headers, &dripping}) {
        const Answer answer = slow->receive();
        EXPECT_EQ(answer.status, 408);
        EXPECT_EQ(answer.json().at("error").at("code"), "request_timeout");
        EXPECT_EQ(answer.header("Connection"), "close");
    }
    EXPECT_TRUE(in_headers.ended());
    EXPECT_EQ(metric(R"(atelier_requests_total{route="/health",code="408"})"), "2");
    EXPECT_EQ(metric(R"(atelier_requests_total{route="/v1/images/generations",code="408"})"), "1");
}

TEST_F(LiveServer, an_idle_connection_is_closed_without_a_response) {
    options.client_timeout = 200ms;
    const std::uint16_t port = start();
    Client silent(port), idle(port);
    EXPECT_EQ(idle.images(red).status, 200);
    EXPECT_EQ(silent.receive().head, "");
    EXPECT_EQ(idle.receive().head, "");
    EXPECT_EQ(Client(port).images(red).status, 200);
    EXPECT_EQ(metric(R"(atelier_requests_total{route="other",code="408"})"), "");
}

TEST_F(LiveServer, slow_clients_do_not_delay_others) {
    options.client_timeout = 60s;
    const std::uint16_t port = start();
    std::vector<std::unique_ptr<Client>> slow;
    for (int i = 0; i < 200; ++i) {
        slow.push_back(std::make_unique<Client>(port));
        slow.back()->send(i % 2 == 0 ? "GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
                                     : post(red).substr(0, 150));
    }
    Client quick(port);
    const auto begun = Clock::now();
    for (int i = 0; i < 20; ++i) EXPECT_EQ(quick.images(red).status, 200);
    EXPECT_LT(Clock::now() - begun, 10s) << "far less than the timeout";
}

/// Draws images too large for any socket's buffer.
class LargeImages : public FakeGenerator {
public:
    using FakeGenerator::FakeGenerator;
    std::unique_ptr<Student> load(std::int64_t) const override {
        return std::make_unique<Painter>();
    }

private:
    struct Painter : Student {
        std::vector<GeneratedImage> generate(std::span<const Draw> draws,
                                             Clock::time_point) override {
            return std::vector<GeneratedImage>(
                draws.size(), {{512, 512, 3, std::vector<std::uint8_t>(512 * 512 * 3)}, {}});
        }
    };
};

TEST_F(LiveServer, a_client_that_does_not_read_its_response_is_disconnected_and_delays_nobody) {
    options.port = 0;
    options.client_timeout = 500ms;
    const ModelSource large{.id = "fake",
                            .open = [this] { return std::make_shared<LargeImages>(behaviour); },
                            .stamp = [] { return ""; }};
    server = std::make_unique<Server>(options, std::vector<ModelSource>{large});
    Client slow(server->port());
    std::string draws;  // answered with raw pixels, without the time for encoding
    for (int i = 0; i < 16; ++i)
        draws += R"({"seed":1,"number":0,"class":0})" + std::string(i < 15 ? "," : "");
    const std::string body = R"({"draws":[)" + draws + "]}";
    slow.send(
        "POST /v1/atelier/draws HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
        "application/json\r\nContent-Length: " +
        std::to_string(body.size()) + "\r\n\r\n" + body);
    EXPECT_TRUE(
        soon([&] { return metric(R"(atelier_images_total{model="fake",student="0"})") == "16"; }));
    EXPECT_EQ(Client(server->port()).images(R"({"class":1})").status, 200);
    EXPECT_TRUE(soon([&] { return metric("atelier_connections") == "1"; }))
        << "only the one that reads this metric";
    const Answer cut = slow.receive();
    EXPECT_LT(cut.body.size(), std::stoul(cut.header("Content-Length")));
}

TEST_F(LiveServer, excess_connections_are_told_to_retry_and_others_continue) {
    options.max_connections = 2;
    options.batching.workers = 2;
    const std::uint16_t port = start();
    behaviour.hold(true);
    std::jthread one([&] { EXPECT_EQ(Client(port).images(red).status, 200); });
    std::jthread other(
        [&] { EXPECT_EQ(Client(port).images(R"({"prompt":"green"})").status, 200); });
    ASSERT_TRUE(soon([&] { return behaviour.drawn() == 2; })) << "both connections are busy";
    const Answer unasked = Client(port).receive();
    EXPECT_EQ(unasked.status, 503);
    EXPECT_GE(std::stoi(unasked.header("Retry-After")), 1);
    EXPECT_EQ(unasked.header("Connection"), "close");
    EXPECT_EQ(unasked.json().at("error").at("code"), "too_many_connections");
    behaviour.hold(false);
    one.join();
    other.join();
    EXPECT_TRUE(soon([&] { return Client(port).ask("GET", "/health").status == 200; }));
    EXPECT_GE(std::stoi("0" + metric(R"(atelier_rejected_total{reason="connections"})")), 1);
}

TEST_F(LiveServer, a_storm_of_excess_connections_is_answered_and_keeps_nobody_out_afterwards) {
    options.max_connections = 2;
    options.batching.workers = 2;
    const std::uint16_t port = start();
    behaviour.hold(true);
    std::jthread one([&] { EXPECT_EQ(Client(port).images(red).status, 200); });
    std::jthread other(
        [&] { EXPECT_EQ(Client(port).images(R"({"prompt":"green"})").status, 200); });
    ASSERT_TRUE(soon([&] { return behaviour.drawn() == 2; })) << "both connections are busy";
    constexpr int threads = 8, rounds = 50;
    std::atomic<int> told = 0;
    {
        std::vector<std::jthread> clients;
        for (int i = 0; i < threads; ++i)
            clients.emplace_back([&] {
                for (int round = 0; round < rounds; ++round) {
                    // The answer is not lost to what was sent and never read.
                    const Answer answer = Client(port).images(red);
                    told += answer.status == 503 && !answer.header("Retry-After").empty();
                }
            });
    }
    EXPECT_EQ(told, threads * rounds);
    // Clients that stay: so many are told, the others are closed, and none is left waiting.
    std::vector<std::unique_ptr<Client>> silent;
    for (int i = 0; i < 200; ++i) silent.push_back(std::make_unique<Client>(port));
    int answered = 0;
    for (const auto& client : silent) {
        const int status = client->receive().status;
        EXPECT_TRUE(status == 503 || status == 0) << status;
        answered += status == 503;
        EXPECT_TRUE(client->ended());
    }
    EXPECT_GE(answered, 32);
    behaviour.hold(false);
    one.join();
    other.join();
    EXPECT_TRUE(soon([&] { return Client(port).ask("GET", "/health").status == 200; }));
}

TEST_F(LiveServer, clients_that_send_nothing_cannot_block_others) {
    options.max_connections = 8;
    options.client_timeout = 60s;
    const std::uint16_t port = start();
    std::vector<std::unique_ptr<Client>> slow;
    for (int i = 0; i < 100; ++i) {
        slow.push_back(std::make_unique<Client>(port));
        if (i % 2 == 0) slow.back()->send("GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ");
        if (i % 10 == 0) {
            EXPECT_EQ(Client(port).images(red).status, 200);
        }
    }
    EXPECT_TRUE(soon([&] { return std::stoi("0" + metric("atelier_connections")) <= 8; }));
    EXPECT_EQ(slow[0]->receive().status, 408);
    EXPECT_EQ(slow[1]->receive().head, "");
}

/// A valid request with random mutations.
std::string mutated(std::mt19937_64& random) {
    static const std::vector<std::string> seeds{
        post(red),
        post(
            R"({"model":"fake","prompt":"green","n":3,"size":"2x2","seed":12,
                "response_format":"b64_json","output_format":"webp","output_compression":50})"),
        post(R"({"class":1,"student":1,"user":"\u00e9"})",
             "Authorization: Bearer x\r\nX-Request-Id: a\r\nOrigin: null\r\n"),
        "GET / HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: \"x\"\r\n\r\n",
        "GET /../../../etc/passwd HTTP/1.1\r\n\r\n",
        "OPTIONS /v1/models HTTP/1.0\r\nOrigin: x\r\n\r\n",
        "POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
        "application/json\r\nTransfer-Encoding: "
        "chunked\r\n\r\n5\r\n{\"pro\r\n14\r\nmpt\":\"red\",\"seed\":5}\r\n0\r\n\r\n"};
    static const std::vector<std::string> spices{"\r\n",
                                                 "\r\n\r\n",
                                                 "{",
                                                 "[[[[[[[[[[[[[[[[",
                                                 "\"",
                                                 "\\",
                                                 "NaN",
                                                 "1e999",
                                                 "-1",
                                                 "99999999999999999999",
                                                 "\xff\xfe",
                                                 "\xc3",
                                                 std::string(1, '\0'),
                                                 ":",
                                                 ",",
                                                 "null",
                                                 "../",
                                                 "%2e%2e%2f",
                                                 "Content-Length: 5\r\n",
                                                 "Transfer-Encoding: chunked\r\n",
                                                 "Expect: 100-continue\r\n",
                                                 "HTTP/1.1",
                                                 std::string(5000, 'a'),
                                                 "\xf0\x9f\x8e\xa8"};
    std::string text = seeds[random() % seeds.size()];
    for (auto changes = random() % 5; changes > 0; --changes) {
        const std::size_t at = random() % (text.size() + 1);
        switch (random() % 5) {
            case 0:
                text.insert(at, spices[random() % spices.size()]);
                break;
            case 1:
                text.erase(at, 1 + random() % 20);
                break;
            case 2:
                if (at < text.size()) text[at] = static_cast<char>(random());
                break;
            case 3:
                text.insert(at, text.substr(at, random() % 50));
                break;
            case 4:
                text.resize(at);
                break;
        }
        if (text.empty()) text = "x";
    }
    return text;
}

/// ATELIER_FUZZ sets the number of requests.
TEST_F(LiveServer, malformed_requests_get_well_formed_responses_or_none) {
    options.client_timeout = 20ms;
    options.batching.max_queue = 64;
    const std::uint16_t port = start();
    const char* wanted = std::getenv("ATELIER_FUZZ");
    const int count = wanted != nullptr ? std::atoi(wanted) : 3000;
    std::atomic<int> next = 0, answered = 0;
    {
        std::vector<std::jthread> clients;
        for (int t = 0; t < 8; ++t) {
            clients.emplace_back([&] {
                for (int i = next++; i < count; i = next++) {
                    std::mt19937_64 random(static_cast<std::uint64_t>(i));
                    Client client(port);
                    const std::string request = mutated(random);
                    client.send(request);
                    for (Answer answer = client.receive(); answer.status != 0;
                         answer = client.receive()) {
                        ++answered;
                        if (answer.status == 100 || answer.status < 400) continue;
                        EXPECT_NE(answer.status, 500) << request;
                        EXPECT_TRUE(answer.json().is_object() &&
                                    answer.json().at("error").at("message").is_string())
                            << request;
                    }
                }
            });
        }
    }
    EXPECT_GT(answered, count / 2);
    EXPECT_EQ(Client(port).ask("GET", "/health").status, 200);
}

TEST_F(LiveServer, path_traversal_reads_nothing) {
    Client client(start());
    for (const char* path :
         {"/../CMakeLists.txt", "/..%2fCMakeLists.txt", "/%2e%2e/%2e%2e/etc/passwd",
          "/web/../index.html", "/\\..\\etc", "/index.html", "/./", "/?/../../etc/passwd"}) {
        const Answer answer = client.ask("GET", path);
        if (std::string(path).starts_with("/?"))
            EXPECT_EQ(answer.status, 200) << "the query is not part of the path";
        else expect_well_formed_error(answer, path);
    }
}

}  // namespace
}  // namespace atelier::server
