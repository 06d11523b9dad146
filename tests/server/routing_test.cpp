#include "server/routing_fixtures.h"

#include "atelier/server/addresses.h"
#include "atelier/server/http_client.h"
#include "atelier/server/worker_protocol.h"

#include <algorithm>
#include <fstream>

namespace atelier::server {
namespace {

/// The response body without its timestamp.
nlohmann::json pictures_of(const Answer& answer) {
    auto body = answer.json();
    if (body.is_object()) body.erase("created");
    return body;
}

TEST_F(Routing, a_router_answers_as_one_server_with_all_students_does) {
    const std::uint16_t whole = add({0, 1}).port, first = add({0}).port, second = add({1}).port;
    Client one(whole), routed(route_to({first, second}));
    for (const char* body :
         {R"({"prompt":"red","seed":5})", R"({"class":3,"n":20,"seed":7})",
          R"({"student":1,"n":5,"seed":8,"output_format":"webp"})",
          R"({"class":0,"seed":9,"output_format":"jpeg","output_compression":30})",
          R"({"class":9})", R"({"student":2})", "{"}) {
        const Answer expected = one.images(body), answer = routed.images(body);
        EXPECT_EQ(answer.status, expected.status) << body;
        EXPECT_EQ(pictures_of(answer), pictures_of(expected)) << body;
        for (const char* header : {"X-Atelier-Student", "X-Atelier-Student-Parameters",
                                   "X-Atelier-Seed", "X-Atelier-Evaluations"}) {
            EXPECT_EQ(answer.header(header), expected.header(header)) << body;
        }
    }
    EXPECT_EQ(worker_servers[1].behaviour.seeds.size() + worker_servers[2].behaviour.seeds.size(),
              worker_servers[0].behaviour.seeds.size());
    EXPECT_EQ(metric("atelier_student_bytes"), "0") << "nothing is in memory here";
}

TEST_F(Routing, a_class_of_a_student_elsewhere_is_misdirected_and_the_owner_named) {
    Client client(add({1}).port);
    const Answer refused = client.images(red);
    EXPECT_EQ(refused.status, 421);
    const auto error = refused.json().at("error");
    EXPECT_EQ(error.at("code"), "misdirected_request");
    EXPECT_EQ(error.at("param"), "class");
    EXPECT_EQ(error.at("message"),
              "class 0 is student 0's, which is not served here; students here: 1");
    EXPECT_EQ(client.images(R"({"student":0})").json().at("error").at("param"), "student");
    EXPECT_EQ(client.images(R"({"prompt":"7up"})").status, 200);
    EXPECT_EQ(
        client
            .ask("POST", std::string(draws_path), R"({"draws":[{"seed":1,"number":0,"class":0}]})",
                 "Content-Type: application/json\r\n")
            .status,
        421);
    const auto students =
        client.ask("GET", "/v1/models").json().at("data")[0].at("atelier").at("students");
    EXPECT_EQ(students[0].at("here"), false);
    EXPECT_EQ(students[1].at("here"), true);
    core::expect_contains(client.ask("GET", "/metrics").body,
                          "atelier_student_here{model=\"fake\",student=\"0\"} 0\n");
    core::expect_contains(client.ask("GET", "/metrics").body,
                          "atelier_student_here{model=\"fake\",student=\"1\"} 1\n");
    EXPECT_EQ(client.ask("GET", "/health/ready").status, 200)
        << "all of its students are available";
    EXPECT_EQ(worker_servers[0].behaviour.loads, 1);
}

TEST_F(Routing, workers_with_the_same_student_take_turns) {
    WorkerServer &first = add({0, 1}), &second = add({0});
    Client client(route_to({first.port, second.port}));
    for (int i = 0; i < 20; ++i) EXPECT_EQ(client.images(red).status, 200);
    EXPECT_EQ(first.behaviour.drawn(), 10u);
    EXPECT_EQ(second.behaviour.drawn(), 10u);
    EXPECT_EQ(client.images(green).status, 200);
    EXPECT_EQ(first.behaviour.drawn(), 11u);
    EXPECT_EQ(batches(second.port, "drawn"), "10");
}

TEST_F(Routing, the_less_busy_worker_is_used) {
    WorkerServer &busy = add({0}), &free = add({0, 1});
    const std::uint16_t port = route_to({busy.port, free.port});
    busy.behaviour.hold(true);
    std::vector<std::jthread> waiting;
    waiting.emplace_back([&] { EXPECT_EQ(Client(port).images(red).status, 200); });
    ASSERT_TRUE(soon([&] { return busy.behaviour.drawn() == 1; }));
    for (int i = 0; i < 6; ++i) EXPECT_EQ(Client(port).images(red).status, 200);
    EXPECT_EQ(free.behaviour.drawn(), 6u);
    busy.behaviour.hold(false);
}

TEST_F(Routing, when_a_worker_dies_another_one_takes_over_in_the_same_request) {
    WorkerServer &first = add({0, 1}), &second = add({0, 1});
    Client client(route_to({first.port, second.port}));
    for (int i = 0; i < 4; ++i) EXPECT_EQ(client.images(red).status, 200);
    first.server.reset();
    for (int i = 0; i < 20; ++i) EXPECT_EQ(client.images(red).status, 200);
    EXPECT_LE(std::stoi(batches(first.port, "failed")), 1) << "it is not tried again and again";
    EXPECT_EQ(metric(R"(atelier_upstream_up{model="fake",upstream=")" + url(second.port) + "\"}"),
              "1");
    EXPECT_TRUE(soon([&] {
        return metric(R"(atelier_upstream_up{model="fake",upstream=")" + url(first.port) + "\"}") ==
               "0";
    }));
}

TEST_F(Routing, a_failing_worker_is_backed_off_although_it_reports_itself_healthy) {
    WorkerServer& good = add({0, 1});
    const std::string well = http(Client(good.port).ask("GET", "/v1/models").body);
    Impostor bad([&](const std::string& request) {
        return request.starts_with("GET") ? well : http("{}", 400);
    });
    Client client(route_to({bad.port, good.port}));
    for (int i = 0; i < 10; ++i) EXPECT_EQ(client.images(red).status, 200);
    EXPECT_EQ(bad.draws, 1);
    EXPECT_EQ(batches(bad.port, "failed"), "1");
}

TEST_F(Routing, a_student_that_no_worker_has_is_unavailable_until_one_comes) {
    const std::uint16_t first = add({0}).port, second = add({1}).port;
    worker_servers[1].server.reset();
    Client client(route_to({first, second}));
    const Answer refused = client.images(green);
    EXPECT_EQ(refused.status, 503);
    EXPECT_EQ(refused.header("Retry-After"), "1");
    EXPECT_EQ(refused.json().at("error").at("code"), "student_unavailable");
    core::expect_contains(refused.json().at("error").at("message"), "student 1");
    EXPECT_EQ(client.images(red).status, 200) << "others are not affected";
    EXPECT_EQ(client.ask("GET", "/health/ready").status, 503);
    EXPECT_EQ(client.ask("GET", "/health").json().at("status"), "incomplete");
    EXPECT_EQ(metric(R"(atelier_rejected_total{reason="unavailable"})"), "1");
    EXPECT_EQ(metric(R"(atelier_student_here{model="fake",student="1"})"), "0");
    add({1}, second);
    EXPECT_TRUE(soon([&] { return client.ask("GET", "/health/ready").status == 200; }));
    EXPECT_EQ(client.images(green).status, 200);
}

TEST_F(Routing, a_worker_that_is_stopped_under_traffic_and_comes_back_loses_no_request) {
    WorkerServer& first = add({0, 1});
    const std::uint16_t port = route_to({first.port, add({0, 1}).port});
    for (WorkerServer& one : worker_servers) one.behaviour.takes = 1ms;
    std::atomic<bool> over = false;
    std::atomic<int> answered = 0, lost = 0;
    std::vector<std::jthread> clients;
    for (int i = 0; i < 6; ++i) {
        clients.emplace_back([&, i] {
            for (Client client(port); !over;)
                ++(client.images(i % 2 == 0 ? red : green).status == 200 ? answered : lost);
        });
    }
    const auto goes_on = [&] {
        return soon([&, before = answered.load()] { return answered > before + 20; });
    };
    ASSERT_TRUE(goes_on());
    EXPECT_TRUE(first.server->drain(10s));
    ASSERT_TRUE(goes_on());
    first.server.reset();
    ASSERT_TRUE(goes_on());
    WorkerServer& again = add({0, 1}, first.port);
    EXPECT_TRUE(soon([&] { return again.behaviour.drawn() > 0; }) ||
                soon([&] { return again.behaviour.drawn() > 0; }))
        << "it is used again";
    over = true;
    clients.clear();
    EXPECT_EQ(lost, 0);
}

TEST_F(Routing, a_worker_that_does_not_respond_takes_only_its_part_of_the_deadline) {
    options.service.deadline = 2s;
    WorkerServer &stuck = add({0}), &good = add({0, 1});
    const std::uint16_t port = route_to({stuck.port, good.port});
    stuck.behaviour.hold(true);
    std::vector<std::jthread> clients;
    for (int i = 0; i < 2; ++i)
        clients.emplace_back([&] { EXPECT_EQ(Client(port).images(red).status, 200); });
    EXPECT_EQ(Client(port).images(green).status, 200) << "another student's workers are free";
    clients.clear();
    EXPECT_GE(std::stoi(batches(stuck.port, "failed")), 1) << "it was tried first";
}

TEST_F(Routing, the_deadline_of_a_request_cancels_its_job_on_the_worker) {
    options.service.deadline = 300ms;
    WorkerServer& stuck = add({0, 1});
    Client client(route_to({stuck.port}));
    stuck.behaviour.hold(true);
    EXPECT_EQ(client.images(red).status, 504);
    EXPECT_EQ(client.images(R"({"class":0,"seed":99})").status, 504);
    ASSERT_TRUE(soon([&] {
        return Client(stuck.port)
                   .ask("GET", "/v1/models")
                   .json()
                   .at("data")[0]
                   .at("atelier")
                   .at("students")[0]
                   .at("waiting") == 0;
    }));
    stuck.behaviour.hold(false);
    EXPECT_TRUE(soon([&] { return client.images(green).status == 200; }));
    EXPECT_EQ(stuck.behaviour.seeds.front(), 5u);
    EXPECT_EQ(std::ranges::count(stuck.behaviour.seeds, 99u), 0)
        << "nothing was drawn for the expired request";
}

TEST_F(Routing, a_full_queue_on_the_worker_is_reported_as_a_full_queue) {
    worker_options.batching.max_queue = 2;
    worker_options.batching.max_batch = options.batching.max_batch = 1;
    WorkerServer& one = add({0, 1});
    const std::uint16_t port = route_to({one.port});
    one.behaviour.hold(true);
    std::vector<std::jthread> clients;
    clients.emplace_back([&] { EXPECT_EQ(Client(port).images(red).status, 200); });
    ASSERT_TRUE(soon([&] { return one.behaviour.drawn() == 1; }));
    for (int i = 0; i < 2; ++i)
        clients.emplace_back([&] { EXPECT_EQ(Client(port).images(red).status, 200); });
    ASSERT_TRUE(soon([&] {
        return Client(one.port)
                   .ask("GET", "/metrics")
                   .body.find("depth{model=\"fake\",student=\"0\"} 2\n") != std::string::npos;
    }));
    const Answer refused = Client(port).images(red);
    EXPECT_EQ(refused.status, 429);
    EXPECT_EQ(refused.header("Retry-After"), "1");
    EXPECT_EQ(batches(one.port, "busy"), "1");
    one.behaviour.hold(false);
}

TEST_F(Routing, a_failed_draw_on_a_worker_fails_alone) {
    const std::uint16_t port = route_to({add({0, 1}).port, add({0, 1}).port});
    const Answer failed = Client(port).images(R"({"class":0,"seed":666})");
    EXPECT_EQ(failed.status, 500);
    EXPECT_EQ(failed.json().at("error").at("code"), "generation_failed");
    EXPECT_EQ(Client(port).images(red).status, 200);
}

TEST_F(Routing, the_api_key_is_sent_to_workers) {
    const core::TestFolder folder;
    std::ofstream(folder / "keys") << "# theirs\nsecret-1\nsecret-2\n";
    worker_options.service.keys = ApiKeys(folder / "keys");
    const std::uint16_t port = add({0, 1}).port;
    key = first_key(folder / "keys");
    EXPECT_EQ(Client(route_to({port})).images(red).status, 200);
    key = "another";
    EXPECT_EQ(Client(route_to({port})).images(red).status, 503);
    EXPECT_EQ(Client(port)
                  .ask("POST", std::string(draws_path), "{}", "Content-Type: application/json\r\n")
                  .status,
              401);
}

/// Each is one clear error in OpenAI's format, and the router continues.
TEST_F(Routing, hostile_worker_responses_are_one_clear_error) {
    const std::string well = http(models()), pixels(4, 'x');
    const Draw requested{.seed = 5, .number = 0, .class_id = 0},
        other{.seed = 6, .number = 0, .class_id = 0};
    const GeneratedImage image{{2, 2, 1, {1, 2, 3, 4}}, {}};
    const std::string good = to_frame({&image, 1}, {&requested, 1}),
                      digest = good.substr(good.find("\"draws\""), 74);
    const auto frame = [](const std::string& head, const std::string& rest) {
        return http(head + "\n" + rest);
    };
    const std::string whole = "{" + digest + R"(,"width":2,"height":2,"channels":1,"texts":[{}]})";
    const std::vector<std::string> answers{
        http(to_frame({&image, 1}, {&other, 1})),
        frame(R"({"width":2,"height":2,"channels":1,"texts":[{}]})", pixels),
        http("{}"),
        http(""),
        frame("[]", pixels),
        frame("{}", pixels),
        frame(whole, pixels + "x"),
        frame(whole, "xxx"),
        frame(R"({"width":2)", pixels),
        frame("{" + digest + R"(,"width":4,"height":1,"channels":1,"texts":[{}]})", pixels),
        frame("{" + digest + R"(,"width":2,"height":2,"channels":2,"texts":[{}]})",
              pixels + pixels),
        frame("{" + digest + R"(,"width":2,"height":2,"channels":1,"texts":[{},{}]})", pixels),
        frame("{" + digest + R"(,"width":2,"height":2,"channels":1,"texts":[{"a":1}]})", pixels),
        frame("{" + digest + R"(,"width":2,"height":2,"channels":1,"texts":{"a":{}}})", pixels),
        frame("{" + digest + R"(,"width":2,"height":2,"channels":1,"texts":[{"\n":"b"}]})", pixels),
        frame(R"({"width":9223372036854775807,"height":9223372036854775807,"channels":3,)"
              R"("texts":[{}]})",
              pixels),
        frame(std::string(5000, '['), pixels),
        http(std::string(1 << 20, 'x')),
        "HTTP/1.1 200 So\r\nContent-Length: 99999999999\r\n\r\nx",
        "HTTP/1.1 200 So\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 So\r\nX: " + std::string(100'000, 'a') + "\r\n\r\n",
        "no HTTP at all\r\n\r\n"};
    std::atomic<std::size_t> turn = 0;
    Impostor impostor([&](const std::string& request) {
        return request.starts_with("GET") ? well
               : turn == answers.size()   ? http(good)
                                          : answers[turn];
    });
    Client client(route_to({impostor.port}));
    for (; turn < answers.size(); ++turn) {
        const Answer answer = client.images(red);
        EXPECT_EQ(answer.status, 502) << answers[turn].substr(0, 200);
        EXPECT_EQ(answer.json().at("error").at("code"), "bad_upstream");
    }
    EXPECT_EQ(metric(R"(atelier_rejected_total{reason="failed"})"), std::to_string(answers.size()));
    EXPECT_EQ(client.images(red).status, 200)
        << "the same frame with the requested draws is accepted";
}

TEST_F(Routing, a_request_that_two_workers_answer_wrongly_goes_to_no_third_and_none_is_backed_off) {
    const std::string well = http(models());
    std::deque<Impostor> impostors;
    std::vector<std::uint16_t> ports;
    for (int i = 0; i < 4; ++i) {
        impostors.emplace_back([&](const std::string& request) {
            return request.starts_with("GET")
                       ? well
                       : http("{}", request.find("\"seed\":7") == std::string::npos ? 200 : 500);
        });
        ports.push_back(impostors.back().port);
    }
    Client client(route_to(ports));
    const auto requests = [&] {
        int sum = 0;
        for (const Impostor& one : impostors) sum += one.draws;
        return sum;
    };
    EXPECT_EQ(client.images(R"({"class":0,"seed":1})").status, 502);
    EXPECT_EQ(requests(), 2);
    EXPECT_EQ(client.images(R"({"class":0,"seed":7})").status, 500);
    EXPECT_EQ(requests(), 4);
    for (const Impostor& one : impostors)
        EXPECT_EQ(one.draws, 1) << "none is backed off, so they take turns";
}

TEST_F(Routing, workers_with_an_invalid_status_are_not_used) {
    const std::string well = models();
    const auto changed = [&](const std::string& what, const nlohmann::json& to) {
        auto list = nlohmann::json::parse(well);
        list["data"][0]["atelier"][what] = to;
        return http(list.dump());
    };
    for (const std::string& answer :
         {http("[]"), http("{"), http(R"({"data":5})"), http(R"({"data":[5,{"id":"other"}]})"),
          http(well, 500), changed("partition_hash", "x"), changed("partition_hash", 5),
          changed("students", 5), changed("students", {5, 5}),
          changed("students", nlohmann::json::array()), changed("routes", true),
          changed("routes", "x"), http(std::string(17 << 20, ' ')), std::string("nonsense"),
          std::string()}) {
        Impostor impostor([&](const std::string&) { return answer; });
        Client client(route_to({impostor.port}));
        EXPECT_EQ(client.images(red).status, 503) << answer.substr(0, 200);
        EXPECT_EQ(impostor.draws, 0);
    }
    WorkerServer& inner = add({0, 1});
    const std::uint16_t router = route_to({inner.port});
    const auto kept = std::move(server);
    EXPECT_EQ(Client(route_to({router})).images(red).status, 503)
        << "a router is not accepted as a worker; it might be itself";
}

TEST_F(Routing, errors_in_a_draw_request_name_the_field) {
    const FakeGenerator fake(behaviour);
    const auto rejection_of = [&](const std::string& body) -> std::string {
        try {
            resolve(read_draw_request(body, 2), fake.description(), "hash");
        } catch (const HttpError& error) {
            return fmt::format("{} {} {}", error.status, error.param, error.code);
        }
        return "accepted";
    };
    const std::string one = R"({"seed":1,"number":0,"class":1})";
    EXPECT_EQ(rejection_of(R"({"model":"fake","partition":"hash","draws":[)" + one + "," +
                           R"({"seed":1,"number":1,"class":3}]})"),
              "accepted");
    const std::pair<std::string, const char*> cases[] = {
        {"{", "400  invalid_json"},
        {"[]", "400  invalid_type"},
        {"{}", "400 draws missing_required_parameter"},
        {R"({"draws":[]})", "400 draws missing_required_parameter"},
        {R"({"draws":{}})", "400 draws invalid_type"},
        {R"({"draws":[5]})", "400 draws[0] invalid_type"},
        {R"({"draws":[)" + one + "," + one + "," + one + "]}", "400 draws invalid_value"},
        {R"({"draws":[{"seed":1,"number":0}]})", "400 draws[0].class missing_required_parameter"},
        {R"({"draws":[)" + one + R"(,{"seed":"1","number":0,"class":1}]})",
         "400 draws[1].seed invalid_type"},
        {R"({"draws":[{"seed":-1,"number":0,"class":1}]})", "400 draws[0].seed invalid_value"},
        {R"({"draws":[{"seed":1,"number":1.5,"class":1}]})", "400 draws[0].number invalid_type"},
        {R"({"draws":[{"seed":1,"number":0,"class":4}]})", "400 draws[0].class unknown_class"},
        {R"({"draws":[)" + one + R"(,{"seed":1,"number":0,"class":2}]})",
         "400 draws[1].class invalid_value"},
        {R"({"draws":[{"seed":1,"number":0,"class":1,"size":1}]})",
         "400 draws[0].size unknown_parameter"},
        {R"({"model":5,"draws":[)" + one + "]}", "400 model invalid_type"},
        {R"({"partition":"other","draws":[)" + one + "]}", "421 partition misdirected_request"},
    };
    for (const auto& [body, expected] : cases) EXPECT_EQ(rejection_of(body), expected) << body;
}

TEST_F(Routing, draw_requests_keep_the_usual_limits) {
    Client client(start());
    const auto status_of = [&](const std::string& body,
                               const std::string& type = "application/json") {
        return Client(server->port())
            .ask("POST", std::string(draws_path), body, "Content-Type: " + type + "\r\n")
            .status;
    };
    const std::string one = R"({"draws":[{"seed":1,"number":0,"class":1}]})";
    EXPECT_EQ(status_of(one), 200);
    EXPECT_EQ(status_of(one, "text/plain"), 415);
    EXPECT_EQ(status_of(R"({"model":"none","draws":[{"seed":1,"number":0,"class":1}]})"), 404);
    EXPECT_EQ(status_of(one + std::string(100'000, ' ')), 200) << "of many prompts";
    EXPECT_EQ(status_of(std::string(max_draws_body_bytes + 1, ' ')), 413);
    EXPECT_EQ(client.ask("GET", std::string(draws_path)).status, 405);
    std::string many = one;
    for (int i = 0; i < 64; ++i)
        many.insert(many.size() - 2, R"(,{"seed":1,"number":0,"class":1})");
    EXPECT_EQ(status_of(many), 400);
}

TEST(Address, is_a_host_and_a_port) {
    const auto parts = [](const std::string& url) {
        const Address address = parse_address(url);
        return address.host + " " + address.port;
    };
    EXPECT_EQ(parts("http://here:81"), "here 81");
    EXPECT_EQ(parts("http://here/"), "here 80");
    EXPECT_EQ(parts("http://[::1]:81"), "::1 81");
    EXPECT_EQ(host_in_url("::1"), "[::1]");
    EXPECT_EQ(host_in_url("[::1]"), "[::1]");
    EXPECT_EQ(host_in_url("here"), "here");
    EXPECT_EQ(parts("http://[::1]"), "::1 80");
    for (const char* wrong :
         {"", "here:81", "http://", "http://:81", "http://here:x", "http://here:0",
          "http://here:65536", "http://here:81/v1", "http://[::1", "http://[::1]x:81",
          "http://[::1]81", "http://me:key@here", "https://here"}) {
        EXPECT_THROW(parse_address(wrong), core::UsageError) << wrong;
    }
}

}  // namespace
}  // namespace atelier::server
