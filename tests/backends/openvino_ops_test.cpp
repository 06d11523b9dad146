#include "atelier/backends/openvino/openvino_ops.h"

#include <openvino/op/convert.hpp>
#include <openvino/openvino.hpp>

#include "atelier/backends/native/program_ops.h"
#include "atelier/backends/onnx/onnx_ops.h"
#include "atelier/backends/torch/quantised.h"
#include "atelier/backends/torch/torch_ops.h"
#include "backends/tensors.h"
#include "graph/every_op.h"

namespace atelier::backends {

using namespace graph;

namespace {

using Layer = Body;

struct Case {
    std::string name;
    std::vector<Tensor> inputs;
    Layer layer;
};

/// The graph of `layer` for inputs like the case's.
Graph recorded(const Case& tested) {
    std::vector<Shape> shapes;
    for (const Tensor& input : tested.inputs) shapes.push_back(input.sizes().vec());
    return record(shapes, [&](Builder& ops, std::span<const Value> in) {
        return std::vector{tested.layer(ops, in)};
    });
}

Tensor computed_by_torch(const Case& tested, const backends::Parameters& parameters) {
    return backends::TorchOps(parameters).run(recorded(tested), tested.inputs)[0];
}

/// `layer` computed by OpenVINO.
Tensor computed_by_openvino(const Case& tested, const backends::Parameters& parameters,
                            const ov::element::Type& precision = ov::element::f32) {
    backends::OpenVinoOps backend(parameters, {.precision = precision});
    ov::ParameterVector nodes;
    std::vector<backends::OpenVinoValue> values;
    for (const Tensor& input : tested.inputs) {
        nodes.push_back(std::make_shared<ov::op::v0::Parameter>(
            ov::element::f32, ov::Shape(input.sizes().begin(), input.sizes().end())));
        values.emplace_back(nodes.back()->output(0));
    }
    const Graph graph = recorded(tested);
    const auto model = std::make_shared<ov::Model>(
        ov::OutputVector{
            std::make_shared<ov::op::v0::Convert>(backend.run(graph, values)[0], ov::element::f32)
                ->output(0)},
        nodes);
    static ov::Core core;
    ov::InferRequest request =
        core.compile_model(model, "CPU",
                           {ov::hint::inference_precision(precision), ov::inference_num_threads(2)})
            .create_infer_request();
    for (std::size_t i = 0; i < nodes.size(); ++i)
        request.set_input_tensor(i, backends::view_of(tested.inputs[i]));
    request.infer();
    ov::Tensor found = request.get_output_tensor();
    const std::vector<std::int64_t> shape(found.get_shape().begin(), found.get_shape().end());
    EXPECT_EQ(shape, graph.shape(graph.outputs[0]));
    return at::from_blob(found.data<float>(), shape, at::kFloat).clone();
}

/// The ONNX graph of `layer`, written to a file, read by OpenVINO and computed there.
Tensor computed_from_onnx(const Case& tested, const backends::Parameters& parameters,
                          std::size_t max_inline_bytes = 1 << 30) {
    backends::OnnxGraph graph;
    const Graph layer = recorded(tested);
    std::vector<backends::OnnxValue> values;
    for (std::size_t i = 0; i < tested.inputs.size(); ++i) {
        const Shape shape = tested.inputs[i].sizes().vec();
        values.emplace_back(
            graph.input(fmt::format("in{}", i), at::kFloat, {shape.begin() + 1, shape.end()}));
    }
    Shape shape = layer.shape(layer.outputs[0]);
    graph.output("out", backends::OnnxOps(graph, parameters).run(layer, values)[0],
                 {shape.begin() + 1, shape.end()});
    const core::TestFolder folder;
    graph.write(folder / "graph.onnx", "test", {}, max_inline_bytes);
    ov::Core core;
    ov::InferRequest request = core.compile_model((folder / "graph.onnx").string(), "CPU",
                                                  {ov::hint::inference_precision(ov::element::f32),
                                                   ov::inference_num_threads(2)})
                                   .create_infer_request();
    for (std::size_t i = 0; i < tested.inputs.size(); ++i)
        request.set_tensor(fmt::format("in{}", i), backends::view_of(tested.inputs[i]));
    request.infer();
    ov::Tensor found = request.get_output_tensor();
    const ov::Shape sides = found.get_shape();
    shape[0] = tested.inputs[0].size(0);
    EXPECT_EQ(Shape(sides.begin(), sides.end()), shape);
    return at::from_blob(found.data<float>(), shape, at::kFloat).clone();
}

/// `layer` computed by a compiled program.
Tensor computed_by_program(const Case& tested, const backends::Parameters& parameters) {
    backends::ProgramOps backend(parameters);
    std::vector<backends::ProgramValue> values;
    std::vector<const float*> inputs;
    for (const Tensor& input : tested.inputs) {
        values.push_back(
            backend.input(values.size(), {input.sizes().begin() + 1, input.sizes().end()}));
        inputs.push_back(input.const_data_ptr<float>());
    }
    const Graph graph = recorded(tested);
    const backends::Program program = backend.compiled(graph, values);
    Tensor found = at::empty(graph.shape(graph.outputs[0]), at::kFloat);
    const std::int64_t samples = tested.inputs[0].size(0);
    std::vector<float> memory(program.memory_size(samples));
    kernels::Barrier alone(1);
    kernels::Workspace workspace;
    backends::Program::run({program, memory.data(), samples, inputs.data(), nullptr,
                            found.mutable_data_ptr<float>(), 0, 1, alone, workspace});
    return found;
}

class Backends : public ::testing::TestWithParam<Case> {};

TEST_P(Backends, agree) {
    const Case& tested = GetParam();
    const backends::Parameters parameters = filled(recorded(tested).parameters);
    const Tensor expected = computed_by_torch(tested, parameters);
    EXPECT_LT(relative_distance(computed_by_openvino(tested, parameters), expected), 1e-5);
    EXPECT_LT(relative_distance(computed_from_onnx(tested, parameters), expected), 1e-5);
    if (unsupported_by_programs(recorded(tested)).empty()) {
        EXPECT_LT(relative_distance(computed_by_program(tested, parameters), expected), 1e-5);
    }
}

const Tensor image = normal({2, 8, 6, 4}, "image"), qkv = normal({2, 3 * 128, 4, 2}, "qkv"),
             features = normal({3, 8}, "features"), levels = normal({5}, "numbers") * 300,
             sequence = normal({3, 6, 8}, "tokens"), others = normal({3, 4, 8}, "others"),
             modulation = normal({2, 16}, "modulation");

std::vector<Case> layer_cases() {
    return {
        Case{"conv2d",
             {image},
             [](Builder& ops, const auto& in) {
                 return ops.conv2d(in[0], "layer", {.out_channels = 5});
             }},
        Case{"conv2d_by_winograd",
             {normal({3, 32, 13, 9}, "image")},
             [](Builder& ops, const auto& in) {
                 const Value x = ops.conv2d(in[0], "first", {.out_channels = 48});
                 const Value y = ops.conv2d(ops.group_norm(x, "norm", {.groups = 4, .silu = true}),
                                            "second", {.out_channels = 48});
                 return ops.conv2d(ops.resample(ops.add(x, y), Resample::up), "third",
                                   {.out_channels = 16});
             }},
        Case{"conv2d_strided_and_pointwise",
             {image},
             [](Builder& ops, const auto& in) {
                 const Value x = ops.conv2d(
                     in[0], "first", {.out_channels = 6, .kernel = 3, .stride = 2, .padding = 1});
                 return ops.conv2d(x, "second", {.out_channels = 3, .kernel = 1, .padding = 0});
             }},
        Case{"linear",
             {features},
             [](Builder& ops, const auto& in) {
                 return ops.linear(in[0], "layer", {.out_features = 7});
             }},
        Case{"linear_without_bias",
             {features},
             [](Builder& ops, const auto& in) {
                 return ops.linear(in[0], "layer", {.out_features = 7, .bias = false});
             }},
        Case{"group_norm",
             {image},
             [](Builder& ops, const auto& in) {
                 return ops.group_norm(in[0], "layer", {.groups = 2});
             }},
        Case{"group_norm_modulated_silu",
             {image, modulation},
             [](Builder& ops, const auto& in) {
                 return ops.group_norm(in[0], "layer", {.groups = 4, .silu = true}, in[1]);
             }},
        Case{"group_norm_of_several_chunks",
             {normal({1, 64, 40, 30}, "large") + 3},
             [](Builder& ops, const auto& in) {
                 return ops.group_norm(in[0], "layer", {.groups = 16, .silu = true});
             }},
        Case{"group_norm_of_many_samples",
             {normal({5, 8, 3, 3}, "many"), normal({5, 16}, "modulations")},
             [](Builder& ops, const auto& in) {
                 return ops.group_norm(in[0], "layer", {.groups = 2}, in[1]);
             }},
        Case{"layer_norm",
             {features},
             [](Builder& ops, const auto& in) { return ops.layer_norm(in[0], "layer", 1e-5); }},
        Case{"attention",
             {qkv},
             [](Builder& ops, const auto& in) { return ops.attention(in[0], 2); }},
        Case{"attention_of_one_head",
             {qkv},
             [](Builder& ops, const auto& in) { return ops.attention(in[0], 1); }},
        Case{"up",
             {image},
             [](Builder& ops, const auto& in) { return ops.resample(in[0], Resample::up); }},
        Case{"down",
             {image},
             [](Builder& ops, const auto& in) { return ops.resample(in[0], Resample::down); }},
        Case{"smooth_up",
             {image},
             [](Builder& ops, const auto& in) { return ops.resample(in[0], Resample::smooth_up); }},
        Case{"smooth_down",
             {image},
             [](Builder& ops, const auto& in) {
                 return ops.resample(in[0], Resample::smooth_down);
             }},
        Case{"smooth_down_valid",
             {image},
             [](Builder& ops, const auto& in) {
                 return ops.resample(in[0], Resample::smooth_down_valid);
             }},
        Case{"concat",
             {image, image * 2},
             [](Builder& ops, const auto& in) { return ops.concat(in[0], in[1]); }},
        Case{"add_scale_silu",
             {image, image * 2},
             [](Builder& ops, const auto& in) {
                 return ops.silu(ops.scale(ops.add(in[0], in[1]), 0.3));
             }},
        Case{"sinusoid",
             {levels},
             [](Builder& ops, const auto& in) { return ops.sinusoid(in[0], {.width = 32}); }},
        Case{"sinusoid_with_endpoint",
             {levels},
             [](Builder& ops, const auto& in) {
                 return ops.sinusoid(in[0], {.width = 32, .endpoint = true, .sines_first = true});
             }},
        Case{"fourier",
             {levels / 300},
             [](Builder& ops, const auto& in) { return ops.fourier(in[0], "freqs", 32); }},
        Case{"add_for_every_pixel",
             {image, normal({2, 8}, "shift")},
             [](Builder& ops, const auto& in) { return ops.add(in[0], in[1]); }},
        Case{"pixel_unshuffle",
             {image},
             [](Builder& ops, const auto& in) { return ops.pixel_unshuffle(in[0], 2); }},
        Case{"pixel_shuffle",
             {image},
             [](Builder& ops, const auto& in) { return ops.pixel_shuffle(in[0], 2); }},
        Case{"tokens", {image}, [](Builder& ops, const auto& in) { return ops.tokens(in[0]); }},
        Case{"image_of_tokens",
             {sequence},
             [](Builder& ops, const auto& in) { return ops.image(in[0], 3, 2); }},
        Case{"linear_of_tokens",
             {sequence},
             [](Builder& ops, const auto& in) {
                 return ops.linear(in[0], "layer", {.out_features = 5});
             }},
        Case{"layer_norm_of_tokens",
             {sequence},
             [](Builder& ops, const auto& in) { return ops.layer_norm(in[0], "layer", 1e-5); }},
        Case{"add_positions",
             {sequence},
             [](Builder& ops, const auto& in) { return ops.add_positions(in[0], "places", 9); }},
        Case{"token_attention",
             {sequence, others},
             [](Builder& ops, const auto& in) {
                 return ops.token_attention(in[0], in[1], in[1], {.heads = 2});
             }},
        Case{"causal_attention",
             {sequence},
             [](Builder& ops, const auto& in) {
                 return ops.token_attention(in[0], in[0], in[0], {.heads = 4, .causal = true});
             }},
        Case{"gelus",
             {sequence},
             [](Builder& ops, const auto& in) {
                 return ops.geglu(ops.quick_gelu(ops.gelu(in[0])));
             }},
        Case{"pad_corner",
             {image},
             [](Builder& ops, const auto& in) { return ops.pad_corner(in[0]); }},
        Case{"conv2d_without_bias",
             {normal({2, 16, 16, 16}, "wide")},
             [](Builder& ops, const auto& in) {
                 return ops.conv2d(in[0], "layer", {.out_channels = 16, .bias = false});
             }},
        Case{"layer_norm_without_parameters",
             {sequence},
             [](Builder& ops, const auto& in) { return ops.layer_norm(in[0], 1e-6); }},
        Case{"rms_norm",
             {sequence},
             [](Builder& ops, const auto& in) {
                 return ops.rms_norm(in[0], "layer", {.heads = 2, .eps = 1e-6});
             }},
        Case{"slices",
             {image},
             [](Builder& ops, const auto& in) {
                 return ops.add(ops.slice(in[0], 2, 3),
                                ops.slice(ops.global_average(ops.slice(in[0], 1, 7)), 4, 3));
             }},
        Case{"slice_of_tokens",
             {sequence},
             [](Builder& ops, const auto& in) { return ops.slice(in[0], 1, 4); }},
        Case{"multiply",
             {sequence, sequence - 1},
             [](Builder& ops, const auto& in) { return ops.multiply(in[0], in[1]); }},
        Case{"rows_for_every_token",
             {sequence, features, features * 2},
             [](Builder& ops, const auto& in) {
                 return ops.add(ops.multiply(in[0], ops.scale(in[1], 1, 1)), in[2]);
             }},
        Case{"relu_tanh_and_shift",
             {image},
             [](Builder& ops, const auto& in) {
                 return ops.relu(ops.scale(ops.tanh(in[0]), 2, -0.25));
             }},
        Case{"gelu_by_tanh",
             {sequence * 3},
             [](Builder& ops, const auto& in) { return ops.gelu(in[0], true); }},
        Case{"sinusoids_of_several",
             {levels.view({1, 5}).repeat({2, 1})},
             [](Builder& ops, const auto& in) { return ops.sinusoid(in[0], {.width = 8}); }},
        Case{"pixel_shuffle_blocks_first",
             {image},
             [](Builder& ops, const auto& in) { return ops.pixel_shuffle(in[0], 2, true); }},
        Case{"cropped_positions",
             {sequence},
             [](Builder& ops, const auto& in) {
                 return ops.cropped_positions(in[0], "table", {.side = 5, .height = 2, .width = 3});
             }},
        Case{"grid_sinusoid",
             {sequence},
             [](Builder& ops, const auto& in) {
                 return ops.grid_sinusoid(in[0], {.height = 3, .width = 2, .base = 2});
             }},
        Case{"global_average",
             {image},
             [](Builder& ops, const auto& in) { return ops.global_average(in[0]); }},
        Case{"block",
             {image, modulation},
             [](Builder& ops, const auto& in) {
                 const Value read[]{in[0], in[1]};
                 return ops.block(read, [](Builder& inner, std::span<const Value> at) {
                     return inner.group_norm(at[0], "norm", {.groups = 2}, at[1]);
                 });
             }},
    };
}

/// Adds the names of a graph's ops, those of blocks included.
void add_ops(const Graph& graph, std::set<std::string>& names) {
    for (const Node& node : graph.nodes) {
        names.insert(name_of(node.op));
        if (const auto* block = std::get_if<Block>(&node.op)) add_ops(*block->body, names);
    }
}

TEST(LayerCases, hold_every_op) {
    std::set<std::string> tried{"embedding"};  // reads ids; text towers have it
    for (const Case& tested : layer_cases()) add_ops(recorded(tested), tried);
    EXPECT_EQ(tried, names_of_all_ops()) << "a new op needs a case in layer_cases";
}

INSTANTIATE_TEST_SUITE_P(Layers, Backends, ::testing::ValuesIn(layer_cases()),
                         [](const auto& info) { return info.param.name; });

/// One result for images [3,8,6,4] whose modulation follows from `level` [1] and `labels`
/// (one-hot), as in the networks.
Value conditioned(Builder& ops, Value image, Value level, Value labels) {
    Value e = ops.silu(ops.linear(ops.sinusoid(level, {.width = 8}), "level", {.out_features = 6}));
    e = ops.silu(ops.add(e, ops.linear(labels, "label", {.out_features = 6, .bias = false})));
    const Value modulation = ops.linear(e, "affine", {.out_features = 16});
    return ops.group_norm(image, "norm", {.groups = 2, .silu = true}, modulation);
}

/// Distance between `rows` of a constant of `classes` one-hot labels and the same labels passed to
/// LibTorch.
double distance_of_constants(std::int64_t classes, const std::vector<std::int32_t>& rows) {
    const auto n = static_cast<std::int64_t>(rows.size());
    const Tensor images = normal({n, 8, 6, 4}, "image"), level = at::full({1}, 1.25f),
                 labels = at::eye(classes);
    const Tensor chosen = labels.index_select(
        0, at::tensor(std::vector<std::int64_t>(rows.begin(), rows.end()), at::kLong));
    const Graph graph =
        record({{1, 8, 6, 4}, {1}, {1, classes}}, [](Builder& ops, std::span<const Value> in) {
            return std::vector{conditioned(ops, in[0], in[1], in[2])};
        });
    const backends::Parameters parameters = filled(graph.parameters);
    const std::vector<Tensor> whole{images, level.expand({n}).contiguous(), chosen};
    const Tensor expected = backends::TorchOps(parameters).run(graph, whole)[0];

    const auto x = std::make_shared<ov::op::v0::Parameter>(ov::element::f32,
                                                           backends::view_of(images).get_shape());
    const auto row =
        std::make_shared<ov::op::v0::Parameter>(ov::element::i32, ov::Shape{rows.size()});
    backends::OpenVinoOps backend(parameters, {.rows = row->output(0)});
    const auto out = backend.run(graph, {x->output(0), level, labels})[0];
    ov::Core core;
    ov::InferRequest request =
        core.compile_model(
                std::make_shared<ov::Model>(ov::OutputVector{out}, ov::ParameterVector{x, row}),
                "CPU", {ov::hint::inference_precision(ov::element::f32)})
            .create_infer_request();
    request.set_input_tensor(0, backends::view_of(images));
    request.set_input_tensor(
        1, {ov::element::i32, ov::Shape{rows.size()}, const_cast<std::int32_t*>(rows.data())});
    request.infer();
    return relative_distance(
        at::from_blob(request.get_output_tensor().data<float>(), images.sizes(), at::kFloat),
        expected);
}

TEST(OpenVinoOps, constants_are_folded_and_each_sample_takes_its_row) {
    EXPECT_LT(distance_of_constants(3, {2, 0, 2, 1}), 1e-5);
    EXPECT_LT(distance_of_constants(1, {0, 0}), 1e-5);
}

TEST(OpenVinoOps, constants_that_outgrow_the_weights_are_looked_up_instead) {
    EXPECT_LT(distance_of_constants(9, {8, 3, 0}), 1e-5);
}

/// int8 after a normalisation, which rounds as it writes, after another convolution, and strided.
Value quantised_layers(Builder& ops, Value image) {
    const Value x = ops.conv2d(ops.group_norm(image, "norm", {.groups = 2, .silu = true}),
                               "after_norm", {.out_channels = 16});
    const Value y =
        ops.conv2d(x, "after_convolution", {.out_channels = 16, .kernel = 1, .padding = 0});
    return ops.conv2d(ops.resample(y, Resample::up), "strided", {.out_channels = 8, .stride = 2});
}

TEST(OpenVinoOps, int8_layers_compute_what_rounding_their_inputs_and_weights_would) {
    const Tensor images = normal({2, 8, 6, 4}, "image");
    const Case tested{"quantised", {images}, [](Builder& ops, const auto& in) {
                          return quantised_layers(ops, in[0]);
                      }};
    const Graph graph = recorded(tested);
    backends::Parameters parameters = filled(graph.parameters);
    for (const char* layer : {"after_norm", "after_convolution", "strided"})
        backends::quantise(parameters, layer, 2.0F);
    const backends::Parameters full = backends::dequantised(parameters);
    const backends::TorchOps exact(full);
    backends::TorchOps rounding(full);
    rounding.replace_convolutions([&](const Conv2d& layer, const Tensor& x) {
        return exact.convolved(layer, backends::fake_quantised(x, 2.0));
    });
    const Tensor expected = rounding.run(graph, tested.inputs)[0];

    const auto computed = [&](bool int8) {
        const auto x = std::make_shared<ov::op::v0::Parameter>(
            ov::element::f32, backends::view_of(images).get_shape());
        backends::OpenVinoOps backend(parameters, {.int8 = int8});
        ov::Core core;
        ov::CompiledModel model = core.compile_model(
            std::make_shared<ov::Model>(ov::OutputVector{backend.run(graph, {x->output(0)})[0]},
                                        ov::ParameterVector{x}),
            "CPU", {ov::hint::inference_precision(ov::element::f32)});
        ov::InferRequest request = model.create_infer_request();
        request.set_input_tensor(0, backends::view_of(images));
        request.infer();
        return at::from_blob(request.get_output_tensor().data<float>(), expected.sizes(),
                             at::kFloat)
            .clone();
    };
    // Without VNNI the plugin's products saturate; int8 is never used on such a CPU
    // (inference/openvino_network.h).
    const bool vnni = __builtin_cpu_supports("avx512vnni") || __builtin_cpu_supports("avxvnni");
    if (vnni) {
        EXPECT_LT(relative_distance(computed(true), expected), 5e-3);
    }  // off by one step where the engines' last bits differ
    EXPECT_LT(relative_distance(computed(false), computed_by_torch(tested, full)),
              1e-5);  // dequantised
    EXPECT_GT(relative_distance(computed(false), expected), 8e-3);
    if (vnni) {
        EXPECT_LT(relative_distance(computed_from_onnx(tested, parameters), expected), 5e-3);
    }
}

TEST(OnnxOps, weights_outside_the_graph_file_are_the_same_weights) {
    const Case layer{"large", {image}, [](Builder& ops, const auto& in) {
                         return ops.resample(ops.conv2d(in[0], "layer", {.out_channels = 64}),
                                             Resample::up);
                     }};
    const backends::Parameters parameters(
        {{"layer.weight", normal({64, 8, 3, 3}, "weight")}, {"layer.bias", normal({64}, "bias")}});
    EXPECT_TRUE(
        computed_from_onnx(layer, parameters, 1).equal(computed_from_onnx(layer, parameters)));

    backends::OnnxGraph graph;
    graph.constant("layer.weight", parameters.at("layer.weight"));
    const core::TestFolder folder;
    graph.write(folder / "graph.onnx", "test", {}, 1);
    EXPECT_EQ(std::filesystem::file_size(backends::OnnxGraph::data_file(folder / "graph.onnx")),
              64U * 8 * 9 * 4);
}

TEST(OpenVinoOps, weights_of_two_bytes_are_read_in_a_bfloat16_graph) {
    const Case layers{"layers", {image}, [](Builder& ops, const auto& in) {
                          return ops.group_norm(ops.conv2d(in[0], "conv", {.out_channels = 16}),
                                                "norm", {.groups = 4, .silu = true});
                      }};
    const backends::Parameters full = filled(recorded(layers).parameters);
    const Tensor expected = computed_by_torch(layers, full);
    for (const at::ScalarType type : {at::kHalf, at::kBFloat16})
        EXPECT_LT(
            relative_distance(
                computed_by_openvino(layers, full.to(at::kCPU, type), ov::element::bf16), expected),
            2e-2);
}

TEST(OpenVinoOps, names_a_parameter_that_is_missing) {
    const backends::Parameters none;
    const Case layer{"linear", {at::zeros({1, 4})}, [](Builder& ops, const auto& in) {
                         return ops.linear(in[0], "model.layer", {.out_features = 2});
                     }};
    expect_contains(error_of([&] { computed_by_openvino(layer, none); }), "model.layer.weight");
}

}  // namespace
}  // namespace atelier::backends
