#include "atelier/models/model_card.h"

#include "atelier/models/model_directory.h"
#include "models/model_fixtures.h"

namespace atelier::models {

namespace {

namespace fs = std::filesystem;

nlohmann::json small_config(const nlohmann::json& more) {
    nlohmann::json config{
        {"architecture", "mlp"}, {"dimensions", 2}, {"hidden", 8}, {"blocks", 1}, {"classes", 4}};
    config.update(more);
    return config;
}

ModelCard small_card(const nlohmann::json& more = nlohmann::json::object()) {
    return card_of(small_config(more), "config.json");
}

std::string card_error(const nlohmann::json& more) {
    return core::error_of([&] { small_card(more); });
}

}  // namespace

TEST(ModelCard, of_every_shipped_model_is_written_byte_for_byte) {
    const fs::path shipped = fs::path(ATELIER_SOURCE_DIR) / "models" / "fashion-mnist";
    int compared = 0;
    for (const auto& entry : fs::recursive_directory_iterator(shipped)) {
        if (entry.path().filename() != "config.json") continue;
        const core::TestFolder folder;
        const fs::path from = entry.path().parent_path();
        fs::copy_file(from / "model.safetensors", folder / "model.safetensors");
        write_card(folder.path(), read_card(from), {"model.safetensors"});
        EXPECT_EQ(core::read_text(folder / "config.json", 1 << 20),
                  core::read_text(entry.path(), 1 << 20))
            << from;
        ++compared;
    }
    EXPECT_GE(compared, 10);
}

TEST(ModelCard, keeps_what_it_was_read_from) {
    for (const nlohmann::json& more : std::vector<nlohmann::json>{
             nlohmann::json::object(),
             {{"sigma_data", 0.5}, {"sigma_min", 0.002}, {"sigma_max", 80}},
             {{"preconditioning", "edm"}, {"licence", "CC0"}},
             {{"preconditioning", "vp"}, {"beta_d", 19}},
             {{"preconditioning", "ddpm"}, {"scheduler", {{"clip_sample", false}}}},
             {{"preconditioning", "flow"}, {"shift", 3}},
             {{"condition", "text"}, {"guidance", 2}},
             {{"lora", {{"rank", 4}, {"base", "../../../teacher"}}}},
             {{"place", {{"student", 1}, {"cell", {0, 3}}, {"partition", "abc"}, {"more", 1}}}},
             {{"provenance", {{"from", "EDMPrecond"}, {"prior", {1, 2, 3, 4}}}}},
             {{"weights", {{"model.safetensors", "average"}}}},
             {{"quantisation", {{"error", 0.25}, {"layers", nlohmann::json::array()}}}}}) {
        EXPECT_EQ(json_of(small_card(more)), small_config(more));
    }
}

TEST(ModelCard, says_what_the_config_says) {
    const ModelCard card =
        small_card({{"sigma_max", 40},
                    {"guidance", 2},
                    {"lora", {{"rank", 4}, {"base", "../teacher"}}},
                    {"place", {{"student", 1}, {"cell", {0, 3}}, {"partition", "abc"}}},
                    {"provenance", {{"seed", 7}, {"prior", {1, 2, 3, 4}}}}});
    EXPECT_EQ(card.network.architecture, "mlp");
    EXPECT_EQ(card.noise.sigma_max, 40);
    EXPECT_EQ(card.spec.kind, data::SampleSpec::Kind::points);
    EXPECT_EQ(card.condition, ConditionKind::classes);
    EXPECT_EQ(card.guidance, 2);
    EXPECT_EQ(card.lora, (LowRank{4, "../teacher"}));
    EXPECT_EQ(card.assignment, (Assignment{1, std::vector<std::int64_t>{0, 3}, "abc"}));
    EXPECT_EQ(card.provenance.seed, 7);
    EXPECT_EQ(card.provenance.prior, (std::vector<double>{1, 2, 3, 4}));
    EXPECT_EQ(small_card({{"classes", 0}}).condition, ConditionKind::none);
    EXPECT_TRUE(small_card({{"condition", "text"}}).reads_text());
}

TEST(ModelCard, writes_what_changed_and_nothing_else) {
    ModelCard card = small_card({{"licence", "CC0"},
                                 {"guidance", 2},
                                 {"weights", {{"model.safetensors", "average"}}},
                                 {"provenance", {{"from", "EDMPrecond"}}}});
    card.guidance.reset();
    card.weights.clear();
    card.condition = ConditionKind::text;
    card.lora = LowRank{4, "../teacher"};
    card.assignment = Assignment{2, std::nullopt, "abc"};
    card.provenance = {.seed = 1, .data = "d", .teacher = "t"};
    card.noise = diffusion::NoiseSchedule::edm(0.7, 0.01, 20);
    card.quantisation = Quantisation{.samples = 8,
                                     .seed = 1,
                                     .tolerance = 0.5,
                                     .error = 0.25,
                                     .layers = {{"enc.0", "int8", 0.125, 0.5, 3}}};
    const nlohmann::json expected =
        small_config({{"licence", "CC0"},
                      {"condition", "text"},
                      {"lora", {{"rank", 4}, {"base", "../teacher"}}},
                      {"place", {{"student", 2}, {"partition", "abc"}}},
                      {"provenance", {{"seed", 1}, {"data", "d"}, {"teacher", "t"}}},
                      {"sigma_data", 0.7},
                      {"sigma_min", 0.01},
                      {"sigma_max", 20.0},
                      {"quantisation",
                       {{"weights", "int8, symmetric, a scale a channel"},
                        {"inputs", "int8, symmetric, a range a layer"},
                        {"samples", 8},
                        {"seed", 1},
                        {"tolerance", 0.5},
                        {"error", 0.25},
                        {"layers",
                         {{{"layer", "enc.0"},
                           {"precision", "int8"},
                           {"error", 0.125},
                           {"share_of_work", 0.5},
                           {"input_range", 3.0}}}}}}});
    EXPECT_EQ(json_of(card), expected);
    const ModelCard again = card_of(expected, "config.json");
    EXPECT_EQ(again.quantisation, card.quantisation);
    EXPECT_EQ(again.assignment, card.assignment);
    EXPECT_EQ(again.noise, card.noise);
}

TEST(ModelCard, is_rejected_by_key_where_it_makes_no_sense) {
    core::expect_contains(card_error({{"guidance", "much"}}), "guidance");
    core::expect_contains(card_error({{"lora", {{"rank", 0}, {"base", "x"}}}}), "rank");
    core::expect_contains(card_error({{"lora", {{"rank", 4}, {"base", "/etc"}}}}),
                          "path from the model's folder to its base model");
    core::expect_contains(card_error({{"place", 3}}), "place");
    core::expect_contains(card_error({{"provenance", {{"prior", "even"}}}}), "prior");
    core::expect_contains(card_error({{"quantisation", {{"layers", 3}}}}), "layers");
}

}  // namespace atelier::models
