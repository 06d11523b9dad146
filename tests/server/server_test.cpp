#include "server/server_fixtures.h"

#include "atelier/core/image_codecs.h"

#include <fstream>

namespace atelier::server {
namespace {

std::vector<std::uint8_t> from_base64(const std::string& text) {
    std::vector<std::uint8_t> bytes;
    std::uint32_t bits = 0;
    int count = 0;
    for (const char c : text) {
        const std::size_t value =
            std::string_view("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
                .find(c);
        if (value == std::string_view::npos) break;
        bits = bits << 6 | static_cast<std::uint32_t>(value);
        if ((count += 6) >= 8) bytes.push_back(static_cast<std::uint8_t>(bits >> (count -= 8)));
    }
    return bytes;
}

TEST_F(LiveServer, images_come_in_order_with_their_student) {
    Client client(start());
    const Answer answer = client.images(R"({"model":"fake","prompt":"green","n":3,"seed":5})");
    ASSERT_EQ(answer.status, 200) << answer.body;
    EXPECT_EQ(answer.header("X-Atelier-Student"), "1");
    EXPECT_EQ(answer.header("X-Atelier-Student-Parameters"), "20");
    EXPECT_FALSE(answer.header("X-Atelier-Milliseconds").empty());
    const auto data = answer.json().at("data");
    ASSERT_EQ(data.size(), 3u);
    for (std::uint8_t i = 0; i < 3; ++i) {
        const auto png = from_base64(data[i].at("b64_json"));
        EXPECT_EQ(core::decode_image(std::as_bytes(std::span(png)), "png").pixels,
                  (std::vector<std::uint8_t>{1, 1, i, 5}));
        EXPECT_EQ(core::decode_png_text(png, "png").at("seed"), "5");
        EXPECT_EQ(data[i].at("atelier").at("class_name"), "green");
    }
}

TEST_F(LiveServer, image_formats_match_the_request) {
    Client client(start());
    const std::pair<const char*, const char*> beginnings[] = {
        {"png", "\x89PNG"}, {"jpeg", "\xff\xd8\xff"}, {"webp", "RIFF"}};
    for (const auto& [format, beginning] : beginnings) {
        const Answer answer =
            client.images(R"({"class":0,"output_compression":80,"output_format":")" +
                          std::string(format) + "\"}");
        ASSERT_EQ(answer.status, 200) << answer.body;
        const auto bytes = from_base64(answer.json().at("data")[0].at("b64_json"));
        EXPECT_TRUE(std::string(bytes.begin(), bytes.end()).starts_with(beginning)) << format;
    }
}

TEST_F(LiveServer, unknown_paths_and_methods_are_errors_in_openais_format) {
    Client client(start());
    const std::tuple<const char*, const char*, int> cases[] = {
        {"GET", "/../../etc/passwd", 404},
        {"GET", "/%2e%2e/etc/passwd", 404},
        {"GET", "//", 404},
        {"GET", "/v1/models/", 404},
        {"GET", "/v1/modelsfake", 404},
        {"POST", "/v1/models/fake", 405},
        {"GET", "/v1/models/nope", 404},
        {"GET", "/v1/models/fake/", 404},
        {"GET", "/v1/models/fake%00", 404},
        {"GET", "/v1/models/%", 404},
        {"OPTIONS", "/nowhere", 404},
        {"GET", "/web/index.html", 404},
        {"DELETE", "/v1/models", 405},
        {"GET", "/v1/images/generations", 405},
        {"POST", "/health", 405},
        {"P", "/v1/images/generations", 405}};
    for (const auto& [method, target, status] : cases) {
        const Answer answer = client.ask(method, target);
        EXPECT_EQ(answer.status, status) << method << " " << target;
        EXPECT_TRUE(answer.json().at("error").at("message").is_string());
    }
    EXPECT_EQ(client.ask("GET", "/v1/images/generations").header("Allow"), "POST, OPTIONS");
    EXPECT_EQ(client.images(R"({"model":"nope","prompt":"red"})").json().at("error").at("code"),
              "model_not_found");
    EXPECT_EQ(client.ask("POST", "/v1/images/generations", red).status, 415)
        << "a page of another origin could send it";
    EXPECT_EQ(client.ask("HEAD", "/health").status, 200);
    EXPECT_EQ(client.images(red).status, 200) << "the connection stays open";
}

TEST_F(LiveServer, the_requested_model_is_used) {
    options.port = 0;
    FakeGenerator::Behaviour others;
    ModelSource other{.id = "other",
                      .open = [&] { return std::make_shared<FakeGenerator>(others); },
                      .stamp = [] { return ""; }};
    server = std::make_unique<Server>(options, std::vector<ModelSource>{source(), other});
    Client client(server->port());
    EXPECT_EQ(client.images(R"({"model":"other","class":0})").header("X-Atelier-Model"), "other");
    EXPECT_EQ(others.drawn(), 1u);
    EXPECT_EQ(behaviour.drawn(), 0u);
    EXPECT_EQ(client.images(R"({"class":0})").header("X-Atelier-Model"), "fake")
        << "the first one is the default";
    EXPECT_EQ(client.ask("GET", "/v1/models").json().at("data").size(), 2u);
    EXPECT_THROW(Server(options, {source(), source()}), core::UsageError);
    server.reset();
}

TEST_F(LiveServer, one_model_is_described_as_in_the_list) {
    options.port = 0;
    server = std::make_unique<Server>(options,
                                      std::vector<ModelSource>{source(), source("owner/a model")});
    Client client(server->port());
    const auto list = client.ask("GET", "/v1/models").json();
    EXPECT_EQ(client.ask("GET", "/v1/models/fake").json(), list.at("data")[0]);
    EXPECT_EQ(client.ask("GET", "/v1/models/f%61ke?x=1").json(), list.at("data")[0]);
    EXPECT_EQ(client.ask("GET", "/v1/models/owner/a%20model").json(), list.at("data")[1]);
    EXPECT_EQ(client.ask("GET", "/v1/models/owner%2Fa%20model").json(), list.at("data")[1]);
    EXPECT_EQ(list.at("limits"), nlohmann::json::parse(R"({"n":64,"prompt_bytes":4096})"));
    const auto error = client.ask("GET", "/v1/models/nope").json().at("error");
    EXPECT_EQ(error.at("code"), "model_not_found");
    EXPECT_EQ(metric(R"(atelier_requests_total{route="/v1/models/{id}",code="404"})"), "1");
}

TEST_F(LiveServer, keys_are_required_except_for_health_and_the_page) {
    const core::TestFolder folder;
    std::ofstream(folder / "keys") << "# ours\n\nsecret-1\r\n  secret-2  \n";
    options.service.keys = ApiKeys(folder / "keys");
    Client client(start());
    EXPECT_EQ(client.images(red).status, 401);
    EXPECT_EQ(client.images(red, "Authorization: Bearer secret\r\n").status, 401);
    EXPECT_EQ(client.images(red, "Authorization: Bearer # ours\r\n").status, 401);
    EXPECT_EQ(client.images(red, "Authorization: Bearer \r\n").status, 401);
    EXPECT_EQ(client.images(red, "Authorization: Bearer secret-1\r\n").status, 200);
    EXPECT_EQ(client.images(red, "X-Api-Key: secret-2\r\n").status, 200);
    for (const char* scheme : {"bearer", "BEARER", "Bearer  "})
        EXPECT_EQ(
            client.images(red, "Authorization: " + std::string(scheme) + " secret-1\r\n").status,
            200);
    EXPECT_EQ(client.images(red, "Authorization: Basic secret-1\r\n").status, 401);
    EXPECT_EQ(client.ask("GET", "/v1/models/fake").status, 401);
    EXPECT_EQ(client.ask("GET", "/metrics").status, 401);
    EXPECT_EQ(client.ask("GET", "/v1/models").status, 401);
    EXPECT_EQ(client.ask("GET", "/health").status, 200);
    EXPECT_EQ(client.ask("GET", "/").status, 200);
    std::ofstream(folder / "marked") << "\xef\xbb\xbfmy-key\n";
    EXPECT_TRUE(ApiKeys(folder / "marked").accepts("my-key"))
        << "a byte order mark is not part of a key";
    EXPECT_EQ(first_key(folder / "marked"), "my-key");
    std::ofstream(folder / "wide") << std::string("m\0y\0\n\0", 6);
    core::expect_contains(core::error_of([&] { ApiKeys(folder / "wide"); }),
                          ":1: holds a control character");
    std::ofstream(folder / "none") << "# nothing\n";
    core::expect_contains(core::error_of([&] { ApiKeys(folder / "none"); }), "holds no API key");
}

TEST_F(LiveServer, other_origins_are_allowed_only_when_listed) {
    options.service.cors_origins = {"https://friend.example"};
    Client client(start());
    EXPECT_EQ(client.images(red, "Origin: https://friend.example\r\n")
                  .header("Access-Control-Allow-Origin"),
              "https://friend.example");
    EXPECT_EQ(
        client.images(red, "Origin: https://foe.example\r\n").header("Access-Control-Allow-Origin"),
        "");
    const Answer preflight =
        client.ask("OPTIONS", "/v1/images/generations", "", "Origin: https://friend.example\r\n");
    EXPECT_EQ(preflight.status, 204);
    core::expect_contains(preflight.header("Access-Control-Allow-Headers"), "Authorization");
    EXPECT_EQ(client.ask("OPTIONS", "/v1/images/generations", "", "Origin: null\r\n")
                  .header("Access-Control-Allow-Methods"),
              "");
}

TEST_F(LiveServer, request_ids_are_echoed_if_safe) {
    Client client(start());
    EXPECT_EQ(
        client.ask("GET", "/health", "", "X-Request-Id: my-id_1.2\r\n").header("X-Request-Id"),
        "my-id_1.2");
    EXPECT_EQ(
        client.ask("GET", "/health", "", "X-Request-Id: bad\"id\r\n").header("X-Request-Id").size(),
        16u);
}

TEST_F(LiveServer, the_log_cannot_be_forged) {
    const core::TestFolder folder;
    core::log::also_write_to((folder / "log").string());
    const std::uint16_t port = start();
    Client(port).ask("GET", "/x%0d%0aforged\"\\\xff");
    Client(port).ask("GET", "/x\x01\x1b[31m");
    Client(port).images(R"({"class":0,"seed":666})");
    core::log::also_write_to("");
    std::ifstream file(folder / "log");
    std::string line, all;
    while (std::getline(file, line)) {
        all += line + "\n";
        for (const char c : line) EXPECT_TRUE(c >= ' ' && c < 0x7f) << line;
    }
    core::expect_contains(all, "fails");
}

TEST_F(LiveServer, an_error_in_one_request_does_not_affect_others) {
    options.batching.max_wait = 200ms;
    const std::uint16_t port = start();
    std::vector<Answer> answers(3);
    {
        std::vector<std::jthread> clients;
        for (std::size_t i = 0; i < 3; ++i) {
            clients.emplace_back([&, i] {
                answers[i] = Client(port).images(R"({"class":0,"seed":)" +
                                                 std::string(i == 1 ? "666" : "1") + "}");
            });
        }
    }
    EXPECT_EQ(answers[0].status, 200);
    EXPECT_EQ(answers[1].status, 500);
    EXPECT_EQ(answers[1].json().at("error").at("code"), "generation_failed");
    EXPECT_EQ(answers[2].status, 200);
}

TEST_F(LiveServer, pipelined_requests_are_answered_in_order) {
    Client client(start());
    std::string all;
    for (int i = 0; i < 20; ++i) {
        const std::string body = R"({"class":0,"seed":)" + std::to_string(i) + "}";
        all +=
            "POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
            "application/json\r\nContent-Length: " +
            std::to_string(body.size()) + "\r\n\r\n" + body;
    }
    ASSERT_TRUE(client.send(all));
    for (int i = 0; i < 20; ++i)
        EXPECT_EQ(client.receive().header("X-Atelier-Seed"), std::to_string(i));
}

TEST_F(LiveServer, short_keys_are_warned_about_with_their_line) {
    const core::TestFolder folder;
    std::ofstream(folder / "keys") << "# ours\n0123456789abcdef\nshort\nshorter\n";
    core::log::also_write_to((folder / "log").string());
    const ApiKeys keys(folder / "keys");
    core::log::also_write_to("");
    std::ifstream file(folder / "log");
    const std::string said{std::istreambuf_iterator<char>(file), {}};
    core::expect_contains(said, ":3: a key of 5 bytes can be guessed (2 of 3 here)");
    EXPECT_EQ(said.find(":2:"), std::string::npos);
    EXPECT_EQ(said.find("short"), std::string::npos) << "keys are never written";
}

TEST_F(LiveServer, counters_exist_before_their_first_event) {
    start();
    for (const char* reason :
         {"full", "late", "left", "failed", "draining", "unavailable", "connections"}) {
        EXPECT_EQ(metric(R"(atelier_rejected_total{reason=")" + std::string(reason) + "\"}"), "0")
            << reason;
    }
    for (const char* outcome : {"done", "failed"})
        EXPECT_EQ(metric(R"(atelier_reloads_total{model="fake",outcome=")" + std::string(outcome) +
                         "\"}"),
                  "0");
    for (const char* counter :
         {"routed_total", "images_total", "student_unloads_total", "request_seconds_count",
          "queue_seconds_count", "engine_seconds_count", "batch_size_count"}) {
        EXPECT_EQ(metric("atelier_" + std::string(counter) + R"({model="fake",student="1"})"), "0")
            << counter;
    }
    EXPECT_EQ(metric(R"(atelier_student_loads_total{model="fake",student="1"})"), "1");
    EXPECT_EQ(metric(R"(atelier_requests_total{route="/v1/images/generations",code="500"})"), "0");
}

TEST_F(LiveServer, metrics_count_events) {
    Client client(start());
    client.images(R"({"class":1,"n":3})");
    client.images("{");
    EXPECT_EQ(metric(R"(atelier_images_total{model="fake",student="1"})"), "3");
    EXPECT_EQ(metric(R"(atelier_routed_total{model="fake",student="1"})"), "1");
    EXPECT_EQ(metric(R"(atelier_requests_total{route="/v1/images/generations",code="400"})"), "1");
    EXPECT_EQ(metric(R"(atelier_request_seconds_count{model="fake",student="1"})"), "1");
    EXPECT_EQ(metric(R"(atelier_batch_size_bucket{model="fake",student="1",le="2"})"), "0");
    EXPECT_EQ(metric(R"(atelier_batch_size_bucket{model="fake",student="1",le="4"})"), "1");
    EXPECT_EQ(metric(R"(atelier_student_loaded{model="fake",student="0"})"), "1");
    EXPECT_EQ(metric("atelier_ready"), "1");
    EXPECT_GT(std::stoll(metric("process_resident_memory_bytes")), 1 << 20);
}

}  // namespace
}  // namespace atelier::server
