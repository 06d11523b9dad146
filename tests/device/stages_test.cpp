#include <fstream>

#include "atelier/backends/torch/parameters.h"
#include "atelier/core/atomic_file.h"
#include "atelier/serving/served_model.h"
#include "cli/program.h"
#include "device/pretend_device.h"
#include "end_to_end/images.h"
#include "models/diffusers_fixtures.h"

/// Every stage on the pretended accelerator, as the program runs it: nothing is left on another
/// device, and the weights are the CPU's up to rounding.
namespace atelier::pretend {

namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

void succeed(const Words& words) {
    const cli::Answer answer = cli::atelier(words);
    ASSERT_EQ(answer.code, 0) << testing::PrintToString(words) << answer.error;
}

Words with(Words words, const Words& more) {
    words.insert(words.end(), more.begin(), more.end());
    return words;
}

/// Compares all weights of two runs.
void expect_close(const fs::path& a, const fs::path& b, double tolerance) {
    const auto expected = end_to_end::weights_of(a.string()),
               found = end_to_end::weights_of(b.string());
    ASSERT_EQ(expected.size(), found.size());
    ASSERT_FALSE(expected.empty());
    for (const auto& [file, bytes] : expected) {
        const auto one = backends::read_parameters(a / file),
                   other = backends::read_parameters(b / file);
        for (const auto& [name, tensor] : one.tensors()) {
            const double difference =
                             (other.at(name) - tensor).square().mean().sqrt().item<double>(),
                         size = tensor.square().mean().sqrt().item<double>();
            EXPECT_LE(difference, tolerance * (size + 1e-3)) << file << " " << name;
        }
    }
}

void expect_finite(const fs::path& run) {
    const auto files = end_to_end::weights_of(run.string());
    EXPECT_FALSE(files.empty());
    for (const auto& [file, bytes] : files)
        EXPECT_TRUE(backends::read_parameters(run / file).all_finite()) << file;
}

class Stages : public testing::Test {
protected:
    std::string path(const std::string& name) const { return (folder_ / name).string(); }

    /// Points, every stage: TSM of smaller students, DM with pairs, ADM whose GAN weight is found.
    Words points(const std::string& device, const std::string& output) const {
        Words words = end_to_end::tiny(
            "run", path(output),
            {"device=" + device, "students.widths=[16,32]", "students.parallel=1",
             "teacher.steps=8", "teacher.micro_batch=24", "teacher.clip=0.5", "tsm.steps=4",
             "tsm.batch=32", "dm.steps=4", "dm.micro_batch=20", "adm.steps=4",
             "adm.gan_weight=auto", "adm.more_ema_decays=[0.9]", "checkpoint_seconds=60"});
        words[1] = std::string(ATELIER_SOURCE_DIR) + "/" + words[1];
        return words;
    }

    /// Small pictures: U-Nets with attention, ADM with R1.
    Words pictures(const std::string& device, const std::string& output) const {
        if (!fs::exists(path("pictures"))) end_to_end::write_images(path("pictures"), 64, 8, 1);
        Words words = end_to_end::small_run(path("pictures"));
        words.insert(words.end(),
                     {"device=" + device, "precision=fp32", "output=" + path(output),
                      "students.parallel=1", "teacher.steps=3", "teacher.batch=8", "tsm.steps=2",
                      "tsm.batch=8", "tsm.micro_batch=0", "dm.steps=2", "dm.batch=8",
                      "dm.micro_batch=4", "dm.fake_updates=2", "adm.steps=2", "adm.batch=8",
                      "adm.micro_batch=0", "adm.fake_updates=2", "adm.r1_weight=0.1"});
        return words;
    }

    core::TestFolder folder_;
};

}  // namespace

TEST_F(Stages, of_points_come_to_the_weights_of_the_cpu_on_either_device) {
    succeed(points("cpu", "cpu"));
    for (const char* device : {"pretend", "pretend:1"}) {
        const std::string output = std::string("on ") + device;
        reset();
        succeed(points(device, output));
        EXPECT_GT(counts().launched(), 1000) << "it was not used";
        EXPECT_TRUE(fs::exists(path(output) + "/evaluation.json"));
        expect_close(path("cpu"), path(output), 1e-5);
    }
    const std::string ensemble = path("on pretend/ensemble");
    succeed({"sample", ensemble, "--out", path("x.npz"), "--class", "1", "--count", "2", "--device",
             "pretend:1"});
    succeed({"evaluate", ensemble, "--data", end_to_end::small_points(), "--count", "20", "--out",
             path("evaluated"), "--classifier", "", "--device", "pretend"});
}

TEST_F(Stages, of_pictures_come_to_the_weights_of_the_cpu) {
    succeed(pictures("cpu", "cpu"));
    succeed(pictures("pretend:1", "device"));
    expect_close(path("cpu"), path("device"), 1e-4);

    const auto drawn = [&](const std::string& device) {
        const auto source =
            serving::served_source("m", path("device/ensemble"),
                                   {.engine = inference::engine_of("torch", "fp32", device)});
        server::Draw draw{.seed = 5, .number = 0, .class_id = 1};
        return source.open()->load(0)->generate({&draw, 1}, {}).front().image.pixels;
    };
    const auto expected = drawn("cpu"), found = drawn("pretend:1");
    ASSERT_EQ(expected.size(), found.size());
    for (std::size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1);
}

TEST_F(Stages, run_in_half_precision_with_activation_checkpointing) {
    const Words half = {"activation_checkpointing=true",
                        "adm.r1_weight=0",
                        "checkpoint_seconds=0",
                        "teacher.steps=1",
                        "dm.steps=1",
                        "dm.fake_updates=1",
                        "adm.steps=1",
                        "adm.fake_updates=1",
                        "evaluate.count=8",
                        "students.widths=[]",
                        "students.channel_mult=[]",
                        "students.depths=[]"};
    for (const char* precision : {"bf16", "fp16"}) {
        succeed(with(with(pictures("pretend", precision), half),
                     {std::string("precision=") + precision}));
        expect_finite(path(precision));
    }
}

TEST_F(Stages, of_latents_train_low_rank_deltas) {
    const models::SmallStableDiffusion diffusion(1);
    core::write_text(path("prompts.txt"), "a photo of a cat\nmany a dog\ntwo black bags\n");
    const auto latents = [&](const std::string& device, const std::string& precision) {
        succeed({"run", std::string(ATELIER_SOURCE_DIR) + "/configs/sd15-msd4-dm.toml",
                 "device=" + device, "precision=" + precision, "threads=1", "students.threads=1",
                 "students.parallel=1", "students.lora_rank=2",
                 "data.path=prompts:" + path("prompts.txt"), "data.shape=[4,8,8]",
                 "teacher.path=" + diffusion.path().string(), "output=" + path(device + precision),
                 "partition.students=1", "dm.steps=2", "dm.batch=2", "dm.micro_batch=2",
                 "dm.fake_updates=1", "probe.every=0", "probe.count=2"});
    };
    latents("cpu", "fp32");
    latents("pretend", "fp32");
    latents("pretend", "bf16");
    expect_close(path("cpufp32"), path("pretendfp32"), 1e-4);
    expect_finite(path("pretendbf16"));
    for (const Words& more :
         {Words{path("pretendfp32/ensemble"), "--out", path("a.npz")},
          Words{diffusion.path().string(), "--steps", "2", "--out", path("b.npz")}})
        succeed(
            with({"sample"}, with(more, {"--prompt", "a photo of a cat", "--device", "pretend"})));
}

TEST_F(Stages, that_run_out_of_memory_say_which_micro_batch_fits) {
    constexpr std::int64_t room = 37'000'000;  // of 62 for the whole batch, 32 for 16 samples
    const auto train = [&](const std::string& output, const std::string& micro_batch) {
        Words words = with(pictures("pretend", output),
                           {"teacher.batch=64", "teacher.steps=1", "network.model_channels=32",
                            "teacher.micro_batch=" + micro_batch});
        words[0] = "teacher";
        limit_memory(bytes_held() + room);
        const cli::Answer answer = cli::atelier(words);
        limit_memory(0);
        return answer;
    };
    const cli::Answer small = train("small", "0");
    EXPECT_EQ(small.code, 1);
    core::expect_contains(small.error, "teacher: step 0 needs more memory than the device has");
    core::expect_contains(small.error, "lower teacher.micro_batch (64)");

    // The estimate includes the context that a GPU's libraries allocate.
    constexpr std::int64_t context = 1'000'000'000;
    const at::Tensor of_libraries =
        at::empty({context}, at::TensorOptions(at::kByte).device("pretend"));
    const std::string error = train("named", "0").error, before = "set teacher.micro_batch = ";
    const auto begin = error.find(before), end = error.find(',', begin);
    ASSERT_NE(begin, std::string::npos) << error;
    const std::string fitting = error.substr(begin + before.size(), end - begin - before.size());
    EXPECT_EQ(fitting, "16");
    EXPECT_EQ(train("fitting", fitting).code, 0);
}

TEST_F(Stages, set_the_switches_of_their_precision) {
    for (const auto& [precision, deterministic] :
         {std::pair("tf32", false), std::pair("fp32", true)}) {
        Words words = with(points("pretend", precision),
                           {std::string("precision=") + precision,
                            deterministic ? "deterministic=true" : "deterministic=false"});
        words[0] = "teacher";
        succeed(words);
        const at::Context& context = at::globalContext();
        const bool tf32 = precision == std::string("tf32");
        EXPECT_EQ(context.allowTF32CuBLAS(), tf32);
        EXPECT_EQ(context.allowTF32CuDNN(), tf32);
        EXPECT_EQ(context.benchmarkCuDNN(), !deterministic);
        EXPECT_EQ(context.deterministicCuDNN(), deterministic);
        EXPECT_EQ(context.deterministicAlgorithms(), deterministic);
        EXPECT_FALSE(context.deterministicFillUninitializedMemory());
        if (!deterministic) continue;
        EXPECT_STREQ(std::getenv("CUBLAS_WORKSPACE_CONFIG"), ":4096:8");
    }
}

TEST_F(Stages, of_classifiers_come_to_the_weights_of_the_cpu) {
    end_to_end::write_images(path("pictures"), 64, 8, 1);
    for (const char* device : {"cpu", "pretend:1"}) {
        reset();
        succeed({"classifier", std::string(ATELIER_SOURCE_DIR) + "/configs/classifier.toml",
                 std::string("device=") + device, "data.path=" + path("pictures"),
                 "output=" + path(device), "threads=1", "width=8", "features=16", "batch=16",
                 "steps=4", "bfloat16=false"});
    }
    EXPECT_GT(counts().launched(), 100) << "it was not used";
    const auto expected = backends::read_parameters(path("cpu/classifier.safetensors")),
               found = backends::read_parameters(path("pretend:1/classifier.safetensors"));
    for (const auto& [name, tensor] : expected.tensors())
        EXPECT_TRUE(at::allclose(found.at(name), tensor, 1e-3, 1e-4)) << name;
}

}  // namespace atelier::pretend
