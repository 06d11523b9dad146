#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "end_to_end/program.h"

namespace atelier::end_to_end {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

const std::string k4 = "models/fashion-mnist/k4";

/// One response of a local server, including headers; empty if there is none.
std::string response_to(int port, const std::string& request, const char* host = "127.0.0.1") {
    const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    ::inet_pton(AF_INET, host, &address.sin_addr);
    std::string response;
    if (::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
        ::send(socket, request.data(), request.size(), MSG_NOSIGNAL) > 0) {
        char bytes[65536];
        for (ssize_t count = ::recv(socket, bytes, sizeof bytes, 0); count > 0;
             count = ::recv(socket, bytes, sizeof bytes, 0))
            response.append(bytes, static_cast<std::size_t>(count));
    }
    ::close(socket);
    return response;
}

std::string get(int port, const std::string& path, const char* host = "127.0.0.1") {
    return response_to(
        port, "GET " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", host);
}

std::string images(int port, const std::string& body) {
    return response_to(port,
                       "POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nConnection: "
                       "close\r\nContent-Type: application/json\r\nContent-Length: " +
                           std::to_string(body.size()) + "\r\n\r\n" + body);
}

json body_of(const std::string& response) {
    return json::parse(response.substr(response.find("\r\n\r\n") + 4));
}

/// A running, ready `atelier serve` on a free port.
class ServerProcess {
public:
    explicit ServerProcess(Arguments arguments, const char* host = "127.0.0.1")
        : host_(host), process_(with_port(std::move(arguments)), folder_) {
        expect_health(" 200 ");
    }

    int port() const { return port_; }
    /// Waits until the health response contains `part`.
    void expect_health(const std::string& part) const {
        std::string response;
        EXPECT_TRUE(soon([&] {
            response = get(port_, "/health/ready", host_);
            return response.find(part) != std::string::npos;
        })) << response;
    }
    void signal(int number) const { process_.signal(number); }
    Outcome wait() const { return process_.wait(); }

private:
    Arguments with_port(Arguments arguments) {
        const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof address;
        ::bind(socket, reinterpret_cast<sockaddr*>(&address), size);
        ::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size);
        ::close(socket);
        port_ = ntohs(address.sin_port);
        arguments.insert(arguments.begin(), "serve");
        arguments.insert(arguments.end(), {"--port", std::to_string(port_)});
        return arguments;
    }

    Folder folder_;
    const char* host_;
    int port_ = 0;
    Process process_;
};

std::string base64(const std::string& bytes) {
    std::string out;
    std::uint32_t bits = 0;
    int count = 0;
    for (const char c : bytes) {
        bits = bits << 8 | static_cast<unsigned char>(c);
        for (count += 8; count >= 6; count -= 6)
            out +=
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[bits >>
                                                                                       (count - 6) &
                                                                                   63];
    }
    if (count > 0)
        out +=
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[bits << (6 - count) &
                                                                               63];
    return out + std::string((4 - out.size() % 4) % 4, '=');
}

TEST(Serve, returns_the_same_file_as_sample_for_the_same_seed_and_class) {
    const Folder folder;
    const ServerProcess server({k4});
    for (const auto& [name, id] :
         std::map<std::string, std::string>{{"sneaker", "7"}, {"bag", "8"}}) {
        succeed({"sample", k4, "--seed", "11", "--class", id, "--out", folder / (name + ".png")});
        const json response =
            body_of(images(server.port(), R"({"seed":11,"prompt":")" + name + "\"}"));
        EXPECT_EQ(response.at("data")[0].at("b64_json"), base64(text_of(folder / (name + ".png"))))
            << name;
    }
    server.signal(SIGTERM);
    EXPECT_EQ(server.wait().code, 0);
}

TEST(Serve, prompts_give_the_same_images_as_sample_from_one_process_and_a_router) {
    const Folder folder;
    const std::string captions = "models/captions", prompt = "two small white sneakers on black";
    succeed({"sample", captions, "--prompt", prompt, "--seed", "11", "--out", folder / "one.png"});
    const ServerProcess whole({captions, "models/captions/teacher"}),
        first({captions, "--students", "0,1"}), second({captions, "--students", "2,3"});
    const auto url = [](const ServerProcess& one) {
        return "http://127.0.0.1:" + std::to_string(one.port());
    };
    const ServerProcess router({captions, "--route-to", url(first) + "," + url(second)});
    const std::string body = json{{"prompt", prompt}, {"seed", 11}}.dump();
    const json drawn = body_of(images(whole.port(), body)).at("data")[0];
    EXPECT_EQ(drawn.at("b64_json"), base64(text_of(folder / "one.png")));
    const json routed =
        json::parse(succeed({"route", captions, "--prompt", prompt, "--json"}).out)[0];
    EXPECT_EQ(drawn.at("atelier").at("student"), routed.at("student"));
    for (const std::string& words : {prompt, std::string("a big black bag on the left"),
                                     std::string("\u4e2d\u6587 \U0001f45c")}) {
        const std::string request = json{{"prompt", words}, {"seed", 12}, {"n", 3}}.dump();
        const json here = body_of(images(whole.port(), request)),
                   there = body_of(images(router.port(), request));
        EXPECT_EQ(here.at("data"), there.at("data")) << words;
    }
    expect_contains(
        images(whole.port(), json{{"model", "teacher"}, {"prompt", prompt}, {"seed", 1}}.dump()),
        "X-Atelier-Evaluations: 35");
    for (const ServerProcess* one : {&router, &first, &second, &whole}) one->signal(SIGTERM);
}

TEST(Serve, several_models_are_served_by_name_and_stopping_succeeds) {
    const ServerProcess server({"clothes=" + k4, "models/fashion-mnist/teacher"});
    const json models = body_of(get(server.port(), "/v1/models")).at("data");
    ASSERT_EQ(models.size(), 2u);
    EXPECT_EQ(models[0].at("id"), "clothes");
    EXPECT_EQ(models[1].at("id"), "teacher");
    expect_contains(images(server.port(), R"({"model":"teacher","prompt":"bag","seed":1})"),
                    "X-Atelier-Evaluations: 35");
    server.signal(SIGHUP);
    EXPECT_TRUE(soon([&] {
        const std::string metrics = get(server.port(), "/metrics");
        return metrics.find("atelier_reloads_total{model=\"clothes\",outcome=\"done\"} 1") !=
               std::string::npos;
    }));
    expect_contains(images(server.port(), R"({"prompt":"bag"})"), " 200 OK");
    server.signal(SIGINT);
    const Outcome outcome = server.wait();
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    expect_contains(outcome.err, "clothes: reloaded");
}

/// The images of the response, as base64.
json images_of(const std::string& response) {
    json encoded;
    for (const json& one : body_of(response).at("data")) encoded.push_back(one.at("b64_json"));
    return encoded;
}

TEST(Serve, two_processes_behind_a_router_return_the_images_of_one_process) {
    const Folder folder;
    fs::create_directory(folder / "k4");
    fs::copy_file(fs::path(ATELIER_SOURCE_DIR) / k4 / "ensemble.json", folder / "k4/ensemble.json");
    std::ofstream(folder / "keys") << "secret\n";
    const ServerProcess whole({k4}), first({k4, "--students", "0,1"}),
        second({k4, "--students", "3,2", "--api-keys", folder / "keys"});
    const auto url = [](const ServerProcess& one) {
        return "http://127.0.0.1:" + std::to_string(one.port());
    };
    const ServerProcess router({folder / "k4", "--route-to", url(first) + "," + url(second),
                                "--upstream-key-file", folder / "keys"});
    for (const char* body : {R"({"seed":11,"prompt":"sneaker","n":3})", R"({"seed":12,"class":0})",
                             R"({"seed":13,"student":1,"n":20})",
                             R"({"seed":14,"student":2,"output_format":"webp"})"}) {
        EXPECT_EQ(images_of(images(router.port(), body)), images_of(images(whole.port(), body)))
            << body;
    }
    expect_contains(images(first.port(), R"({"class":9})"), " 421 ");
    second.signal(SIGTERM);
    EXPECT_EQ(second.wait().code, 0);
    expect_contains(images(router.port(), R"({"class":9})"), "Retry-After: 1");
    expect_contains(images(router.port(), R"({"class":0})"), " 200 OK");
    router.expect_health("incomplete");
    for (const ServerProcess* one : {&router, &first, &whole}) {
        one->signal(SIGTERM);
        EXPECT_EQ(one->wait().code, 0);
    }
}

/// A copy of the shipped small ensemble under another name; its student 0 is a link.
void copy_with_link(const Folder& folder) {
    const fs::path small = fs::path(ATELIER_SOURCE_DIR) / "models/fashion-mnist/k4-small";
    fs::copy(small, folder / "m", fs::copy_options::recursive);
    fs::rename(folder / "m/students/0", folder / "first");
    fs::create_directory_symlink(folder / "first", folder / "m/students/0");
    fs::copy(folder / "first", folder / "second", fs::copy_options::recursive);
    fs::remove(folder / "second/model.safetensors");
    fs::copy_file(small / "students/3/model.safetensors",
                  folder / "second/model.safetensors");  // same size as the first's
}

TEST(Serve, models_that_change_without_a_change_of_size_or_time_are_reloaded) {
    const Folder folder;
    copy_with_link(folder);
    const std::string weights = folder / "first/model.safetensors",
                      other = folder / "second/model.safetensors";
    fs::last_write_time(other, fs::last_write_time(weights));
    fs::last_write_time(folder / "second/config.json",
                        fs::last_write_time(folder / "first/config.json"));
    ASSERT_EQ(fs::file_size(weights), fs::file_size(other));
    const ServerProcess server({folder / "m"});
    const auto drawn = [&] {
        return body_of(images(server.port(), R"({"student":0,"seed":1})"))
            .at("data")[0]
            .at("b64_json");
    };
    const auto soon_other = [&](const json& than) { return soon([&] { return drawn() != than; }); };
    const json first = drawn();
    fs::remove(folder / "m/students/0");
    fs::create_directory_symlink(folder / "second", folder / "m/students/0");
    EXPECT_TRUE(soon_other(first)) << "a link with a new target";
    fs::copy_file(weights, folder / "copy");
    fs::last_write_time(folder / "copy", fs::last_write_time(other));
    const json second = drawn();
    fs::rename(folder / "copy", other);
    EXPECT_TRUE(soon_other(second)) << "a replacement of equal size and time";
    EXPECT_EQ(drawn(), first);
}

TEST(Serve, a_low_limit_of_open_files_is_logged_and_rejects_no_client) {
    rlimit before{};
    ::getrlimit(RLIMIT_NOFILE, &before);
    const rlimit few{.rlim_cur = 256, .rlim_max = before.rlim_max};
    std::optional<ServerProcess> server;
    ::setrlimit(RLIMIT_NOFILE, &few);
    server.emplace(Arguments{"models/fashion-mnist/k4-small"});
    ::setrlimit(RLIMIT_NOFILE, &before);
    std::vector<int> idle;
    for (int i = 0; i < 600; ++i) {  // more than the soft limit, which the server raises
        idle.push_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(static_cast<std::uint16_t>(server->port()));
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        ::connect(idle.back(), reinterpret_cast<sockaddr*>(&address), sizeof address);
    }
    const auto start = std::chrono::steady_clock::now();
    expect_contains(get(server->port(), "/health"), " 200 OK");
    EXPECT_LT(std::chrono::steady_clock::now() - start, 10s)
        << "far less than the timeout of idle clients";
    const std::string open = get(server->port(), "/metrics");
    EXPECT_GT(std::stoi(open.substr(open.find("\natelier_connections ") + 21)), 500);
    for (const int socket : idle) ::close(socket);
    server->signal(SIGTERM);
    EXPECT_EQ(server->wait().err.find("--max-connections"), std::string::npos);

    const Folder folder;
    const std::string err = folder / "err",
                      serve = "ulimit -n 200; timeout 60 " ATELIER_PROGRAM
                              " serve models/fashion-mnist/k4-small --port 0 2>" +
                              err + " & for i in $(seq 300); do grep -q ready " + err +
                              " && break; sleep 0.1; done; kill -INT $(pgrep -P $!); wait $!";
    EXPECT_EQ(std::system(("cd " ATELIER_SOURCE_DIR " && bash -c '" + serve + "'").c_str()), 0);
    expect_contains(text_of(err), "--max-connections 1024: ");
}

TEST(Serve, addresses_and_names_are_accepted_in_common_forms) {
    const Folder folder;
    for (const char* run : {"mine", "yours"}) fs::create_directory(folder / run);
    fs::copy(fs::path(ATELIER_SOURCE_DIR) / "models/fashion-mnist/k4-small",
             folder / "mine/ensemble", fs::copy_options::recursive);
    fs::copy(folder / "mine/ensemble", folder / "yours/ensemble", fs::copy_options::recursive);
    fs::copy(folder / "mine/ensemble/students/0", folder / "mine/teacher",
             fs::copy_options::recursive);
    fs::copy(folder / "mine/ensemble/students/1", folder / "yours/teacher",
             fs::copy_options::recursive);
    const ServerProcess server({folder / "mine/ensemble", folder / "yours/ensemble",
                                folder / "mine/teacher", folder / "yours/teacher", "owner/k4=" + k4,
                                "--host", "127.0.0.2", "--allowed-hosts", "pictures.example"},
                               "127.0.0.2");
    std::vector<std::string> names;
    const json listed = body_of(get(server.port(), "/v1/models", "127.0.0.2"));
    for (const json& one : listed.at("data")) names.push_back(one.at("id"));
    EXPECT_EQ(names, (std::vector<std::string>{"mine", "yours", "mine-teacher", "yours-teacher",
                                               "owner/k4"}));
    expect_contains(get(server.port(), "/v1/models/owner%2Fk4", "127.0.0.2"),
                    "\"id\":\"owner/k4\"");
    server.signal(SIGTERM);
    const Outcome outcome = server.wait();
    expect_contains(outcome.err, "serving at http://127.0.0.2:");
    EXPECT_EQ(outcome.err.find("anyone who reaches"), std::string::npos)
        << "127.0.0.2 is this machine's own, too";
}

TEST(Serve, unservable_models_are_reported_immediately) {
    const auto says = [](const Arguments& arguments, int code, const std::string& words) {
        const Outcome outcome = run(arguments);
        EXPECT_EQ(outcome.code, code) << outcome.err;
        expect_contains(outcome.err, words);
    };
    says({"serve", "tests/golden/stable_diffusion_1"}, 2, "diffusers directory");
    says({"serve", "nowhere"}, 1, "there is no such model");
    says({"serve", k4, "--host", "nonsense"}, 2, "--host");
    says({"serve", k4, "--allowed-hosts", "a/b"}, 2, "--allowed-hosts: \"a/b\" is not a host name");
    says({"serve", k4, "--api-keys", "nowhere"}, 1, "nowhere");
    says({"serve", k4, k4}, 2, "two models would be called \"k4\"");
    says({"serve", k4, "--students", "0,4"}, 2, "has no student 4; it has 0 to 3");
    says({"serve", k4, "--students", "none"}, 2, "--students");
    says({"serve", k4, "--route-to", "127.0.0.1:8080"}, 2, "write http://HOST:PORT");
    says({"serve", k4, "--route-to", "http://127.0.0.1:1", "--students", "0"}, 2, "--students");
    says({"serve", k4, "--route-to", "http://127.0.0.1:1", "--precision", "bf16"}, 2,
         "--precision");
    says({"serve", k4, "--upstream-key-file", "keys"}, 2, "--route-to");
    says({"serve", "models/fashion-mnist/teacher", "--route-to", "http://127.0.0.1:1"}, 1,
         "ensemble.json");
    says({"serve", "models/a b"}, 2, "write NAME=models/a b");
}

}  // namespace
}  // namespace atelier::end_to_end
