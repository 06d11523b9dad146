#include "atelier/models/prompt_encoder.h"

#include "atelier/conditions/bpe_training.h"
#include "models/model_fixtures.h"
#include "models/prompt_fixtures.h"

/// Prompt encoders, and ensembles whose students own prompts.
namespace atelier::models {
namespace {

namespace fs = std::filesystem;
using core::error_of;
using core::expect_contains;

class PromptEnsemble : public testing::Test {
protected:
    PromptEnsemble() { ensemble_ = write_prompt_ensemble_of_two(folder_); }

    core::TestFolder folder_;
    fs::path ensemble_;
};

TEST_F(PromptEnsemble, embeddings_have_unit_length_and_depend_on_their_prompt_alone) {
    const PromptEncoder encoder = read_prompt_encoder(ensemble_);
    const std::vector<std::string> prompts{"a white shoe", "", "two black bags"},
        one{"two black bags"};
    const Tensor together = encoder.embed(prompts);
    EXPECT_TRUE(at::allclose(together.norm(2, {1}), at::ones({3})));
    EXPECT_TRUE(at::allclose(together[2], encoder.embed(one)[0], 1e-5, 1e-6));
    EXPECT_FALSE(at::allclose(together[0], together[2], 1e-2, 1e-2));
}

TEST_F(PromptEnsemble, is_read_with_its_partition_and_students) {
    const Ensemble ensemble = read_ensemble(ensemble_);
    ASSERT_TRUE(ensemble.prompts);
    EXPECT_EQ(ensemble.partition.students, 2);
    EXPECT_EQ(read_student(ensemble, 1).network.label_dim, 8);
}

TEST_F(PromptEnsemble, may_be_moved) {
    fs::rename(ensemble_, folder_ / "elsewhere");
    EXPECT_NO_THROW(read_student(read_ensemble(folder_ / "elsewhere"), 0));
}

TEST_F(PromptEnsemble, another_partition_is_rejected) {
    auto other = two_cells();
    other.centroids[0][0] += 0.5F;
    conditions::write_prompt_partition(ensemble_ / "partition", other);
    expect_contains(error_of([&] { read_ensemble(ensemble_); }), "names another partition");
}

TEST_F(PromptEnsemble, students_of_another_partition_are_rejected) {
    auto other = two_cells();
    other.centroids[1][0] += 0.5F;
    expect_contains(error_of([&] {
                        write_prompt_ensemble(folder_ / "new", other, ensemble_,
                                              {ensemble_ / "students/0", ensemble_ / "students/1"},
                                              "t", {});
                    }),
                    "trained for another partition");
    EXPECT_FALSE(fs::exists(folder_ / "new"));
}

TEST_F(PromptEnsemble, a_missing_encoder_is_named) {
    fs::remove_all(ensemble_ / "text_encoder");
    expect_contains(error_of([&] { read_ensemble(ensemble_); }), "no text_encoder");
}

TEST_F(PromptEnsemble, a_tower_for_another_tokenizer_is_rejected) {
    edit_json(ensemble_ / "text_encoder" / "config.json",
              [](auto& config) { config["vocab_size"] = 3; });
    expect_contains(error_of([&] { read_prompt_encoder(ensemble_); }),
                    "text_model.embeddings.token_embedding.weight");
}

}  // namespace
}  // namespace atelier::models
