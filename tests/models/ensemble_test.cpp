#include "atelier/models/ensemble.h"

#include "models/model_fixtures.h"

namespace atelier::models {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class EnsembleDirectory : public ::testing::Test {
protected:
    template <class Change>
    void change_manifest(Change change) {
        edit_json(path / "ensemble.json", change);
    }

    /// The error on opening it; it must name the manifest.
    std::string error_message() const {
        const std::string message = core::error_of([&] { read_ensemble(path); });
        core::expect_contains(message, (path / "ensemble.json").string());
        return message;
    }

    template <class Change>
    void expect_rejected(Change change, const std::string& says) {
        const json good = core::read_json(path / "ensemble.json");
        change_manifest(change);
        core::expect_contains(error_message(), says);
        core::write_json(path / "ensemble.json", good);
    }

    core::TestFolder folder;
    fs::path path = write_tiny_ensemble(folder);
};

TEST_F(EnsembleDirectory, is_read_back_as_written) {
    EXPECT_TRUE(is_ensemble_directory(path));
    EXPECT_FALSE(is_model_directory(path));
    const Ensemble ensemble = read_ensemble(path);
    EXPECT_EQ(ensemble.partition.owner, odd_and_even().owner);
    EXPECT_EQ(ensemble.partition.hash(), odd_and_even().hash());
    EXPECT_EQ(ensemble.prior.weights, uneven_prior().weights);
    EXPECT_EQ(ensemble.spec, read_model(folder / "made/0").spec);
    EXPECT_EQ(ensemble.manifest.at("metrics").at("fid"), 1.5);
    EXPECT_EQ(ensemble.manifest.at("teacher_hash"), "teacher's hash");
    ASSERT_EQ(ensemble.students.size(), 2U);
    for (const std::int64_t k : {0, 1}) {
        const Model made = read_model(folder / ("made/" + std::to_string(k)));
        const Model student = read_student(ensemble, k);
        EXPECT_EQ(backends::hash_of(student.parameters), backends::hash_of(made.parameters));
        EXPECT_EQ(student.config, made.config);
    }
    EXPECT_NE(backends::hash_of(read_student(ensemble, 0).parameters),
              backends::hash_of(read_student(ensemble, 1).parameters));
}

TEST_F(EnsembleDirectory, can_be_moved_and_depends_on_nothing_outside) {
    fs::remove_all(folder / "made");
    fs::create_directory(folder / "elsewhere");
    fs::rename(path, folder / "elsewhere/moved");
    const Ensemble ensemble = read_ensemble(folder / "elsewhere/moved");
    for (const std::int64_t k : {0, 1}) EXPECT_NO_THROW(read_student(ensemble, k));
    core::expect_contains(ensemble.teacher().string(), "moved/teacher");
}

TEST_F(EnsembleDirectory, a_student_of_another_partition_is_rejected) {
    write_student(path / "students/1", {2, "file", {0, 1, 1, 1}}, 1);
    const Ensemble ensemble = read_ensemble(path);
    EXPECT_NO_THROW(read_student(ensemble, 0));
    const std::string message = core::error_of([&] { read_student(ensemble, 1); });
    core::expect_contains(message, (path / "students/1/config.json").string());
    core::expect_contains(message, "another partition");
}

TEST_F(EnsembleDirectory, a_student_in_another_position_is_rejected) {
    fs::rename(path / "students/0", path / "students/x");
    fs::rename(path / "students/1", path / "students/0");
    fs::rename(path / "students/x", path / "students/1");
    const Ensemble ensemble = read_ensemble(path);
    core::expect_contains(core::error_of([&] { read_student(ensemble, 0); }),
                          "student 1 of the partition, not student 0");
    core::expect_contains(core::error_of([&] { read_student(ensemble, 1); }),
                          "student 0 of the partition, not student 1");
}

TEST_F(EnsembleDirectory, one_directory_cannot_serve_two_students) {
    change_manifest([](json& manifest) { manifest["students"][1] = "students/0"; });
    EXPECT_THROW(read_student(read_ensemble(path), 1), core::Error);
}

TEST_F(EnsembleDirectory, a_model_that_is_no_student_is_rejected) {
    for (const json& place :
         {json(), json(5), json{{"student", 1}}, json{{"partition", odd_and_even().hash()}}}) {
        SCOPED_TRACE(place.dump());
        edit_json(path / "students/1/config.json", [&](json& config) { config["place"] = place; });
        EXPECT_THROW(read_student(read_ensemble(path), 1), core::Error);
    }
    edit_json(path / "students/1/config.json", [&](json& config) { config.erase("place"); });
    EXPECT_THROW(read_student(read_ensemble(path), 1), core::Error);
}

TEST_F(EnsembleDirectory, a_student_that_knows_other_classes_or_samples_is_rejected) {
    json config = tiny_config();
    config["classes"] = 5;
    write_student(path / "students/1", odd_and_even(), 1, config);
    core::expect_contains(core::error_of([&] { read_student(read_ensemble(path), 1); }),
                          "5 classes");
    config = tiny_config();
    config.update(
        {{"dimensions", 3},
         {"data", {{"kind", "points"}, {"shape", {3}}, {"offset", {0, 0, 0}}, {"scale", 1}}}});
    write_student(path / "students/1", odd_and_even(), 1, config);
    core::expect_contains(core::error_of([&] { read_student(read_ensemble(path), 1); }), "[3]");
}

TEST_F(EnsembleDirectory, a_missing_student_is_named) {
    fs::remove_all(path / "students/1");
    core::expect_contains(error_message(), "students/1 is missing");
}

TEST_F(EnsembleDirectory, a_students_path_cannot_leave_the_directory) {
    // There is a valid student at each of these paths; only the location is wrong.
    const std::string outside = write_student(folder / "outside", odd_and_even(), 1).string();
    for (const std::string& way : {std::string("../outside"), std::string("students/../../outside"),
                                   std::string("./../outside"), outside,
                                   std::string("students/0/../../../outside"), std::string("")}) {
        SCOPED_TRACE(way);
        expect_rejected([&](json& manifest) { manifest["students"][1] = way; },
                        "leaves the ensemble's directory");
    }
}

TEST_F(EnsembleDirectory, numbers_of_students_that_disagree_are_rejected) {
    expect_rejected([](json& manifest) { manifest["K"] = 3; }, "disagree");
    expect_rejected([](json& manifest) { manifest["students"].push_back("students/0"); },
                    "disagree");
    expect_rejected([](json& manifest) { manifest["students"].erase(1); }, "disagree");
    expect_rejected(
        [](json& manifest) {
            manifest["partition"] = conditions::to_json({1, "file", {0, 0, 0, 0}});
        },
        "disagree");
}

TEST_F(EnsembleDirectory, a_newer_format_is_rejected_before_anything_else_is_read) {
    expect_rejected(
        [](json& manifest) {
            manifest = {{"version", 2}, {"students", "in a form of the future"}};
        },
        "use a newer atelier");
}

TEST_F(EnsembleDirectory, an_edited_partition_does_not_fit_its_hash) {
    expect_rejected([](json& manifest) { manifest["partition"]["owner"] = {0, 1, 1, 0}; },
                    "hash does not fit");
    expect_rejected([](json& manifest) { manifest["partition"]["hash"] = std::string(64, '0'); },
                    "hash does not fit");
}

TEST_F(EnsembleDirectory, an_edited_partition_without_its_hash_fits_no_student) {
    change_manifest([](json& manifest) {
        manifest["partition"]["owner"] = {0, 1, 1, 0};
        manifest["partition"].erase("hash");
    });
    core::expect_contains(core::error_of([&] { read_student(read_ensemble(path), 0); }),
                          "another partition");
}

TEST_F(EnsembleDirectory, a_prior_must_have_a_weight_for_each_class) {
    for (const json& prior :
         {json{1, 1, 1}, json{1, 1, 1, 1, 1}, json::array(), json{0, 0, 0, 0}}) {
        expect_rejected([&](json& manifest) { manifest["prior"] = prior; },
                        "a weight for each of the 4 classes");
    }
    expect_rejected([](json& manifest) { manifest["prior"] = {2, -1, 1, 1}; }, "negative");
}

TEST_F(EnsembleDirectory, missing_keys_are_named) {
    for (const char* key : {"version", "K", "partition", "prior", "data", "students"}) {
        SCOPED_TRACE(key);
        expect_rejected([&](json& manifest) { manifest.erase(key); }, key);
    }
}

/// Writing: no directory appears after an error.
class WriteEnsemble : public EnsembleDirectory {
protected:
    std::string refused(const std::vector<fs::path>& students,
                        const conditions::Partition& partition = odd_and_even(),
                        const conditions::Prior& prior = uneven_prior()) const {
        const std::string message = core::error_of(
            [&] { write_ensemble(folder / "new", partition, prior, students, "", {}); });
        EXPECT_FALSE(fs::exists(folder / "new"));
        return message;
    }
    std::vector<fs::path> made() const { return {folder / "made/0", folder / "made/1"}; }
};

TEST_F(WriteEnsemble, takes_students_of_this_partition_in_their_order_only) {
    core::expect_contains(refused({made()[1], made()[0]}),
                          "student 1 of the partition, not student 0");
    core::expect_contains(refused(made(), {2, "file", {0, 0, 1, 1}}), "another partition");
}

TEST_F(WriteEnsemble, takes_no_more_and_no_fewer_students_than_the_partition_has) {
    for (const auto& students :
         {std::vector<fs::path>{}, {made()[0]}, {made()[0], made()[1], made()[1]}}) {
        SCOPED_TRACE(students.size());
        refused(students);
    }
}

TEST_F(WriteEnsemble, takes_no_prior_that_reading_would_reject) {
    core::expect_contains(refused(made(), odd_and_even(), {{1, 1}}), "prior");
}

TEST_F(WriteEnsemble, never_overwrites) {
    const std::string before = core::read_json(path / "ensemble.json").dump();
    EXPECT_THROW(write_ensemble(path, odd_and_even(), {{1, 1, 1, 1}}, made(), "", {}), core::Error);
    EXPECT_EQ(core::read_json(path / "ensemble.json").dump(), before);
}

TEST_F(WriteEnsemble, takes_no_damaged_student) {
    fs::resize_file(made()[1] / "model.safetensors", 100);
    core::expect_contains(refused(made()), "made/1/model.safetensors");
}

}  // namespace
}  // namespace atelier::models
