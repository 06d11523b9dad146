#include "atelier/data/arrange_images.h"

#include <sys/stat.h>

#include "atelier/data/image_files.h"
#include "core/archives.h"
#include "data/data_fixtures.h"

/// Folders and archives from elsewhere: classes, captions, and what is passed over.
namespace atelier::data {
namespace {

namespace fs = std::filesystem;

std::string small_png(int value) {
    const auto bytes = core::encode_png(
        {2, 2, 3, std::vector<std::uint8_t>(12, static_cast<std::uint8_t>(value))});
    return {bytes.begin(), bytes.end()};
}

struct Content {
    std::string name, bytes;
};

/// The same files in each supported form.
class Everywhere : public testing::TestWithParam<std::string> {
protected:
    fs::path laid_out(const std::vector<Content>& files) {
        const fs::path path = folder_ / (GetParam() == "folder" ? "set" : "set." + GetParam());
        fs::remove_all(path);
        std::vector<core::ZipEntry> zipped;
        std::vector<core::TarEntry> tarred;
        for (const auto& [name, bytes] : files) {
            if (GetParam() == "folder") {
                fs::create_directories((path / name).parent_path());
                std::ofstream(path / name, std::ios::binary) << bytes;
            }
            zipped.push_back({.name = name, .bytes = bytes});
            tarred.push_back({name, bytes});
        }
        if (GetParam() == "zip") std::ofstream(path, std::ios::binary) << core::zip_of(zipped);
        if (GetParam() == "tar") std::ofstream(path, std::ios::binary) << core::tar_of(tarred);
        return path;
    }

    EncodedImages read(const std::vector<Content>& files, const DataRequest& how = {}) {
        DataRequest request = how;
        request.path = laid_out(files);
        return images_in(request);
    }

    std::string refusal(const std::vector<Content>& files, const DataRequest& how = {}) {
        return message_of([&] { read(files, how); });
    }

    TestFolder folder_;
};

INSTANTIATE_TEST_SUITE_P(Every, Everywhere, testing::Values("folder", "zip", "tar"),
                         [](const auto& info) { return info.param; });

using Labels = std::vector<std::int64_t>;
using Texts = std::vector<std::string>;

TEST_P(Everywhere, first_folders_are_classes_and_deeper_ones_belong_to_them) {
    const EncodedImages images = read({{"cat/0.png", small_png(1)},
                                       {"cat/more/1.PNG", small_png(2)},
                                       {"dog/2.jfif", small_png(3)},
                                       {"dog/a/b/c/3.webp", small_png(4)}});
    EXPECT_EQ(images.labels, (Labels{0, 0, 1, 1}));
    EXPECT_EQ(images.class_names, (Texts{"cat", "dog"}));
    EXPECT_EQ(images.passed_over.count(), 0);
    for (std::int64_t i = 0; i < 4; ++i)
        EXPECT_EQ(images.read(i).pixels[0], i + 1) << "read by content, not by ending";
}

TEST_P(Everywhere, a_folder_around_all_classes_is_none) {
    const EncodedImages images =
        read({{"./pets/cat/0.png", small_png(1)}, {"./pets/dog/0.png", small_png(2)}});
    EXPECT_EQ(images.class_names, (Texts{"cat", "dog"}));
}

TEST_P(Everywhere, train_and_test_are_splits) {
    const std::vector<Content> files{{"train/cat/0.png", small_png(1)},
                                     {"train/dog/0.png", small_png(2)},
                                     {"val/dog/0.png", small_png(3)}};
    const EncodedImages train = read(files), test = read(files, {.split = "test"});
    EXPECT_EQ(train.count, 2);
    EXPECT_EQ(train.labels, (Labels{0, 1}));
    ASSERT_EQ(test.count, 1);
    EXPECT_EQ(test.labels, Labels{1});
    EXPECT_EQ(test.read(0).pixels[0], 3);
    ASSERT_EQ(train.remarks.size(), 1U);
    EXPECT_TRUE(holds(train.remarks[0], "1 in val/ are the held-out split")) << train.remarks[0];
    EXPECT_TRUE(holds(refusal({{"train/a/0.png", small_png(1)}, {"test/b/0.png", small_png(1)}},
                              {.split = "test"}),
                      "test/b: is not a class"));
}

TEST_P(Everywhere, labels_of_a_dataset_json_count_before_folders_wherever_it_lies) {
    const std::string json =
        R"({"labels": [["00000/img00000000.png", 1], ["./00000/img00000001.png", 0]],
                "class_names": ["x", "y"]})";
    for (const std::string prefix : {"", "./", "mine/", "a/b/"}) {
        const EncodedImages images = read({{prefix + "00000/img00000000.png", small_png(1)},
                                           {prefix + "00000/img00000001.png", small_png(2)},
                                           {prefix + "dataset.json", json}});
        EXPECT_EQ(images.labels, (Labels{1, 0})) << prefix;
        EXPECT_EQ(images.class_names, (Texts{"x", "y"})) << prefix;
    }
    const EncodedImages images = read({{"a/0.png", small_png(1)},
                                       {"b/0.png", small_png(1)},
                                       {"dataset.json", R"({"labels": null})"}});
    EXPECT_TRUE(images.labels.empty()) << "said to be unlabelled";
}

TEST_P(Everywhere, numbered_folders_of_edms_tool_are_no_classes) {
    if (GetParam() == "folder") return;
    EXPECT_EQ(
        read({{"00000/img00000000.png", small_png(1)}, {"00001/img00001000.png", small_png(2)}})
            .classes,
        0);
}

TEST_P(Everywhere, cls_files_count_before_folders) {
    EXPECT_EQ(read({{"a/0.png", small_png(1)},
                    {"a/0.cls", "1\n"},
                    {"b/1.png", small_png(1)},
                    {"b/1.cls",
                     "\xef\xbb\xbf"
                     "0"}})
                  .labels,
              (Labels{1, 0}));
    const EncodedImages negative =
        read({{"0.png", small_png(1)}, {"0.cls", "-1"}, {"1.png", small_png(1)}, {"1.cls", "-1"}});
    EXPECT_EQ(negative.classes, 0);
    ASSERT_EQ(negative.remarks.size(), 1U);
    EXPECT_TRUE(holds(negative.remarks[0], "every .cls is negative")) << negative.remarks[0];
    EXPECT_TRUE(holds(
        refusal(
            {{"0.png", small_png(1)}, {"0.cls", "0"}, {"1.png", small_png(1)}, {"1.cls", "-1"}}),
        "1.cls: the class is negative"));
}

TEST_P(Everywhere, what_is_passed_over_is_counted) {
    const EncodedImages images = read({{"a/0.png", small_png(1)},
                                       {"a/.DS_Store", "x"},
                                       {"__MACOSX/a/._0.png", "x"},
                                       {"a/._0.png", "x"},
                                       {"a/Thumbs.db", "x"},
                                       {"a/1.gif", "GIF89a"},
                                       {"b/0.png", small_png(2)},
                                       {"b/2.GIF", "GIF89a"},
                                       {"readme", "x"}});
    EXPECT_EQ(images.labels, (Labels{0, 1}));
    EXPECT_EQ(images.passed_over.count(), 7);
    EXPECT_FALSE(images.passed_over.only_expected());
    EXPECT_EQ(
        images.passed_over.summary().substr(0, images.passed_over.summary().find(", the first")),
        "7 entries passed over (4 hidden files, 2 .gif, 1 file without an extension)");
    EXPECT_TRUE(holds(images.passed_over.summary(), "the first: a/1.gif"))
        << images.passed_over.summary();
    EXPECT_TRUE(holds(refusal({{"x/1.gif", "GIF89a"}, {"2.bmp", "BM"}}), "2 entries passed over"));
}

TEST_P(Everywhere, captions_of_every_usual_form_are_read) {
    const Texts both{"a red circle", "a \xc3\xa9toile"};
    const std::vector<Content> image_files{{"x/0.png", small_png(1)}, {"x/1.png", small_png(2)}};
    const auto captions = [&](const std::vector<Content>& more) {
        std::vector<Content> files = image_files;
        files.insert(files.end(), more.begin(), more.end());
        const EncodedImages images = read(files);
        EXPECT_TRUE(images.labels.empty());
        EXPECT_EQ(images.passed_over.count(), 0) << images.passed_over.summary();
        return images.captions;
    };
    EXPECT_EQ(captions({{"x/0.txt", "a red circle\n"},
                        {"x/1.txt",
                         "\xef\xbb\xbf"
                         "a \xc3\xa9toile"}}),
              both);
    EXPECT_EQ(captions({{"x/0.caption", " a red circle"}, {"x/1.TXT", "a \xc3\xa9toile\r\n"}}),
              both);
    EXPECT_EQ(captions({{"x/0.json", R"({"caption": "a red circle"})"},
                        {"x/1.json", R"({"text": "a étoile"})"}}),
              both);
    EXPECT_EQ(captions({{"x/metadata.jsonl",
                         "\xef\xbb\xbf{\"file_name\": \"1.png\", \"text\": \"a "
                         "\xc3\xa9toile\"}\n\n{\"file_name\": \"./0.png\", \"text\": [\"a red "
                         "circle\", \"other\"]}\n"}}),
              both);
    EXPECT_EQ(captions({{"metadata.csv",
                         "id,Caption,file_name\r\n1,\"a red circle\",x/0.png\n2,\"a "
                         "\xc3\xa9toile\",x/1.png"}}),
              both);
}

TEST_P(Everywhere, captions_win_over_folders_and_lose_to_explicit_classes) {
    const std::vector<Content> files{{"cats/0.png", small_png(1)},
                                     {"cats/0.txt", "one"},
                                     {"dogs/1.png", small_png(2)},
                                     {"dogs/1.txt", "two"}};
    EXPECT_EQ(read(files).captions, (Texts{"one", "two"}));
    const EncodedImages unwanted = read(files, {.captions = Captions::ignored});
    EXPECT_EQ(unwanted.class_names, (Texts{"cats", "dogs"}));
    EXPECT_EQ(unwanted.passed_over.summary(),
              "2 entries passed over (2 .txt), the first: cats/0.txt");
    std::vector<Content> labelled = files;
    labelled.push_back({"cats/0.cls", "1"});
    labelled.push_back({"dogs/1.cls", "0"});
    const EncodedImages classes = read(labelled);
    EXPECT_EQ(classes.labels, (Labels{1, 0}));
    EXPECT_TRUE(classes.captions.empty());
    ASSERT_FALSE(classes.remarks.empty());
    EXPECT_TRUE(holds(classes.remarks[0], "captions too")) << classes.remarks[0];
    EXPECT_EQ(read(labelled, {.captions = Captions::required}).captions, (Texts{"one", "two"}));
}

TEST_P(Everywhere, missing_captions_are_counted_and_named) {
    const std::string message = refusal({{"0.png", small_png(1)},
                                         {"0.txt", "one"},
                                         {"1.png", small_png(2)},
                                         {"2.png", small_png(3)},
                                         {"2.txt", "  \n"}});
    EXPECT_TRUE(holds(message, "2 of 3 images have no caption")) << message;
    EXPECT_TRUE(holds(message, "1.png") && holds(message, "2.png")) << message;
    EXPECT_TRUE(holds(refusal({{"0.png", small_png(1)}}, {.captions = Captions::required}),
                      "holds no captions"));
    // A stray text file among class folders does not make a captioned set.
    const EncodedImages few = read({{"a/0.png", small_png(1)},
                                    {"a/0.txt", "note"},
                                    {"a/1.png", small_png(1)},
                                    {"b/2.png", small_png(1)}});
    EXPECT_EQ(few.labels, (Labels{0, 0, 1}));
    ASSERT_EQ(few.remarks.size(), 1U);
    EXPECT_TRUE(holds(few.remarks[0], "1 of 3 images have a caption")) << few.remarks[0];
}

TEST_P(Everywhere, texts_that_are_not_utf8_are_named) {
    EXPECT_TRUE(
        holds(refusal({{"0.png", small_png(1)}, {"0.txt", "caf\xe9"}}), "0.txt: is not UTF-8"));
    EXPECT_TRUE(holds(refusal({{"0.png", small_png(1)},
                               {"0.txt", std::string("\xff\xfe"
                                                     "a\0",
                                                     4)}}),
                      "UTF-16"));
    EXPECT_TRUE(holds(refusal({{"0.png", small_png(1)},
                               {"metadata.jsonl",
                                "{\"file_name\": \"0.png\", \"text\": \"a\"}\n{\"file_name\": "
                                "\"0.png\", \"text\": \"\xe9\"}"}}),
                      "metadata.jsonl:2: is not UTF-8"));
    EXPECT_TRUE(
        holds(refusal({{"0.png", small_png(1)},
                       {"metadata.jsonl", "{\"file_name\": \"0.png\", \"text\": \"a\"}\n{"}}),
              "metadata.jsonl:2"));
    EXPECT_TRUE(
        holds(refusal({{"0.png", small_png(1)}, {"metadata.csv", "file_name,text\n0.png,\"a"}}),
              "metadata.csv:2"));
}

TEST_P(Everywhere, names_in_older_encodings_become_utf8) {
    const EncodedImages images =
        read({{"caf\xe9/0.png", small_png(1)}, {"the/0.png", small_png(2)}});
    // Names in zip archives are in code page 437 unless the archive says otherwise.
    EXPECT_EQ(images.class_names[0], GetParam() == "zip" ? "caf\xce\x98" : "caf\xc3\xa9");
    EXPECT_EQ(images.class_names[1], "the");
    EXPECT_FALSE(core::json_text(nlohmann::json(images.class_names)).empty());
}

TEST_P(Everywhere, two_classes_have_two_names) {
    if (GetParam() == "zip") return;  // which has one folder then: names are converted before
    EXPECT_TRUE(holds(
        refusal({{"caf\xe9/0.png", small_png(1)}, {"caf\xc3\xa9/0.png", small_png(2)}}),
        "the folders \"caf\xc3\xa9\" and \"caf\\xe9\" are both classes named \"caf\xc3\xa9\""));
}

TEST_P(Everywhere, headers_show_what_is_not_an_image) {
    const EncodedImages images = read({{"0.png", small_png(1)},
                                       {"1.png", "<html>"},
                                       {"2.png", ""},
                                       {"3.jpg", small_png(1).substr(0, 20)}});
    images.check(0);
    EXPECT_TRUE(holds(message_of([&] { images.check(1); }), "1.png: is a web page"));
    EXPECT_TRUE(holds(message_of([&] { images.check(2); }), "2.png: is empty"));
    EXPECT_TRUE(holds(message_of([&] { images.check(3); }), "3.jpg: is a broken PNG"));
}

TEST(Folders, links_are_followed_where_they_lead_somewhere) {
    const TestFolder folder, elsewhere;
    core::write_png(folder / "dog/0.png", {2, 2, 3, std::vector<std::uint8_t>(12)});
    core::write_png(elsewhere / "1.png", {2, 2, 3, std::vector<std::uint8_t>(12)});
    fs::create_symlink(elsewhere.path(), folder / "cat");
    fs::create_symlink(elsewhere / "1.png", folder / "dog/1.png");
    fs::create_symlink(folder / "nothing.png", folder / "dog/2.png");
    fs::create_symlink(folder.path(), folder / "dog/back");
    ::mkfifo((folder / "dog/pipe.png").c_str(), 0600);
    const EncodedImages images = images_in({.path = folder.path()});
    EXPECT_EQ(images.labels, (Labels{0, 1, 1}));
    const std::string summary = images.passed_over.summary();
    EXPECT_TRUE(holds(summary, "3 entries passed over (")) << summary;
    for (const char* kind : {"1 link that leads to no file", "1 link back to a folder above it",
                             "1 pipe, device or the like"})
        EXPECT_TRUE(holds(summary, kind)) << summary;
}

TEST(Tars, are_read_with_their_links_and_counted_with_what_is_beside_them) {
    const TestFolder folder;
    fs::create_directory(folder / "cat");
    std::ofstream(folder / "notes.text") << "x";
    const std::string tar =
        core::tar_of({{"0.png", small_png(1)},
                      {"0.cls", "0"},
                      {.name = "1.png", .bytes = "", .type = '1', .target = "0.png"},
                      {"1.cls", "1"},
                      {.name = "2.png", .bytes = "", .type = '2', .target = "gone.png"},
                      {"pipe", "", '6'}});
    std::ofstream(folder / "a.tar", std::ios::binary) << tar;
    const EncodedImages images = images_in({.path = folder.path()});
    EXPECT_EQ(images.labels, (Labels{0, 1}));
    EXPECT_EQ(images.read(1).pixels[0], 1) << "the hard link is the file";
    const std::string summary = images.passed_over.summary();
    for (const char* kind : {"1 folder beside the tars", "1 .text", "1 link that leads to no file",
                             "1 pipe, device or the like"})
        EXPECT_TRUE(holds(summary, kind)) << summary;
}

TEST(Paths, that_are_not_data_are_rejected) {
    const TestFolder folder;
    const auto message_for = [&](const std::string& name, const std::string& bytes) {
        std::ofstream(folder / name, std::ios::binary) << bytes;
        return message_of([&] { open_dataset({.path = folder / name}); });
    };
    EXPECT_TRUE(holds(message_for("set.tar.gz", "\x1f\x8b..."),
                      "set.tar.gz: is compressed (gzip); unpack it, e.g. with: tar -xf "));
    EXPECT_TRUE(holds(message_for("one.png", small_png(1)), "is a single image"));
    EXPECT_TRUE(holds(message_of([&] { images_in({.path = folder / "none"}); }),
                      "there is no such file or folder"));
    // Detected by content where the extension is unknown.
    std::ofstream(folder / "download", std::ios::binary)
        << core::zip_of({{.name = "a.png", .bytes = small_png(1)}});
    EXPECT_EQ(open_dataset({.path = folder / "download"})->size(), 1);
    std::ofstream(folder / "UPPER.ZIP", std::ios::binary)
        << core::zip_of({{.name = "a.png", .bytes = small_png(1)}});
    EXPECT_EQ(open_dataset({.path = folder / "UPPER.ZIP"})->size(), 1);
}

TEST(OwnCaptions, are_requested_by_their_scheme) {
    const TestFolder folder;
    core::write_png(folder / "0.png", {2, 2, 3, std::vector<std::uint8_t>(12)});
    const std::string path = "captions:" + folder.path().string();
    EXPECT_TRUE(holds(message_of([&] { open_dataset({.path = path}); }), "holds no captions"));
    std::ofstream(folder / "0.txt") << "nothing";
    EXPECT_EQ(open_dataset({.path = path})->captions(), Texts{"nothing"});
    EXPECT_TRUE(holds(message_of([&] { open_dataset({.path = path + "/none"}); }),
                      "there is no such file"));
}

TEST(TransparentImages, lie_on_white_wherever_they_are_read) {
    const TestFolder folder;
    for (const char* name : {"a/0.png", "b/1.png"}) {
        fs::create_directories((folder / name).parent_path());
        fs::copy_file(ATELIER_SOURCE_DIR "/tests/core/images/odd_alpha.png", folder / name);
    }
    EXPECT_NEAR(open_dataset({.path = folder.path()})
                    ->samples(std::vector<std::int64_t>{0})[0][0][0][0]
                    .item<double>(),
                core::read_image(folder / "a/0.png").pixels[0] / 127.5 - 1, 1e-6);
    EXPECT_GT(core::read_image(folder / "a/0.png").pixels[0], 60)
        << "colour 0, alpha 180: white shows through";
}

}  // namespace
}  // namespace atelier::data
