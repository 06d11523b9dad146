#include <fstream>

#include "atelier/data/encoded_images.h"
#include "atelier/data/loader.h"
#include "core/archives.h"
#include "core/test_folder.h"
#include "data/data_fixtures.h"

/// Images in zip archives and tars.
namespace atelier::data {
namespace {

namespace fs = std::filesystem;
using core::error_of;
using core::expect_contains;
using core::TestFolder;

/// A 3x2 image of constant `value`.
std::string png(int value, int channels = 3, int width = 3) {
    core::Image image{2, width, channels, {}};
    image.pixels.assign(static_cast<std::size_t>(2 * width * channels),
                        static_cast<std::uint8_t>(value));
    const auto bytes = core::encode_png(image);
    return {bytes.begin(), bytes.end()};
}

class Archives : public testing::Test {
protected:
    fs::path written(const std::string& name, const std::string& bytes) {
        std::ofstream(folder_ / name, std::ios::binary) << bytes;
        return folder_ / name;
    }
    fs::path zipped(const std::vector<core::ZipEntry>& entries) {
        return written("data.zip", core::zip_of(entries));
    }
    fs::path tarred(const std::vector<core::TarEntry>& entries) {
        return written("data.tar", core::tar_of(entries));
    }

    static std::shared_ptr<const Dataset> open(const fs::path& path, std::int64_t limit = 0) {
        return open_dataset({.path = path, .split = "train", .limit = limit});
    }

    TestFolder folder_;
};

TEST_F(Archives, whose_names_do_not_say_their_encoding_are_read_with_a_notice) {
    const auto warned = [&](const std::string& name) {
        const fs::path zip = zipped({{.name = "a/1.png", .bytes = png(1)},
                                     {.name = name + "/2.png", .bytes = png(2)},
                                     {.name = name + "/3.png", .bytes = png(3)}});
        testing::internal::CaptureStderr();
        EXPECT_EQ(open(zip)->size(), 3);
        return testing::internal::GetCapturedStderr();
    };
    const std::string notice = warned("caf\xe9");  // Latin-1
    expect_contains(notice, "data.zip: 2 names do not say the encoding");
    expect_contains(notice, "code page 437, \"caf\xce\x98/2.png\" for instance");
    EXPECT_EQ(warned("cafe"), "");
    EXPECT_EQ(warned("caf\xc3\xa9"), "");
}

std::vector<core::ZipEntry> edm_zip(const std::string& labels) {
    return {{.name = "00000/img1.png", .bytes = png(10)},
            {.name = "dataset.json", .bytes = labels},
            {.name = "00000/img0.png", .bytes = png(200), .deflated = true}};
}

TEST_F(Archives, edms_zip_gives_images_in_the_order_of_their_names_with_their_labels) {
    const auto data =
        open(zipped(edm_zip(R"({"labels": [["00000/img1.png", 0], ["00000/img0.png", 1]]})")));
    EXPECT_EQ(data->size(), 2);
    EXPECT_EQ(data->classes(), 2);
    EXPECT_EQ(data->labels(), (std::vector<std::int64_t>{1, 0}));
    EXPECT_EQ(data->spec().shape, (std::vector<std::int64_t>{3, 2, 3}));
    const std::vector<std::int64_t> both{0, 1};
    const Tensor samples = data->samples(both);
    EXPECT_NEAR(samples[0].max().item<double>(), 200 / 127.5 - 1, 1e-6);
    EXPECT_NEAR(samples[1].max().item<double>(), 10 / 127.5 - 1, 1e-6);
}

TEST_F(Archives, a_zip_without_labels_is_unlabelled) {
    EXPECT_EQ(open(zipped(edm_zip(R"({"labels": null})")))->classes(), 0);
    EXPECT_EQ(open(zipped({{.name = "a.png", .bytes = png(1)}}))->classes(), 0);
}

TEST_F(Archives, wrong_labels_are_named) {
    const auto message_for = [&](const std::string& json) {
        return error_of([&] { open(zipped(edm_zip(json))); });
    };
    expect_contains(message_for("[]"), "dataset.json: has no \"labels\"");
    expect_contains(message_for("{"), "not valid JSON");
    expect_contains(message_for(R"({"labels": 3})"), "must be a list");
    expect_contains(message_for(R"({"labels": [["00000/img1.png", 0]]})"),
                    "\"00000/img0.png\" has no label");
    expect_contains(message_for(R"({"labels": [["00000/img1.png", 0.5]]})"), "expected");
    expect_contains(message_for(R"({"labels": [["00000/img1.png", -1], ["00000/img0.png", 0]]})"),
                    "begin at 0");
    expect_contains(message_for(R"({"labels": [["00000/img1.png", 7], ["00000/img0.png", 0]]})"),
                    "class 1 has no sample");
    expect_contains(message_for("{\"labels\": " + std::string(100'000, '[')), "levels deep");
}

TEST_F(Archives, wrong_images_are_named) {
    const auto message_for = [&](const std::string& bytes) {
        return error_of([&] {
            open(zipped({{.name = "a.png", .bytes = png(1)}, {.name = "b.png", .bytes = bytes}}));
        });
    };
    expect_contains(message_for("no picture"), "data.zip: b.png: is neither");
    expect_contains(message_for(png(1).substr(0, 60)), "data.zip: b.png: is a broken PNG");
    expect_contains(message_for(png(1, 3, 5)), "b.png: is 5x2 pixels");
    std::string huge = png(1);
    huge.replace(16, 4, std::string("\0\0\x20\0", 4));
    expect_contains(message_for(huge), "b.png");
    expect_contains(error_of([&] { open(zipped({{.name = "readme.txt", .bytes = "x"}})); }),
                    "holds no .png");
}

TEST_F(Archives, webdataset_tars_pair_images_with_classes_by_their_stem) {
    const auto data = open(tarred({{"s/0001.cls", "1"},
                                   {"s/0001.png", png(50)},
                                   {"s/0001.json", "{}"},
                                   {"s/0002.png", png(60)},
                                   {"s/0002.cls", "0\n"}}));
    EXPECT_EQ(data->labels(), (std::vector<std::int64_t>{1, 0}));
    const std::vector<std::int64_t> first{0};
    EXPECT_NEAR(data->samples(first).max().item<double>(), 50 / 127.5 - 1, 1e-6);
}

TEST_F(Archives, a_folder_of_tars_is_one_data_set) {
    written("b.tar", core::tar_of({{"1.png", png(2)}, {"1.cls", "1"}}));
    written("a.tar", core::tar_of({{"1.png", png(1)}, {"1.cls", "0"}}));
    EXPECT_EQ(open(folder_.path())->labels(), (std::vector<std::int64_t>{0, 1}));
}

TEST_F(Archives, wrong_tars_are_named) {
    expect_contains(error_of([&] { open(tarred({{"1.png", png(2)}, {"1.cls", "one"}})); }),
                    "data.tar: 1.cls: \"one\" is not a class");
    expect_contains(
        error_of([&] { open(tarred({{"1.png", png(2)}, {"1.cls", "0"}, {"2.png", png(2)}})); }),
        "2.png: either all");
    expect_contains(error_of([&] { open(tarred({{"1.png", png(2)}, {"1.jpg", png(2)}})); }),
                    "second image");
    expect_contains(error_of([&] { open(tarred({{"1.txt", "x"}})); }), "holds no .png");
}

TEST_F(Archives, images_too_many_for_memory_are_decoded_on_request_and_give_the_same) {
    const auto images = [](std::int64_t bad) {
        EncodedImages images;
        images.count = 40;
        images.read = [bad](std::int64_t i) {
            return core::Image{
                1, 2, i == bad ? 1 : 3,
                std::vector<std::uint8_t>(i == bad ? 2 : 6, static_cast<std::uint8_t>(i))};
        };
        images.name = [](std::int64_t i) { return fmt::format("image {}", i); };
        return images;
    };
    const auto held = open_encoded(images(-1), 0), lazy = open_encoded(images(-1), 0, 100),
               grey = open_encoded(images(5), 0, 100);
    std::vector<std::int64_t> order;
    for (std::int64_t i = 0; i < 40; ++i) order.push_back(39 - i);
    EXPECT_TRUE(held->samples(order).equal(lazy->samples(order)));
    EXPECT_TRUE(held->samples(order).equal(grey->samples(order)));
    EXPECT_EQ(held->spec(), lazy->spec());
    const std::vector<std::int64_t> beyond{40};
    expect_contains(error_of([&] { lazy->samples(beyond); }), "no sample 40");
    EXPECT_EQ(open_encoded(images(-1), 7, 10)->size(), 7);
    EXPECT_TRUE(held->samples(order).equal(open_encoded(images(0), 0, 10)->samples(order)))
        << "the first one alone is grey";
    EncodedImages seldom = images(-1);
    seldom.count = 2000;
    seldom.read = [](std::int64_t i) {
        return core::Image{1, 1, i == 1 ? 3 : 1, std::vector<std::uint8_t>(i == 1 ? 3 : 1)};
    };
    const std::vector<std::int64_t> coloured{1};
    expect_contains(error_of([&] { open_encoded(seldom, 0, 10)->samples(coloured); }),
                    "image 1: is coloured");
    EncodedImages unlike = images(-1);
    unlike.read = [](std::int64_t i) {
        return core::Image{1, i == 30 ? 5 : 2, 1, std::vector<std::uint8_t>(i == 30 ? 5 : 2)};
    };
    expect_contains(error_of([&] { open_encoded(unlike, 0, 10); }), "image 30: is 5x1 pixels");
}

}  // namespace
}  // namespace atelier::data
