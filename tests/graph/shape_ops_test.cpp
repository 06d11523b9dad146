#include "atelier/graph/shape_ops.h"

#include <set>

#include "atelier/backends/torch/torch_ops.h"
#include "backends/tensors.h"

namespace atelier::graph {

using namespace backends;

namespace {

/// Runs every op once with a backend; returns the shapes on the way.
std::vector<Shape> every_op(Ops& ops, const Value& image, const Value& number) {
    std::vector<Shape> seen;
    const auto note = [&](const Value& value) {
        seen.push_back(ops.shape(value));
        return value;
    };
    const Value embedding = note(ops.linear(ops.silu(note(ops.sinusoid(number, {.width = 6}))),
                                            "embed", {.out_features = 16, .bias = false}));
    const Value patches = note(ops.pixel_unshuffle(image, 2));
    const Value wide = note(
        ops.conv2d(patches, "wide", {.out_channels = 8, .kernel = 4, .stride = 2, .padding = 1}));
    const Value norm =
        note(ops.group_norm(wide, "norm", {.groups = 2, .silu = true, .modulation = &embedding}));
    const Value down = note(ops.resample(norm, Resample::down));
    const Value up = note(ops.resample(down, Resample::up));
    const Value same = note(ops.add(ops.scale(ops.resample(up, Resample::none), 0.5), norm));
    const Value attended = note(ops.attention(
        note(ops.conv2d(same, "qkv", {.out_channels = 24, .kernel = 1, .padding = 0})), 2));
    const Value joined = note(ops.concat(attended, same));
    note(ops.pixel_shuffle(joined, 2));
    const Value features = note(ops.global_average(joined));
    note(ops.linear(ops.layer_norm(features, "features", 1e-5), "logits", {.out_features = 3}));
    return seen;
}

}  // namespace

TEST(ShapeOps, follows_the_shapes_that_torch_ops_computes) {
    ShapeOps shapes;
    const auto traced = every_op(shapes, Shape{2, 3, 16, 8}, Shape{2});
    const backends::Parameters parameters = filled(shapes.parameters);
    backends::TorchOps torch(parameters);
    EXPECT_EQ(traced, every_op(torch, normal({2, 3, 16, 8}, "image"), normal({2}, "number")));
}

TEST(ShapeOps, lists_exactly_the_parameters_that_torch_ops_reads) {
    ShapeOps shapes;
    every_op(shapes, Shape{2, 3, 16, 8}, Shape{2});
    const backends::Parameters all = filled(shapes.parameters);
    std::set<std::string> names;
    for (const ParameterSpec& spec : shapes.parameters) {
        names.insert(spec.name);
        backends::Parameters without;
        for (const auto& [name, tensor] : all.tensors()) {
            if (name != spec.name) without.set(name, tensor);
        }
        backends::TorchOps torch(without);
        expect_contains(error_of([&] {
                            every_op(torch, normal({2, 3, 16, 8}, "image"), normal({2}, "number"));
                        }),
                        spec.name);
    }
    EXPECT_EQ(names,
              (std::set<std::string>{"embed.weight", "wide.weight", "wide.bias", "norm.weight",
                                     "norm.bias", "qkv.weight", "qkv.bias", "features.weight",
                                     "features.bias", "logits.weight", "logits.bias"}));
}

TEST(ShapeOps, counts_two_operations_for_every_multiplication) {
    const auto flops = [](const auto& call) {
        ShapeOps shapes;
        call(shapes);
        return shapes.flops;
    };
    EXPECT_EQ(flops([](ShapeOps& ops) { ops.conv2d(Shape{2, 3, 5, 6}, "a", {.out_channels = 8}); }),
              2.0 * 2 * 8 * 5 * 6 * 3 * 9);
    EXPECT_EQ(flops([](ShapeOps& ops) {
                  ops.conv2d(Shape{1, 3, 8, 8}, "a",
                             {.out_channels = 4, .kernel = 4, .stride = 2, .padding = 1});
              }),
              2.0 * 4 * 4 * 4 * 3 * 16);
    EXPECT_EQ(flops([](ShapeOps& ops) { ops.linear(Shape{3, 5}, "a", {.out_features = 7}); }),
              2.0 * 3 * 5 * 7);
    // Scores and their use: positions^2 products over 10 channels, twice.
    EXPECT_EQ(flops([](ShapeOps& ops) { ops.attention(Shape{2, 30, 3, 4}, 2); }),
              2.0 * 2 * 2 * 10 * 12 * 12);
}

TEST(ShapeOps, names_the_layer_that_does_not_fit) {
    ShapeOps ops;
    const auto expect_error = [](const auto& call, const std::string& name,
                                 const std::string& shape) {
        const std::string message = error_of(call);
        expect_contains(message, "\"" + name + "\"");
        expect_contains(message, shape);
    };
    expect_error([&] { ops.conv2d(Shape{2, 3}, "enc.conv", {.out_channels = 8}); }, "enc.conv",
                 "[2,3]");
    expect_error(
        [&] {
            ops.conv2d(Shape{2, 3, 2, 2}, "enc.conv",
                       {.out_channels = 8, .kernel = 4, .padding = 0});
        },
        "enc.conv", "[2,3,2,2]");
    expect_error([&] { ops.linear(Shape{2, 3, 4, 4}, "map", {.out_features = 8}); }, "map",
                 "[2,3,4,4]");
    expect_error([&] { ops.group_norm(Shape{2, 6, 4, 4}, "norm1", {.groups = 4}); }, "norm1",
                 "[2,6,4,4]");
    const Value modulation = Shape{2, 6};
    expect_error(
        [&] {
            ops.group_norm(Shape{2, 6, 4, 4}, "norm1", {.groups = 2, .modulation = &modulation});
        },
        "norm1", "[2,6]");
    expect_error([&] { ops.layer_norm(Shape{2, 6, 4, 4}, "norm", 1e-5); }, "norm", "[2,6,4,4]");
    expect_error([&] { ops.attention(Shape{2, 10, 4, 4}, 2); }, "attention", "[2,10,4,4]");
    expect_error([&] { ops.resample(Shape{2, 4, 7, 4}, Resample::down); }, "resample", "[2,4,7,4]");
    expect_error([&] { ops.concat(Shape{2, 4, 7, 4}, Shape{3, 4, 7, 4}); }, "concat", "[3,4,7,4]");
    expect_error([&] { ops.concat(Shape{2, 4, 7, 7}, Shape{2, 4, 8, 8}); }, "concat", "[2,4,8,8]");
    expect_error([&] { ops.resample(Shape{2, 4, 8, 5}, Resample::smooth_down_valid); }, "resample",
                 "[2,4,8,5]");
    expect_error([&] { ops.add(Shape{2, 4}, Shape{2, 5}); }, "add", "[2,5]");
    expect_error([&] { ops.add(Shape{2, 4, 8, 8}, Shape{2, 8}); }, "add", "[2,8]");
    expect_error([&] { ops.fourier(Shape{2}, "map.freqs", 5); }, "map.freqs", "[2]");
    expect_error([&] { ops.sinusoid(Shape{2}, {.width = 5}); }, "sinusoid", "[2]");
    expect_error([&] { ops.pixel_unshuffle(Shape{2, 1, 7, 8}, 2); }, "pixel_unshuffle",
                 "[2,1,7,8]");
    expect_error([&] { ops.pixel_shuffle(Shape{2, 6, 7, 8}, 2); }, "pixel_shuffle", "[2,6,7,8]");
    expect_error([&] { ops.global_average(Shape{2, 6}); }, "global_average", "[2,6]");
}

TEST(ShapeOps, elements_multiplies_the_sizes) {
    EXPECT_EQ(elements({2, 3, 4}), 24);
    EXPECT_EQ(elements({}), 1);
    EXPECT_EQ(elements({5, 0}), 0);
}

}  // namespace atelier::graph
