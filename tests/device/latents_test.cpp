#include <fstream>

#include "atelier/core/image_file.h"
#include "atelier/data/shards.h"
#include "atelier/inference/autoencoder.h"
#include "atelier/inference/images_together.h"
#include "atelier/inference/pipeline.h"
#include "cli/program.h"
#include "device/pretend_device.h"
#include "models/diffusers_fixtures.h"
#include "models/prompt_fixtures.h"

/// What Stable Diffusion's parts and text towers cost on an accelerator: as many operations for
/// some images and prompts as for one.
namespace atelier::pretend {

namespace {

namespace fs = std::filesystem;
using inference::Pipeline;
using inference::SampleRequest;

inference::Engine engine_on(const char* device) {
    return inference::engine_of("torch", "fp32", device);
}

/// The operations that `work` launches.
std::int64_t operations_of(const std::function<void()>& work) {
    reset();
    work();
    return counts().launched();
}

Tensor latents_of(std::int64_t count) {
    core::RandomStream stream(3, "test/latents");
    return diffusion::normal_tensor(stream, {count, 4, 8, 8});
}

/// `many` launches are those of one, and a few for each image.
void expect_together(std::int64_t many, std::int64_t one) {
    EXPECT_GT(one, 20) << "it was not used";
    EXPECT_LT(static_cast<double>(many), 1.5 * static_cast<double>(one));
}

/// Images by the bytes of the CPU's, which rounds elsewhere.
void expect_same_images(const Tensor& found, const Tensor& expected) {
    ASSERT_EQ(found.sizes(), expected.sizes());
    EXPECT_LE((found.to(at::kInt) - expected.to(at::kInt)).abs().max().item<int>(), 1);
}

std::vector<SampleRequest> requests(std::int64_t count) {
    std::vector<SampleRequest> all;
    for (std::int64_t i = 0; i < count; ++i)
        all.push_back({4, i, i % 2 == 0 ? "a photo of a cat" : fmt::format("many a dog {}", i)});
    return all;
}

}  // namespace

TEST(Together, count_so_many_pixels) {
    const at::Device device(at::kPrivateUse1);
    EXPECT_EQ(inference::images_together(device, 512, 512), 4);
    EXPECT_EQ(inference::images_together(device, 768, 512), 2);
    EXPECT_EQ(inference::images_together(device, 2048, 2048), 1);
    EXPECT_EQ(inference::images_together(device, 8, 8), 64);
    EXPECT_EQ(inference::images_together(at::kCPU, 8, 8), 1);
}

TEST(Latents, are_decoded_and_images_encoded_together) {
    const models::SmallStableDiffusion model(1);
    inference::Autoencoder here(model.path() / "vae", engine_on("cpu")),
        there(model.path() / "vae", engine_on("pretend"));
    there.decode_to_pixels(latents_of(1));  // reads the weights
    const std::int64_t one = operations_of([&] { there.decode_to_pixels(latents_of(1)); });
    Tensor found;
    expect_together(operations_of([&] { found = there.decode_to_pixels(latents_of(8)); }), one);
    expect_same_images(found, here.decode_to_pixels(latents_of(8)));
}

TEST(Latents, of_prompts_are_drawn_together_and_a_batch_has_the_same_bytes_alone) {
    const models::SmallStableDiffusion model(1);
    const auto pipeline = [&](const char* device) {
        return Pipeline::load(model.path(), {.engine = engine_on(device), .steps = 3});
    };
    const auto there = pipeline("pretend");
    there->sample(requests(1));  // reads the weights
    const std::int64_t one = operations_of([&] { there->sample(requests(1)); });
    Tensor found;
    std::int64_t evaluations = 0;
    expect_together(
        operations_of([&] { found = there->sample(requests(6), {}, [&] { ++evaluations; }); }),
        one);
    EXPECT_EQ(evaluations, 6 * there->sampling().evaluations());
    expect_same_images(found, pipeline("cpu")->sample(requests(6)));

    const std::vector<SampleRequest> many = requests(70);
    const auto batches = there->batches(many);
    ASSERT_EQ(batches.size(), 2U);  // 64 of 16x16 pixels, and 6
    const Tensor all = there->sample(many);
    for (const auto& batch : batches) {
        std::vector<SampleRequest> own;
        for (const std::int64_t i : batch) own.push_back(many[static_cast<std::size_t>(i)]);
        EXPECT_TRUE(
            at::equal(there->sample(own), all.index_select(0, at::tensor(batch, at::kLong))));
    }
}

TEST(Latents, are_encoded_together_for_a_run) {
    const models::SmallStableDiffusion model(1);
    const core::TestFolder folder;
    const auto encoded = [&](int images, const std::string& device) {
        const fs::path pictures = folder / fmt::format("pictures-{}", images),
                       run = folder / fmt::format("run-{}-{}", images, device);
        fs::create_directories(pictures);
        for (int i = 0; i < images; ++i) {
            core::Image image{16, 16, 3, {}};
            for (int p = 0; p < 16 * 16 * 3; ++p)
                image.pixels.push_back(static_cast<std::uint8_t>((p * (i + 3)) % 251));
            core::write_png(pictures / fmt::format("{}.png", i), image);
            std::ofstream(pictures / fmt::format("{}.txt", i)) << "picture " << i;
        }
        std::int64_t operations = 0;
        for (const char* command : {"teacher", "encode"}) {
            operations = operations_of([&] {
                const cli::Answer answer = cli::atelier(
                    {command, std::string(ATELIER_SOURCE_DIR) + "/configs/sd15-msd4-dm.toml",
                     "device=" + device, "precision=fp32", "threads=1", "students.threads=1",
                     "partition.students=1", "data.path=" + pictures.string(), "data.shape=[4,8,8]",
                     "teacher.path=" + model.path().string(), "output=" + run.string()});
                ASSERT_EQ(answer.code, 0) << answer.error;
            });
        }
        return std::pair(operations,
                         backends::read_parameters(run / "latents/shard-00000.safetensors"));
    };
    const auto [one, of_one] = encoded(1, "pretend");
    const auto [many, found] = encoded(24, "pretend");
    expect_together(many, one);
    const auto [none, expected] = encoded(24, "cpu");
    EXPECT_EQ(none, 0);
    for (const auto& [name, tensor] : expected.tensors())
        EXPECT_TRUE(at::allclose(found.at(name), tensor, 1e-2, 1e-2)) << name;
}

TEST(TextTowers, of_ensembles_run_on_the_device) {
    const core::TestFolder folder;
    const fs::path ensemble = models::write_prompt_ensemble_of_two(folder);
    const auto there = Pipeline::load(ensemble, {.engine = engine_on("pretend")}),
               here = Pipeline::load(ensemble, {.engine = engine_on("cpu")});
    const std::vector<inference::Condition> prompts{"a white shoe", "two black bags", "a shoe"};
    inference::Conditioning found;
    const std::int64_t one = operations_of([&] { there->encode(std::span(prompts).first(1)); });
    expect_together(operations_of([&] { found = there->encode(prompts); }), one);
    const inference::Conditioning expected = here->encode(prompts);
    EXPECT_TRUE(found.embeddings.is_cpu());
    EXPECT_TRUE(at::allclose(found.embeddings, expected.embeddings, 1e-5, 1e-6));
    EXPECT_TRUE(at::allclose(found.rows, expected.rows, 1e-5, 1e-6));
}

}  // namespace atelier::pretend
