#include "atelier/inference/compile_cache.h"

#include <fstream>

#include "atelier/inference/engine.h"
#include "backends/tensors.h"
#include "models/model_fixtures.h"

namespace atelier::inference {
namespace {

namespace fs = std::filesystem;

class CompileCacheTest : public ::testing::Test {
protected:
    core::TestFolder folder;
    fs::path place = folder / "cache";
    CompileCache cache{place};

    std::vector<fs::path> files() const {
        std::vector<fs::path> found;
        if (fs::exists(place)) {
            for (const auto& entry : fs::directory_iterator(place)) found.push_back(entry.path());
        }
        return found;
    }
};

TEST_F(CompileCacheTest, returns_what_was_stored_and_nothing_for_another_key) {
    EXPECT_FALSE(cache.find("a network"));
    cache.store("a network", "its bytes");
    EXPECT_EQ(cache.find("a network"), "its bytes");
    EXPECT_FALSE(cache.find("another"));
}

TEST_F(CompileCacheTest, a_damaged_file_is_ignored) {
    cache.store("a network", "its bytes");
    for (const std::string content :
         {"", "short",
          "0123456789012345678901234567890123456789012345678901234567890123its bytes"}) {
        std::ofstream(files().front()) << content;
        EXPECT_FALSE(cache.find("a network")) << content;
    }
}

TEST_F(CompileCacheTest, without_a_folder_or_where_none_can_be_made_nothing_is_stored) {
    const CompileCache none{fs::path()};
    none.store("a network", "its bytes");
    EXPECT_FALSE(none.find("a network"));
    std::ofstream(folder / "file") << "in the way";
    const CompileCache blocked{folder / "file"};
    blocked.store("a network", "its bytes");
    EXPECT_FALSE(blocked.find("a network"));
}

TEST_F(CompileCacheTest, evicts_the_least_recently_used) {
    const CompileCache cache(place, 80'000);
    const std::string large(10'000, 'x');
    for (int i = 0; i < 9; ++i) {
        cache.store(std::to_string(i), large);
        cache.find("0");  // stays in use
    }
    EXPECT_TRUE(cache.find("0"));
    EXPECT_FALSE(cache.find("1"));
    EXPECT_TRUE(cache.find("8"));
    cache.store("too large", large + "x");
    EXPECT_FALSE(cache.find("too large"));
}

/// Sets ATELIER_CACHE to a folder for its lifetime.
struct CacheNamed {
    explicit CacheNamed(const fs::path& path)
        : before(std::getenv("ATELIER_CACHE") ? std::getenv("ATELIER_CACHE") : "") {
        setenv("ATELIER_CACHE", path.c_str(), 1);
    }
    ~CacheNamed() { setenv("ATELIER_CACHE", before.c_str(), 1); }
    std::string before;
};

TEST_F(CompileCacheTest,
       a_network_from_the_cache_gives_the_same_values_and_is_not_used_for_other_weights) {
    const CacheNamed named(place);
    const Tensor z = backends::normal({5, 2}, "z");
    const std::vector<std::int64_t> classes{0, 1, 2, 0, 1};
    const auto drawn = [&](std::uint64_t seed) {
        models::Model model = models::init_model({{"architecture", "mlp"},
                                                  {"dimensions", 2},
                                                  {"hidden", 16},
                                                  {"blocks", 2},
                                                  {"classes", 3}},
                                                 1);
        model.parameters = backends::filled(networks::trace(model.network).parameters);
        if (seed != 0)
            model.parameters.set("model.output.bias", backends::normal({2}, std::to_string(seed)));
        return open_one_step(model, {Engine::Kind::openvino})->draw(z, classes);
    };
    const Tensor first = drawn(0);
    EXPECT_EQ(files().size(), 2U) << "one for each of the batch sizes 4 and 1";
    EXPECT_TRUE(at::equal(drawn(0), first));
    EXPECT_EQ(files().size(), 2U);
    EXPECT_FALSE(at::allclose(drawn(1), first));
    EXPECT_EQ(files().size(), 4U);
}

}  // namespace
}  // namespace atelier::inference
