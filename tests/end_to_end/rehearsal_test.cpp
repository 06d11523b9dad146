#include "end_to_end/rehearsal.h"

namespace atelier::end_to_end {
namespace {

/// All stages of the recipe, too short to improve anything (end_to_end/rehearsal.cpp is longer):
/// what is made does not depend on chance.
TEST(ShortRehearsal, the_recipe_for_small_students_makes_every_stage) {
    const Folder folder;
    rehearse(folder, {.images = 160,
                      .classifier = 4,
                      .teacher = 6,
                      .tsm = 4,
                      .dm = 4,
                      .adm = 4,
                      .probes = 16,
                      .evaluated = 16});
    const std::string run = folder / "run";
    const auto inspected = [&](const std::string& model) {
        return nlohmann::json::parse(succeed({"inspect", run + "/" + model, "--json"}).out);
    };
    const auto teacher = inspected("teacher");
    const auto weights = weights_of(run);
    for (int k = 0; k < 4; ++k) {
        const std::string student = "students/" + std::to_string(k) + "/";
        EXPECT_LT(inspected(student + "adm").at("parameters"), teacher.at("parameters"));
        const std::string& tsm = weights.at(student + "tsm/model.safetensors");
        const std::string& dm = weights.at(student + "dm/model.safetensors");
        const std::string& adm = weights.at(student + "adm/model.safetensors");
        EXPECT_NE(tsm, dm) << "DM goes on from TSM's weights";
        EXPECT_NE(dm, adm);
        EXPECT_EQ(weights.at("ensemble/" + student + "model.safetensors"), adm);
    }
    const auto models = nlohmann::json::parse(text_of(run + "/evaluation.json")).at("models");
    for (const char* model : {"teacher", "K=4 students"}) {
        EXPECT_GT(models.at(model).at("metrics").at("feature_distance").at("mean").get<double>(), 0)
            << model;
    }
    EXPECT_TRUE(fs::exists(run + "/report.html"));
}

}  // namespace
}  // namespace atelier::end_to_end
