#include "atelier/inference/export.h"

#include <openvino/openvino.hpp>

#include "atelier/inference/diffusers_model.h"
#include "atelier/inference/engine.h"
#include "models/diffusers_fixtures.h"
#include "models/model_fixtures.h"

/// Graphs for other runtimes, each loaded from its file and run by OpenVINO.
namespace atelier::inference {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Inputs = std::map<std::string, Tensor>;

Tensor computed(const fs::path& file, const Inputs& inputs) {
    ov::Core core;
    ov::InferRequest request =
        core.compile_model(file.string(), "CPU", {ov::hint::inference_precision(ov::element::f32)})
            .create_infer_request();
    for (const auto& [name, tensor] : inputs) {
        const ov::element::Type type = tensor.scalar_type() == at::kLong  ? ov::element::i64
                                       : tensor.scalar_type() == at::kInt ? ov::element::i32
                                                                          : ov::element::f32;
        request.set_tensor(name, {type, ov::Shape(tensor.sizes().begin(), tensor.sizes().end()),
                                  const_cast<void*>(tensor.const_data_ptr())});
    }
    request.infer();
    ov::Tensor found = request.get_output_tensor();
    const ov::Shape sides = found.get_shape();
    return at::from_blob(found.data<float>(), std::vector<std::int64_t>(sides.begin(), sides.end()),
                         at::kFloat)
        .clone();
}

models::Model small_unet(bool student) {
    json config{{"architecture", "adm_unet"},
                {"resolution", 8},
                {"channels", 2},
                {"classes", 3},
                {"model_channels", 32},
                {"channel_mult", {1, 2}},
                {"num_blocks", 1},
                {"attention_resolutions", {4}},
                {"patch_size", 2}};
    if (student) config["place"] = {{"student", 0}, {"cell", {0, 2}}};
    models::Model model = models::init_model(config, 1);
    model.parameters = backends::filled(networks::trace(model.network).parameters);
    return model;
}

class Export : public testing::Test {
protected:
    /// In both formats, each file beside its source.
    std::vector<fs::path> exported(const models::Model& model) {
        models::write_model(folder / "model", model);
        export_model(folder / "model", folder / "graph.onnx", GraphFormat::onnx);
        export_model(folder / "model", folder / "graph.xml", GraphFormat::openvino);
        return {folder / "graph.onnx", folder / "graph.xml"};
    }

    core::TestFolder folder;
};

TEST_F(Export, of_a_student_is_the_whole_generator) {
    const models::Model model = small_unet(true);
    const std::vector<std::int64_t> classes{2, 0, 1};
    const Tensor noise = backends::normal({3, 2, 8, 8}, "noise"),
                 expected = open_one_step(model, {})->draw(noise, classes);
    for (const fs::path& file : exported(model)) {
        EXPECT_LT(backends::relative_distance(
                      computed(file, {{"noise", noise}, {"class", at::tensor(classes, at::kLong)}}),
                      expected),
                  1e-5)
            << file;
    }
    EXPECT_FALSE(fs::exists(folder / "graph.onnx.data"));
}

TEST_F(Export, of_a_teacher_is_its_network) {
    const models::Model model = small_unet(false);
    const Tensor x = backends::normal({3, 2, 8, 8}, "x"), level = backends::normal({3}, "level"),
                 classes = at::tensor({2, 0, 1}, at::kLong);
    const Tensor labels = at::eye(3).index_select(0, classes);
    const Tensor expected =
        diffusion::evaluate(model.network, {x, level, labels}, backends::TorchOps(model.parameters))
            .raw;
    for (const fs::path& file : exported(model))
        EXPECT_LT(backends::relative_distance(
                      computed(file, {{"x", x}, {"c_noise", level}, {"class", classes}}), expected),
                  1e-5)
            << file;
}

TEST_F(Export, of_an_ensemble_is_a_graph_for_each_student_and_the_partition) {
    const fs::path path = models::write_tiny_ensemble(folder);
    export_ensemble(models::read_ensemble(path), folder / "graphs", GraphFormat::onnx);
    const Tensor noise = backends::normal({2, 2}, "noise");
    for (const std::int64_t k : {0, 1}) {
        const models::Model student = models::read_student(models::read_ensemble(path), k);
        const std::vector<std::int64_t> classes{k, k + 2};
        const Tensor found =
            computed(folder / fmt::format("graphs/student-{}.onnx", k),
                     {{"noise", noise}, {"class", at::tensor(classes, at::kLong)}});
        EXPECT_LT(
            backends::relative_distance(found, open_one_step(student, {})->draw(noise, classes)),
            1e-5);
    }
    EXPECT_EQ(core::read_json(folder / "graphs/ensemble.json"),
              core::read_json(path / "ensemble.json"));
}

TEST_F(Export, of_stable_diffusion_is_a_graph_for_each_part) {
    const models::SmallStableDiffusion source(1);
    DiffusersModel model(source.path(), {});
    export_diffusers(models::DiffusersDirectory(source.path()), folder / "parts",
                     GraphFormat::onnx);
    const Tensor ids = source.answers().at("input_ids").narrow(0, 0, 2).contiguous();
    const Tensor hidden = model.read(ids).hidden;
    EXPECT_LT(backends::relative_distance(computed(folder / "parts/text_encoder/model.onnx",
                                                   {{"input_ids", ids.to(at::kInt)}}),
                                          hidden),
              1e-4);
    const std::vector<std::int64_t> latent = model.directory().latent_shape();
    const Tensor x = backends::normal({2, latent[0], latent[1], latent[2]}, "x"),
                 t = at::tensor({500.0F, 20.0F});
    EXPECT_LT(backends::relative_distance(
                  computed(folder / "parts/unet/model.onnx",
                           {{"sample", x}, {"timestep", t}, {"encoder_hidden_states", hidden}}),
                  model.predict({{"x", x}, {"t", t}, {"hidden", hidden}})),
              1e-4);
    const Tensor images = model.autoencoder().decode(x);
    EXPECT_LT(
        backends::relative_distance(
            computed(folder / "parts/vae_decoder/model.onnx", {{"latent_sample", x}}), images),
        1e-4);
    const Tensor moments = computed(folder / "parts/vae_encoder/model.onnx", {{"sample", images}});
    EXPECT_LT(backends::relative_distance(moments.chunk(2, 1)[0],
                                          model.autoencoder().encode(images).mean),
              1e-4);
    EXPECT_TRUE(fs::exists(folder / "parts/tokenizer/vocab.json"));
}

TEST_F(Export, rejects_existing_outputs_and_names_of_another_format) {
    models::write_model(folder / "model", small_unet(true));
    core::write_text(folder / "there.onnx", "mine");
    core::expect_contains(
        backends::error_of(
            [&] { export_model(folder / "model", folder / "there.onnx", GraphFormat::onnx); }),
        "exists already");
    EXPECT_EQ(core::read_text(folder / "there.onnx"), "mine");
    core::write_text(folder / "pytorch_model.bin", "mine too");
    core::expect_contains(backends::error_of([&] {
                              export_model(folder / "model", folder / "pytorch_model.xml",
                                           GraphFormat::openvino);
                          }),
                          "pytorch_model.bin: exists already");
    EXPECT_EQ(core::read_text(folder / "pytorch_model.bin"), "mine too");
    EXPECT_THROW(export_model(folder / "model", folder / "graph.onnx", GraphFormat::openvino),
                 core::UsageError);
    EXPECT_FALSE(fs::exists(folder / "graph.onnx"));
}

}  // namespace
}  // namespace atelier::inference
