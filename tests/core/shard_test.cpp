#include "atelier/core/shard.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>

#include "atelier/core/error.h"
#include "core/test_folder.h"

namespace atelier::core {
namespace {

/// The variables of job arrays, as given; put back afterwards.
class ArrayVariables {
public:
    using Value = std::pair<std::string, std::string>;

    ArrayVariables() : ArrayVariables(std::initializer_list<Value>{}) {}
    ArrayVariables(std::initializer_list<Value> values) {
        for (const char* name : {"SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT",
                                 "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX",
                                 "JOB_COMPLETION_INDEX", "PBS_ARRAY_INDEX", "WORLD_SIZE", "RANK"}) {
            if (const char* before = std::getenv(name)) before_[name] = before;
            ::unsetenv(name);
            names_.push_back(name);
        }
        for (const auto& [name, value] : values) ::setenv(name.c_str(), value.c_str(), 1);
    }
    ~ArrayVariables() {
        for (const std::string& name : names_) {
            const auto before = before_.find(name);
            if (before == before_.end()) ::unsetenv(name.c_str());
            else ::setenv(name.c_str(), before->second.c_str(), 1);
        }
    }
    ArrayVariables(const ArrayVariables&) = delete;
    ArrayVariables& operator=(const ArrayVariables&) = delete;

private:
    std::vector<std::string> names_;
    std::map<std::string, std::string> before_;
};

std::string problem_of(const std::string& text) {
    try {
        shard_of(text);
    } catch (const UsageError& error) {
        return error.what();
    }
    return "";
}

TEST(Shard, is_counted_from_one_and_the_shards_share_all_units) {
    const Shard second = shard_of("2/3");
    EXPECT_EQ(second.index, 1);
    EXPECT_EQ(second.count, 3);
    EXPECT_EQ(second.name(), "2/3");
    EXPECT_FALSE(second.whole());
    EXPECT_TRUE(shard_of("1/1").whole());
    for (std::int64_t unit = 0; unit < 20; ++unit) {
        int owners = 0;
        for (std::int64_t index = 0; index < 3; ++index) owners += Shard{index, 3}.owns(unit);
        EXPECT_EQ(owners, 1) << unit;
    }
}

TEST(Shard, of_another_form_is_rejected_with_the_form) {
    for (const char* text : {"", "2", "0/3", "4/3", "-1/3", "1/0", "a/3", "1/3x", "1/9999999999999",
                             "1 /3", "automatic"}) {
        expect_contains(problem_of(text), "--shard: ");
        expect_contains(problem_of(text), "r/W with r from 1 to W");
    }
}

TEST(Shard, auto_is_the_task_of_a_slurm_array_that_begins_with_zero) {
    const ArrayVariables set{{"SLURM_ARRAY_TASK_ID", "2"},
                             {"SLURM_ARRAY_TASK_COUNT", "4"},
                             {"SLURM_ARRAY_TASK_MIN", "0"},
                             {"SLURM_ARRAY_TASK_MAX", "3"}};
    EXPECT_EQ(shard_of("auto").name(), "3/4");
    EXPECT_EQ(shard_of("auto/8").name(), "3/8");
}

TEST(Shard, auto_does_not_guess_how_many_there_are) {
    {
        // Tasks 3 and 5 of eight were submitted again.
        const ArrayVariables set{{"SLURM_ARRAY_TASK_ID", "3"},
                                 {"SLURM_ARRAY_TASK_COUNT", "2"},
                                 {"SLURM_ARRAY_TASK_MIN", "3"},
                                 {"SLURM_ARRAY_TASK_MAX", "5"}};
        expect_contains(problem_of("auto"), "--shard auto/W");
        EXPECT_EQ(shard_of("auto/8").name(), "4/8");
    }
    const ArrayVariables set{{"JOB_COMPLETION_INDEX", "7"}};
    expect_contains(problem_of("auto"), "JOB_COMPLETION_INDEX says which shard this is");
    EXPECT_EQ(shard_of("auto/8").name(), "8/8");
    expect_contains(problem_of("auto/7"), "begin the array with 0");
}

TEST(Shard, auto_outside_of_an_array_says_which_variables_were_looked_for) {
    const ArrayVariables none;
    EXPECT_FALSE(array_task());
    for (const char* text : {"auto", "auto/4"})
        expect_contains(problem_of(text), "PBS_ARRAY_INDEX");
}

TEST(ArrayTask, is_read_from_any_of_the_three_and_must_be_a_number) {
    {
        const ArrayVariables set{{"PBS_ARRAY_INDEX", "5"}};
        EXPECT_EQ(array_task()->number, 5);
        EXPECT_EQ(array_task()->variable, "PBS_ARRAY_INDEX");
    }
    {
        const ArrayVariables set{{"JOB_COMPLETION_INDEX", "two"}};
        EXPECT_THROW(array_task(), UsageError);
    }
    {
        const ArrayVariables rank{{"JOB_COMPLETION_INDEX", "2"}, {"WORLD_SIZE", "4"}};
        expect_contains(error_of([] { array_task(); }), "is the number of this rank");
    }
    // Ranks of torchrun within task 2.
    const ArrayVariables ranks{{"JOB_COMPLETION_INDEX", "2"}, {"WORLD_SIZE", "4"}, {"RANK", "1"}};
    EXPECT_EQ(array_task()->number, 2);
}

}  // namespace
}  // namespace atelier::core
