#include <nlohmann/json.hpp>

#include "atelier/core/hash.h"
#include "end_to_end/program.h"

/// Runs, checkpoints, model directories and ensembles that an earlier program wrote
/// (scripts/make_format_golden.py), read and resumed by this one.
namespace atelier::end_to_end {
namespace {

using nlohmann::json;

const fs::path formats = fs::path(ATELIER_SOURCE_DIR) / "tests/golden/formats";

json expected_formats() { return json::parse(text_of(formats / "expected.json")); }

/// Whether this processor computes the bytes that were recorded: libraries choose their code by it.
bool computes_recorded_bytes() {
    const json recorded = expected_formats().at("processor");
    const std::string processor = text_of("/proc/cpuinfo");
    return processor.find(recorded.at("vendor").get<std::string>()) != std::string::npos &&
           (processor.find(" avx512f ") != std::string::npos) == recorded.at("avx512");
}

class Formats : public testing::TestWithParam<const char*> {
protected:
    /// Expects a file, and its recorded hash where the processor allows that.
    static void expect_recorded(const fs::path& path, const std::string& hash) {
        ASSERT_TRUE(fs::exists(path)) << path;
        if (!computes_recorded_bytes()) return;
        EXPECT_EQ(core::sha256_of_file(path), hash) << path;
    }

    const fs::path golden_ = formats / GetParam();
    const json expected_ = expected_formats().at(GetParam());
    const Folder folder_;
};

TEST_P(Formats, an_interrupted_run_goes_on_to_the_same_bytes) {
    fs::copy(golden_ / "run", folder_ / "run", fs::copy_options::recursive);
    const std::string stopped = expected_.at("stopped");
    ASSERT_FALSE(fs::exists(fs::path(folder_ / "run") / stopped / "model.safetensors"));
    ASSERT_FALSE(fs::is_empty(fs::path(folder_ / "run") / stopped / "training/checkpoints"));
    fs::path data = golden_ / "data";
    for (const char* ending : {".zip", ".safetensors"}) {
        if (!fs::exists(data)) data = golden_ / (std::string("data") + ending);
    }
    succeed({"run", golden_ / "config.toml", "output=" + (folder_ / "run"),
             "data.path=" + data.string()});
    expect_contains(text_of(folder_ / "run/log.txt"), "resuming from step 2 of");
    for (const auto& [file, hash] : expected_.at("weights").items())
        expect_recorded(fs::path(folder_ / "run") / file, hash);
}

TEST_P(Formats, an_ensemble_is_read_and_draws_the_same_samples) {
    Arguments words{"sample", golden_ / "ensemble"};
    for (const json& word : expected_.at("sample")) words.push_back(word);
    words.insert(words.end(), {"--out", folder_ / "samples.npz"});
    succeed(words);
    expect_recorded(folder_ / "samples.npz", expected_.at("samples"));
    const json about = json::parse(succeed({"inspect", golden_ / "ensemble", "--json"}).out);
    EXPECT_EQ(about.at("K"), 2);
}

TEST_P(Formats, a_model_directory_is_read) {
    const fs::path model =
        fs::exists(golden_ / "teacher") ? golden_ / "teacher" : golden_ / "run/teacher";
    const json about = json::parse(succeed({"inspect", model, "--json"}).out);
    EXPECT_GT(about.at("parameters"), 1000);
    const bool prompts = fs::exists(model / "text_encoder");
    succeed({"sample", model, "--sampler", "heun", "--steps", "2", "--count", "2",
             prompts ? "--prompt" : "--class", prompts ? "a bright badge" : "1", "--out",
             folder_ / "samples.npz"});
    EXPECT_TRUE(fs::exists(folder_ / "samples.npz"));
}

INSTANTIATE_TEST_SUITE_P(Of, Formats, testing::Values("points", "pictures", "captions"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace atelier::end_to_end
