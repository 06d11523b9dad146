#include "atelier/backends/torch/recorded_work.h"

#include <gtest/gtest.h>

#include "atelier/diffusion/noise_levels.h"
#include "atelier/inference/engine.h"
#include "atelier/models/model_directory.h"
#include "device/pretend_device.h"

/// Work that is recorded and replayed, on the pretended accelerator.
namespace atelier::pretend {

namespace {

using backends::RecordedWork;

const at::Device device{at::kPrivateUse1, 1};

/// Has operations with results of their own, in place, in views and of several tensors.
Tensor several_operations(const std::vector<Tensor>& inputs) {
    Tensor sum = inputs[0] * 2 + 1;
    sum.narrow(1, 0, 2).mul_(3);
    if (inputs.size() > 1 && inputs[1].defined()) sum = sum + inputs[1];
    const std::vector<Tensor> parts = sum.split(2, 1);
    Tensor result = at::empty_like(sum);
    result.copy_(at::cat({parts[1], parts[0]}, 1));
    return at::softmax(result, 1);
}

Tensor numbers(std::int64_t rows, float begin) {
    return at::arange(4 * rows, at::kFloat).view({rows, 4}).add(begin).div(7).to(device);
}

}  // namespace

TEST(RecordedWork, gives_the_same_bytes_replayed) {
    RecordedWork work(several_operations);
    std::vector<Tensor> earlier, expected;
    for (int call = 0; call < 6; ++call) {
        for (const std::int64_t rows : {1, 3}) {
            const std::vector<Tensor> inputs{numbers(rows, static_cast<float>(call)),
                                             call % 2 == 0 ? numbers(rows, 5) : Tensor()};
            earlier.push_back(work(inputs));
            expected.push_back(several_operations(inputs));
        }
    }
    for (std::size_t i = 0; i < earlier.size(); ++i)
        EXPECT_TRUE(earlier[i].cpu().equal(expected[i].cpu())) << i << ": no later call changes it";
}

TEST(RecordedWork, is_one_launch_beside_copies_of_what_goes_in_and_comes_out) {
    RecordedWork work(several_operations);
    const auto launched = [&](std::int64_t rows) {
        const Tensor input = numbers(rows, 1);
        reset();
        work({input});
        return counts().launched();
    };
    const std::int64_t before = launched(2);
    EXPECT_GT(before, 5);
    for (int call = 1; call < RecordedWork::calls_before; ++call) EXPECT_EQ(launched(2), before);
    EXPECT_EQ(launched(2), 1 + 3) << "an input copied to be held, then as at each replay";
    EXPECT_EQ(launched(2), 3) << counts().description();
    EXPECT_EQ(launched(1), before) << "of other shapes";
}

TEST(RecordedWork, forgets_the_shapes_that_have_waited_longest) {
    RecordedWork work(several_operations);
    const auto held_after = [&](std::int64_t rows) {
        for (int call = 0; call <= RecordedWork::calls_before; ++call) work({numbers(rows, 1)});
        return bytes_held();
    };
    std::vector<std::int64_t> held;
    for (std::size_t rows = 1; rows <= 2 * RecordedWork::most_kept; ++rows)
        held.push_back(held_after(static_cast<std::int64_t>(rows)));
    EXPECT_GT(held[RecordedWork::most_kept - 1], held[0]) << "each of them needs its memory";
    EXPECT_EQ(held.back(), held[RecordedWork::most_kept - 1]);
}

TEST(RecordedWork, is_called_where_it_cannot_be_recorded) {
    const auto reads = [](const std::vector<Tensor>& inputs) {
        return inputs[0] * inputs[0].sum().item<float>();
    };
    RecordedWork work(reads);
    reset();
    for (int call = 0; call < 5; ++call) {
        const Tensor input = numbers(2, static_cast<float>(call));
        EXPECT_TRUE(work({input}).cpu().equal(reads({input}).cpu())) << call;
    }
    EXPECT_EQ(counts().operations.count("replay"), 0u);
}

TEST(RecordedWork, is_called_on_the_cpu) {
    int calls = 0;
    RecordedWork work([&](const std::vector<Tensor>& inputs) {
        ++calls;
        return inputs[0] + 1;
    });
    for (int call = 0; call < 5; ++call) work({at::ones({2})});
    EXPECT_EQ(calls, 5);
}

TEST(RecordedWork, passes_on_what_the_function_throws) {
    RecordedWork work([](const std::vector<Tensor>& inputs) -> Tensor {
        TORCH_CHECK(inputs[0].size(0) != 3, "three are too many");
        return inputs[0] + 1;
    });
    for (int call = 0; call < 5; ++call) EXPECT_THROW(work({numbers(3, 1)}), c10::Error);
    EXPECT_EQ(work({numbers(2, 1)}).size(0), 2);
}

TEST(RecordedWork, draws_with_a_student_as_before) {
    const inference::Engine engine = inference::engine_of("torch", "fp32", "pretend:1");
    const models::Model student = models::read_model(
        std::filesystem::path(ATELIER_SOURCE_DIR) / "models/fashion-mnist/k4/students/0",
        engine.device, engine.weights());
    const auto one_step = inference::open_one_step(student, engine, {});
    std::vector<std::int64_t> shape{2};
    shape.insert(shape.end(), student.network.data_shape.begin(), student.network.data_shape.end());
    core::RandomStream stream(1, "test", 0);
    const Tensor z = diffusion::normal_tensor(stream, shape);
    const Tensor first = one_step->draw(z, std::vector<std::int64_t>{0, 1});
    std::int64_t launched = 0;
    for (int call = 0; call < RecordedWork::calls_before + 1; ++call) {
        reset();
        EXPECT_TRUE(one_step->draw(z, std::vector<std::int64_t>{0, 1}).equal(first)) << call;
        if (call == 0) launched = counts().launched();
    }
    reset();
    EXPECT_FALSE(one_step->draw(z, std::vector<std::int64_t>{1, 0}).equal(first));
    EXPECT_GT(launched, 100);
    EXPECT_LT(counts().launched(), 10) << counts().description();
    EXPECT_EQ(counts().waited(), 2) << "noise and images: " << counts().description();
}

}  // namespace atelier::pretend
