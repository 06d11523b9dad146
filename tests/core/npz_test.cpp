#include "atelier/core/npz.h"

#include "core/test_folder.h"

#include <cstring>
#include <fstream>

#include "atelier/core/atomic_file.h"
#include "atelier/core/npy_header.h"
#include "atelier/core/random_streams.h"

namespace atelier::core {

namespace {

constexpr const char* files_of_numpy = ATELIER_SOURCE_DIR "/tests/core/arrays/";

std::string header_refusal(const std::string& text) {
    return error_of([&] { parse_npy_header(text, "x"); });
}

}  // namespace

TEST(Npz, what_is_written_is_read) {
    const TestFolder folder;
    const std::vector<float> a{1, 2, 3, 4, 5, 6};
    const std::vector<std::int64_t> b{-1, 5};
    const std::vector<double> c{0.25};
    write_npz(folder / "x.npz", {{"arr_0", DType::F32, {2, 3}, std::as_bytes(std::span(a))},
                                 {"labels", DType::I64, {2}, std::as_bytes(std::span(b))},
                                 {"scalar", DType::F64, {}, std::as_bytes(std::span(c))},
                                 {"none", DType::U8, {0, 3}, {}}});
    const auto arrays = read_npz(folder / "x.npz");
    EXPECT_EQ(arrays.size(), 4U);
    EXPECT_EQ(arrays.at("arr_0").shape, (Shape{2, 3}));
    EXPECT_EQ(std::memcmp(arrays.at("arr_0").bytes.data(), a.data(), 24), 0);
    EXPECT_EQ(arrays.at("labels").dtype, DType::I64);
    EXPECT_EQ(std::memcmp(arrays.at("labels").bytes.data(), b.data(), 16), 0);
    EXPECT_TRUE(arrays.at("scalar").shape.empty());
    EXPECT_EQ(arrays.at("none").shape, (Shape{0, 3}));
}

TEST(Npz, equal_arrays_give_equal_bytes_in_every_time_zone) {
    const TestFolder folder;
    const std::vector<std::byte> bytes(4, std::byte{3});
    const char* former = ::getenv("TZ");
    const std::string restored = former != nullptr ? former : "";
    std::vector<std::string> contents;
    for (const char* zone : {"UTC", "Asia/Tokyo", "XYZ+11"}) {
        ::setenv("TZ", zone, 1);
        ::tzset();
        write_npz(folder / "x.npz", {{"a", DType::U8, {4}, bytes}});
        contents.push_back(read_text(folder / "x.npz"));
    }
    restored.empty() ? ::unsetenv("TZ") : ::setenv("TZ", restored.c_str(), 1);
    ::tzset();
    EXPECT_EQ(contents[0], contents[1]);
    EXPECT_EQ(contents[0], contents[2]);
}

TEST(Npz, arrays_written_by_numpy_are_read) {
    for (const char* name : {"plain.npz", "compressed.npz"}) {
        const auto arrays = read_npz(std::string(files_of_numpy) + name);
        const Array& x = arrays.at("x");
        EXPECT_EQ(x.dtype, DType::F32);
        EXPECT_EQ(x.shape, (Shape{2, 3}));
        float last = 0;
        std::memcpy(&last, x.bytes.data() + 20, 4);
        EXPECT_EQ(last, 5);
        EXPECT_EQ(arrays.at("y").dtype, DType::I64);
        EXPECT_EQ(arrays.at("flags").dtype, DType::BOOL);
        EXPECT_TRUE(arrays.at("scalar").shape.empty());
    }
}

TEST(Npz, what_numpy_should_not_have_written_is_refused) {
    const auto refusal = [](const std::string& name) {
        const std::string path = files_of_numpy + name;
        const std::string message = error_of([&] { read_npz(path); });
        expect_contains(message, path);
        expect_contains(message, "\"x\"");
        return message;
    };
    expect_contains(refusal("objects.npz"), "pickle");
    expect_contains(refusal("fortran.npz"), "Fortran");
    expect_contains(refusal("big_endian.npz"), "big-endian");
    expect_contains(refusal("records.npz"), "records");
    expect_contains(refusal("words.npz"), "\"<U3\"");
}

TEST(Npz, headers_are_parsed_strictly) {
    const NpyHeader header =
        parse_npy_header("{'shape': (3,), 'descr': '<i4', 'fortran_order': False}\n", "x");
    EXPECT_EQ(header.dtype, DType::I32);
    EXPECT_EQ(header.shape, (Shape{3}));
    for (const char* text :
         {"", "{}", "{'descr': '<f4'}",
          "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
          "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }",
          "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), } x",
          "{'descr': '<f4', 'fortran_order': False, 'shape': (1 2), }",
          "{'descr': '<f4', 'fortran_order': 0, 'shape': (1,), }",
          "{'descr': <f4, 'fortran_order': False, 'shape': (1,), }",
          "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}"}) {
        expect_contains(header_refusal(text), "x: has a header that is not numpy's");
    }
}

TEST(Npz, the_elements_begin_at_a_multiple_of_64) {
    for (const Shape& shape :
         {Shape{}, Shape{1}, Shape{1, 2, 3, 4, 5, 6, 7, 8, 9}, Shape{123456789, 123456789}}) {
        EXPECT_EQ(compose_npy_header({DType::F32, shape}, "x").size() % 64, 0U);
    }
}

TEST(Npz, too_much_is_refused_before_memory_is_allocated) {
    const TestFolder folder;
    const std::vector<std::byte> bytes(100);
    write_npz(folder / "x.npz", {{"a", DType::U8, {100}, bytes}, {"b", DType::U8, {100}, bytes}});
    EXPECT_EQ(read_npz(folder / "x.npz", 200).size(), 2U);
    expect_contains(error_of([&] { read_npz(folder / "x.npz", 199); }), "array \"b\"");
}

TEST(Npz, wrong_arrays_are_not_written) {
    const TestFolder folder;
    const std::vector<std::byte> bytes(4);
    const auto refusal = [&](const std::vector<TensorBytes>& arrays) {
        return error_of([&] { write_npz(folder / "x.npz", arrays); });
    };
    expect_contains(refusal({{"a", DType::F32, {2}, bytes}}), "has 4 bytes");
    expect_contains(refusal({{"a", DType::BF16, {2}, bytes}}), "no type BF16");
    expect_contains(refusal({{"a", DType::F32, {1}, bytes}, {"a", DType::F32, {1}, bytes}}),
                    "twice");
    EXPECT_EQ(folder.entries(), 0U);
}

TEST(Npz, damaged_files_are_read_or_refused) {
    const TestFolder folder;
    const std::vector<std::byte> bytes(64);
    write_npz(folder / "whole.npz", {{"a", DType::F32, {4, 4}, bytes}});
    const std::string whole = read_text(folder / "whole.npz");
    RandomStream random(1, "damage");
    for (int i = 0; i < 500; ++i) {
        std::string damaged = whole;
        damaged[random.below(damaged.size())] = static_cast<char>(random.below(256));
        if (random.below(4) == 0) damaged.resize(random.below(damaged.size()));
        std::ofstream(folder / "x.npz", std::ios::binary) << damaged;
        try {
            for (const auto& [name, array] : read_npz(folder / "x.npz"))
                EXPECT_EQ(array.bytes.size(), bytes_of(array.dtype, array.shape));
        } catch (const Error& error) {
            expect_contains(error.what(), (folder / "x.npz").string());
        }
    }
    expect_contains(error_of([&] { read_npz(folder.path()); }), "not a regular file");
}

}  // namespace atelier::core
