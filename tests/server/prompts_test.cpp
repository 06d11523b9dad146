#include "server/routing_fixtures.h"

#include "atelier/server/worker_protocol.h"

namespace atelier::server {
namespace {

constexpr const char* even =
    R"({"prompt":"two small bags","n":3,"seed":5})";  // 14 letters: student 0's
constexpr const char* odd = R"({"prompt":"a big bag","seed":6})";

class Prompts : public Routing {
protected:
    Prompts() { of_prompts = true; }

    std::uint16_t start_prompts() {
        options.port = 0;
        server = std::make_unique<Server>(
            options, std::vector<ModelSource>{
                         {"fake", [this] { return FakeGenerator::of_prompts(behaviour); },
                          [] { return ""; }},
                         source("classes")});
        server->warm_up();
        return server->port();
    }
};

TEST_F(Prompts, are_encoded_once_and_drawn_by_the_student_that_owns_them) {
    Client client(start_prompts());
    const Answer answer = client.images(even);
    ASSERT_EQ(answer.status, 200) << answer.body;
    EXPECT_EQ(answer.header("X-Atelier-Student"), "0");
    const auto images = answer.json().at("data");
    ASSERT_EQ(images.size(), 3u);
    EXPECT_EQ(images[2].at("atelier"),
              nlohmann::json::parse(
                  R"({"prompt":"two small bags","margin":0.5,"seed":5,"number":2,"student":0})"));
    EXPECT_EQ(behaviour.prompts, 1);
    EXPECT_EQ(client.images(odd).header("X-Atelier-Student"), "1");
    const auto about = client.ask("GET", "/v1/models").json().at("data");
    EXPECT_EQ(about[0].at("atelier").at("reads_prompts"), true);
    EXPECT_EQ(about[0].at("atelier").at("partition_hash"), "of lengths");
    EXPECT_EQ(about[1].at("atelier").at("reads_prompts"), false);
    EXPECT_EQ(metric(R"(atelier_reading_seconds_count{model="fake"})"), "2");
    EXPECT_EQ(client.images(R"({"model":"classes","prompt":"red"})").status, 200);
}

TEST_F(Prompts, invalid_fields_for_such_a_model_are_rejected_by_name) {
    Client client(start_prompts());
    const auto refused = [&](const std::string& body, const std::string& field,
                             const std::string& words) {
        const Answer answer = client.images(body);
        EXPECT_EQ(answer.status, 400) << body;
        EXPECT_EQ(answer.json().at("error").at("param"), field) << body;
        core::expect_contains(answer.json().at("error").at("message").get<std::string>(), words);
    };
    refused(R"({"class":1})", "class", "not classes");
    refused(R"({"student":1})", "prompt", "missing");
    refused(R"({"prompt":"odd","student":0})", "student", "this prompt is student 1's");
    refused(R"({"prompt":"odd","student":2})", "student", "out of range");
    refused(R"({"prompt":"odd","size":"4x4"})", "size", "2x2");
    refused(nlohmann::json{{"prompt", std::string(5000, 'x')}}.dump(), "prompt", "5000 bytes");
    EXPECT_EQ(client.images(R"({"prompt":"odd","student":1})").status, 200);
    const Answer failed = client.images(R"({"prompt":"unreadable"})");
    EXPECT_EQ(failed.status, 500);
    EXPECT_EQ(failed.body.find("cannot be read"), std::string::npos)
        << "details go to the log only";
    EXPECT_EQ(client.images(odd).status, 200);
}

TEST_F(Prompts, other_requests_are_answered_while_one_is_encoded) {
    const std::uint16_t port = start_prompts();
    behaviour.hold_encoding(true);
    std::jthread waiting([&] { EXPECT_EQ(Client(port).images(even).status, 200); });
    for (int i = 0; i < 20; ++i) {
        EXPECT_EQ(Client(port).ask("GET", "/health/live").status, 200);
        EXPECT_EQ(Client(port).images(R"({"model":"classes","prompt":"red"})").status, 200);
    }
    EXPECT_EQ(behaviour.prompts, 0);
    behaviour.hold_encoding(false);
}

TEST_F(Prompts, too_many_waiting_ones_are_rejected_and_late_ones_get_504) {
    options.service.max_waiting_prompts = 3;
    options.service.deadline = 300ms;
    const std::uint16_t port = start_prompts();
    behaviour.hold_encoding(true);
    std::atomic<int> full = 0, late = 0;
    {
        std::vector<std::jthread> clients;
        for (int i = 0; i < 8; ++i) {
            clients.emplace_back([&] {
                const Answer answer = Client(port).images(even);
                full += answer.status == 429 && answer.header("Retry-After") == "1";
                late += answer.status == 504;
            });
        }
        EXPECT_TRUE(soon([&] { return full == 5; }));
        // All three wait already; their deadline passes, however long this takes.
        std::this_thread::sleep_for(options.service.deadline + 100ms);
        behaviour.hold_encoding(false);
    }
    EXPECT_EQ(late, 3);
    EXPECT_EQ(Client(port).images(odd).status, 200) << "rejected requests free their places";
    EXPECT_LE(behaviour.prompts, 2)
        << "late ones are not encoded: only the one in progress, and this";
}

TEST_F(Prompts, a_stopping_server_answers_those_being_encoded) {
    options.service.max_waiting_prompts = 4;
    const std::uint16_t port = start_prompts();
    behaviour.hold_encoding(true);
    std::atomic<int> answered = 0, full = 0;
    std::vector<std::jthread> clients;
    for (int i = 0; i < 5; ++i) {
        clients.emplace_back([&] {
            const int status = Client(port).images(odd).status;
            answered += status == 200;
            full += status == 429;
        });
    }
    ASSERT_TRUE(soon([&] { return full == 1; })) << "the other four wait";
    std::jthread stopping([&] { EXPECT_TRUE(server->drain(10s)); });
    ASSERT_TRUE(
        soon([&] { return Client(port).ask("GET", "/health").json().at("status") == "draining"; }));
    EXPECT_EQ(Client(port).images(odd).status, 503);
    behaviour.hold_encoding(false);
    clients.clear();
    EXPECT_EQ(answered, 4);
}

TEST_F(Prompts, a_server_may_end_while_prompts_wait_to_be_encoded) {
    options.service.max_waiting_prompts = 4;
    const std::uint16_t port = start_prompts();
    behaviour.hold_encoding(true);
    std::atomic<int> full = 0;
    std::vector<std::jthread> clients;
    for (int i = 0; i < 5; ++i)
        clients.emplace_back([&] { full += Client(port).images(odd).status == 429; });
    ASSERT_TRUE(soon([&] { return full == 1; })) << "the other four wait";
    std::jthread later([&] {
        std::this_thread::sleep_for(100ms);  // most often after the end began; either order will do
        behaviour.hold_encoding(false);
    });
    server.reset();
}

TEST_F(Prompts, a_router_encodes_them_to_choose_the_student) {
    const std::uint16_t whole = add({0, 1}).port, first = add({0}).port, second = add({1}).port;
    Client one(whole), routed(route_to({first, second}));
    for (const char* body : {even, odd, R"({"class":1})", R"({"prompt":"odd","student":0})"}) {
        const Answer expected = one.images(body), answer = routed.images(body);
        EXPECT_EQ(answer.status, expected.status) << body;
        auto got = answer.json(), wanted = expected.json();
        got.erase("created"), wanted.erase("created");
        EXPECT_EQ(got, wanted) << body;
    }
    EXPECT_EQ(worker_servers[1].behaviour.drawn(), 1u);
    EXPECT_EQ(worker_servers[2].behaviour.drawn(), 1u);
    const Answer misdirected = Client(second).images(even);
    EXPECT_EQ(misdirected.status, 421);
    EXPECT_EQ(misdirected.json().at("error").at("message"),
              "this prompt is student 0's, which is not served here; students here: 1");
}

TEST_F(Prompts, any_characters_give_the_same_images_directly_and_behind_a_router) {
    const std::uint16_t whole = add({0, 1}).port;
    Client one(whole), routed(route_to({add({0, 1}).port}));
    const char* prompts[] = {R"(a\nb)",         R"(a\tb)",
                             R"(a\rb)",         R"(\u007f)",
                             R"(a\u0000b)",     R"(\u0001\u001f\\\")",
                             R"(\u0085\u2028)", "\u00fcn\u00ef \U0001fa70",
                             R"(\ud83e\ude70)", R"( )"};
    for (const std::string prompt : prompts) {
        const std::string body = R"({"seed":3,"n":2,"prompt":")" + prompt + "\"}";
        const Answer expected = one.images(body), answer = routed.images(body);
        EXPECT_EQ(expected.status, 200) << prompt;
        EXPECT_EQ(answer.json().at("data"), expected.json().at("data")) << prompt;
    }
}

TEST_F(Prompts, of_4096_bytes_are_drawn_directly_and_behind_a_router_also_in_large_batches) {
    options.batching.max_wait = worker_options.batching.max_wait = 50ms;
    options.batching.max_batch = worker_options.batching.max_batch = 64;
    options.service.deadline = worker_options.service.deadline = 60s;
    const std::uint16_t whole = add({0, 1}).port, router = route_to({add({0, 1}).port});
    for (const std::string& piece :
         {std::string("a"), std::string("\x01"), std::string("\u00e4")}) {
        std::string prompt;
        while (prompt.size() + piece.size() <= 4096) prompt += piece;
        ASSERT_EQ(prompt.size(), 4096u);
        for (const std::uint16_t port : {whole, router}) {
            EXPECT_EQ(Client(port)
                          .images(nlohmann::json{{"prompt", prompt}, {"n", 16}, {"seed", 1}}.dump())
                          .status,
                      200)
                << static_cast<int>(piece[0]);
            EXPECT_EQ(Client(port)
                          .images(nlohmann::json{{"prompt", prompt}, {"n", 64}, {"seed", 1}}.dump())
                          .status,
                      200)
                << static_cast<int>(piece[0]);
            EXPECT_EQ(Client(port)
                          .images(nlohmann::json{{"prompt", prompt + piece}}.dump())
                          .json()
                          .at("error")
                          .at("param"),
                      "prompt");
        }
    }
    std::string draws;
    for (int i = 0; i < 4; ++i)
        draws +=
            (i == 0 ? "" : ",") +
            nlohmann::json{{"seed", 1}, {"number", i}, {"prompt", std::string(4096, 'b')}}.dump();
    EXPECT_EQ(Client(whole)
                  .ask("POST", std::string(draws_path), R"({"draws":[)" + draws + "]}",
                       "Content-Type: application/json\r\n")
                  .status,
              200);
}

TEST_F(Prompts, the_truncated_part_is_reported) {
    Client client(start_prompts());
    EXPECT_EQ(client.images(R"({"prompt":"read | not read"})")
                  .json()
                  .at("data")[0]
                  .at("atelier")
                  .at("prompt_truncated"),
              "not read");
    EXPECT_FALSE(
        client.images(even).json().at("data")[0].at("atelier").contains("prompt_truncated"));
}

TEST_F(Prompts, draws_of_a_router_need_prompts_of_one_student) {
    Client client(add({0, 1}).port);
    const auto ask = [&](const std::string& draws) {
        return client.ask("POST", std::string(draws_path), R"({"draws":[)" + draws + "]}",
                          "Content-Type: application/json\r\n");
    };
    EXPECT_EQ(
        ask(R"({"seed":1,"number":0,"prompt":"ab"},{"seed":1,"number":1,"prompt":"abcd"})").status,
        200);
    EXPECT_EQ(ask(R"({"seed":1,"number":0,"prompt":"ab"},{"seed":1,"number":1,"prompt":"abc"})")
                  .json()
                  .at("error")
                  .at("param"),
              "draws[1].prompt");
    EXPECT_EQ(ask(R"({"seed":1,"number":0,"class":1})").json().at("error").at("param"),
              "draws[0].prompt");
    of_prompts = false;
    Client classes(add({0, 1}).port);
    EXPECT_EQ(classes
                  .ask("POST", std::string(draws_path),
                       R"({"draws":[{"seed":1,"number":0,"prompt":"ab"}]})",
                       "Content-Type: application/json\r\n")
                  .json()
                  .at("error")
                  .at("param"),
              "draws[0].prompt");
}

}  // namespace
}  // namespace atelier::server
