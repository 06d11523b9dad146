#include "atelier/models/identify_path.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "atelier/core/image_file.h"
#include "atelier/core/npz.h"
#include "atelier/core/safetensors.h"
#include "atelier/core/zip_writer.h"
#include "atelier/data/data_form.h"
#include "atelier/data/dataset.h"
#include "core/test_folder.h"

namespace atelier::models {

namespace {

namespace fs = std::filesystem;
using Kind = PathInfo::Kind;

const core::Image picture{2, 2, 1, {1, 2, 3, 4}};

std::string string_of(const std::vector<std::uint8_t>& bytes) {
    return {bytes.begin(), bytes.end()};
}

void write(const fs::path& path, const std::string& bytes) {
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << bytes;
}

/// A tar with one file.
std::string tar_of(const std::string& name, const std::string& bytes) {
    std::string header(512, '\0');
    header.replace(0, name.size(), name);
    header.replace(100, 7, "0000644");
    header.replace(124, 11, fmt::format("{:011o}", bytes.size()));
    header[156] = '0';
    header.replace(257, 5, "ustar");
    header.replace(148, 8, "        ");
    unsigned sum = 0;
    for (const char c : header) sum += static_cast<unsigned char>(c);
    header.replace(148, 7, fmt::format("{:06o}", sum) + std::string(1, '\0'));
    std::string body = bytes;
    body.resize((body.size() + 511) / 512 * 512);
    return header + body + std::string(1024, '\0');
}

/// Whether a form is one of the enumeration: the compiler asks for a case of each.
bool is_form(data::DataForm form) {
    switch (form) {
        case data::DataForm::nothing:
        case data::DataForm::points:
        case data::DataForm::idx_folder:
        case data::DataForm::npz:
        case data::DataForm::folder:
        case data::DataForm::tars:
        case data::DataForm::zip:
            return true;
    }
    return false;
}

/// What EveryForm writes, and the form that each has.
const std::vector<std::pair<const char*, data::DataForm>> forms{
    {"none", data::DataForm::nothing},
    {"deep", data::DataForm::folder},
    {"tars", data::DataForm::tars},
    {"idx", data::DataForm::idx_folder},
    {"T.TAR", data::DataForm::tars},
    {"tar-by-content", data::DataForm::tars},
    {"Z.ZIP", data::DataForm::zip},
    {"Y.NPZ", data::DataForm::npz},
    {"P.SAFETENSORS", data::DataForm::points},
};

/// Data of every form, with names in lower and in upper case.
class EveryForm : public testing::Test {
protected:
    void SetUp() override {
        const std::string png = string_of(core::encode_png(picture));
        write(folder_ / "deep/a/b/c.PNG", png);
        write(folder_ / "tars/one.TAR", tar_of("a.png", png));
        write(folder_ / "T.TAR", tar_of("a.png", png));
        write(folder_ / "tar-by-content", tar_of("a.png", png));
        write(folder_ / "idx/train-images-idx3-ubyte",
              std::string("\0\0\x08\x03\0\0\0\x02\0\0\0\x01\0\0\0\x01", 16) + "ab");
        write(folder_ / "idx/train-labels-idx1-ubyte",
              std::string("\0\0\x08\x01\0\0\0\x02\0\1", 10));
        core::ZipWriter zip(folder_ / "Z.ZIP", "{}", {});
        zip.add("a.png", std::as_bytes(std::span(png)));
        zip.commit();
        const std::vector<std::uint8_t> pixels(2 * 4);
        core::write_npz(
            folder_ / "Y.NPZ",
            {{"arr_0", core::DType::U8, {2, 2, 2, 1}, std::as_bytes(std::span(pixels))}});
        const std::vector<float> points{0, 1, 2, 4};
        core::write_safetensors(
            folder_ / "P.SAFETENSORS",
            {{"points", core::DType::F32, {2, 2}, std::as_bytes(std::span(points))}});
    }

    core::TestFolder folder_;
};

}  // namespace

TEST_F(EveryForm, is_recognised) {
    std::set<data::DataForm> tried;
    for (const auto& [name, form] : forms) {
        EXPECT_EQ(data::form_at(folder_ / name), form) << name;
        tried.insert(form);
    }
    for (int form = 0; is_form(static_cast<data::DataForm>(form)); ++form)
        EXPECT_TRUE(tried.contains(static_cast<data::DataForm>(form)))
            << "form " << form << " needs data in EveryForm and a line in `forms`";
}

TEST_F(EveryForm, that_opens_is_a_data_set_and_the_other_way_round) {
    for (const auto& [name, form] : forms) {
        if (form == data::DataForm::nothing) continue;
        EXPECT_NO_THROW(data::open_dataset({.path = folder_ / name})) << name;
        const PathInfo found = identify_path(folder_ / name);
        EXPECT_EQ(found.kind, Kind::data_set) << name << " " << found.description;
    }
}

TEST_F(EveryForm, is_no_data_set_where_it_holds_something_else) {
    const std::vector<double> numbers{1, 2};
    core::write_npz(folder_ / "statistics.npz",
                    {{"mu", core::DType::F64, {2}, std::as_bytes(std::span(numbers))}});
    core::write_safetensors(folder_ / "images.safetensors",
                            {{"images", core::DType::F64, {2}, std::as_bytes(std::span(numbers))}});
    write(folder_ / "notes/readme.txt", "x");
    write(folder_ / "ubyte/old-ubyte.txt", "x");
    const std::vector<std::pair<const char*, Kind>> expected{
        {"statistics.npz", Kind::arrays},
        {"images.safetensors", Kind::safetensors},
        {"notes", Kind::unknown_folder},
        {"ubyte", Kind::unknown_folder},
    };
    for (const auto& [name, kind] : expected) {
        EXPECT_EQ(identify_path(folder_ / name).kind, kind) << name;
        EXPECT_THROW(data::open_dataset({.path = folder_ / name}), core::Error) << name;
    }
}

TEST_F(EveryForm, that_is_compressed_is_named_with_how_to_unpack_it) {
    const std::string gzip = "\x1f\x8b" + std::string(600, 'x');
    for (const char* name : {"set.tar.gz", "set.tar", "set"}) {
        write(folder_ / name, gzip);
        const PathInfo found = identify_path(folder_ / name);
        EXPECT_EQ(found.kind, std::string(name) == "set.tar" ? Kind::data_set : Kind::other)
            << name;
        const std::string refused =
            core::error_of([&] { data::open_dataset({.path = folder_ / name}); });
        core::expect_contains(refused, "is compressed (gzip)");
        core::expect_contains(refused, "tar -xf " + (folder_ / name).string());
        if (found.kind == Kind::other) core::expect_contains(found.suggestion, "tar -xf ");
    }
    EXPECT_EQ(identify_path(folder_ / "set").description, "is compressed (gzip)");
    write(folder_ / "train-images-idx3-ubyte.gz", gzip);
    EXPECT_EQ(identify_path(folder_ / "train-images-idx3-ubyte.gz").suggestion, "name its folder");
    // A tar may begin with any name.
    write(folder_ / "B.tar", tar_of("BZh.png", string_of(core::encode_png(picture))));
    EXPECT_NO_THROW(data::open_dataset({.path = folder_ / "B.tar"}));
}

TEST_F(EveryForm, in_place_of_which_there_is_a_web_page_or_a_text_is_named) {
    write(folder_ / "a.jpg", "\n<!DOCTYPE html><p>404");
    EXPECT_EQ(identify_path(folder_ / "a.jpg").description,
              "is a web page (HTML), though its name ends in .jpg");
    write(folder_ / "a.html", "<html>");
    EXPECT_EQ(identify_path(folder_ / "a.html").description, "is a web page (HTML)");
    write(folder_ / "a.png", "not found");
    EXPECT_EQ(identify_path(folder_ / "a.png").description,
              "is a text file, though its name ends in .png");
    write(folder_ / "prompts.txt", "a cat\n");
    EXPECT_EQ(identify_path(folder_ / "prompts.txt").description,
              "is a text file, of prompts or captions for instance");
}

}  // namespace atelier::models
