#include "atelier/kernels/norm_forward.h"

#include "backends/tensors.h"
#include "kernels/compilations.h"

namespace atelier::kernels::norm_kernels {

using namespace backends;

namespace {

using Named = Compilation<Table>;

/// Every compilation except `plain` that this processor can run.
std::vector<Named> vector_tables() {
    std::vector<Named> tables = compilations_here<Table>(ATELIER_EVERY_COMPILATION);
    tables.erase(tables.begin());
    return tables;
}

const std::vector<Sample> samples{{1, 4, 1, 1e-5F, true},     {9, 12, 3, 1e-5F, true},
                                  {35, 36, 9, 1e-5F, false},  {64, 96, 24, 1e-5F, true},
                                  {400, 96, 24, 1e-5F, true}, {1, 96, 24, 1e-5F, false},
                                  {4, 7, 7, 1e-5F, true}};

Tensor blank(std::vector<std::int64_t> shape, at::ScalarType type = at::kFloat) {
    return at::full(shape, std::nan(""),
                    at::TensorOptions().dtype(type));  // elements that are not written stay NaN
}

/// y, mean, rstd, dx, dweight, dbias of one sample.
template <class T>
std::vector<Tensor> run(const Loops<T>& loops, const Sample& s, at::ScalarType type) {
    const Tensor x = (normal({s.positions, s.channels}, "x") * 2 + 0.5).to(type),
                 dy = normal({s.positions, s.channels}, "dy").to(type);
    const Tensor weight = normal({s.channels}, "gain"), bias = normal({s.channels}, "offset");
    std::vector<Tensor> out{
        blank({s.positions, s.channels}, type), blank({s.groups}),   blank({s.groups}),
        blank({s.positions, s.channels}, type), blank({s.channels}), blank({s.channels})};
    const Tensor work = blank({(4 + s.positions + chunks(s)) * s.channels});
    const auto floats = [](const Tensor& t) { return t.mutable_data_ptr<float>(); };
    const auto raw = [](const Tensor& t) { return static_cast<T*>(t.mutable_data_ptr()); };
    forward(loops, s, raw(x), floats(weight), floats(bias), raw(out[0]), floats(out[1]),
            floats(out[2]), floats(work), serial_for);
    loops.backward(s, raw(x), raw(dy), floats(weight), floats(bias), floats(out[1]), floats(out[2]),
                   raw(out[3]), floats(out[4]), floats(out[5]), floats(work));
    return out;
}

template <class T>
void expect_as_plain(const Loops<T>& loops, const Loops<T>& expected, at::ScalarType type,
                     double tolerance) {
    for (const Sample& s : samples) {
        const auto ours = run(loops, s, type), theirs = run(expected, s, type);
        for (std::size_t i = 0; i < ours.size(); ++i) {
            EXPECT_LT(relative_distance(ours[i], theirs[i]), tolerance)
                << s.positions << " positions, " << s.channels << " channels, output " << i;
        }
    }
}

}  // namespace

TEST(NormKernels, every_compilation_agrees_with_the_plain_one_in_float32) {
    if (vector_tables().empty()) GTEST_SKIP() << "this processor runs the plain loops only";
    for (const Named& named : vector_tables()) {
        SCOPED_TRACE(named.name);
        expect_as_plain(named.table->float32, plain.float32, at::kFloat, 5e-6);
    }
}

TEST(NormKernels, every_compilation_agrees_with_the_plain_one_in_bfloat16) {
    if (vector_tables().empty()) GTEST_SKIP() << "this processor runs the plain loops only";
    for (const Named& named : vector_tables()) {
        SCOPED_TRACE(named.name);
        expect_as_plain(named.table->bfloat16, plain.bfloat16, at::kBFloat16, 2e-3);
    }
}

TEST(NormKernels, the_plain_compilation_computes_the_definition) {
    const Sample s{35, 36, 9, 1e-5F, true};
    const auto out = run(plain.float32, s, at::kFloat);
    const Tensor x = (normal({35, 36}, "x") * 2 + 0.5).to(at::kDouble).view({35, 9, 4});
    const Tensor mean = x.mean({0, 2}), variance = (x - mean.view({1, 9, 1})).square().mean({0, 2});
    EXPECT_LT(relative_distance(out[1], mean), 1e-5);
    EXPECT_LT(relative_distance(out[2], 1 / (variance + 1e-5).sqrt()), 1e-6);
    const Tensor standard =
        ((x - mean.view({1, 9, 1})) / (variance + 1e-5).sqrt().view({1, 9, 1})).view({35, 36});
    EXPECT_LT(relative_distance(out[0],
                                at::silu(standard * normal({36}, "gain") + normal({36}, "offset"))),
              1e-6);
}

TEST(NormKernels, bfloat16_is_rounded_to_nearest_even) {
    // One channel with weight 0: y is the bias, rounded.
    const auto rounded = [](float value) {
        const Sample s{1, 1, 1, 1e-5F, false};
        const Bfloat16 x = 0x3f80;
        const float weight = 0;
        Bfloat16 y = 0;
        float mean = 0, inverse = 0, work[2];
        forward(plain.bfloat16, s, &x, &weight, &value, &y, &mean, &inverse, work, serial_for);
        return y;
    };
    const auto from_bits = [](std::uint32_t bits) { return __builtin_bit_cast(float, bits); };
    EXPECT_EQ(rounded(from_bits(0x3f808000)), 0x3f80);  // halfway: down to the even one
    EXPECT_EQ(rounded(from_bits(0x3f818000)), 0x3f82);  // halfway: up to the even one
    EXPECT_EQ(rounded(from_bits(0x3f808001)), 0x3f81);
    EXPECT_EQ(rounded(from_bits(0x7f7fffff)), 0x7f80);  // past the largest: infinity
    EXPECT_TRUE((rounded(std::nanf("")) & 0x7fff) > 0x7f80);
}

TEST(NormKernels, every_compilation_rounds_to_int8) {
    std::vector<Named> all = vector_tables();
    all.push_back({"plain", &plain});
    const Tensor x = normal({35, 36}, "x") * 3, a = normal({36}, "a"), b = normal({36}, "b");
    const Tensor u = x * a + b, expected = at::silu(u) * 20;
    EXPECT_GT(expected.max().item<float>(), 128);  // some must be clamped
    for (const Named& named : all) {
        Tensor steps = at::empty({35, 36}, at::kChar);
        named.table->float32.quantise(35, 36, x.const_data_ptr<float>(), a.const_data_ptr<float>(),
                                      b.const_data_ptr<float>(), true, 20,
                                      steps.mutable_data_ptr<std::int8_t>());
        // A value near the middle between two steps may be rounded either way.
        EXPECT_LE((steps.to(at::kFloat) - expected.clamp(-127, 127)).abs().max().item<float>(),
                  0.501F)
            << named.name;
    }
}

TEST(NormKernels, the_chosen_table_is_one_that_this_processor_runs) {
    bool known = &best() == &plain;
    for (const Named& named : vector_tables()) known = known || &best() == named.table;
    EXPECT_TRUE(known);
    if (!vector_tables().empty()) {
        EXPECT_EQ(&best(), vector_tables().back().table);
    }
}

}  // namespace atelier::kernels::norm_kernels
