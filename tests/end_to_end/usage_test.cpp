#include "end_to_end/images.h"

#include <nlohmann/json.hpp>

namespace atelier::end_to_end {
namespace {

struct Mistake {
    std::string name;
    Arguments arguments;
    int code;
    std::string says;
};

class Mistakes : public testing::TestWithParam<Mistake> {};

/// Usage errors print a short message on standard error and write nothing.
TEST_P(Mistakes, get_a_clear_message_and_leave_nothing_behind) {
    const Folder folder;
    Arguments arguments = GetParam().arguments;
    if (arguments.front() == "run") arguments.push_back("output=" + (folder / "run"));
    if (arguments.front() == "sample")
        arguments.insert(arguments.end(), {"--out", folder / "x.npz"});
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.code, GetParam().code) << outcome.err;
    expect_contains(outcome.err, GetParam().says);
    EXPECT_EQ(outcome.err.find("terminate called"), std::string::npos);
    EXPECT_EQ(folder.files(), 0u);
}

const std::string toy = "configs/toy2d.toml";

INSTANTIATE_TEST_SUITE_P(
    Every, Mistakes,
    testing::Values(
        Mistake{"unknown_command", {"smaple", "x"}, 2, "did you mean \"sample\"?"},
        Mistake{"unknown_key", {"run", toy, "techer.steps=3"}, 2, "teacher.steps"},
        Mistake{"mistyped_value", {"run", toy, "seed=soon"}, 2, "seed"},
        Mistake{"no_config", {"run", "configs/none.toml"}, 2, "none.toml"},
        Mistake{"no_students", {"run", toy, "partition.students=0"}, 2, "partition.students"},
        Mistake{"more_students_than_classes",
                {"run", toy, "partition.students=9"},
                2,
                "partition.students"},
        Mistake{"no_data", {"run", toy, "data.path=none.safetensors"}, 1, "none.safetensors"},
        Mistake{"labels_where_none_are_wanted", {"run", toy, "data.classes=0"}, 2, "data.classes"},
        Mistake{"other_classes",
                {"run", toy, "data.classes=1000"},
                2,
                "data.classes asks for 1000 classes"},
        Mistake{"no_checkpoint", {"convert", "none.pkl", "models/none"}, 1, "none.pkl"},
        Mistake{"a_state_without_config",
                {"convert", "state.safetensors", "models/none"},
                2,
                "--config"},
        Mistake{"a_prefix_without_config",
                {"convert", "none.pth", "models/none", "--prefix", "ema"},
                2,
                "--config"},
        Mistake{"a_state_of_another_name",
                {"convert", "models/fashion-mnist/teacher", "x.pth", "--to", "edm"},
                2,
                "safetensors"},
        Mistake{"a_model_without_form",
                {"convert", "models/fashion-mnist/teacher", "x.safetensors"},
                2,
                "--to edm"},
        Mistake{"a_form_that_is_unknown",
                {"convert", "models/fashion-mnist/teacher", "x.tflite", "--to", "tflite"},
                2,
                "onnx"},
        Mistake{"a_graph_of_another_name",
                {"convert", "models/fashion-mnist/teacher", "x.bin", "--to", "onnx"},
                2,
                ".onnx"},
        Mistake{"unknown_toy", {"run", toy, "data.path=toy:rung"}, 2, "ring"},
        Mistake{"regression_without_pairs", {"run", toy, "pairs.count=0"}, 2, "pairs"},
        Mistake{"network_for_images", {"run", toy, "network.architecture=adm_unet"}, 2, "mlp"},
        Mistake{"sizes_for_three_students",
                {"run", toy, "students.widths=[16,16,16]"},
                2,
                "students.widths"},
        Mistake{"gan_weight_that_is_not_a_number",
                {"run", toy, "adm.gan_weight=much"},
                2,
                "gan_weight"},
        Mistake{"no_model", {"sample", "models/none", "--count", "1"}, 1, "models/none"},
        Mistake{"unknown_engine",
                {"sample", "models/none", "--engine", "onnx"},
                2,
                "known are auto, native, openvino and torch"},
        Mistake{"unknown_device",
                {"sample", "models/none", "--device", "gpu"},
                2,
                "known are cpu, cuda"},
        Mistake{"a_run_on_an_unknown_device",
                {"run", toy, "device=tpu", "--dry-run"},
                2,
                "known are cpu, cuda"},
        Mistake{
            "a_run_on_a_numbered_cpu", {"run", toy, "device=cpu:3"}, 2, "all cores are one device"},
        Mistake{"an_evaluation_of_a_run_on_an_unknown_device",
                {"evaluate", toy, "device=cuda:x"},
                2,
                "the number of a GPU"},
        Mistake{"gan_without_training", {"benchmark", "models/none", "--gan"}, 2, "--training"},
        Mistake{"int8_of_a_model_that_is_not_quantised",
                {"sample", "models/fashion-mnist/k4", "--precision", "int8"},
                2,
                "atelier quantize"},
        Mistake{"lpips_without_weights", {"run", toy, "dm.regression=lpips"}, 2, "lpips.backbone"},
        Mistake{"lpips_of_points",
                {"run", toy, "dm.regression=lpips", "lpips.backbone=none.pth"},
                2,
                "points"},
        Mistake{"nothing_to_measure_against",
                {"evaluate", "models/fashion-mnist/k4", "--out", "x"},
                2,
                "--reference"},
        Mistake{"no_inception",
                {"evaluate", "models/fashion-mnist/k4", "--data", "models", "--inception",
                 "none.pth", "--out", "x"},
                1,
                "none.pth"},
        Mistake{"no_embeddings", {"partition", "none.npy", "--out", "x"}, 1, "none.npy"},
        Mistake{
            "a_config_key_with_embeddings", {"partition", "none.npy", "seed=3"}, 2, "--students"},
        Mistake{"a_partition_to_nowhere", {"partition", "none.npy"}, 2, "--out"},
        Mistake{"nothing_to_route", {"route", "models/fashion-mnist/k4"}, 2, "--class"},
        Mistake{"a_class_that_is_not_there",
                {"route", "models/fashion-mnist/k4", "--class", "10"},
                2,
                "0 to 9"},
        Mistake{"negative_count", {"sample", "models/none", "--count", "-1"}, 2, "--count"},
        Mistake{
            "count_in_words",
            {"sample", "models/none", "--count", "four"},
            2,
            "atelier: --count: \"four\" is not a number; give a whole number from 1 to 100000000; "
            "see atelier sample --help"},
        Mistake{"negative_seed",
                {"sample", "models/none", "--seed", "-1"},
                2,
                "--seed: -1 is out of range; give a whole number from 0 to 9223372036854775807"},
        Mistake{"seed_beyond_63_bits",
                {"sample", "models/none", "--seed", "9223372036854775808"},
                2,
                "--seed: 9223372036854775808 is out of range"},
        Mistake{"seed_of_twenty_digits",
                {"evaluate", "models/none", "--seed", "99999999999999999999"},
                2,
                "--seed: 99999999999999999999 is out of range"},
        Mistake{"port_too_large",
                {"serve", "models/none", "--port", "70000"},
                2,
                "--port: 70000 is out of range; give a whole number from 0 to 65535"},
        Mistake{"no_out", {"sample", "models/none"}, 1, "models/none"},
        Mistake{"empty_out",
                {"forward", "models/none", "--in", "x", "--out", ""},
                2,
                "atelier: --out: must not be empty"},
        Mistake{"no_classifier_is_no_mistake_of_the_option",
                {"evaluate", "models/none", "--classifier", "", "--data", "models", "--out",
                 "/nowhere/x"},
                1,
                "models/none: there is no such model"},
        Mistake{"out_is_required",
                {"forward", "models/none", "--in", "x"},
                2,
                "atelier: --out is required; see atelier forward --help"},
        Mistake{"unknown_option",
                {"sample", "models/none", "--cuont", "3"},
                2,
                "there is no option --cuont; did you mean \"--count\"?"},
        Mistake{"a_word_too_many",
                {"sample", "models/none", "more"},
                2,
                "\"more\" is not expected here"},
        Mistake{"option_given_twice",
                {"sample", "models/none", "--count", "1", "--count", "2"},
                2,
                "--count is given 2 times"},
        Mistake{"a_stage_that_is_none",
                {"distill", toy, "--stage", "gan"},
                2,
                "--stage: \"gan\" is not one of tsm, dm, adm"},
        Mistake{"no_command", {"--quiet"}, 2, "a command is needed"},
        Mistake{"class_mistyped",
                {"sample", "models/fashion-mnist/k4-small", "--class", "sneeker"},
                2,
                "did you mean \"sneaker\"?"},
        Mistake{"sampler_of_others",
                {"sample", "models/fashion-mnist/teacher", "--sampler", "dpm++"},
                2,
                "dpm++ is for diffusers directories"},
        Mistake{"hub_name",
                {"sample", "somebody/some-model", "--prompt", "a cat"},
                1,
                "huggingface-cli download somebody/some-model"},
        Mistake{"stable_diffusion_that_is_not_there",
                {"sample", "stable-diffusion-v1-5", "--prompt", "a cat"},
                1,
                "huggingface-cli download stable-diffusion-v1-5/stable-diffusion-v1-5"},
        Mistake{"a_mistyped_model",
                {"sample", "models/fashion-mnist/k4-smal"},
                1,
                "did you mean models/fashion-mnist/k4-small?"},
        Mistake{"a_folder_of_models",
                {"sample", "models/fashion-mnist"},
                1,
                "name one of them: models/fashion-mnist/k1"},
        Mistake{"a_config_as_model", {"sample", toy}, 1, "is the config of a run"},
        Mistake{"a_text_as_model", {"serve", "README.md"}, 1, "is a text file"},
        Mistake{"weights_as_model",
                {"benchmark", "models/fashion-mnist/teacher/model.safetensors"},
                1,
                "holds the weights of models/fashion-mnist/teacher; name that directory"},
        Mistake{"a_classifier_as_model", {"sample", "models/classifier"}, 1, "is a classifier"},
        Mistake{"a_part_of_an_encoder",
                {"forward", "models/captions/text_encoder", "--in", "x", "--out", "/dev/null"},
                1,
                "model_index.json"}),
    [](const auto& test) { return test.param.name; });

TEST(Device, is_checked_first_by_every_command_that_takes_one) {
    const std::vector<Arguments> commands{
        {"sample", "models/none", "--count", "1"},
        {"serve", "models/none"},
        {"benchmark", "models/none"},
        {"evaluate", "models/none", "--data", "none", "--out", "none"},
        {"embed", "none", "none.txt", "--out", "none.npy"},
        {"forward", "none", "--in", "none", "--out", "none"}};
    for (Arguments command : commands) {
        for (const auto& [device, words] : {std::pair{"tpu", "known are cpu, cuda"},
                                            {"cuda:x", "the number of a GPU"},
                                            {"cpu:3", "all cores are one device"}}) {
            Arguments with_device = command;
            with_device.insert(with_device.end(), {"--device", device});
            const Outcome outcome = run(with_device);
            EXPECT_EQ(outcome.code, 2) << command.front();
            expect_contains(outcome.err, words);
        }
        if (fs::exists("/dev/nvidia0")) continue;
        command.insert(command.end(), {"--device", "cuda"});
        const Outcome outcome = run(command);
        EXPECT_EQ(outcome.code, 2) << command.front();
        expect_contains(outcome.err, "or use cpu");
    }
}

TEST(Classifier, reports_the_images_it_was_tested_on) {
    const Folder folder;
    write_images(folder / "train", 16, 8, 1);
    write_images(folder / "test", 8, 8, 2);
    for (const char* split : {"train", "test"})
        succeed({"import", folder / split, folder / (std::string(split) + ".zip"), "--size", "8"});
    const Arguments small{"classifier",
                          "configs/classifier.toml",
                          "data.path=" + (folder / "train.zip"),
                          "threads=1",
                          "width=4",
                          "features=4",
                          "batch=8",
                          "steps=1"};
    const auto tried = [&](Arguments arguments) {
        arguments.insert(arguments.begin(), small.begin(), small.end());
        return succeed(arguments).err;
    };
    expect_contains(tried({"output=" + (folder / "seen")}), "of the training images right");
    expect_contains(
        tried({"output=" + (folder / "held"), "data.test_path=" + (folder / "test.zip")}),
        "of the test images right");
}

TEST(Benchmark, times_an_evaluation_and_a_request_on_every_engine) {
    for (const char* engine : {"torch", "openvino", "native"}) {
        const Outcome outcome = succeed({"benchmark", "models/fashion-mnist/k4", "--engine", engine,
                                         "--batch", "2", "--threads", "1", "--runs", "2"});
        const auto figures = nlohmann::json::parse(outcome.out);
        for (const char* key :
             {"median_seconds", "request_median_seconds", "flops", "peak_rss_bytes"})
            EXPECT_GT(figures.at(key).get<double>(), 0) << key;
        EXPECT_EQ(figures.at("engine"), engine);
        EXPECT_EQ(figures.at("precision"), "fp32");
        EXPECT_EQ(figures.at("batch"), 2);
        EXPECT_EQ(figures.at("threads"), 1);
    }
}

TEST(Quantize, makes_an_ensemble_that_samples_like_any_other) {
    const Folder folder;
    succeed(
        {"quantize", "models/fashion-mnist/k4-small", "--samples", "4", "--out", folder / "int8"});
    const Outcome outcome = succeed({"benchmark", folder / "int8", "--runs", "2"});
    EXPECT_EQ(nlohmann::json::parse(outcome.out).at("precision"), "int8");
    succeed({"sample", folder / "int8", "--count", "20", "--out", folder / "grid.png"});
    succeed({"sample", folder / "int8", "--count", "4", "--precision", "fp32", "--engine", "torch",
             "--out", folder / "exact.png"});
    EXPECT_EQ(run({"quantize", "models/fashion-mnist/k4-small", "--out", folder / "int8"}).code, 2);
    EXPECT_EQ(run({"quantize", folder / "int8", "--out", folder / "again"}).code, 1);
    EXPECT_FALSE(fs::exists(folder / "again"));
}

TEST(Benchmark, times_a_training_cycle) {
    const Outcome outcome = succeed({"benchmark", "models/fashion-mnist/k4", "--training", "--gan",
                                     "--batch", "4", "--threads", "1", "--runs", "1"});
    const auto figures = nlohmann::json::parse(outcome.out);
    EXPECT_NEAR(figures.at("images_per_second").get<double>() *
                    figures.at("seconds_per_cycle").get<double>(),
                4 * 6, 1e-6);
    EXPECT_GT(figures.at("peak_rss_bytes").get<double>(), 0);
}

TEST(Usage, explain_lists_every_config_key) {
    const std::string explained = succeed({"run", toy, "--explain"}).out;
    for (const char* key : {"seed", "output", "[data]", "test_path", "[partition]", "students",
                            "[adm]", "divergence", "[tsm]"}) {
        expect_contains(explained, key);
    }
}

}  // namespace
}  // namespace atelier::end_to_end
