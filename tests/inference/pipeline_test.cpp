#include "atelier/inference/pipeline.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "atelier/core/signals.h"
#include "atelier/diffusion/samplers.h"

#include "models/model_fixtures.h"

namespace atelier::inference {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

using Requests = std::vector<SampleRequest>;

Requests one(const Requests& requests, std::size_t i) { return {requests[i]}; }

/// Requests of `seed` with those indices and classes.
Requests requests_for(std::uint64_t seed, const std::vector<std::int64_t>& indices,
                      const std::vector<std::int64_t>& classes) {
    Requests requests;
    for (std::size_t i = 0; i < indices.size(); ++i)
        requests.push_back({seed, indices[i], ClassId{classes[i]}});
    return requests;
}

std::unique_ptr<Pipeline> open(const fs::path& path, const std::string& sampler = "",
                               const Engine& engine = {}) {
    return Pipeline::load(path, {.engine = engine, .sampler = sampler});
}

const std::vector<std::int64_t> mixed{3, 0, 1, 2, 2};

/// Sums are reordered in batches of other sizes.
bool near(const Tensor& a, const Tensor& b) {
    return a.sizes() == b.sizes() && at::allclose(a, b, 1e-4, 1e-5);
}

class ClassEnsemble : public ::testing::Test {
protected:
    core::TestFolder folder;
    fs::path path = models::write_tiny_ensemble(folder);
    std::unique_ptr<Pipeline> generator = open(path);
};

/// Students of one evaluation and of three.
class FewSteps : public ::testing::Test {
protected:
    static fs::path write(const core::TestFolder& folder) {
        const auto partition = models::odd_and_even();
        json three = models::tiny_config();
        three["steps"] = 3;
        models::write_ensemble(folder / "ensemble", partition, models::uneven_prior(),
                               {models::write_student(folder / "made/0", partition, 0),
                                models::write_student(folder / "made/1", partition, 1, three)},
                               "teacher's hash", json::object());
        return folder / "ensemble";
    }

    core::TestFolder folder;
    fs::path path = write(folder);
};

TEST_F(FewSteps, each_student_takes_its_own_number_of_evaluations) {
    const auto own = open(path), one_step = open(path, "one-step");
    EXPECT_EQ(own->sampling().evaluations(), 3);
    EXPECT_EQ(name_of(own->sampling()), "few-step");
    EXPECT_EQ(one_step->sampling().evaluations(), 1);
    const Requests requests = class_requests(8, 5, {}, own->prior());
    const Tensor drawn = own->draw(requests), quick = one_step->draw(requests);
    for (std::size_t i = 0; i < requests.size(); ++i) {
        const auto row = static_cast<std::int64_t>(i);
        EXPECT_EQ(at::allclose(drawn[row], quick[row], 1e-5, 1e-6),
                  own->student_of(requests[i].condition) == 0);
        EXPECT_TRUE(at::allclose(own->draw(one(requests, i))[0], drawn[row], 1e-4, 1e-5))
            << "noise depends on the request alone";
    }
}

TEST_F(FewSteps, engines_agree) {
    const auto requests = class_requests(6, 5, mixed, open(path)->prior());
    const Tensor drawn = open(path)->draw(requests);
    for (const char* kind : {"native", "openvino"})
        EXPECT_TRUE(near(open(path, "", engine_of(kind, "fp32", "cpu"))->draw(requests), drawn))
            << kind;
}

TEST_F(FewSteps, more_than_four_are_refused) {
    models::edit_json(path / "students/1/config.json", [](json& config) { config["steps"] = 5; });
    EXPECT_THROW(open(path), core::Error);
}

TEST_F(ClassEnsemble,
       a_mixed_batch_comes_back_in_order_each_sample_from_the_student_that_owns_its_class) {
    const Requests request = class_requests(9, 5, mixed, generator->prior());
    const Tensor all = generator->draw(request);
    ASSERT_EQ(all.sizes(), at::IntArrayRef({9, 2}));
    const std::vector<std::unique_ptr<Pipeline>> students = [&] {
        std::vector<std::unique_ptr<Pipeline>> opened;
        for (const char* k : {"0", "1"}) opened.push_back(open(path / "students" / k));
        return opened;
    }();
    for (std::size_t i = 0; i < 9; ++i) {
        SCOPED_TRACE(i);
        const auto owner = static_cast<std::size_t>(class_of(request[i].condition) % 2);
        EXPECT_EQ(generator->student_of(request[i].condition), static_cast<std::int64_t>(owner));
        const Tensor sample = all.narrow(0, static_cast<std::int64_t>(i), 1);
        EXPECT_TRUE(near(sample, students[owner]->draw(one(request, i))));
        EXPECT_FALSE(near(sample, students[1 - owner]->draw(one(request, i))))
            << "the students cannot be told apart";
    }
}

TEST_F(ClassEnsemble, another_engine_gives_the_same_samples) {
    const Requests request = class_requests(9, 5, mixed, generator->prior());
    const auto by_openvino = open(path, "", {.kind = Engine::Kind::openvino});
    EXPECT_TRUE(near(by_openvino->draw(request), generator->draw(request)));
    EXPECT_TRUE(at::equal(by_openvino->draw(request), by_openvino->draw(request)));
    EXPECT_EQ(by_openvino->hash(), generator->hash())
        << "the weights are the same whoever computes";
}

TEST_F(ClassEnsemble, a_students_sample_is_one_evaluation_at_the_highest_noise_level) {
    const models::Model student = models::read_model(path / "students/1");
    const Tensor noise = diffusion::image_noise(5, 3, 1, {2});
    const auto condition = diffusion::one_hot(std::vector<std::int64_t>{1}, 4);
    const Tensor expected = student.denoiser().denoise(noise * 20, at::full({1}, 20.0), condition);
    EXPECT_TRUE(near(generator->draw(requests_for(5, {3}, {1})), expected.detach()));
    EXPECT_EQ(generator->sampling().evaluations(), 1);
}

TEST_F(ClassEnsemble, a_sample_depends_on_seed_number_and_class_alone_whatever_the_batch) {
    const std::vector<std::int64_t> classes{0, 1, 2, 3};
    const Requests request = class_requests(8, 11, classes, generator->prior());
    const Tensor all = generator->draw(request);
    for (const std::size_t batch : {1U, 3U, 8U}) {
        for (std::size_t first = 0; first < 8; first += batch) {
            Requests part;
            for (std::size_t i = first; i < std::min<std::size_t>(first + batch, 8); ++i)
                part.push_back(request[i]);
            const auto n = static_cast<std::int64_t>(part.size());
            EXPECT_TRUE(
                near(generator->draw(part), all.narrow(0, static_cast<std::int64_t>(first), n)))
                << batch << " from " << first;
        }
    }
    Requests backwards = request;
    std::reverse(backwards.begin(), backwards.end());
    EXPECT_TRUE(near(generator->draw(backwards), all.flip({0})));
}

TEST_F(ClassEnsemble,
       the_same_request_gives_the_same_bits_and_another_seed_number_or_class_another_sample) {
    const Tensor sample = generator->draw(requests_for(11, {4}, {2}));
    EXPECT_TRUE(at::equal(open(path)->draw(requests_for(11, {4}, {2})), sample));
    for (const Requests& other :
         {requests_for(12, {4}, {2}), requests_for(11, {5}, {2}), requests_for(11, {4}, {0})}) {
        EXPECT_FALSE(near(generator->draw(other), sample));
    }
}

TEST(ImageNoise, is_the_same_bits_in_every_batch) {
    const Tensor all = diffusion::image_noise(11, 0, 8, {3, 2});
    for (const std::int64_t batch : {1, 3, 8}) {
        for (std::int64_t first = 0; first < 8; first += batch) {
            const std::int64_t n = std::min<std::int64_t>(batch, 8 - first);
            EXPECT_TRUE(
                at::equal(diffusion::image_noise(11, first, n, {3, 2}), all.narrow(0, first, n)));
        }
    }
}

TEST_F(ClassEnsemble, more_samples_than_fit_a_batch_of_the_network_are_as_if_drawn_alone) {
    const std::vector<std::int64_t> classes{0, 2, 1};
    const Requests request =
        class_requests(600, 3, classes, generator->prior());  // 400 of student 0
    const Tensor all = generator->draw(request);
    for (const std::size_t i : {0U, 254U, 255U, 256U, 257U, 383U, 384U, 385U, 599U}) {
        EXPECT_TRUE(
            near(all.narrow(0, static_cast<std::int64_t>(i), 1), generator->draw(one(request, i))))
            << i;
    }
}

TEST_F(ClassEnsemble, batches_have_the_same_bits_alone_as_among_all_others) {
    const std::vector<std::int64_t> classes{0, 2, 1};
    const Requests request = class_requests(1300, 3, classes, generator->prior());
    for (const Engine::Kind kind :
         {Engine::Kind::torch, Engine::Kind::openvino, Engine::Kind::native}) {
        const auto pipeline = open(path, "", {.kind = kind});
        const Tensor all = pipeline->draw_all(request);
        const auto batches = pipeline->batches(request);
        std::vector<int> times(request.size());
        EXPECT_GT(batches.size(), 5U) << "1300 samples, at most 256 each";
        for (const auto& batch : batches) {
            Requests alone;
            std::set<std::int64_t> students;
            for (const std::int64_t i : batch) {
                alone.push_back(request[static_cast<std::size_t>(i)]);
                students.insert(pipeline->student_of(alone.back().condition));
                ++times[static_cast<std::size_t>(i)];
            }
            EXPECT_EQ(students.size(), 1U);
            EXPECT_TRUE(at::equal(pipeline->draw_all(alone),
                                  all.index_select(0, at::tensor(batch, at::kLong))))
                << name_of(kind) << ", from " << batch.front();
        }
        EXPECT_EQ(std::ranges::count(times, 1), 1300) << "each in one batch";
    }
}

TEST_F(ClassEnsemble, a_class_that_does_not_exist_is_rejected_with_the_range) {
    for (const std::int64_t wrong : {-1, 4, 1'000'000}) {
        const std::string message = core::error_of<core::UsageError>(
            [&] { generator->draw(requests_for(0, {0, 1}, {0, wrong})); });
        core::expect_contains(message, "class " + std::to_string(wrong));
        core::expect_contains(message, "0 to 3");
    }
}

TEST_F(ClassEnsemble, progress_is_reported_and_batches_add_up_to_the_request) {
    const Requests request =
        class_requests(1100, 5, {}, generator->prior());  // batches of 256 for each of two students
    std::vector<std::int64_t> progress;
    const Tensor all =
        generator->draw_all(request, [&](std::int64_t done) { progress.push_back(done); });
    EXPECT_EQ(progress, (std::vector<std::int64_t>{512, 1024, 1100}));
    EXPECT_TRUE(near(all, generator->draw(request)));
}

TEST_F(ClassEnsemble, stops_between_batches_when_requested) {
    core::set_stop_check([] { return true; });
    EXPECT_THROW(generator->draw_all(class_requests(3, 5, {}, generator->prior())),
                 core::Interrupted);
    core::set_stop_check(nullptr);
    EXPECT_NO_THROW(generator->draw_all(class_requests(3, 5, {}, generator->prior())));
}

TEST_F(ClassEnsemble, leaves_the_process_with_the_algorithms_that_it_had) {
    at::globalContext().setDeterministicAlgorithms(false, false);
    generator->draw_all(class_requests(3, 5, {}, generator->prior()));
    EXPECT_FALSE(at::globalContext().deterministicAlgorithms());
}

TEST(SampleRequests, zero_and_too_many_samples_are_rejected) {
    for (const std::int64_t count : {std::int64_t{0}, std::int64_t{-5}, std::int64_t{1} << 40}) {
        core::expect_contains(
            core::error_of<core::UsageError>([&] { class_requests(count, 0, {}, {{1.0}}); }),
            std::to_string(count));
    }
}

TEST(SamplingOf, a_sampler_may_include_its_steps_and_settings) {
    EXPECT_EQ(sampling_of("heun:64", std::nullopt)->evaluations(), 127);
    const Sampling of_edm = *sampling_of("stochastic:256", std::nullopt);
    EXPECT_EQ(of_edm.evaluations(), 511);
    EXPECT_EQ(name_of(of_edm), "stochastic,S_churn=40,S_min=0.05,S_max=50,S_noise=1.003");
    EXPECT_EQ(name_of(*sampling_of("stochastic:S_noise=1,S_churn=1.5", 32)),
              "stochastic,S_churn=1.5,S_min=0.05,S_max=50,S_noise=1");
    EXPECT_EQ(sampling_of("stochastic:S_noise=1", 32)->steps, 32);
    EXPECT_EQ(sampling_of("heun:32", 32)->steps, 32);
    core::expect_contains(core::error_of<core::UsageError>([] { sampling_of("heun:4", 32); }),
                          "give only one of them");
    for (const char* wrong :
         {"heun:", "heun:0", "heun:2.5", "heun:1e9", "heun:S_churn=4", "one-step:2",
          "stochastic:S_chrun=4", "stochastic:S_churn=", "stochastic:S_churn=nan",
          "stochastic:S_churn=-1", "stochastic:S_min=9,S_max=1", "stochastic:4,,S_churn=1",
          "stochastic:4;S_churn=1", "churn:4"}) {
        EXPECT_THROW(sampling_of(wrong, std::nullopt), core::UsageError) << wrong;
    }
}

TEST(SamplingOf, steps_that_do_not_apply_are_rejected) {
    EXPECT_FALSE(sampling_of("", std::nullopt));
    EXPECT_EQ(sampling_of("heun", std::nullopt)->steps, 18);
    EXPECT_EQ(sampling_of("ddim", 7)->evaluations(), 7);
    core::expect_contains(core::error_of<core::UsageError>([] { sampling_of("", 7); }), "sampler");
    core::expect_contains(core::error_of<core::UsageError>([] { sampling_of("one-step", 7); }),
                          "single step");
    core::expect_contains(core::error_of<core::UsageError>([] { sampling_of("heun", 0); }),
                          "0 steps");
    core::expect_contains(core::error_of<core::UsageError>([] { sampling_of("huen", 7); }),
                          "did you mean \"heun\"?");
}

TEST_F(ClassEnsemble, describes_itself) {
    EXPECT_EQ(generator->students(), 2);
    EXPECT_EQ(generator->partition().owner, (std::vector<std::int64_t>{0, 1, 0, 1}));
    EXPECT_EQ(generator->prior().weights, models::uneven_prior().weights);
    EXPECT_EQ(generator->spec(), models::read_model(path / "students/0").spec);
    EXPECT_EQ(generator->parameters_of_student(1),
              models::read_model(path / "students/1").parameters.count());
}

TEST_F(ClassEnsemble, takes_one_step_and_rejects_more) {
    EXPECT_NO_THROW(open(path, "one-step"));
    core::expect_contains(core::error_of<core::UsageError>([&] { open(path, "heun"); }), "heun");
}

TEST_F(ClassEnsemble, a_student_that_does_not_belong_is_found_when_it_is_first_needed) {
    models::write_student(path / "students/1", {2, "file", {1, 0, 1, 0}}, 1);
    const auto mixed = open(path);
    EXPECT_NO_THROW(mixed->draw(requests_for(0, {0}, {2})));
    core::expect_contains(core::error_of([&] { mixed->draw(requests_for(0, {0}, {3})); }),
                          "another partition");
}

TEST_F(ClassEnsemble, its_hash_is_that_of_all_its_weights) {
    const std::string before = generator->hash();
    EXPECT_EQ(open(path)->hash(), before);
    for (const char* k : {"0", "1"}) {
        const fs::path file = path / "students" / k / "model.safetensors";
        backends::Parameters weights = backends::read_parameters(file);
        float& number = weights.at("model.map_label.weight").mutable_data_ptr<float>()[5];
        const float was = number;
        number = std::nextafter(number, 1e9F);
        backends::write_parameters(file, weights);
        EXPECT_NE(open(path)->hash(), before) << k;
        number = was;
        backends::write_parameters(file, weights);
        EXPECT_EQ(open(path)->hash(), before);
    }
    EXPECT_NE(generator->hash_of_student(0), generator->hash_of_student(1));
}

TEST(SampleRequests, repeats_the_classes_up_to_the_count) {
    const std::vector<std::int64_t> classes{0, 3};
    EXPECT_EQ(class_requests(5, 9, classes, {{1, 1, 1, 1}}),
              requests_for(9, {0, 1, 2, 3, 4}, {0, 3, 0, 3, 0}));
}

TEST(SampleRequests, repeats_the_prompts_up_to_the_count) {
    const std::vector<std::string> prompts{"a bag", "a shoe"};
    const Requests requests = prompt_requests(3, 9, prompts);
    EXPECT_EQ(requests[2], (SampleRequest{9, 2, std::string("a bag")}));
    EXPECT_THROW(prompt_requests(3, 9, {}), core::UsageError);
}

TEST(SampleRequests, without_classes_they_follow_the_prior_and_the_seed) {
    const conditions::Prior prior{{4, 3, 0, 1}};
    const auto classes = classes_of(class_requests(800, 9, {}, prior));
    for (const auto& [c, expected] : {std::pair{0, 400}, {1, 300}, {2, 0}, {3, 100}}) {
        EXPECT_NEAR(std::ranges::count(classes, c), expected, expected == 0 ? 0 : 4) << c;
    }
    EXPECT_EQ(classes_of(class_requests(800, 9, {}, prior)), classes);
    EXPECT_NE(classes_of(class_requests(800, 10, {}, prior)), classes);
    const auto fewer = classes_of(class_requests(20, 9, {}, prior));
    EXPECT_TRUE(std::equal(fewer.begin(), fewer.end(), classes.begin()))
        << "a sample's class depends on how many are drawn";
}

class ClassTeacher : public ::testing::Test {
protected:
    ClassTeacher() { write(models::tiny_config()); }
    void write(const json& config) { models::write_model(path, models::tiny_model(config, 1)); }

    core::TestFolder folder;
    fs::path path = folder / "teacher";
};

TEST_F(ClassTeacher, draws_with_heun_and_ddim_as_requested) {
    const models::Model teacher = models::read_model(path);
    const auto denoiser = teacher.denoiser();
    const auto levels = teacher.noise.sampling_levels(5);
    const Tensor noise = diffusion::image_noise(7, 0, 3, {2});
    const auto condition = diffusion::one_hot(std::vector<std::int64_t>{0, 1, 3}, 4);
    const Requests request = requests_for(7, {0, 1, 2}, {0, 1, 3});
    const auto heun = open(path, "heun:5");
    EXPECT_TRUE(near(heun->draw(request),
                     diffusion::sample_heun(denoiser, noise, levels, condition).detach()));
    EXPECT_EQ(heun->sampling().evaluations(), 9);
    const auto ddim = open(path, "ddim:5");
    EXPECT_TRUE(near(ddim->draw(request),
                     diffusion::sample_ddim(denoiser, noise, levels, condition).detach()));
    EXPECT_EQ(ddim->sampling().evaluations(), 5);
    EXPECT_FALSE(near(heun->draw(request), ddim->draw(request)));
}

TEST_F(ClassTeacher, adds_noise_that_follows_from_seed_and_number_alone_in_the_stochastic_sampler) {
    const models::Model teacher = models::read_model(path);
    const auto denoiser = teacher.denoiser();
    const auto generator = open(path, "stochastic:6,S_churn=2,S_min=0.1,S_max=20,S_noise=1.01");
    const Requests request = requests_for(7, {0, 1, 4}, {0, 1, 3});
    const Tensor all = generator->draw(request);
    for (std::size_t i = 0; i < 3; ++i) {
        const std::int64_t number = request[i].index;
        const auto condition =
            diffusion::one_hot(std::vector<std::int64_t>{class_of(request[i].condition)}, 4);
        const auto added = [&](std::size_t step) {
            core::RandomStream stream(7, fmt::format("churn/{}", step),
                                      static_cast<std::uint64_t>(number));
            return diffusion::normal_tensor(stream, {1, 2});
        };
        const Tensor alone =
            diffusion::sample_heun_stochastic(denoiser, diffusion::image_noise(7, number, 1, {2}),
                                              teacher.noise.sampling_levels(6), condition,
                                              {2, 0.1, 20, 1.01}, added)
                .detach();
        EXPECT_TRUE(near(all.narrow(0, static_cast<std::int64_t>(i), 1), alone)) << i;
    }
    EXPECT_TRUE(near(generator->draw(requests_for(7, {4, 0}, {3, 0})),
                     all.index_select(0, at::tensor({2, 0}))));
    EXPECT_EQ(generator->sampling().evaluations(), 11);
    const Tensor heun = open(path, "heun:6")->draw(request);
    EXPECT_FALSE(near(all, heun));
    EXPECT_TRUE(near(open(path, "stochastic:6,S_churn=0")->draw(request), heun));
}

TEST_F(ClassTeacher, takes_18_heun_steps_by_default_and_a_student_takes_one) {
    EXPECT_EQ(open(path)->sampling().method, Sampling::Method::heun);
    EXPECT_EQ(open(path)->sampling().evaluations(), 35);
    const auto student = models::write_student(folder / "student", models::odd_and_even(), 0);
    EXPECT_EQ(open(student)->sampling().evaluations(), 1);
}

TEST_F(ClassTeacher, its_prior_is_the_datas_when_the_config_has_it) {
    EXPECT_EQ(open(path)->prior().weights, std::vector<double>(4, 1.0));
    json config = models::tiny_config();
    config["provenance"] = {{"prior", {4, 3, 2, 1}}};
    write(config);
    EXPECT_EQ(open(path)->prior().weights, (std::vector<double>{4, 3, 2, 1}));
}

TEST_F(ClassTeacher, an_unconditional_model_knows_class_0_only) {
    json config = models::tiny_config();
    config["classes"] = 0;
    write(config);
    const auto generator = open(path);
    EXPECT_EQ(generator->draw(class_requests(2, 0, {}, generator->prior())).sizes(),
              at::IntArrayRef({2, 2}));
    EXPECT_THROW(generator->draw(requests_for(0, {0}, {1})), core::UsageError);
}

TEST_F(ClassTeacher, its_hash_changes_with_a_weight_and_not_with_its_place) {
    const std::string before = open(path)->hash();
    fs::rename(path, folder / "moved");
    EXPECT_EQ(open(folder / "moved")->hash(), before);
    backends::Parameters weights = backends::read_parameters(folder / "moved/model.safetensors");
    weights.at("model.output.bias")[0] += 1;
    backends::write_parameters(folder / "moved/model.safetensors", weights);
    EXPECT_NE(open(folder / "moved")->hash(), before);
}

TEST_F(ClassTeacher, a_path_that_is_not_a_model_is_named) {
    core::expect_contains(core::error_of([&] { open(folder / "nowhere"); }),
                          (folder / "nowhere").string());
}

TEST(SamplingMethod, is_known_by_its_name_and_a_wrong_one_by_its_nearest) {
    for (const char* name : {"one-step", "heun", "ddim", "stochastic"})
        EXPECT_EQ(name_of(sampling_method(name)), name);
    core::expect_contains(core::error_of<core::UsageError>([] { sampling_method("huen"); }),
                          "did you mean \"heun\"?");
}

}  // namespace
}  // namespace atelier::inference
