#include "atelier/data/import_images.h"

#include <set>

#include "atelier/core/atomic_file.h"
#include "atelier/core/json_file.h"
#include "atelier/core/npz.h"
#include "atelier/core/zip_file.h"
#include "atelier/data/image_files.h"
#include "data/data_fixtures.h"

namespace atelier::data {
namespace {

namespace fs = std::filesystem;

/// Two classes of coloured images of several sizes, one of them grey.
void write_images(const fs::path& folder) {
    for (int i = 0; i < 6; ++i) {
        core::Image image{10 + i, 20 - i, i == 4 ? 1 : 3, {}};
        image.pixels.assign(static_cast<std::size_t>(image.height * image.width * image.channels),
                            static_cast<std::uint8_t>(40 * i));
        core::write_png(folder / (i % 2 == 0 ? "cats" : "dogs") / (std::to_string(i) + ".png"),
                        image);
    }
}

EncodedImages in(const fs::path& path) { return images_in({.path = path}); }

std::string bytes_in(const fs::path& path) { return core::read_text(path); }

TEST(ImportImages, of_a_folder_become_squares_with_the_labels_of_their_folders) {
    const TestFolder folder;
    write_images(folder / "in");
    std::int64_t written = 0, checked = 0;
    const ImportReport report = import_images(
        in(folder / "in"), folder / "out.zip", {.side = 8},
        {[&](std::int64_t done) { checked = done; }, [&](std::int64_t done) { written = done; }});
    EXPECT_EQ(written, 6);
    EXPECT_EQ(checked, 6);
    EXPECT_EQ(report.images, 6);
    const auto data = open_dataset({.path = folder / "out.zip"});
    EXPECT_EQ(data->spec().shape, (std::vector<std::int64_t>{3, 8, 8}));
    EXPECT_EQ(data->labels(), (std::vector<std::int64_t>{0, 0, 0, 1, 1, 1}));
    EXPECT_EQ(data->spec().class_names, (std::vector<std::string>{"cats", "dogs"}));
    const std::int64_t second[]{1};
    EXPECT_NEAR(data->samples(second).mean().item<double>(), 80 / 127.5 - 1, 1e-6);
    EXPECT_FALSE(fs::exists(folder / "out.zip.part"));
    EXPECT_FALSE(fs::exists(skipped_list_of(folder / "out.zip")));
}

TEST(ImportImages, of_idx_files_and_npz_keep_their_classes) {
    const TestFolder folder;
    const Bytes pixels = random_bytes(4 * 3 * 2);
    fs::create_directories(folder / "idx");
    write_bytes(folder / "idx/train-images-idx3-ubyte", big_endian({0x803, 4, 3, 2}) + pixels);
    write_bytes(folder / "idx/train-labels-idx1-ubyte", big_endian({0x801, 4}) + Bytes{1, 0, 2, 1});
    const std::vector<std::int64_t> labels{1, 0, 2, 1};
    core::write_npz(folder / "x.npz",
                    {{"arr_0", core::DType::U8, {4, 3, 2, 1}, std::as_bytes(std::span(pixels))},
                     {"labels", core::DType::I64, {4}, std::as_bytes(std::span(labels))}});
    for (const char* name : {"idx", "x.npz"}) {
        const fs::path out = folder / (std::string(name) + ".zip");
        import_images(in(folder / name), out, {.side = 2, .channels = 1});
        const auto made = open_dataset({.path = out});
        EXPECT_EQ(made->spec().shape, (std::vector<std::int64_t>{1, 2, 2})) << name;
        EXPECT_EQ(made->labels(), labels) << name;
        EXPECT_TRUE(holds(
            message_of([&] { images_in({.path = folder / name, .captions = Captions::required}); }),
            "no captions"))
            << name;
    }
    EXPECT_EQ(bytes_in(folder / "idx.zip"), bytes_in(folder / "x.npz.zip")) << "the same images";
    const core::Image first = in(folder / "idx").read(1);
    EXPECT_EQ(first.height, 3);
    EXPECT_EQ(Bytes(first.pixels), Bytes(pixels.begin() + 6, pixels.begin() + 12));
    write_points(folder / "p.safetensors", {0, 1, 2, 3});
    EXPECT_TRUE(holds(message_of([&] { in(folder / "p.safetensors"); }), "holds no images"));
}

TEST(ImportImages, record_in_the_archive_how_they_were_made) {
    const TestFolder folder;
    write_images(folder / "in");
    import_images(in(folder / "in"), folder / "a.zip", {.side = 8});
    import_images(in(folder / "in"), folder / "b.zip",
                  {.side = 8,
                   .filter = core::ResizeFilter::bicubic,
                   .background = {255, 0, 16},
                   .fit = Fit::pad});
    const auto made_by = [&](const char* name) {
        const core::ZipFile zip(folder / name);
        const auto text = zip.read(*zip.find("dataset.json"), 1 << 20);
        return core::parse_json({reinterpret_cast<const char*>(text.data()), text.size()},
                                name)["made_by"];
    };
    EXPECT_EQ(made_by("a.zip"), (nlohmann::json{{"program", "atelier import"},
                                                {"side", 8},
                                                {"channels", 3},
                                                {"filter", "lanczos"},
                                                {"fit", "crop"},
                                                {"background", "#ffffff"}}));
    EXPECT_EQ(made_by("b.zip"), (nlohmann::json{{"program", "atelier import"},
                                                {"side", 8},
                                                {"channels", 3},
                                                {"filter", "bicubic"},
                                                {"fit", "pad"},
                                                {"background", "#ff0010"}}));
    const auto padded = open_dataset({.path = folder / "b.zip"});
    const std::int64_t first[]{0};
    EXPECT_NEAR(padded->samples(first)[0][0][0][0].item<double>(), 1, 1e-6)
        << "the background above a wide image";
}

TEST(ImportImages, go_through_a_zip_again_and_may_become_grey) {
    const TestFolder folder;
    write_images(folder / "in");
    import_images(in(folder / "in"), folder / "a.zip", {.side = 8});
    import_images(in(folder / "a.zip"), folder / "b.zip", {.side = 4, .channels = 1});
    const auto data = open_dataset({.path = folder / "b.zip"});
    EXPECT_EQ(data->spec().shape, (std::vector<std::int64_t>{1, 4, 4}));
    EXPECT_EQ(data->classes(), 2);
    EXPECT_EQ(data->spec().class_names, (std::vector<std::string>{"cats", "dogs"}));
}

TEST(ImportImages, keep_their_captions) {
    const TestFolder folder;
    write_images(folder / "in");
    for (int i = 0; i < 6; ++i)
        std::ofstream(folder / "in" / (i % 2 == 0 ? "cats" : "dogs") / (std::to_string(i) + ".txt"))
            << "number " << i << "\n";
    import_images(in(folder / "in"), folder / "a.zip", {.side = 8});
    const auto data = open_dataset({.path = folder / "a.zip"});
    EXPECT_EQ(data->captions(), (std::vector<std::string>{"number 0", "number 2", "number 4",
                                                          "number 1", "number 3", "number 5"}));
    const std::int64_t second[]{1};
    EXPECT_NEAR(data->samples(second).mean().item<double>(), 80 / 127.5 - 1, 1e-6);
    import_images(images_in({.path = folder / "in", .captions = Captions::ignored}),
                  folder / "b.zip", {.side = 8});
    EXPECT_EQ(open_dataset({.path = folder / "b.zip"})->classes(), 2);
    EXPECT_TRUE(open_dataset({.path = folder / "b.zip"})->captions().empty());
}

TEST(ImportImages, that_cannot_be_read_are_all_named_before_the_work_begins) {
    const TestFolder folder;
    write_images(folder / "in");
    std::ofstream(folder / "in/cats/bad.jpg") << "<html>";
    std::ofstream(folder / "in/dogs/worse.png");
    bool wrote = false;
    const std::string message = message_of([&] {
        import_images(in(folder / "in"), folder / "a.zip", {.side = 8},
                      {nullptr, [&](std::int64_t) { wrote = true; }});
    });
    EXPECT_TRUE(holds(message, "2 of 8 images cannot be read, named above; nothing was begun"))
        << message;
    EXPECT_FALSE(wrote);
    const ImportReport report =
        import_images(in(folder / "in"), folder / "a.zip", {.side = 8, .skip_bad = true});
    EXPECT_EQ(report.images, 6);
    ASSERT_EQ(report.skipped.size(), 2U);
    EXPECT_TRUE(holds(report.skipped[0], "bad.jpg: is a web page")) << report.skipped[0];
    EXPECT_EQ(bytes_in(skipped_list_of(folder / "a.zip")),
              report.skipped[0] + "\n" + report.skipped[1] + "\n");
    EXPECT_EQ(open_dataset({.path = folder / "a.zip"})->labels(),
              (std::vector<std::int64_t>{0, 0, 0, 1, 1, 1}));
}

TEST(ImportImages, that_break_during_the_work_are_repaired_without_repeating_the_others) {
    const TestFolder folder;
    write_images(folder / "in");
    const std::string whole = bytes_in(folder / "in/cats/2.png");
    // Truncation is detected from headers, before the work; damaged pixels are not.
    core::write_text(folder / "in/cats/2.png", whole.substr(0, whole.size() - 30));
    EXPECT_TRUE(
        holds(message_of([&] { import_images(in(folder / "in"), folder / "a.zip", {.side = 8}); }),
              "1 of 6 images cannot be read, named above; nothing was begun"));
    std::string damaged = whole;
    damaged[whole.size() - 30] = static_cast<char>(damaged[whole.size() - 30] ^ 0x55);
    core::write_text(folder / "in/cats/2.png", damaged);
    EXPECT_TRUE(
        holds(message_of([&] { import_images(in(folder / "in"), folder / "a.zip", {.side = 8}); }),
              "1 of 6 images cannot be read, named above; the others are kept"));
    EXPECT_FALSE(fs::exists(folder / "a.zip"));
    core::write_text(folder / "in/cats/2.png", whole);
    EncodedImages mended = in(folder / "in");
    std::set<std::int64_t> read;
    const auto reader = mended.read;
    mended.read = [&](std::int64_t i) {
        read.insert(i);
        return reader(i);
    };
    import_images(mended, folder / "a.zip", {.side = 8});
    EXPECT_EQ(read, (std::set<std::int64_t>{1}));
    import_images(in(folder / "in"), folder / "b.zip", {.side = 8});
    const auto a = open_dataset({.path = folder / "a.zip"}),
               b = open_dataset({.path = folder / "b.zip"});
    EXPECT_EQ(a->hash(), b->hash());
}

TEST(ImportImages, of_files_that_changed_or_with_other_settings_are_made_again) {
    const TestFolder folder;
    write_images(folder / "in");
    EncodedImages stops = in(folder / "in");
    const auto reader = stops.read;
    stops.read = [&](std::int64_t i) {
        if (i > 3) core::fail("the disk is gone");
        return reader(i);
    };
    EXPECT_THROW(import_images(stops, folder / "a.zip", {.side = 8}), core::Error);
    core::write_png(folder / "in/cats/2.png", {5, 5, 3, std::vector<std::uint8_t>(75, 200)});
    import_images(in(folder / "in"), folder / "a.zip", {.side = 8});
    const std::int64_t second[]{1};
    EXPECT_NEAR(open_dataset({.path = folder / "a.zip"})->samples(second).mean().item<double>(),
                200 / 127.5 - 1, 1e-6);
    EXPECT_THROW(import_images(stops, folder / "b.zip", {.side = 8}), core::Error);
    import_images(in(folder / "in"), folder / "b.zip", {.side = 4});
    EXPECT_EQ(open_dataset({.path = folder / "b.zip"})->spec().shape,
              (std::vector<std::int64_t>{3, 4, 4}));
    EXPECT_TRUE(
        holds(message_of([&] { import_images(in(folder / "in"), folder / "b.zip", {.side = 4}); }),
              "exists already"));
    import_images(in(folder / "in"), folder / "b.zip", {.side = 6, .replace = true});
    EXPECT_EQ(open_dataset({.path = folder / "b.zip"})->spec().shape,
              (std::vector<std::int64_t>{3, 6, 6}));
}

TEST(ImportImages, cannot_lose_all_of_a_class) {
    const TestFolder folder;
    write_images(folder / "in");
    std::ofstream(folder / "in/cats/0.png") << "x";
    std::ofstream(folder / "in/cats/2.png") << "x";
    std::ofstream(folder / "in/cats/4.png") << "x";
    EXPECT_TRUE(holds(message_of([&] {
                          import_images(in(folder / "in"), folder / "a.zip",
                                        {.side = 8, .skip_bad = true});
                      }),
                      "no image of the class cats can be read"));
}

TEST(Colours, can_be_two_names_or_any_hex_value) {
    EXPECT_EQ(colour_of("white"), core::white);
    EXPECT_EQ(colour_of("black"), (core::Colour{0, 0, 0}));
    EXPECT_EQ(colour_of("#0a80Ff"), (core::Colour{10, 128, 255}));
    for (const char* wrong : {"", "red", "#12345", "#12345g", "#1234567", "0a80ff1"})
        EXPECT_THROW(colour_of(wrong), core::UsageError) << wrong;
}

}  // namespace
}  // namespace atelier::data
