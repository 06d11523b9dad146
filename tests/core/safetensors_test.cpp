#include "atelier/core/safetensors.h"

#include "core/test_folder.h"

#include <sys/stat.h>

#include <cstring>
#include <fstream>

#include "atelier/core/atomic_file.h"
#include "atelier/core/random_streams.h"

namespace atelier::core {

namespace {

std::string with_length(const std::string& header, const std::string& data = "") {
    std::string file(8, '\0');
    const std::uint64_t length = header.size();
    std::memcpy(file.data(), &length, 8);
    return file + header + data;
}

class Safetensors : public ::testing::Test {
protected:
    std::filesystem::path path() const { return folder_ / "model.safetensors"; }

    /// The error of reading a file with this header and this many bytes of data; always names the
    /// file.
    std::string error_with(const std::string& header, std::size_t data_size = 0) {
        return error_with_file(with_length(header, std::string(data_size, 'd')));
    }

    std::string error_with_file(const std::string& content) {
        write_text(path(), content);
        const std::string message = error_of([&] { SafetensorsFile file(path()); });
        expect_contains(message, path().string());
        EXPECT_LT(message.size(), 2000U);
        EXPECT_EQ(message.find('\n'), std::string::npos);
        return message;
    }

    TestFolder folder_;
};

std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return R"({"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

// A file with one tensor "w".
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return R"({"w":)" + entry(dtype, shape, offsets) + "}";
}

}  // namespace

TEST_F(Safetensors, what_is_written_is_read) {
    const std::vector<float> a{1, 2, 3, 4, 5, 6};
    const std::vector<std::int64_t> b{-7};
    const std::string name = "quote \" and umlaut \xc3\xa4";
    write_safetensors(path(),
                      {{"z", DType::F32, {2, 3}, std::as_bytes(std::span(a))},
                       {name, DType::I64, {}, std::as_bytes(std::span(b))},
                       {"empty", DType::F16, {0, 4}, {}}},
                      {{"format", "pt"}});
    const SafetensorsFile file(path());
    EXPECT_EQ(file.entries().size(), 3U);
    EXPECT_EQ(file.metadata().at("format"), "pt");
    EXPECT_EQ(file.entry("z").shape, (Shape{2, 3}));
    EXPECT_EQ(std::memcmp(file.bytes("z").data(), a.data(), 24), 0);
    EXPECT_EQ(file.entry(name).dtype, DType::I64);
    EXPECT_EQ(std::memcmp(file.bytes(name).data(), b.data(), 8), 0);
    EXPECT_EQ(file.bytes("empty").size(), 0U);
    EXPECT_TRUE(file.contains("z"));
    expect_contains(error_of([&] { file.bytes("absent"); }),
                    "tensor \"absent\": is not in the file");
}

TEST_F(Safetensors, a_moved_file_stays_readable) {
    const std::vector<std::byte> bytes(3, std::byte{9});
    write_safetensors(path(), {{"w", DType::U8, {3}, bytes}});
    SafetensorsFile file(path());
    const SafetensorsFile moved(std::move(file));
    EXPECT_EQ(moved.bytes("w")[2], std::byte{9});
}

TEST_F(Safetensors, the_order_of_tensors_does_not_change_the_bytes_and_data_is_aligned) {
    const std::vector<std::byte> bytes(4, std::byte{1});
    const TensorBytes a{"a", DType::F32, {1}, bytes}, b{"b", DType::U8, {4}, bytes};
    write_safetensors(path(), {a, b}, {{"k", "v"}});
    const std::string first = read_text(path());
    write_safetensors(path(), {b, a}, {{"k", "v"}});
    EXPECT_EQ(read_text(path()), first);
    EXPECT_TRUE(first.substr(8).starts_with(R"({"__metadata__":{"k":"v"},"a":)"));
    EXPECT_EQ((first.size() - 8) % 8, 0U);
}

TEST_F(Safetensors, an_empty_header_is_a_file_without_tensors) {
    write_text(path(), with_length("{}   "));
    EXPECT_TRUE(SafetensorsFile(path()).entries().empty());
}

TEST_F(Safetensors, writing_refuses_what_could_not_be_read) {
    const std::vector<std::byte> bytes(4);
    const auto refused = [&](std::vector<TensorBytes> tensors) {
        return error_of([&] { write_safetensors(path(), std::move(tensors)); });
    };
    expect_contains(refused({{"w", DType::F32, {2}, bytes}}),
                    "tensor \"w\": is F32 [2] but has 4 bytes");
    expect_contains(refused({{"w", DType::F32, {1}, bytes}, {"w", DType::F32, {1}, bytes}}),
                    "given twice");
    expect_contains(refused({{"__metadata__", DType::F32, {1}, bytes}}), "__metadata__");
    expect_contains(refused({{"\xff", DType::F32, {1}, bytes}}), "UTF-8");
    expect_contains(refused({{"w", DType::F32, {-1}, bytes}}), "[-1]");
    EXPECT_EQ(folder_.entries(), 0U);
}

TEST_F(Safetensors, only_regular_files_are_opened) {
    ASSERT_EQ(::mkfifo(path().c_str(), 0600), 0);
    std::filesystem::create_symlink("/dev/zero", folder_ / "link");
    for (const auto& bad : {path(), folder_ / "link", folder_.path()}) {
        expect_contains(error_of([&] { SafetensorsFile file(bad); }), "not a regular file");
    }
    expect_contains(error_of([&] { SafetensorsFile file(folder_ / "absent"); }), "absent");
}

TEST_F(Safetensors, header_lengths_are_checked_before_they_are_used) {
    expect_contains(error_with_file(""), "0 bytes long");
    expect_contains(error_with_file("1234567"), "7 bytes long");
    expect_contains(error_with_file(std::string(8, '\xff')), "claims 18446744073709551615 bytes");
    std::string cut = with_length("{}");
    cut.pop_back();
    expect_contains(error_with_file(cut), "was it cut off?");
    expect_contains(error_with(""), "begin with '{'");
    expect_contains(error_with(" {}"), "begin with '{'");
    expect_contains(error_with("[]"), "begin with '{'");
}

TEST_F(Safetensors, headers_that_are_not_json_are_refused) {
    expect_contains(error_with("{"), "not valid JSON");
    expect_contains(error_with("{}x"), "not valid JSON");
    expect_contains(error_with(std::string("{}\0junk", 7)), "NUL");
    expect_contains(error_with("{\"\xff\":1}"), "UTF-8");
    expect_contains(error_with("{\"a\":" + std::string(200'000, '[')), "64 levels");
    std::string nested;
    for (int i = 0; i < 100'000; ++i) nested += "{\"a\":";
    expect_contains(error_with(nested), "64 levels");
    expect_contains(error_with(one("\"U8\"", "[1e999]", "[0,1]"), 1), "not valid JSON");
}

TEST_F(Safetensors, duplicate_keys_are_refused) {
    const std::string w = "\"w\":" + entry("\"U8\"", "[1]", "[0,1]");
    expect_contains(error_with("{" + w + "," + w + "}", 1), "\"w\" appears twice");
    expect_contains(
        error_with(R"({"w":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1),
        "twice");
    expect_contains(error_with(R"({"__metadata__":{"a":"b","a":"c"}})"), "twice");
}

TEST_F(Safetensors, metadata_holds_only_texts) {
    expect_contains(error_with(R"({"__metadata__":{"a":1}})"), "\"a\" must be text");
    expect_contains(error_with(R"({"__metadata__":["a"]})"), "__metadata__");
    expect_contains(error_with(R"({"__metadata__":1})"), "__metadata__");
}

TEST_F(Safetensors, unsupported_types_are_passed_over_until_they_are_requested) {
    const std::string header =
        R"({"__metadata__":null,"a":)" + entry("\"F8_E4M3\"", "[3]", "[0,3]") + R"(,"b":)" +
        entry("\"F4\"", "[2]", "[3,4]") + R"(,"c":)" + entry("\"C64\"", "[1]", "[4,12]") +
        R"(,"w":)" + entry("\"U8\"", "[2]", "[12,14]") + "}";
    write_text(path(), with_length(header, std::string(14, 'd')));
    const SafetensorsFile file(path());
    EXPECT_EQ(file.entries().size(), 1U);
    EXPECT_EQ(file.bytes("w").size(), 2U);
    EXPECT_EQ(file.unsupported().at("a"), "F8_E4M3");
    EXPECT_TRUE(file.metadata().empty());
    expect_contains(error_of([&] { file.entry("a"); }), "is of type F8_E4M3");
    expect_contains(error_with(one("\"U16\"", "[4]", "[0,4]"), 4), "8 bytes");
    expect_contains(error_with(one("\"F4\"", "[3]", "[0,2]"), 2), "shape");
}

TEST_F(Safetensors, malformed_entries_are_refused_with_the_tensors_name) {
    const auto refused = [&](const std::string& dtype, const std::string& shape,
                             const std::string& offsets) {
        const std::string message = error_with(one(dtype, shape, offsets), 4);
        expect_contains(message, "tensor \"w\"");
        return message;
    };
    expect_contains(refused("\"F8\"", "[4]", "[0,4]"), "unknown type \"F8\"");
    expect_contains(refused("\"f32\"", "[1]", "[0,4]"), "unknown type");
    refused("4", "[4]", "[0,4]");
    refused("\"U8\"", "4", "[0,4]");
    refused("\"U8\"", "[-4]", "[0,4]");
    refused("\"U8\"", "[4.0]", "[0,4]");
    refused("\"U8\"", "[\"4\"]", "[0,4]");
    refused("\"U8\"", "[4]", "[0,4,4]");
    refused("\"U8\"", "[4]", "[0]");
    refused("\"U8\"", "[4]", "[-4,0]");
    refused("\"U8\"", "[4]", "[0,18446744073709551616]");
    refused("\"U8\"", "[18446744073709551615]", "[0,4]");
    expect_contains(refused("\"U8\"", "[4]", "[4,0]"), "after its end");
    expect_contains(error_with(R"({"w":{"dtype":"U8","shape":[4]}})", 4),
                    "\"data_offsets\" is missing");
    expect_contains(error_with(R"({"w":7})"), "tensor \"w\"");
}

TEST_F(Safetensors, sizes_must_fit_shapes_without_overflow) {
    expect_contains(error_with(one("\"F32\"", "[2]", "[0,4]"), 4),
                    "is F32 [2], 8 bytes, but its offsets span 4");
    // 2^62 * 4 and 2^32 * 2^32 wrap around to 0 in 64 bits.
    expect_contains(error_with(one("\"F32\"", "[4611686018427387904]", "[0,0]")), "too large");
    expect_contains(error_with(one("\"U8\"", "[4294967296,4294967296]", "[0,0]")), "too large");
    EXPECT_EQ(bytes_of(DType::F64, {3, 0, 5}), 0U);
    EXPECT_EQ(bytes_of(DType::BF16, {3, 5}), 30U);
    EXPECT_EQ(bytes_of(DType::U8, {-1}), std::nullopt);
}

TEST_F(Safetensors, tensors_tile_the_data_exactly) {
    const auto two = [&](const std::string& a, const std::string& b) {
        return R"({"a":)" + entry("\"U8\"", "[2]", a) + R"(,"b":)" + entry("\"U8\"", "[2]", b) +
               "}";
    };
    write_text(path(), with_length(two("[2,4]", "[0,2]"), "1234"));  // any order of names
    EXPECT_EQ(SafetensorsFile(path()).bytes("a")[0], std::byte{'3'});
    expect_contains(error_with(two("[0,2]", "[1,3]"), 3), "overlaps");
    expect_contains(error_with(two("[0,2]", "[0,2]"), 2), "overlaps");
    expect_contains(error_with(two("[0,2]", "[3,5]"), 5), "hole");
    expect_contains(error_with(two("[1,3]", "[3,5]"), 5), "hole");
    expect_contains(error_with(two("[0,2]", "[2,4]"), 5), "end at byte 4");
    expect_contains(error_with(two("[0,2]", "[2,4]"), 3), "end at byte 4");
}

TEST_F(Safetensors, tensors_without_elements_may_share_an_offset) {
    const std::string none = entry("\"F32\"", "[0]", "[2,2]");
    write_text(path(), with_length(R"({"a":)" + none + R"(,"b":)" + none + R"(,"c":)" +
                                       entry("\"U8\"", "[2]", "[0,2]") + "}",
                                   "12"));
    EXPECT_EQ(SafetensorsFile(path()).entries().size(), 3U);
}

// A damaged file is read correctly or rejected with an Error: no crash, no other exception.
TEST_F(Safetensors, damaged_files_are_read_soundly_or_refused) {
    const std::vector<std::byte> bytes(24);
    write_safetensors(path(), {{"a", DType::F32, {2, 3}, bytes}, {"b", DType::I64, {3}, bytes}},
                      {{"k", "v"}});
    const std::string whole = read_text(path());
    RandomStream random(1, "damage");
    int refused = 0;
    for (int i = 0; i < 2000; ++i) {
        std::string damaged = whole;
        for (std::uint64_t hits = 1 + random.below(3); hits > 0; --hits) {
            damaged[random.below(damaged.size())] = static_cast<char>(random.below(256));
        }
        if (random.below(4) == 0) damaged.resize(random.below(damaged.size()));
        std::ofstream(path(), std::ios::binary) << damaged;
        try {
            const SafetensorsFile file(path());
            for (const auto& [name, tensor] : file.entries())
                EXPECT_EQ(file.bytes(name).size(), bytes_of(tensor.dtype, tensor.shape));
        } catch (const Error&) {
            ++refused;
        }
    }
    EXPECT_GT(refused, 1000);
}

}  // namespace atelier::core
