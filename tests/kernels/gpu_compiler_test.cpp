#include "atelier/kernels/gpu/compiler.h"

#include <algorithm>

#include "backends/tensors.h"
#include "kernels/nvrtc_here.h"

/// NVRTC compiles every kernel for the GPUs that it will run on; neither GPU nor driver is needed.
namespace atelier::kernels::gpu {

using namespace backends;

namespace {

bool contains(const std::vector<char>& code, std::string_view text) {
    return std::search(code.begin(), code.end(), text.begin(), text.end()) != code.end();
}

class GpuCompiler : public testing::Test {
protected:
    void SetUp() override {
        if (!compiler_here()) GTEST_SKIP() << "NVRTC is not installed; scripts/setup.sh test does";
    }
};

}  // namespace

TEST_F(GpuCompiler, compiles_every_kernel_for_every_architecture) {
    for (const char* architecture : {"sm_80", "sm_90a", "sm_100a", "compute_80"}) {
        SCOPED_TRACE(architecture);
        for (const Program& program : programs()) {
            const std::vector<char> code = compiler_here()->compile(program, architecture);
            EXPECT_EQ(code[0], architecture[0] == 's' ? '\x7f' : '/');  // ELF; a comment of PTX
            EXPECT_FALSE(program.kernels.empty());
            for (const std::string_view kernel : program.kernels)
                EXPECT_TRUE(contains(code, kernel)) << kernel;
        }
    }
}

TEST_F(GpuCompiler, normal_numbers_have_no_contracted_operations) {
    for (const Program& program : programs()) {
        const bool normals = program.kernels[0] == "normal_numbers";
        EXPECT_EQ(contains(compiler_here()->compile(program, "compute_80"), "fma.rn.f"), !normals)
            << program.source.name;
    }
}

TEST_F(GpuCompiler, says_what_is_wrong_with_a_source) {
    const Program broken{
        {"broken.h", "extern \"C\" __global__ void f() { int i = no_such_name; }"}, {}, true};
    const std::string error = error_of([&] { compiler_here()->compile(broken, "sm_80"); });
    expect_contains(error, "broken.h");
    expect_contains(error, "no_such_name");
    expect_contains(error_of([&] { compiler_here()->compile(programs()[0], "sm_1"); }), "sm_1");
}

TEST_F(GpuCompiler, knows_its_version_and_architectures) {
    EXPECT_GE(std::stoi(compiler_here()->version()), 12);
    const std::vector<int> known = compiler_here()->architectures();
    EXPECT_TRUE(std::is_sorted(known.begin(), known.end()));
    for (const int needed : {80, 90, 100})
        EXPECT_TRUE(std::binary_search(known.begin(), known.end(), needed)) << needed;
}

TEST(GpuCompilerLibraries, names_all_that_cannot_be_loaded) {
    const std::string error = error_of([] { Compiler({"/no/such/nvrtc", "/nor/this"}); });
    expect_contains(error, "/no/such/nvrtc");
    expect_contains(error, "/nor/this");
    expect_contains(error_of([] { Compiler({"libm.so.6"}); }), "nvrtcVersion");
}

TEST(GpuCompilerLibraries, an_architecture_that_is_not_known_is_finished_by_the_driver) {
    const std::vector<int> known{75, 80, 90};
    EXPECT_EQ(architecture_for(90, known), "sm_90");
    EXPECT_EQ(architecture_for(75, known), "sm_75");
    EXPECT_EQ(architecture_for(89, known), "compute_80");
    EXPECT_EQ(architecture_for(120, known), "compute_90");
    expect_contains(error_of([&] { architecture_for(61, known); }), "6.1");
}

TEST(GpuPrograms, bring_every_file_that_they_include) {
    for (const SourceFile& file : source_files()) {
        constexpr std::string_view start = "#include \"";
        for (std::size_t at = file.text.find(start); at != file.text.npos;
             at = file.text.find(start, at + 1)) {
            const std::size_t begin = at + start.size();
            const std::string_view name =
                file.text.substr(begin, file.text.find('"', begin) - begin);
            EXPECT_TRUE(std::any_of(source_files().begin(), source_files().end(),
                                    [&](const SourceFile& other) { return other.name == name; }))
                << name;
        }
    }
}

}  // namespace atelier::kernels::gpu
