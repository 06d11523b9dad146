#include "atelier/models/edm_checkpoint.h"

#include <fstream>

#include "atelier/core/atomic_file.h"
#include "backends/tensors.h"
#include "diffusion/golden_weights.h"

/// Pickles structured like NVlabs/edm's (scripts/make_pickle_golden.py).
namespace atelier::models {
namespace {

namespace fs = std::filesystem;
using core::error_of;
using core::expect_contains;
using core::TestFolder;

fs::path golden(const std::string& name) {
    return fs::path(ATELIER_SOURCE_DIR) / "tests/golden" / name;
}

std::string bytes_of(const fs::path& path) { return core::read_text(path); }

fs::path written(const TestFolder& folder, const std::string& bytes,
                 const std::string& name = "hostile.pkl") {
    std::ofstream(folder / name, std::ios::binary) << bytes;
    return folder / name;
}

/// The model directory converted from a pickle.
fs::path converted(const TestFolder& folder, const std::string& name) {
    write_checkpoint(folder / name, read_edm_pickle(golden(name + ".pkl")), name + ".pkl");
    return folder / name;
}

class EdmPickles : public testing::TestWithParam<const char*> {
protected:
    TestFolder folder;
};

TEST_P(EdmPickles, become_models_that_denoise_like_the_reference) {
    const at::NoGradGuard no_gradients;
    const Model model = read_model(converted(folder, GetParam()));
    const backends::Parameters tensors =
        backends::read_parameters(golden(std::string(GetParam()) + ".safetensors"));
    diffusion::Condition condition;
    if (tensors.contains("labels")) condition.labels = tensors.at("labels");
    if (tensors.contains("augment")) condition.augment = tensors.at("augment");
    const Tensor denoised =
        model.denoiser().denoise(tensors.at("x"), tensors.at("sigma"), condition);
    for (std::int64_t i = 0; i < denoised.size(0); ++i)
        EXPECT_LT(backends::relative_distance(denoised[i], tensors.at("denoised")[i]), 1e-5);
}

TEST_P(EdmPickles, keep_every_bit_in_a_round_trip) {
    const Model model = read_model(converted(folder, GetParam()));
    for (const auto& [name, tensor] : model.parameters.tensors()) {
        EXPECT_TRUE(tensor.equal(diffusion::golden_weights(name, tensor.sizes().vec()))) << name;
    }
    write_edm_state(folder / "state.safetensors", folder / GetParam());
    const auto back = backends::read_parameters(folder / "state.safetensors", true),
               first = backends::read_parameters(folder / GetParam() / "model.safetensors", true);
    EXPECT_EQ(backends::hash_of(back), backends::hash_of(first));
}

TEST_P(EdmPickles, exported_models_get_the_filters_that_edm_keeps) {
    const fs::path directory = converted(folder, GetParam());
    const backends::Parameters with_filters =
        backends::read_parameters(directory / "model.safetensors", true);
    write_model(directory, read_model(directory));  // as training writes it: without
    write_edm_state(folder / "state.safetensors", directory);
    EXPECT_EQ(backends::hash_of(backends::read_parameters(folder / "state.safetensors", true)),
              backends::hash_of(with_filters));
    const auto metadata = core::SafetensorsFile(folder / "state.safetensors").metadata();
    EXPECT_TRUE(metadata.at("class_name").ends_with("Precond"));
    EXPECT_EQ(nlohmann::json::parse(metadata.at("init_kwargs")).at("model_channels"), 8);
}

TEST_P(EdmPickles, truncated_anywhere_are_one_error) {
    const std::string whole = bytes_of(golden(std::string(GetParam()) + ".pkl"));
    for (std::size_t length = 0; length < whole.size(); length += 1 + length / 40) {
        const fs::path path = written(folder, whole.substr(0, length));
        expect_contains(error_of([&] { read_edm_pickle(path); }), "hostile.pkl");
    }
}

TEST_P(EdmPickles, with_wrong_bytes_are_an_error_or_other_weights_and_nothing_worse) {
    const std::string whole = bytes_of(golden(std::string(GetParam()) + ".pkl"));
    core::RandomStream stream(3, "flips");
    for (int i = 0; i < 150; ++i) {
        std::string changed = whole;
        for (int j = 0; j < 4; ++j)
            changed[stream.below(i % 2 == 0 ? 3000 : changed.size())] =
                static_cast<char>(stream.below(256));
        const fs::path path = written(folder, changed);
        try {
            const Checkpoint checkpoint = read_edm_pickle(path);
            model_of(checkpoint.config, checkpoint.tensors, "changed");
        } catch (const core::Error&) {
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Files, EdmPickles, testing::Values("edm_adm", "edm_ncsnpp", "edm_ddpmpp"),
                         [](const auto& info) { return std::string(info.param); });

TEST(EdmPickle, config_holds_what_the_constructors_were_given_and_edms_defaults) {
    const nlohmann::json config = read_edm_pickle(golden("edm_ncsnpp.pkl")).config;
    EXPECT_EQ(config.at("architecture"), "song_unet");
    EXPECT_EQ(config.at("preconditioning"), "ve");
    EXPECT_EQ(config.at("resample_filter"), (nlohmann::json{1, 3, 3, 1}));
    EXPECT_EQ(config.at("decoder_type"), "standard");
    EXPECT_EQ(config.at("resolution"), 8);
    EXPECT_EQ(config.at("sigma_max"), 100);
    const nlohmann::json adm = read_edm_pickle(golden("edm_adm.pkl")).config;
    EXPECT_EQ(adm.at("sigma_min"), 0.002);
    EXPECT_EQ(adm.at("sigma_max"), 80);
}

TEST(EdmPickle, that_would_call_a_function_is_rejected_by_its_name) {
    const TestFolder folder;
    const std::string mark = (folder / "executed").string();
    const std::string call = "cposix\nsystem\nX" + std::string("\x06\0\0\0touch ", 10) + "\x85R.";
    for (const std::string& bytes :
         {"\x80\x04" + call, "\x80\x04}X" + std::string("\x03\0\0\0ema", 7) + call}) {
        expect_contains(error_of([&] { read_edm_pickle(written(folder, bytes)); }),
                        "\"posix.system\"");
    }
    expect_contains(
        error_of([&] {
            read_edm_pickle(written(folder, "\x80\x04\x8c\x08\x62uiltins\x8c\x04\x65val\x93."));
        }),
        "\"builtins.eval\"");
}

TEST(EdmPickle, of_another_kind_is_identified) {
    const TestFolder folder;
    expect_contains(error_of([&] { read_edm_pickle(written(folder, "\x80\x04}.")); }),
                    "no \"ema\" and no \"net\"");
    expect_contains(error_of([&] { read_edm_pickle(written(folder, "<html>")); }), "no pickle");
    expect_contains(error_of([&] { read_edm_pickle(written(folder, "")); }), "no pickle");
    expect_contains(error_of([&] { read_edm_pickle(golden("edm_ddpmpp.pth")); }), "ema");
    expect_contains(error_of([&] { read_edm_pickle(folder / "none.pkl"); }), "none.pkl");
}

TEST(EdmPickle, with_endlessly_nested_objects_is_rejected) {
    const TestFolder folder;
    std::string twice = "\x80\x04}q\x01";  // each dictionary holds the one before it twice
    for (int i = 0; i < 30; ++i)
        twice +=
            "q\x01}(\x8c\x01"
            "ah\x01\x8c\x01"
            "bh\x01u";
    const std::string itself =
        "\x80\x04}q\x01\x8c\x01"
        "ah\x01s.";
    for (const std::string& bytes : {twice + ".", itself}) {
        expect_contains(error_of([&] {
                            read_state_dictionary(written(folder, bytes, "bomb.pth"),
                                                  nlohmann::json::object(), "");
                        }),
                        "too deep or too often");
    }
}

class StateDictionaries : public testing::Test {
protected:
    TestFolder folder;
    Checkpoint pickled = read_edm_pickle(golden("edm_ddpmpp.pkl"));

    void expect_same(const Checkpoint& other) {
        EXPECT_EQ(backends::hash_of(other.tensors), backends::hash_of(pickled.tensors));
    }
};

TEST_F(StateDictionaries, are_read_in_every_format_that_torch_writes) {
    expect_same(read_state_dictionary(golden("edm_ddpmpp.pth"), pickled.config, ""));
    expect_same(
        read_state_dictionary(golden("edm_ddpmpp_nested_legacy.pth"), pickled.config, "model.net"));
    backends::write_parameters(folder / "state.safetensors", pickled.tensors);
    expect_same(read_state_dictionary(folder / "state.safetensors", pickled.config, ""));
}

TEST_F(StateDictionaries, that_hold_several_networks_require_a_choice) {
    const std::string message = error_of(
        [&] { read_state_dictionary(golden("edm_ddpmpp_nested_legacy.pth"), pickled.config, ""); });
    expect_contains(message, "model.fake_score.model., model.net.model.;");
    expect_contains(message, "--prefix");
}

TEST_F(StateDictionaries, of_another_network_write_nothing) {
    nlohmann::json config = pickled.config;
    config["model_channels"] = 16;
    const Checkpoint wrong = read_state_dictionary(golden("edm_ddpmpp.pth"), config, "");
    expect_contains(error_of([&] { write_checkpoint(folder / "model", wrong, "edm_ddpmpp.pth"); }),
                    "edm_ddpmpp.pth");
    EXPECT_FALSE(fs::exists(folder / "model"));
}

TEST_F(StateDictionaries, truncated_are_one_error) {
    for (const char* name : {"edm_ddpmpp.pth", "edm_ddpmpp_nested_legacy.pth"}) {
        const std::string whole = bytes_of(golden(name));
        for (std::size_t length = 0; length < whole.size(); length += 1 + length / 20) {
            const fs::path path = written(folder, whole.substr(0, length), "cut.pth");
            expect_contains(
                error_of([&] { read_state_dictionary(path, pickled.config, "model.net"); }),
                "cut.pth");
        }
    }
}

TEST_F(StateDictionaries, with_wrong_bytes_are_an_error_or_other_weights_and_nothing_worse) {
    core::RandomStream stream(4, "flips");
    for (const char* name : {"edm_ddpmpp.pth", "edm_ddpmpp_nested_legacy.pth"}) {
        const std::string whole = bytes_of(golden(name));
        for (int i = 0; i < 150; ++i) {
            std::string changed = whole;
            for (int j = 0; j < 4; ++j)
                changed[i % 2 == 0 ? stream.below(4000) : changed.size() - 1 - stream.below(4000)] =
                    static_cast<char>(stream.below(256));
            const fs::path path = written(folder, changed, "changed.pth");
            try {
                model_of(pickled.config,
                         read_state_dictionary(path, pickled.config, "model.net").tensors,
                         "changed");
            } catch (const core::Error&) {
            }
        }
    }
}

TEST(EdmExport, of_a_network_that_edm_does_not_have_is_rejected) {
    const TestFolder folder;
    write_model(
        folder / "mlp",
        init_model({{"architecture", "mlp"}, {"dimensions", 2}, {"hidden", 8}, {"blocks", 1}}, 1));
    expect_contains(error_of([&] { write_edm_state(folder / "out.safetensors", folder / "mlp"); }),
                    "mlp");
    write_model(folder / "patches", init_model({{"architecture", "adm_unet"},
                                                {"resolution", 8},
                                                {"channels", 1},
                                                {"model_channels", 16},
                                                {"channel_mult", {1}},
                                                {"num_blocks", 1},
                                                {"attention_resolutions", nlohmann::json::array()},
                                                {"patch_size", 2}},
                                               1));
    expect_contains(
        error_of([&] { write_edm_state(folder / "out.safetensors", folder / "patches"); }),
        "patch");
    EXPECT_FALSE(fs::exists(folder / "out.safetensors"));
}

}  // namespace
}  // namespace atelier::models
