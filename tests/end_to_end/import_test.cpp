#include <nlohmann/json.hpp>

#include "end_to_end/images.h"

/// Importing foreign data sets on the command line.
namespace atelier::end_to_end {
namespace {

void write(const std::string& path, const std::string& bytes) {
    fs::create_directories(fs::path(path).parent_path());
    std::ofstream(path, std::ios::binary) << bytes;
}

TEST(Import, reports_skipped_files_and_all_unreadable_ones_before_it_begins) {
    const Folder folder;
    const std::string in = folder / "in", out = folder / "out.zip",
                      source = ATELIER_SOURCE_DIR "/tests/core/images/";
    write_images(in, 16, 12, 1);
    for (const char* name :
         {"odd_cmyk_plain.jpg", "odd_exif6.jpg", "odd_alpha.png", "odd_lossy.webp"})
        fs::copy_file(source + name, in + "/kind0/" + name);
    write(in + "/kind1/a.gif", "GIF89a");
    write(in + "/kind1/.DS_Store", "x");
    write(in + "/kind2/page.jpg", "<html>");
    write(in + "/kind3/empty.png", "");
    const Outcome rejected = run({"import", in, out, "--size", "8"});
    EXPECT_EQ(rejected.code, 1);
    for (const char* part :
         {"2 entries passed over (1 .gif, 1 hidden file), the first: kind1/a.gif",
          "page.jpg: is a web page", "empty.png: is empty",
          "2 of 22 images cannot be read, named above; nothing was begun", "--skip-bad"}) {
        expect_contains(rejected.err, part);
    }
    EXPECT_FALSE(fs::exists(out));
    const Outcome skipped = succeed({"import", in, out, "--size", "8", "--skip-bad"});
    for (const char* part :
         {"2 of 22 images cannot be read and were left out", "out.skipped.txt",
          "1 image with transparency was put on white", "1 image was rotated upright",
          "1 image was converted from CMYK", "out.zip: 20 images of 8x8 in 8 classes"}) {
        expect_contains(skipped.err, part);
    }
    expect_contains(text_of(folder / "out.skipped.txt"), "page.jpg: is a web page");
    EXPECT_EQ(nlohmann::json::parse(succeed({"inspect", out, "--json"}).out).at("samples"), 20);
    EXPECT_EQ(run({"import", in, folder / "b.zip", "--size", "8", "--background", "mauve"}).code,
              2);
    EXPECT_EQ(run({"import", in, folder / "b.zip", "--size", "8", "--filter", "nearest"}).code, 2);
    EXPECT_EQ(run({"import", in, out, "--size", "8"}).code, 1) << "exists";
}

TEST(Import, keeps_captions_that_a_run_can_plan_with) {
    const Folder folder;
    const std::string in = folder / "in", out = folder / "out.zip";
    for (int i = 0; i < 12; ++i) {
        std::mt19937 random(static_cast<std::uint32_t>(i));
        core::write_png(in + "/" + std::to_string(i) + ".png",
                        synthetic_image(20 + i, i % 8, random));
        write(in + "/" + std::to_string(i) + ".txt", "shape number " + std::to_string(i % 8));
    }
    expect_contains(succeed({"import", in, out, "--size", "16"}).err,
                    "12 images of 16x16, each with its caption");
    const auto about = nlohmann::json::parse(succeed({"inspect", out, "--json"}).out);
    EXPECT_EQ(about.at("kind"), "captioned data set");
    EXPECT_EQ(about.at("captions"), 12);
    succeed({"run", "configs/captions.toml", "data.path=" + out, "evaluate.classifier=\"\"",
             "network.model_channels=8", "teacher.steps=2", "dm.steps=2", "adm.steps=0",
             "output=" + (folder / "run"), "--dry-run"});
}

TEST(Import, reads_names_of_classes_that_are_not_utf8) {
    const Folder folder;
    const std::string in = folder / "in";
    write_images(in, 8, 8, 1);
    fs::rename(in + "/kind0", in + "/caf\xe9");
    expect_contains(succeed({"import", in, folder / "out.zip", "--size", "8"}).err,
                    "\"caf\\xe9\" is not UTF-8; it is read as Latin-1, \"caf\xc3\xa9\"");
    EXPECT_EQ(nlohmann::json::parse(succeed({"inspect", folder / "out.zip", "--json"}).out)
                  .at("histogram")
                  .at("caf\xc3\xa9"),
              1);
}

}  // namespace
}  // namespace atelier::end_to_end
