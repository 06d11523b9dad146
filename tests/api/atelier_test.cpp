#include "atelier/atelier.h"

#include "core/test_folder.h"

#include <gtest/gtest.h>

#include <fstream>

namespace atelier {

namespace {

namespace fs = std::filesystem;

const fs::path root = ATELIER_SOURCE_DIR, garments = root / "models/fashion-mnist/k4",
               captions = root / "models/captions";

Error::Kind kind_of(const std::function<void()>& work) {
    try {
        work();
    } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()), "");
        return error.kind();
    }
    ADD_FAILURE() << "nothing was thrown";
    return Error::Kind::failed;
}

std::vector<std::string> small_run(const fs::path& output) {
    return {"output=" + output.string(),
            "teacher.steps=60",
            "pairs.count=64",
            "dm.steps=4",
            "adm.steps=2",
            "evaluate.count=64",
            "probe.count=64",
            "threads=1"};
}

TEST(Pipeline, knows_what_it_opened) {
    const Pipeline students(garments);
    const Information& model = students.information();
    EXPECT_EQ(model.samples, Information::Samples::images);
    EXPECT_EQ(model.conditions, Information::Conditions::classes);
    EXPECT_EQ(model.students, 4);
    EXPECT_EQ(model.classes, 10);
    EXPECT_EQ(model.class_names.size(), 10u);
    EXPECT_EQ(model.height, 28);
    EXPECT_EQ(model.width, 28);
    EXPECT_EQ(model.channels, 1);
    EXPECT_EQ(model.sampler, "one-step");
    EXPECT_EQ(model.evaluations, 1);
    EXPECT_NE(model.engine, "auto");
}

TEST(Pipeline, draws_the_same_in_parts) {
    Pipeline students = load(garments);
    const Samples all = students.sample({"bag", 3, {}}, 7, 5);
    ASSERT_EQ(all.count, 7);
    ASSERT_EQ(all.pixels.size(), 7u * 28 * 28);
    EXPECT_EQ(std::get<std::int64_t>(all.conditions[0]), 8);
    EXPECT_EQ(std::get<std::int64_t>(all.conditions[1]), 3);
    const Samples part = students.sample({"bag", 3, {}}, 3, 5, 2);
    for (std::int64_t i = 0; i < 3; ++i) {
        EXPECT_EQ(part.image(i).pixels, all.image(i + 2).pixels) << i;
        EXPECT_EQ(part.conditions[static_cast<std::size_t>(i)],
                  all.conditions[static_cast<std::size_t>(i + 2)]);
    }
    EXPECT_EQ(students.sample({}, 0, 5).count, 1);
    EXPECT_EQ(students.sample({1, 2}).count, 2);
    EXPECT_EQ(kind_of([&] { (void)all.image(7); }), Error::Kind::usage);
}

TEST(Pipeline, routes_classes_and_prompts) {
    Pipeline students(garments);
    EXPECT_EQ(students.route("bag"), students.route(8));
    Pipeline prompted(captions);
    EXPECT_EQ(prompted.information().conditions, Information::Conditions::prompts);
    const std::int64_t owner = prompted.route("two small white sneakers on black");
    EXPECT_GE(owner, 0);
    EXPECT_LT(owner, prompted.information().students);
}

TEST(Pipeline, reads_prompts) {
    Pipeline prompted(captions);
    const Samples all =
        prompted.sample({"a large red bag on white", "a small coat on black"}, 3, 2);
    EXPECT_EQ(all.count, 3);
    EXPECT_EQ(all.channels, prompted.information().channels);
    EXPECT_EQ(std::get<std::string>(all.conditions[2]), "a large red bag on white");
    EXPECT_EQ(
        prompted.sample({"a large red bag on white", "a small coat on black"}, 1, 2, 2).pixels,
        all.image(2).pixels);
    EXPECT_EQ(kind_of([&] { prompted.sample({3}); }), Error::Kind::usage);
    EXPECT_EQ(kind_of([&] { prompted.sample(); }), Error::Kind::usage);
}

TEST(Pipeline, throws_one_type) {
    Pipeline students(garments);
    EXPECT_EQ(kind_of([&] { students.sample({"hat"}); }), Error::Kind::usage);
    EXPECT_EQ(kind_of([&] { students.sample({10}); }), Error::Kind::usage);
    EXPECT_EQ(kind_of([&] { students.sample({}, -1); }), Error::Kind::usage);
    EXPECT_EQ(kind_of([&] { students.route({}); }), Error::Kind::usage);
    EXPECT_EQ(kind_of([&] { Pipeline("/nowhere"); }), Error::Kind::failed);
    Options wrong;
    wrong.engine = "steam";
    EXPECT_EQ(kind_of([&] { Pipeline(garments, wrong); }), Error::Kind::usage);
    Options guided;
    guided.guidance = 2;
    EXPECT_EQ(kind_of([&] { Pipeline(garments, guided); }), Error::Kind::usage);
    EXPECT_EQ(kind_of([&] { write_png("/nowhere/x.png", Image{1, 1, 1, {0, 0}}); }),
              Error::Kind::failed);
}

TEST(Training, tells_its_progress_stops_and_goes_on) {
    const core::TestFolder folder;
    const std::string config = (root / "configs/toy2d.toml").string();
    const auto words = small_run(folder.path() / "run");
    int updates = 0;
    TrainingOptions options;
    options.progress = [&](const Progress& progress) {
        EXPECT_LE(progress.done, progress.total);
        EXPECT_FALSE(progress.task.empty());
        ++updates;
    };
    options.cancelled = [&] { return updates >= 20; };
    EXPECT_EQ(kind_of([&] { train(config, words, options); }), Error::Kind::interrupted);
    EXPECT_GE(updates, 20);
    EXPECT_FALSE(fs::exists(folder.path() / "run/ensemble"));

    EXPECT_EQ(train(config, words), folder.path() / "run");
    EXPECT_TRUE(fs::exists(folder.path() / "run/report.html"));
    Pipeline points(folder.path() / "run");
    EXPECT_EQ(points.information().samples, Information::Samples::points);
    EXPECT_EQ(points.information().dimensions, 2);
    EXPECT_EQ(points.sample({}, 9).points.size(), 18u);
    EXPECT_FALSE(points.evaluate("toy:ring", 64).empty());
    EXPECT_EQ(kind_of([&] { points.evaluate("toy:ring", 1); }), Error::Kind::usage);
}

TEST(Training, what_a_callback_throws_arrives_as_an_error) {
    const core::TestFolder folder;
    TrainingOptions options;
    options.progress = [](const Progress&) { throw std::runtime_error("enough"); };
    EXPECT_THROW(
        train((root / "configs/toy2d.toml").string(), small_run(folder.path() / "run"), options),
        Error);
    EXPECT_EQ(kind_of([] { train("/nowhere.toml"); }), Error::Kind::usage);
}

}  // namespace

}  // namespace atelier
