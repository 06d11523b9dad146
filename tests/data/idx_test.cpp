#include "atelier/data/idx.h"

#include "data/data_fixtures.h"

namespace atelier::data {
namespace {

constexpr std::uint32_t images_magic = 0x803, labels_magic = 0x801;

Bytes images(std::uint32_t count, std::uint32_t rows = 3, std::uint32_t columns = 2,
             std::uint64_t seed = 0) {
    return big_endian({images_magic, count, rows, columns}) +
           random_bytes(std::size_t{count} * rows * columns, seed);
}

Bytes labels(const Bytes& values) {
    return big_endian({labels_magic, static_cast<std::uint32_t>(values.size())}) + values;
}

const Bytes ten{0, 1, 2, 3, 4, 5, 6, 7, 8, 9};

void write_folder(const TestFolder& folder, const Bytes& train_labels = ten) {
    write_bytes(folder / "train-images-idx3-ubyte", images(10));
    write_bytes(folder / "train-labels-idx1-ubyte", labels(train_labels));
    write_bytes(folder / "t10k-images-idx3-ubyte", images(4, 3, 2, 9));
    write_bytes(folder / "t10k-labels-idx1-ubyte", labels({1, 1, 0, 0}));
}

TEST(idx, pixels_become_values_from_minus_one_to_one) {
    const TestFolder folder;
    write_folder(folder);
    const auto data = open_dataset({folder.path()});
    EXPECT_EQ(data->size(), 10);
    EXPECT_EQ(data->classes(), 10);
    EXPECT_EQ(data->spec().shape, (std::vector<std::int64_t>{1, 3, 2}));
    EXPECT_TRUE(data->spec().kind == data::SampleSpec::Kind::image);
    EXPECT_TRUE(data->spec().class_names.empty());
    const std::vector<std::int64_t> chosen{7, 2, 7};
    const Tensor samples = data->samples(chosen);
    EXPECT_EQ(samples.sizes(), at::IntArrayRef({3, 1, 3, 2}));
    const Bytes raw = random_bytes(60);
    for (std::size_t n = 0; n < 3; ++n) {
        for (std::size_t p = 0; p < 6; ++p) {
            const float expected =
                static_cast<float>(raw[static_cast<std::size_t>(chosen[n]) * 6 + p]) / 127.5F - 1;
            EXPECT_FLOAT_EQ(samples.const_data_ptr<float>()[n * 6 + p], expected);
        }
    }
}

TEST(idx, a_sample_that_does_not_exist_is_an_error) {
    const TestFolder folder;
    write_folder(folder);
    const auto data = open_dataset({folder.path()});
    for (const std::int64_t i : {-1, 10}) EXPECT_THROW(data->samples(std::vector{i}), core::Error);
    EXPECT_EQ(data->samples({}).sizes(), at::IntArrayRef({0, 1, 3, 2}));
}

TEST(idx, gzip_dots_and_dashes_hold_the_same_data_set) {
    const TestFolder plain, packed, dotted;
    write_folder(plain);
    write_gzip(packed / "train-images-idx3-ubyte.gz", images(10));
    write_gzip(packed / "train-labels-idx1-ubyte.gz", labels(ten));
    write_bytes(dotted / "train-images.idx3-ubyte", images(10));
    write_gzip(dotted / "train-labels.idx1-ubyte.gz", labels(ten));
    const std::string hash = open_dataset({plain.path()})->hash();
    EXPECT_EQ(hash.size(), 64U);
    EXPECT_EQ(open_dataset({packed.path()})->hash(), hash);
    EXPECT_EQ(open_dataset({dotted.path()})->hash(), hash);
}

TEST(idx, the_hash_tells_labels_pixels_and_limits_apart) {
    const TestFolder one, other;
    write_folder(one);
    write_folder(other, {1, 0, 2, 3, 4, 5, 6, 7, 8, 9});
    const std::string hash = open_dataset({one.path()})->hash();
    EXPECT_NE(open_dataset({other.path()})->hash(), hash);
    EXPECT_NE(open_dataset({one.path(), "train", 9})->hash(), hash);
    EXPECT_EQ(open_dataset({one.path(), "train", 10})->hash(), hash);
    EXPECT_EQ(open_dataset({one.path(), "train", 99})->hash(), hash);
}

TEST(idx, the_test_split_has_the_classes_of_the_training_data) {
    const TestFolder folder;
    write_folder(folder);
    const auto data = open_dataset({folder.path(), "test"});
    EXPECT_EQ(data->size(), 4);
    EXPECT_EQ(data->classes(), 10);
    EXPECT_EQ(data->labels(), (std::vector<std::int64_t>{1, 1, 0, 0}));
}

TEST(idx, a_limit_keeps_the_first_samples) {
    const TestFolder folder;
    write_folder(folder);
    const auto all = open_dataset({folder.path()}),
               some = open_dataset({folder.path(), "train", 4});
    EXPECT_EQ(some->size(), 4);
    EXPECT_EQ(some->classes(), 10);
    EXPECT_EQ(some->labels(), (std::vector<std::int64_t>{0, 1, 2, 3}));
    EXPECT_TRUE(at::equal(some->samples(all_of(*some)), all->samples(all_of(*some))));
}

TEST(idx, a_folder_called_fashion_has_named_classes) {
    const TestFolder plain, parent;
    write_folder(plain);
    const std::filesystem::path folder = parent / "My-Fashion-data";
    std::filesystem::copy(plain.path(), folder);
    const auto names = open_dataset({folder})->spec().class_names;
    ASSERT_EQ(names.size(), 10U);
    EXPECT_EQ(names.front(), "t-shirt");
    EXPECT_EQ(names.back(), "ankle boot");
    EXPECT_EQ(open_dataset({folder / ""})->spec().class_names, names);
}

TEST(idx, counts_that_do_not_fit_are_an_error_naming_both_files) {
    const TestFolder folder;
    write_folder(folder, {0, 1, 2});
    const std::string message = message_of([&] { open_dataset({folder.path()}); });
    EXPECT_TRUE(holds(message, "holds 10 images")) << message;
    EXPECT_TRUE(holds(message, "train-labels-idx1-ubyte holds 3 labels")) << message;
}

TEST(idx, a_class_without_samples_or_a_test_label_out_of_range_is_an_error) {
    const TestFolder gap, beyond;
    write_folder(gap, {0, 1, 2, 3, 4, 5, 6, 7, 9, 9});
    EXPECT_TRUE(holds(message_of([&] { open_dataset({gap.path()}); }), "class 8 has no sample"));
    write_folder(beyond);
    write_bytes(beyond / "t10k-labels-idx1-ubyte", labels({0, 1, 10, 0}));
    EXPECT_TRUE(holds(message_of([&] { open_dataset({beyond.path(), "test"}); }),
                      "row 2 is 10; there are 10 classes"));
}

TEST(idx, missing_files_are_named) {
    const TestFolder folder;
    write_bytes(folder / "train-images-idx3-ubyte", images(10));
    EXPECT_TRUE(
        holds(message_of([&] { open_dataset({folder.path()}); }), "train-labels-idx1-ubyte"));
    EXPECT_TRUE(holds(message_of([&] { open_dataset({folder.path(), "test"}); }),
                      "no IDX images of the test split"));
}

TEST(idx, hostile_image_files_are_errors_that_name_the_file) {
    const TestFolder folder;
    const auto path = folder / "images";
    const Bytes good = images(10);
    const std::vector<Bytes> hostile{
        {},
        {0, 0},
        big_endian({images_magic}),
        big_endian({labels_magic, 10, 3, 2}) + random_bytes(60),
        big_endian({0xd03, 10, 3, 2}) + random_bytes(60),                // floats
        big_endian({0x03080000, 10, 3, 2}) + random_bytes(60),           // the other byte order
        Bytes(good.begin(), good.end() - 1),                             // cut off
        good + Bytes{0},                                                 // too long
        big_endian({images_magic, 0, 3, 2}),                             // no images
        big_endian({images_magic, 10, 0, 2}),                            // no pixels
        big_endian({images_magic, 0xffffffff, 4096, 4096}) + Bytes(60),  // 2^56 bytes
        big_endian({images_magic, 0xffffffff, 0xffffffff, 0xffffffff}) + Bytes(60),
        big_endian({images_magic, 1000, 28, 28}) + Bytes(60),
        big_endian({images_magic, 1, 4097, 1}) + Bytes(4097),
    };
    for (std::size_t i = 0; i < hostile.size(); ++i) {
        for (const auto write : {write_bytes, write_gzip}) {
            write(path, hostile[i]);
            EXPECT_TRUE(holds(message_of([&] { read_idx_images(path); }), path.string())) << i;
        }
    }
}

TEST(idx, hostile_label_files_are_errors_that_name_the_file) {
    const TestFolder folder;
    const auto path = folder / "labels";
    for (const Bytes& bytes :
         {Bytes{}, big_endian({images_magic, 2}) + Bytes{1, 2},
          big_endian({labels_magic, 3}) + Bytes{1, 2}, big_endian({labels_magic, 1}) + Bytes{1, 2},
          big_endian({labels_magic, 0xffffffff}) + Bytes{1, 2}}) {
        write_bytes(path, bytes);
        EXPECT_TRUE(holds(message_of([&] { read_idx_labels(path); }), path.string()));
    }
}

TEST(idx, damaged_gzip_is_an_error_at_every_place) {
    const TestFolder folder;
    const auto path = folder / "images.gz";
    write_gzip(path, images(40, 8, 8));
    Bytes bytes(std::filesystem::file_size(path));
    std::ifstream(path, std::ios::binary)
        .read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    for (std::size_t length = 0; length < bytes.size(); length += 97) {
        write_bytes(path,
                    Bytes(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(length)));
        EXPECT_TRUE(holds(message_of([&] { read_idx_images(path); }), path.string())) << length;
    }
    bytes[bytes.size() - 6] ^= 1;  // the checksum
    write_bytes(path, bytes);
    EXPECT_THROW(read_idx_images(path), core::Error);
}

TEST(idx, a_folder_or_pipe_in_place_of_a_file_is_an_error) {
    const TestFolder folder;
    EXPECT_THROW(read_idx_images(folder.path()), core::Error);
    EXPECT_THROW(read_idx_images(folder / "none"), core::Error);
}

TEST(idx, fashion_mnist_is_what_its_authors_describe) {
    const std::filesystem::path folder = "/usr/share/datasets/fashion-mnist";
    if (!std::filesystem::exists(folder))
        GTEST_SKIP() << "Debian's dataset-fashion-mnist is not installed";
    for (const auto& [split, count] : {std::pair{"train", 60000}, std::pair{"test", 10000}}) {
        const auto data = open_dataset({folder, split});
        EXPECT_EQ(data->size(), count);
        EXPECT_EQ(data->spec().shape, (std::vector<std::int64_t>{1, 28, 28}));
        EXPECT_EQ(prior_of(*data).weights, std::vector<double>(10, count / 10.0));
        EXPECT_EQ(data->spec().class_names.at(9), "ankle boot");
    }
    const auto train = open_dataset({folder});
    EXPECT_EQ(train->labels()[0], 9);
    EXPECT_NEAR(train->samples(all_of(*train)).mean().item<double>(), 2 * 0.2860 - 1, 1e-3);
}

}  // namespace
}  // namespace atelier::data
