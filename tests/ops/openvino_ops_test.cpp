#include "atelier/ops/openvino_ops.h"

#include <openvino/openvino.hpp>

#include "atelier/ops/shape_ops.h"
#include "atelier/ops/torch_ops.h"
#include "ops/tensors.h"

namespace atelier::ops {
namespace {

using Layer = std::function<Value(Ops&, const std::vector<Value>&)>;

struct Case {
    std::string name;
    std::vector<Tensor> inputs;
    Layer layer;
};

/// `layer` computed in float32 by OpenVINO.
Tensor computed_by_openvino(const Case& at_hand, const Parameters& parameters) {
    OpenVinoOps speaker(parameters);
    ov::ParameterVector nodes;
    std::vector<Value> values;
    for (const Tensor& input : at_hand.inputs) {
        nodes.push_back(std::make_shared<ov::op::v0::Parameter>(ov::element::f32, ov::Shape(input.sizes().begin(), input.sizes().end())));
        values.push_back(value_of(nodes.back()->output(0)));
    }
    const Value out = at_hand.layer(speaker, values);
    const auto model = std::make_shared<ov::Model>(ov::OutputVector{node_of(out)}, nodes);
    static ov::Core core;
    ov::InferRequest request =
        core.compile_model(model, "CPU", {ov::hint::inference_precision(ov::element::f32), ov::inference_num_threads(1)}).create_infer_request();
    for (std::size_t i = 0; i < nodes.size(); ++i) request.set_input_tensor(i, view_of(at_hand.inputs[i]));
    request.infer();
    ov::Tensor found = request.get_output_tensor();
    const std::vector<std::int64_t> shape(found.get_shape().begin(), found.get_shape().end());
    EXPECT_EQ(shape, speaker.shape(out));
    return at::from_blob(found.data<float>(), shape, at::kFloat).clone();
}

class Speakers : public ::testing::TestWithParam<Case> {};

TEST_P(Speakers, agree) {
    const Case& at_hand = GetParam();
    ShapeOps tracer;
    std::vector<Value> shapes, tensors;
    for (const Tensor& input : at_hand.inputs) {
        shapes.emplace_back(Shape(input.sizes().vec()));
        tensors.emplace_back(input);
    }
    at_hand.layer(tracer, shapes);
    const Parameters parameters = filled(tracer.parameters);
    TorchOps torch(parameters);
    const Tensor expected = tensor_of(at_hand.layer(torch, tensors));
    EXPECT_LT(relative_distance(computed_by_openvino(at_hand, parameters), expected), 1e-5);
}

const Tensor image = normal({2, 8, 6, 4}, "image"), qkv = normal({2, 3 * 128, 4, 2}, "qkv"), features = normal({3, 8}, "features"),
             numbers = normal({5}, "numbers") * 300, modulation = normal({2, 16}, "modulation");

INSTANTIATE_TEST_SUITE_P(
    Layers, Speakers,
    ::testing::Values(
        Case{"conv2d", {image}, [](Ops& ops, const auto& in) { return ops.conv2d(in[0], "layer", {.out_channels = 5}); }},
        Case{"conv2d_strided_and_pointwise", {image},
             [](Ops& ops, const auto& in) {
                 const Value x = ops.conv2d(in[0], "first", {.out_channels = 6, .kernel = 3, .stride = 2, .padding = 1});
                 return ops.conv2d(x, "second", {.out_channels = 3, .kernel = 1, .padding = 0});
             }},
        Case{"linear", {features}, [](Ops& ops, const auto& in) { return ops.linear(in[0], "layer", {.out_features = 7}); }},
        Case{"linear_without_bias", {features}, [](Ops& ops, const auto& in) { return ops.linear(in[0], "layer", {.out_features = 7, .bias = false}); }},
        Case{"group_norm", {image}, [](Ops& ops, const auto& in) { return ops.group_norm(in[0], "layer", {.groups = 2}); }},
        Case{"group_norm_modulated_silu", {image, modulation},
             [](Ops& ops, const auto& in) { return ops.group_norm(in[0], "layer", {.groups = 4, .silu = true, .modulation = &in[1]}); }},
        Case{"layer_norm", {features}, [](Ops& ops, const auto& in) { return ops.layer_norm(in[0], "layer", 1e-5); }},
        Case{"attention", {qkv}, [](Ops& ops, const auto& in) { return ops.attention(in[0], 2); }},
        Case{"attention_of_one_head", {qkv}, [](Ops& ops, const auto& in) { return ops.attention(in[0], 1); }},
        Case{"up", {image}, [](Ops& ops, const auto& in) { return ops.resample(in[0], Resample::up); }},
        Case{"down", {image}, [](Ops& ops, const auto& in) { return ops.resample(in[0], Resample::down); }},
        Case{"concat", {image, image * 2}, [](Ops& ops, const auto& in) { return ops.concat(in[0], in[1]); }},
        Case{"add_scale_silu", {image, image * 2}, [](Ops& ops, const auto& in) { return ops.silu(ops.scale(ops.add(in[0], in[1]), 0.3)); }},
        Case{"sinusoid", {numbers}, [](Ops& ops, const auto& in) { return ops.sinusoid(in[0], 32); }},
        Case{"pixel_unshuffle", {image}, [](Ops& ops, const auto& in) { return ops.pixel_unshuffle(in[0], 2); }},
        Case{"pixel_shuffle", {image}, [](Ops& ops, const auto& in) { return ops.pixel_shuffle(in[0], 2); }},
        Case{"global_average", {image}, [](Ops& ops, const auto& in) { return ops.global_average(in[0]); }}),
    [](const auto& info) { return info.param.name; });

TEST(OpenVinoOps, names_a_parameter_that_is_missing) {
    const Parameters none;
    OpenVinoOps speaker(none, "model.");
    const auto x = std::make_shared<ov::op::v0::Parameter>(ov::element::f32, ov::Shape{1, 4});
    expect_contains(error_of([&] { speaker.linear(value_of(x->output(0)), "layer", {.out_features = 2}); }), "model.layer.weight");
}

}  // namespace
}  // namespace atelier::ops
