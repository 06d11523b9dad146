#include "atelier/server/image_request.h"

#include "server/server_fixtures.h"

namespace atelier::server {
namespace {

FakeGenerator::Behaviour behaviour;
const FakeGenerator fake(behaviour);

/// The refusal of a body: "status param code".
std::string refusal_of(const std::string& body) {
    try {
        plan_of(read_image_request(body, 10), fake.description(), 1);
    } catch (const Refusal& refusal) {
        return fmt::format("{} {} {}", refusal.status, refusal.param, refusal.code);
    }
    return "accepted";
}

Plan plan(const std::string& body) { return plan_of(read_image_request(body, 10), fake.description(), 77); }

TEST(ImageRequest, a_prompt_is_a_classs_name_in_any_case_or_its_id) {
    EXPECT_EQ(plan(R"({"prompt":"Green"})").draws[0].class_id, 1);
    EXPECT_EQ(plan(R"({"prompt":"2"})").draws[0].class_id, 2);
    EXPECT_EQ(plan(R"({"prompt":"7UP"})").draws[0].class_id, 3) << "a name comes before an id";
    EXPECT_EQ(plan(R"({"class":3})").student, 1);
}

TEST(ImageRequest, pictures_are_numbered_under_one_seed) {
    const Plan all = plan(R"({"prompt":"red","n":3,"seed":9})");
    ASSERT_EQ(all.draws.size(), 3u);
    for (std::int64_t i = 0; i < 3; ++i) EXPECT_EQ(all.draws[static_cast<std::size_t>(i)].number, i);
    EXPECT_EQ(all.draws[2].seed, 9u);
    EXPECT_EQ(plan(R"({"prompt":"red"})").seed, 77u) << "without a seed: the fresh one";
}

TEST(ImageRequest, a_student_alone_draws_its_own_classes) {
    const Plan all = plan(R"({"student":1,"n":10})");
    std::set<std::int64_t> classes;
    for (const Draw& draw : all.draws) classes.insert(draw.class_id);
    EXPECT_EQ(classes, (std::set<std::int64_t>{1, 3}));
}

TEST(ImageRequest, what_is_wrong_is_named) {
    const std::pair<const char*, const char*> cases[] = {
        {R"({)", "400  invalid_json"},
        {R"([1])", "400  invalid_type"},
        {R"({"prompt":"red","prompt":"green"})", "400  invalid_json"},
        {"{\"prompt\":\"\xff\"}", "400  invalid_json"},
        {R"({"prompt":"red","sede":1})", "400 sede unknown_parameter"},
        {R"({"prompt":5})", "400 prompt invalid_type"},
        {R"({"prompt":"mauve"})", "400 prompt unknown_class"},
        {R"({"prompt":"4"})", "400 prompt unknown_class"},
        {R"({"prompt":"-1"})", "400 prompt unknown_class"},
        {R"({"prompt":"99999999999999999999"})", "400 prompt unknown_class"},
        {R"({})", "400 prompt missing_required_parameter"},
        {R"({"class":4})", "400 class unknown_class"},
        {R"({"class":-1})", "400 class invalid_value"},
        {R"({"class":1.5})", "400 class invalid_type"},
        {R"({"class":0,"prompt":"green"})", "400 class invalid_value"},
        {R"({"class":0,"student":1})", "400 student invalid_value"},
        {R"({"student":2})", "400 student unknown_student"},
        {R"({"class":0,"n":0})", "400 n invalid_value"},
        {R"({"class":0,"n":11})", "400 n invalid_value"},
        {R"({"class":0,"n":true})", "400 n invalid_type"},
        {R"({"class":0,"n":1e400})", "400  invalid_json"},
        {R"({"class":0,"n":NaN})", "400  invalid_json"},
        {R"({"class":0,"seed":18446744073709551615})", "400 seed invalid_value"},
        {R"({"class":0,"seed":-1})", "400 seed invalid_value"},
        {R"({"class":0,"seed":"1"})", "400 seed invalid_type"},
        {R"({"class":0,"size":"4x4"})", "400 size invalid_value"},
        {R"({"class":0,"response_format":"url"})", "400 response_format invalid_value"},
        {R"({"class":0,"output_format":"gif"})", "400 output_format invalid_value"},
        {R"({"class":0,"output_compression":101})", "400 output_compression invalid_value"},
    };
    for (const auto& [body, expected] : cases) EXPECT_EQ(refusal_of(body), expected) << body;
    EXPECT_EQ(refusal_of("{\"prompt\":" + std::string(100000, '[')), "400  invalid_json");
    EXPECT_EQ(refusal_of(R"({"class":0,"user":")" + std::string(300, 'a') + "\"}"), "400 user invalid_value");
}

TEST(ImageRequest, null_means_not_given) { EXPECT_EQ(refusal_of(R"({"prompt":"red","n":null,"seed":null,"size":"2x2","model":null,"user":"u"})"), "accepted"); }

}  // namespace
}  // namespace atelier::server
