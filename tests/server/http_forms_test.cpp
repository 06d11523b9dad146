#include <sys/resource.h>

#include <fstream>

#include "atelier/server/addresses.h"
#include "atelier/server/request_head.h"
#include "server/server_fixtures.h"

/// Conformance to HTTP (RFC 9110, RFC 9112): what is accepted and what is rejected.
namespace atelier::server {
namespace {

const std::string images_line = "POST /v1/images/generations HTTP/1.1\r\n",
                  local = "Host: localhost\r\n", json_type = "Content-Type: application/json\r\n";

std::string with_length(const std::string& headers, const std::string& body = red) {
    return headers + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

/// The statuses of all responses to `bytes`, sent on a new connection that stays open for reading.
std::vector<int> answers_to(std::uint16_t port, const std::string& bytes, bool half_closed = true) {
    Client client(port);
    client.send(bytes);
    if (half_closed) client.half_close();
    return client.statuses();
}

using Statuses = std::vector<int>;

/// Each case carries bytes that another parser could take for a second request.
TEST_F(LiveServer, ambiguous_request_framing_is_rejected) {
    const std::uint16_t port = start();
    const std::string smuggled = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
                      chunk = "2\r\n{}\r\n0\r\n\r\n";
    const std::pair<std::string, int> cases[] = {
        {"Transfer-Encoding: xchunked\r\n", 501},
        {"Transfer-Encoding: identity\r\n", 501},
        {"Transfer-Encoding: gzip\r\n", 501},
        {"Transfer-Encoding: gzip, chunked\r\n", 501},
        {"Transfer-Encoding: chunked, identity\r\n", 501},
        {"Transfer-Encoding: chunked;q=1\r\n", 501},
        {"Transfer-Encoding: \"chunked\"\r\n", 501},
        {"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", 400},
        {"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", 400},
        {"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400},
        {"Transfer-Encoding:\r\n", 400},
        {"Transfer-Encoding: ,\r\n", 501},
        {"Transfer-Encoding: \x0b"
         "chunked\r\n",
         400},
        {"Transfer-Encoding : chunked\r\n", 400},
        {"Transfer-Encoding\t: chunked\r\n", 400},
        {" Transfer-Encoding: chunked\r\n", 400},
        {"X: a\r\n Transfer-Encoding: chunked\r\n", 400},
        {"X: a\r\n\tfolded\r\n", 400},
        {"X: a\nTransfer-Encoding: chunked\r\n", 400},
        {"X: a\rTransfer-Encoding: chunked\r\n", 400},
        {"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", 400},
        {"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", 400},
        {"Content-Length: 2\r\nContent-Length: 7\r\n", 400},
        {"Content-Length: 2\r\nContent-Length: 2\r\n", 400},
        {"Content-Length: 2, 2\r\n", 400},
        {"Content-Length: +2\r\n", 400},
        {"Content-Length: -2\r\n", 400},
        {"Content-Length: 0x2\r\n", 400},
        {"Content-Length: 2 2\r\n", 400},
        {"Content-Length:\r\n", 400},
        {"Content-Length : 2\r\n", 400},
        {"Content-Length: 99999999999999999999999999999999\r\n", 400},
        {"X: a\x01\r\n", 400},
        {"X: " + std::string(1, '\0') + "\r\n", 400},
        {": empty\r\n", 400},
        {"no colon\r\n", 400},
        {"a b: c\r\n", 400},
        {"(x): c\r\n", 400},
    };
    for (const auto& [headers, status] : cases) {
        const std::string before = images_line + local + json_type + headers + "\r\n";
        EXPECT_EQ(answers_to(port, before + chunk + smuggled), Statuses{status}) << headers;
        Client open(port);
        open.send(before + smuggled);
        EXPECT_EQ(open.receive().status, status) << headers;
        EXPECT_TRUE(open.ended())
            << headers
            << "the connection is closed, since the start of the next request is unknown";
    }
    EXPECT_EQ(answers_to(port, "POST /v1/images/generations HTTP/1.0\r\n" + local + json_type +
                                   "Transfer-Encoding: chunked\r\n\r\n" + chunk),
              Statuses{400});
    const std::string whole = "19\r\n" + red + "\r\n0\r\n\r\n";
    ASSERT_EQ(red.size(), 0x19u);
    EXPECT_EQ(answers_to(port, images_line + local + json_type +
                                   "Transfer-Encoding: chunked\r\n\r\n" + whole + smuggled),
              (Statuses{200, 200}));
    const auto chunked = [&](const std::string& body) {
        return answers_to(
            port, images_line + local + json_type + "Transfer-Encoding: chunked\r\n\r\n" + body);
    };
    EXPECT_EQ(chunked("19;a=b;c=\"d e\"\r\n" + red + "\r\n0\r\nX-Trailer: y\r\n\r\n"),
              Statuses{200});
    for (const std::string& body :
         {"19\n" + red + "\r\n0\r\n\r\n", "19;a=\"\n\"\r\n" + red + "\r\n0\r\n\r\n",
          "19;\n\r\n" + red + "\r\n0\r\n\r\n", "0x19\r\n" + red + "\r\n0\r\n\r\n",
          "-1\r\n" + red + "\r\n0\r\n\r\n", "+19\r\n" + red + "\r\n0\r\n\r\n",
          "19\r\n" + red + "\n0\r\n\r\n", "19\r\n" + red + "0\r\n\r\n",
          "10000000000000019\r\n" + red + "\r\n0\r\n\r\n", "\r\n19\r\n" + red + "\r\n0\r\n\r\n",
          " 19\r\n" + red + "\r\n0\r\n\r\n"}) {
        const Statuses statuses = chunked(body + smuggled);
        EXPECT_TRUE(statuses == Statuses{400} || statuses == Statuses{413}) << body;
    }
    EXPECT_EQ(answers_to(port, images_line + local + json_type +
                                   "tRANSFER-eNCODING:\t Chunked \r\n\r\n" + whole),
              Statuses{200});
}

TEST_F(LiveServer, equivalent_forms_are_answered_alike) {
    const core::TestFolder folder;
    std::ofstream(folder / "keys") << "secret-secret-secret\n";
    const std::uint16_t port = start();
    const auto images = [&](const std::string& headers) {
        return answers_to(port, with_length(images_line + local + headers));
    };
    const Statuses ok{200};
    for (const char* type :
         {"application/json", "Application/JSON", "application/json; charset=utf-8",
          "application/json;charset=UTF-8", "application/json \t;x=y", "APPLICATION/JSON;"}) {
        EXPECT_EQ(images("Content-Type: " + std::string(type) + "\r\n"), ok) << type;
    }
    for (const char* type :
         {"application/jsonp", "application/json-seq", "text/json", "application/ json",
          "application/json, text/plain", "", ";application/json", "multipart/form-data"}) {
        EXPECT_EQ(images("Content-Type: " + std::string(type) + "\r\n"), Statuses{415}) << type;
    }
    EXPECT_EQ(answers_to(port, "\r\n\r\nGET /health HTTP/1.1\r\n" + local +
                                   "\r\n\r\n\r\nGET /health HTTP/1.1\r\n" + local + "\r\n"),
              (Statuses{200, 200}));
    EXPECT_EQ(answers_to(port,
                         "\n"
                         "GET /health HTTP/1.1\r\n" +
                             local + "\r\n"),
              Statuses{400});
    for (const char* target : {"http://localhost/health", "HTTP://LocalHost:80/health",
                               "https://127.0.0.1/health?x", "http://[::1]:5/health"}) {
        EXPECT_EQ(answers_to(port, "GET " + std::string(target) + " HTTP/1.1\r\n" + local + "\r\n"),
                  ok)
            << target;
    }
    EXPECT_EQ(answers_to(port, "GET http://localhost HTTP/1.1\r\n" + local + "\r\n"), ok);
    EXPECT_EQ(answers_to(port, "OPTIONS * HTTP/1.1\r\n" + local + "\r\n"), Statuses{204});
    EXPECT_EQ(answers_to(port, "GET * HTTP/1.1\r\n" + local + "\r\n"), Statuses{405});
    EXPECT_EQ(answers_to(port, "GET /health HTTP/1.0\r\n\r\n"), ok) << "HTTP/1.0 needs no Host";
    EXPECT_EQ(answers_to(port, with_length("POST /v1/images/generations HTTP/1.0\r\n" + json_type +
                                           "Expect: 100-continue\r\n")),
              ok)
        << "and has no 100 Continue";
    for (const char* line :
         {"GET  /health HTTP/1.1", "GET /health  HTTP/1.1", "GET\t/health HTTP/1.1",
          "GET /health HTTP/1.1 ", "GET /health", "GET /health HTTP/2.0", "GET /health http/1.1",
          "GET /health HTTP/1.1x", "GET health HTTP/1.1", "GET ftp://localhost/ HTTP/1.1",
          "GET http:///health HTTP/1.1", "GET http://me@localhost/ HTTP/1.1", " GET / HTTP/1.1",
          "G@T / HTTP/1.1", "GET /\x7f HTTP/1.1", "PRI * HTTP/2.0"}) {
        EXPECT_EQ(answers_to(port, std::string(line) + "\r\n" + local + "\r\n"), Statuses{400})
            << line;
    }
    EXPECT_EQ(answers_to(port, std::string("\x16\x03\x01\x02\x00\x01\x00\x01", 8), false),
              Statuses{400})
        << "TLS";
    Client page(port);
    const std::string tag = page.ask("GET", "/app.js").header("ETag");
    for (const std::string& names : {tag, "W/" + tag, "\"x\", " + tag, std::string("*")}) {
        Client again(port);
        again.send("GET /app.js HTTP/1.1\r\n" + local + "If-None-Match: " + names + "\r\n\r\n");
        EXPECT_EQ(again.receive(false).status, 304) << names;
    }
}

TEST_F(LiveServer, trailers_of_a_chunked_body_are_not_headers) {
    const core::TestFolder folder;
    std::ofstream(folder / "keys") << "secret-secret-secret\n";
    options.service.keys = ApiKeys(folder / "keys");
    const std::uint16_t port = start();
    const std::string body = "19\r\n" + red + "\r\n0\r\n";
    EXPECT_EQ(
        answers_to(port, images_line + local + json_type + "Transfer-Encoding: chunked\r\n\r\n" +
                             body + "Authorization: Bearer secret-secret-secret\r\n\r\n"),
        Statuses{401});
}

TEST_F(LiveServer, exactly_one_host_header_is_required) {
    const std::uint16_t port = start();
    const auto with = [&](const std::string& headers) {
        return answers_to(port, "GET /health HTTP/1.1\r\n" + headers + "\r\n");
    };
    EXPECT_EQ(with(""), Statuses{400});
    EXPECT_EQ(with(local + local), Statuses{400});
    EXPECT_EQ(with(local + "Host: evil.example\r\n"), Statuses{400});
    for (const char* wrong :
         {"a b", "localhost/", "me@localhost", "localhost:http", "localhost:80:80", "[::1",
          "[localhost]", "[::1]x", "::1", "localhost:999999"}) {
        EXPECT_EQ(with("Host: " + std::string(wrong) + "\r\n"), Statuses{400}) << wrong;
    }
}

/// DNS rebinding: a page whose name resolves to 127.0.0.1 is of this server's origin for the
/// browser, but its Host header has its own name.
TEST_F(LiveServer, a_loopback_server_accepts_only_its_own_host_names) {
    options.service.allowed_hosts = {};
    const std::uint16_t port = start();
    const auto asks = [&](const std::string& host, std::uint16_t at) {
        return answers_to(at, "GET /v1/models HTTP/1.1\r\nHost: " + host + "\r\n\r\n");
    };
    for (const char* own : {"localhost", "LOCALHOST:8080", "localhost.", "atelier.localhost:1",
                            "127.0.0.1", "127.0.0.2:8080", "[::1]", "[::1]:8080",
                            "[::ffff:127.0.0.1]", "192.168.1.5:80", "x", "atelier:8080", ""}) {
        EXPECT_EQ(asks(own, port), Statuses{200}) << own;
    }
    for (const char* foreign :
         {"evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example",
          "evil.example.", "xn--evil-.example", "127.1", "a.b"}) {
        EXPECT_EQ(asks(foreign, port), Statuses{403}) << foreign;
    }
    EXPECT_EQ(answers_to(port, with_length(images_line + "Host: evil.example\r\n" + json_type)),
              Statuses{403});
    EXPECT_EQ(answers_to(port, "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"), Statuses{403});
    EXPECT_EQ(answers_to(port, "GET http://evil.example/health HTTP/1.1\r\n" + local + "\r\n"),
              Statuses{403});
    EXPECT_EQ(
        answers_to(port, "GET http://localhost/health HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
        Statuses{200})
        << "an absolute target's host takes precedence";
    Client client(port);
    client.send("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    const auto error = client.receive().json().at("error");
    EXPECT_EQ(error.at("code"), "host_not_allowed");
    core::expect_contains(error.at("message"), "--allowed-hosts evil.example");
    EXPECT_EQ(client.ask("GET", "/health").status, 200) << "the connection stays open";

    options.service.allowed_hosts = {"pictures.example"};
    const std::uint16_t named = start();
    EXPECT_EQ(asks("Pictures.Example:443", named), Statuses{200});
    EXPECT_EQ(asks("evil.example", named), Statuses{403});
    options.service.allowed_hosts = {"*"};
    EXPECT_EQ(asks("evil.example", start()), Statuses{200});
    options.service.allowed_hosts = {};
    options.host = "0.0.0.0";
    EXPECT_EQ(asks("evil.example", start()), Statuses{200})
        << "a server that listens on all addresses accepts any name";
    options.service.allowed_hosts = {"pictures.example"};
    EXPECT_EQ(asks("evil.example", start()), Statuses{403}) << "unless the names are restricted";
}

TEST(Addresses, loopback_has_many_names) {
    for (const char* own :
         {"localhost", "LocalHost", "localhost.", "a.localhost", "127.0.0.1", "127.255.0.9", "::1",
          "[::1]", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1", "[::ffff:127.0.0.5]"}) {
        EXPECT_TRUE(is_loopback(own)) << own;
    }
    for (const char* other :
         {"", "0.0.0.0", "::", "[::]", "128.0.0.1", "10.0.0.1", "::ffff:10.0.0.1", "::2", "fe80::1",
          "localhost.example", "xlocalhost", "127.0.0.1.example"}) {
        EXPECT_FALSE(is_loopback(other)) << other;
    }
}

TEST_F(LiveServer, ipv6_addresses_are_listened_at_with_and_without_brackets) {
    const int socket = ::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in6 any{};
    any.sin6_family = AF_INET6;
    any.sin6_addr = in6addr_loopback;
    const bool here =
        socket >= 0 && ::bind(socket, reinterpret_cast<sockaddr*>(&any), sizeof any) == 0;
    ::close(socket);
    if (!here) GTEST_SKIP() << "this machine has no IPv6";
    for (const char* host : {"::1", "[::1]"}) {
        options.host = host;
        const std::uint16_t port = start();
        const int client = ::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
        any.sin6_port = htons(port);
        ASSERT_EQ(::connect(client, reinterpret_cast<sockaddr*>(&any), sizeof any), 0);
        const std::string request = "GET /health HTTP/1.1\r\nHost: [::1]:" + std::to_string(port) +
                                    "\r\nConnection: close\r\n\r\n";
        ASSERT_EQ(::send(client, request.data(), request.size(), 0),
                  static_cast<ssize_t>(request.size()));
        char bytes[64]{};
        EXPECT_GT(::recv(client, bytes, sizeof bytes, 0), 12);
        EXPECT_EQ(std::string(bytes, 12), "HTTP/1.1 200");
        ::close(client);
    }
}

TEST_F(LiveServer, a_half_closed_client_still_gets_its_response) {
    const std::uint16_t port = start();
    const std::string request = with_length(images_line + local + json_type);
    EXPECT_EQ(answers_to(port, request), Statuses{200});
    EXPECT_EQ(answers_to(port, request + request), (Statuses{200, 200}));
    behaviour.hold(true);
    std::vector<int> statuses;
    std::jthread waiting([&] { statuses = answers_to(port, request); });
    ASSERT_TRUE(soon([&] { return behaviour.drawn() == 4; }));
    std::this_thread::sleep_for(2500ms);  // longer than detecting a disconnected client takes
    behaviour.hold(false);
    waiting.join();
    ASSERT_FALSE(statuses.empty());
    EXPECT_EQ(statuses.back(), 200);
    statuses.pop_back();
    EXPECT_EQ(statuses, Statuses(statuses.size(), 100))
        << "interim responses, which HTTP/1.1 allows, test whether the client still listens";
}

TEST_F(LiveServer, many_idle_clients_and_few_file_descriptors_block_nobody) {
    options.max_connections = 100'000;
    options.client_timeout = 60s;
    rlimit before{};
    ::getrlimit(RLIMIT_NOFILE, &before);
    const std::uint16_t port = start();
    // Both ends of a connection are file descriptors of this process, so the server runs out of
    // them as its clients do.
    std::vector<std::unique_ptr<Client>> idle;
    for (int i = 0; i < 40; ++i) idle.push_back(std::make_unique<Client>(port));
    ASSERT_TRUE(soon([&] { return metric("atelier_connections") == "41"; }));
    Client late;
    const rlimit few{.rlim_cur = 40,
                     .rlim_max = before.rlim_max};  // fewer than are open: none can be accepted
    ::setrlimit(RLIMIT_NOFILE, &few);
    late.connect(port);
    EXPECT_TRUE(idle[0]->ended()) << "the longest idle one is evicted";
    ::setrlimit(RLIMIT_NOFILE, &before);
    EXPECT_EQ(late.ask("GET", "/health").status, 200);
}

}  // namespace
}  // namespace atelier::server
