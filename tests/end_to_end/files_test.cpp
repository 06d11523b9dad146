#include "end_to_end/images.h"

#include <sys/stat.h>

#include <nlohmann/json.hpp>

namespace atelier::end_to_end {
namespace {

/// Runs `command` in bash, with $A set to the program and $D to a folder.
Outcome shell(const Folder& folder, const std::string& command) {
    const std::string script = "A='" ATELIER_PROGRAM "'; D='" + folder.path().string() +
                               "'; cd '" ATELIER_SOURCE_DIR "'\n(" + command + "\n) 2> '" +
                               (folder / ".err") + "'";
    std::ofstream(folder / ".script") << script;
    const int status = std::system(("bash '" + (folder / ".script") + "'").c_str());
    Outcome outcome{WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status), "",
                    text_of(folder / ".err")};
    fs::remove(folder / ".err");
    fs::remove(folder / ".script");
    return outcome;
}

const std::string small = "models/fashion-mnist/k4-small";

TEST(StandardOutput, that_cannot_be_written_is_an_error_for_every_command) {
    const Folder folder;
    for (const std::string command :
         {"inspect toy:ring", "tokenize models/captions 'a cat'", "route models/fashion-mnist/k4 3",
          "completions bash", "--help", "--version", "sample --help",
          "run configs/toy2d.toml --explain"}) {
        const Outcome full = shell(folder, "\"$A\" " + command + " > /dev/full");
        EXPECT_EQ(full.code, 1) << command;
        expect_contains(full.err,
                        "atelier: standard output: writing failed (No space left on device)");
        const Outcome closed = shell(folder, "\"$A\" " + command + " >&-");
        EXPECT_EQ(closed.code, 1) << command;
        expect_contains(closed.err, "standard output: writing failed (Bad file descriptor)");
    }
    const Outcome silent = shell(folder, "\"$A\" -q sample " + small + " --out $D/x.npz >&-");
    EXPECT_EQ(silent.code, 0) << silent.err;
    const Outcome gone = shell(folder, "set -o pipefail; \"$A\" completions bash | true");
    EXPECT_EQ(gone.err, "") << "no message for a closed pipe";
}

TEST(Outputs, devices_pipes_and_links_are_written_to) {
    const Folder folder;
    EXPECT_EQ(
        shell(folder,
              "mkfifo $D/f.png && (cat $D/f.png > $D/read.png) & sleep 0.2; \"$A\" -q sample " +
                  small + " --out $D/f.png; code=$?; wait; exit $code")
            .code,
        0);
    EXPECT_TRUE(fs::is_fifo(folder / "f.png"));
    EXPECT_EQ(text_of(folder / "read.png").substr(1, 3), "PNG");
    EXPECT_EQ(shell(folder, "mkdir $D/real; ln -s real/r.png $D/l.png; \"$A\" -q sample " + small +
                                " --out $D/l.png")
                  .code,
              0);
    EXPECT_TRUE(fs::is_symlink(folder / "l.png"));
    EXPECT_EQ(text_of(folder / "real/r.png"), text_of(folder / "read.png"));
    EXPECT_EQ(shell(folder, "\"$A\" -q sample " + small + " --out /dev/stdout > $D/out.png").code,
              0);
    EXPECT_EQ(text_of(folder / "out.png"), text_of(folder / "read.png"));
    const Outcome full = shell(folder, "\"$A\" -q sample " + small + " --out /dev/full");
    EXPECT_EQ(full.code, 1);
    expect_contains(full.err, "/dev/full: writing failed (No space left on device)");
}

TEST(Outputs, a_file_size_limit_is_an_error_that_leaves_nothing) {
    const Folder folder;
    const Outcome limited =
        shell(folder, "ulimit -f 20; \"$A\" -q sample " + small + " --count 100 --out $D/fs.npz");
    EXPECT_EQ(limited.code, 1);
    expect_contains(limited.err, "fs.npz: writing failed (File too large)");
    EXPECT_EQ(folder.files(), 0u);
}

TEST(Outputs, two_programs_that_are_both_process_1_write_one_file_in_turn) {
    const Folder folder;
    if (std::system("unshare -fp true 2> /dev/null") != 0)
        GTEST_SKIP() << "no process namespaces here";
    const std::string writer =
        "unshare -fp \"$A\" -q sample " + small + " --count 300 --out $D/same.npz --seed ";
    EXPECT_EQ(shell(folder, writer + "1 & first=$!; " + writer +
                                "2; second=$?; wait $first && exit $second")
                  .code,
              0);
    EXPECT_EQ(folder.files(), 1u);
}

TEST(Outputs, the_extension_selects_the_format) {
    const Folder folder;
    const auto begins = [&](const std::string& name) {
        succeed({"sample", small, "--out", folder / name});
        return text_of(folder / name).substr(0, 12);
    };
    EXPECT_EQ(begins("a.PNG").substr(1, 3), "PNG");
    EXPECT_EQ(begins("a.jpg").substr(0, 3), "\xff\xd8\xff");
    EXPECT_EQ(begins("a.JPEG").substr(0, 3), "\xff\xd8\xff");
    EXPECT_EQ(begins("a.webp").substr(8, 4), "WEBP");
    EXPECT_EQ(begins("a.NPZ").substr(0, 2), "PK");
    for (const char* name : {"a.npy", "a.gif", "a.safetensors"}) {
        const Outcome outcome = run({"sample", small, "--out", folder / name});
        EXPECT_EQ(outcome.code, 2);
        expect_contains(outcome.err, "supported are .png, .jpg, .webp, .npz");
        EXPECT_FALSE(fs::exists(folder / name));
    }
    succeed({"sample", small, "--out", folder / "v0.5"});
    EXPECT_TRUE(fs::exists(folder / "v0.5/000000.png"));
    succeed({"sample", small, "--count", "2", "--out", folder / std::string(251, 'x') + ".png"});
}

TEST(Outputs, large_grids_are_about_square) {
    const Folder folder;
    const auto shape = [&](const Arguments& more) {
        Arguments words{"sample", small, "--out", folder / "g.png"};
        words.insert(words.end(), more.begin(), more.end());
        succeed(words);
        const auto about =
            nlohmann::json::parse(succeed({"inspect", folder / "g.png", "--json"}).out);
        return std::pair(about.at("width").get<int>(), about.at("height").get<int>());
    };
    EXPECT_EQ(shape({"--count", "20"}), std::pair(298, 58));
    EXPECT_EQ(shape({"--count", "900"}), std::pair(898, 898));
    EXPECT_EQ(shape({"--count", "6", "--columns", "2"}), std::pair(58, 88));
}

TEST(Classes, are_requested_by_name_or_id) {
    const Folder folder;
    succeed({"sample", small, "--count", "4", "--class", "Sneaker,3", "--out", folder / "a.npz"});
    succeed({"sample", small, "--count", "4", "--class", "7", "--class", "dress", "--out",
             folder / "b.npz"});
    EXPECT_EQ(text_of(folder / "a.npz"), text_of(folder / "b.npz"));
    expect_contains(succeed({"route", "models/fashion-mnist/k4", "sneaker", "9"}).out,
                    "class 7 (sneaker): student");
    expect_contains(succeed({"route", "models/captions", "a big black bag on white"}).out,
                    "\"a big black bag on white\": student");
    expect_contains(succeed({"inspect", "models/fashion-mnist/k4"}).out,
                    "class_names: t-shirt, trouser");
}

TEST(Inspect, finds_a_damaged_weight) {
    const Folder folder;
    fs::copy(ATELIER_SOURCE_DIR "/models/fashion-mnist/k4-small", folder / "k4",
             fs::copy_options::recursive);
    expect_contains(succeed({"inspect", folder / "k4"}).out,
                    "checksums: 4 files as they were written");
    const std::string file = folder / "k4/students/2/model.safetensors";
    std::fstream weights(file, std::ios::in | std::ios::out | std::ios::binary);
    weights.seekg(-9, std::ios::end);
    const char byte = static_cast<char>(weights.peek() ^ 1);
    weights.seekp(-9, std::ios::end);
    weights.put(byte);
    weights.close();
    for (const std::string& path : {folder / "k4", folder / "k4/students/2"}) {
        const Outcome outcome = run({"inspect", path});
        EXPECT_EQ(outcome.code, 1);
        expect_contains(outcome.err, "students/2/model.safetensors: differs from its checksum");
    }
    EXPECT_EQ(run({"inspect", folder / "k4/students/1"}).code, 0);
}

TEST(Inspect, identifies_foreign_files_and_suggests_what_to_do) {
    const Folder folder;
    std::ofstream(folder / "v1-5.ckpt", std::ios::binary) << "\x80\x02}q\x01.";
    const auto header = [&](const std::string& name, const std::string& tensor) {
        const std::string json =
            "{\"" + tensor + "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}";
        const std::uint64_t length = json.size();
        std::ofstream(folder / name, std::ios::binary)
            << std::string(reinterpret_cast<const char*>(&length), 8) << json << 'x';
    };
    header("single.safetensors", "model.diffusion_model.input_blocks.0.0.weight");
    header("kohya.safetensors", "lora_unet_down_blocks_0_attentions_0.lora_down.weight");
    header("peft.safetensors", "unet.down_blocks.0.attentions.0.to_q.lora.down.weight");
    header("state.safetensors", "conv.weight");
    fs::create_directories(folder / "only-unet");
    std::ofstream(folder / "only-unet/config.json")
        << "{\"_class_name\": \"UNet2DConditionModel\"}";
    const std::map<std::string, std::string> suggestions{
        {"v1-5.ckpt", "from_single_file"},        {"single.safetensors", "from_single_file"},
        {"kohya.safetensors", "--lora FILE"},     {"peft.safetensors", "--lora FILE"},
        {"state.safetensors", "atelier convert"}, {"only-unet", "model_index.json"}};
    for (const auto& [name, next] : suggestions) {
        expect_contains(succeed({"inspect", folder / name}).out, next);
        for (const Arguments& command :
             {Arguments{"sample", folder / name, "--prompt", "a cat", "--out", folder / "x.png"},
              Arguments{"serve", folder / name}, Arguments{"route", folder / name, "3"},
              Arguments{"benchmark", folder / name}}) {
            const Outcome outcome = run(command);
            EXPECT_EQ(outcome.code, 1) << command.front() << " " << name;
            expect_contains(outcome.err, next);
        }
    }
    expect_contains(succeed({"inspect", "configs/toy2d.toml"}).out,
                    "atelier run configs/toy2d.toml");
    EXPECT_EQ(run({"inspect", folder / "nothing"}).code, 1);
}

}  // namespace
}  // namespace atelier::end_to_end
