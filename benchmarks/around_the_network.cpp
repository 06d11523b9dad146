// The cost of a request besides its network: routing, noise, pixels and their encoding. Run by
// benchmarks/bench.py.
#include <benchmark/benchmark.h>

#include "atelier/conditions/router.h"
#include "atelier/core/image_file.h"
#include "atelier/data/sample_spec.h"
#include "atelier/diffusion/noise_levels.h"

namespace {

using namespace atelier;

conditions::Router router_of(std::int64_t students, std::int64_t dimensions) {
    std::vector<std::vector<float>> centroids;
    const Tensor all = diffusion::image_noise(0, 0, students, {dimensions});
    for (std::int64_t k = 0; k < students; ++k) {
        const float* row = all.const_data_ptr<float>() + k * dimensions;
        centroids.emplace_back(row, row + dimensions);
    }
    return conditions::Router(centroids);
}

void route_embedding(benchmark::State& state) {
    const auto router = router_of(state.range(0), state.range(1));
    const Tensor row = diffusion::image_noise(1, 0, 1, {state.range(1)});
    const std::span<const float> embedding(row.const_data_ptr<float>(),
                                           static_cast<std::size_t>(state.range(1)));
    for (auto _ : state) benchmark::DoNotOptimize(router.route(embedding));
}
BENCHMARK(route_embedding)
    ->ArgNames({"centroids", "numbers"})
    ->Args({4, 768})
    ->Args({100, 768})
    ->Args({1000, 768});

void route_classes(benchmark::State& state) {
    const conditions::Router router(
        conditions::partition_classes({.students = 100, .classes = 1000}));
    std::vector<std::int64_t> classes;
    for (std::int64_t i = 0; i < state.range(0); ++i) classes.push_back(i * 37 % 1000);
    for (auto _ : state) benchmark::DoNotOptimize(conditions::group_by_student(router, classes));
}
BENCHMARK(route_classes)->ArgName("batch")->Arg(1)->Arg(64);

void draw_noise(benchmark::State& state) {
    for (auto _ : state)
        benchmark::DoNotOptimize(
            diffusion::image_noise(0, 0, 1, {state.range(0), state.range(1), state.range(1)}));
}
BENCHMARK(draw_noise)->ArgNames({"channels", "side"})->Args({1, 28})->Args({3, 64});

void encode_image(benchmark::State& state) {
    const data::SampleSpec spec{.kind = data::SampleSpec::Kind::image,
                                .shape = {state.range(0), state.range(1), state.range(1)}};
    // As smooth as natural images: noise at a seventh of the side, enlarged.
    const Tensor coarse =
        diffusion::image_noise(0, 0, 1, {state.range(0), state.range(1) / 7, state.range(1) / 7}) *
        0.5;
    const Tensor sample = at::upsample_bilinear2d(coarse, {state.range(1), state.range(1)}, false);
    for (auto _ : state)
        benchmark::DoNotOptimize(
            core::encode_png(data::image_of(data::to_user_space(spec, sample)[0])));
}
BENCHMARK(encode_image)->ArgNames({"channels", "side"})->Args({1, 28})->Args({3, 64});

}  // namespace

BENCHMARK_MAIN();
