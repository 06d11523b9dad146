#include "atelier/server/image_request.h"

#include "server/server_fixtures.h"

namespace atelier::server {
namespace {

FakeGenerator::Behaviour behaviour;
const FakeGenerator fake(behaviour);

/// The error for a body: "status param code", or "accepted".
std::string rejection_of(const std::string& body) {
    try {
        resolve(read_image_request(body, 10), fake.description(), 1);
    } catch (const HttpError& error) {
        return fmt::format("{} {} {}", error.status, error.param, error.code);
    }
    return "accepted";
}

ResolvedRequest resolved(const std::string& body) {
    return resolve(read_image_request(body, 10), fake.description(), 77);
}

TEST(ImageRequest, a_prompt_is_a_classs_name_in_any_case_or_its_id) {
    EXPECT_EQ(resolved(R"({"prompt":"Green"})").draws[0].class_id, 1);
    EXPECT_EQ(resolved(R"({"prompt":"2"})").draws[0].class_id, 2);
    EXPECT_EQ(resolved(R"({"prompt":"7UP"})").draws[0].class_id, 3)
        << "names take precedence over ids";
    EXPECT_EQ(resolved(R"({"class":3})").student, 1);
}

TEST(ImageRequest, images_are_numbered_under_one_seed) {
    const ResolvedRequest all = resolved(R"({"prompt":"red","n":3,"seed":9})");
    ASSERT_EQ(all.draws.size(), 3u);
    for (std::int64_t i = 0; i < 3; ++i)
        EXPECT_EQ(all.draws[static_cast<std::size_t>(i)].number, i);
    EXPECT_EQ(all.draws[2].seed, 9u);
    EXPECT_EQ(resolved(R"({"prompt":"red"})").seed, 77u) << "without a seed: the random one";
}

TEST(ImageRequest, a_student_without_a_class_draws_its_own_classes) {
    const ResolvedRequest all = resolved(R"({"student":1,"n":10})");
    std::set<std::int64_t> classes;
    for (const Draw& draw : all.draws) classes.insert(draw.class_id);
    EXPECT_EQ(classes, (std::set<std::int64_t>{1, 3}));
}

TEST(ImageRequest, errors_name_the_field) {
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
    for (const auto& [body, expected] : cases) EXPECT_EQ(rejection_of(body), expected) << body;
    EXPECT_EQ(rejection_of("{\"prompt\":" + std::string(100000, '[')), "400  invalid_json");
    EXPECT_EQ(rejection_of(R"({"class":0,"user":5})"), "400 user invalid_type");
    EXPECT_EQ(rejection_of(R"({"class":0,"model":")" + std::string(1025, 'a') + "\"}"),
              "400 model invalid_value");
    EXPECT_EQ(rejection_of(R"({"class":0,"size":")" + std::string(201, 'a') + "\"}"),
              "400 size invalid_value");
}

TEST(ImageRequest, each_kind_of_field_has_its_own_limit) {
    const auto prompt_of = [](std::size_t bytes) {
        return R"({"prompt":")" + std::string(bytes, 'a') + "\"}";
    };
    EXPECT_EQ(read_image_request(prompt_of(4096), 1).prompt.size(), 4096u);
    EXPECT_EQ(rejection_of(prompt_of(4097)), "400 prompt invalid_value");
    EXPECT_EQ(rejection_of(R"({"class":0,"user":")" + std::string(60'000, 'a') + "\"}"),
              "accepted");
    EXPECT_EQ(rejection_of(R"({"class":0,"model":")" + std::string(255, 'a') + "\"}"), "accepted")
        << "a valid folder name";
}

TEST(ImageRequest, whole_numbers_may_be_written_with_a_point) {
    const ImageRequest request =
        read_image_request(R"({"class":1.0,"seed":9.007199254740991e15,"n":2e0})", 10);
    EXPECT_EQ(request.class_id, 1);
    EXPECT_EQ(request.seed, 9007199254740991u);
    EXPECT_EQ(request.n, 2);
    for (const char* wrong :
         {R"({"class":0,"seed":1.5})", R"({"class":0,"seed":1e300})",
          R"({"class":0,"seed":9.2e18})", R"({"class":0,"seed":9007199254740993.0})"})
        EXPECT_EQ(rejection_of(wrong), "400 seed invalid_type") << wrong;
    EXPECT_EQ(rejection_of(R"({"class":0,"seed":-1.0})"), "400 seed invalid_value");
    EXPECT_EQ(rejection_of(R"({"class":0,"n":0.0})"), "400 n invalid_value");
}

TEST(ImageRequest, default_fields_of_openais_clients_are_accepted_if_they_have_no_effect) {
    for (const char* field :
         {R"("quality":"auto")", R"("quality":"standard")", R"("style":"vivid")",
          R"("background":"auto")", R"("background":"opaque")", R"("moderation":"auto")",
          R"("moderation":"low")", R"("input_fidelity":"low")", R"("stream":false)",
          R"("partial_images":0)", R"("size":"auto")", R"("n":1)",
          R"("response_format":"b64_json")", R"("output_format":"png")",
          R"("output_compression":100)", R"("quality":null)", R"("stream":null)"}) {
        EXPECT_EQ(rejection_of(R"({"prompt":"red",)" + std::string(field) + "}"), "accepted")
            << field;
    }
    const std::pair<const char*, const char*> rejected[] = {
        {R"("quality":"hd")", "quality invalid_value"},
        {R"("quality":"high")", "quality invalid_value"},
        {R"("style":"natural")", "style invalid_value"},
        {R"("background":"transparent")", "background invalid_value"},
        {R"("stream":true)", "stream invalid_value"},
        {R"("stream":"false")", "stream invalid_type"},
        {R"("partial_images":2)", "partial_images invalid_value"},
        {R"("partial_images":-1)", "partial_images invalid_value"},
        {R"("input_fidelity":"high")", "input_fidelity invalid_value"},
        {R"("moderation":"none")", "moderation invalid_value"},
        {R"("quality":1)", "quality invalid_type"}};
    for (const auto& [field, error] : rejected)
        EXPECT_EQ(rejection_of(R"({"prompt":"red",)" + std::string(field) + "}"),
                  "400 " + std::string(error))
            << field;
}

TEST(ImageRequest, null_means_not_given) {
    EXPECT_EQ(rejection_of(
                  R"({"prompt":"red","n":null,"seed":null,"size":"2x2","model":null,"user":"u"})"),
              "accepted");
}

}  // namespace
}  // namespace atelier::server
