#include "atelier/conditions/partition.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>

#include "atelier/core/error.h"
#include "atelier/core/random_streams.h"
#include "core/test_folder.h"

namespace atelier::conditions {
namespace {

PartitionRequest request(const std::string& method, std::int64_t students, std::int64_t classes,
                         std::uint64_t seed = 0) {
    PartitionRequest r;
    r.method = method;
    r.students = students;
    r.classes = classes;
    r.seed = seed;
    core::RandomStream stream(seed, "request");
    for (std::int64_t i = 0; i < classes; ++i) {
        r.embeddings.push_back({stream.normal(), stream.normal(), stream.normal()});
        r.difficulty.push_back(stream.uniform());
    }
    return r;
}

template <class Exception = core::Error, class Call>
std::string message_of(Call call) {
    try {
        call();
    } catch (const Exception& error) {
        return error.what();
    }
    return "(nothing was thrown)";
}

/// The methods that compute a partition, from what `request` gives all of them.
std::vector<std::string> computed_methods() {
    std::vector<std::string> methods = partition_methods();
    std::erase_if(methods, [](const std::string& method) {
        return needs_of(method) == PartitionNeeds::file;
    });
    return methods;
}

/// A file that is removed at the end of the test.
class TemporaryFile {
public:
    explicit TemporaryFile(const std::string& text) { std::ofstream(path_) << text; }
    const std::string& path() const { return path_; }

private:
    core::TestFolder folder_;
    std::string path_ = folder_ / "partition.json";
};

std::vector<std::int64_t> cell_sizes(const Partition& partition) {
    std::vector<std::int64_t> sizes;
    for (std::int64_t k = 0; k < partition.students; ++k)
        sizes.push_back(static_cast<std::int64_t>(partition.cell(k).size()));
    return sizes;
}

TEST(partition, every_method_gives_every_class_one_owner_and_every_student_a_class) {
    for (const std::string& method : computed_methods()) {
        for (const std::int64_t classes : {1, 2, 10, 37}) {
            for (std::int64_t students = 1; students <= classes; students += 3) {
                const Partition partition =
                    partition_classes(request(method, students, classes, 7));
                check(partition, method);
                std::set<std::int64_t> all;
                for (std::int64_t k = 0; k < students; ++k) {
                    const auto cell = partition.cell(k);
                    EXPECT_TRUE(std::is_sorted(cell.begin(), cell.end()));
                    for (const std::int64_t i : cell) EXPECT_TRUE(all.insert(i).second);
                }
                EXPECT_EQ(static_cast<std::int64_t>(all.size()), classes);
                EXPECT_EQ(partition.method, method);
            }
        }
    }
}

TEST(partition, methods_without_what_they_need_say_so) {
    for (const std::string& method : partition_methods()) {
        PartitionRequest bare = request(method, 2, 4);
        bare.embeddings.clear();
        bare.difficulty.clear();
        const auto needs = needs_of(method);
        EXPECT_EQ(is_of_teacher(needs),
                  needs == PartitionNeeds::embeddings || needs == PartitionNeeds::difficulty);
        if (needs == PartitionNeeds::nothing) EXPECT_NO_THROW(partition_classes(bare)) << method;
        else
            EXPECT_NE(message_of<core::UsageError>([&] { partition_classes(bare); }).find(method),
                      std::string::npos)
                << method;
    }
    EXPECT_THROW(needs_of("kmean"), core::UsageError);
}

TEST(partition, every_method_is_deterministic) {
    for (const std::string& method : computed_methods()) {
        EXPECT_EQ(partition_classes(request(method, 4, 20, 3)).owner,
                  partition_classes(request(method, 4, 20, 3)).owner)
            << method;
    }
    EXPECT_NE(partition_classes(request("random", 4, 20, 3)).owner,
              partition_classes(request("random", 4, 20, 4)).owner);
}

TEST(partition, consecutive_runs_are_nearly_equal_and_the_first_ones_larger) {
    EXPECT_EQ(partition_classes(request("consecutive", 4, 10)).owner,
              (std::vector<std::int64_t>{0, 0, 0, 1, 1, 1, 2, 2, 3, 3}));
    EXPECT_EQ(cell_sizes(partition_classes(request("consecutive", 4, 1000))),
              (std::vector<std::int64_t>{250, 250, 250, 250}));
}

TEST(partition, random_cells_are_dealt_evenly) {
    auto sizes = cell_sizes(partition_classes(request("random", 4, 10, 5)));
    EXPECT_EQ(sizes, (std::vector<std::int64_t>{3, 3, 2, 2}));
}

TEST(partition, kmeans_puts_classes_of_one_direction_together) {
    PartitionRequest r = request("kmeans", 2, 6);
    r.embeddings = {{1, 0}, {0, 1}, {2, 0.1}, {0.1, 3}, {1, -0.1}, {0, 5}};
    const Partition partition = partition_classes(r);
    for (std::size_t i = 2; i < 6; ++i) EXPECT_EQ(partition.owner[i], partition.owner[i % 2]);
}

TEST(partition, balanced_cells_have_near_equal_difficulty) {
    const PartitionRequest r = request("balanced", 4, 100, 2);
    const Partition partition = partition_classes(r);
    std::vector<double> loads(4);
    for (std::size_t i = 0; i < r.difficulty.size(); ++i)
        loads[static_cast<std::size_t>(partition.owner[i])] += r.difficulty[i];
    const auto [least, most] = std::minmax_element(loads.begin(), loads.end());
    EXPECT_LT(*most - *least, 0.1);
}

TEST(partition, balanced_leaves_no_cell_empty_when_classes_cost_nothing) {
    PartitionRequest r = request("balanced", 4, 5);
    r.difficulty = {9, 0, 0, 0, 0};
    for (const std::int64_t size : cell_sizes(partition_classes(r))) EXPECT_GE(size, 1);
}

TEST(partition, hash_depends_on_students_and_owners_but_not_on_the_method) {
    Partition a = partition_classes(request("consecutive", 2, 4)), b = a;
    b.method = "file";
    EXPECT_EQ(a.hash(), b.hash());
    EXPECT_EQ(a.hash().size(), 64U);
    b.owner[0] = 1;
    EXPECT_NE(a.hash(), b.hash());
}

TEST(partition, hash_stays_what_it_was_in_older_versions) {
    // sha256 of {"owner":[0,1],"students":2}; students on disk store it.
    EXPECT_EQ((Partition{2, "consecutive", {0, 1}}.hash()),
              "2ba1a8e0b2329ac911edd988d8866c6caa14a0aa36842885f9e99a49e52b5d22");
}

TEST(partition, json_gives_back_what_was_written) {
    const Partition partition = partition_classes(request("random", 3, 11, 6));
    const Partition back =
        partition_from_json(nlohmann::json::parse(to_json(partition).dump()), "here");
    EXPECT_EQ(back.owner, partition.owner);
    EXPECT_EQ(back.students, partition.students);
    EXPECT_EQ(back.method, partition.method);
    EXPECT_EQ(back.hash(), partition.hash());
}

TEST(partition, a_tampered_owner_or_hash_is_an_error_that_names_the_location) {
    const nlohmann::json good = to_json(partition_classes(request("random", 3, 11, 6)));
    nlohmann::json moved = good, other_hash = good;
    moved["owner"][0] = (moved["owner"][0].get<int>() + 1) % 3;
    other_hash["hash"] = std::string(64, '0');
    EXPECT_NE(message_of([&] {
                  partition_from_json(moved, "p.json");
              }).find("p.json: the partition's hash"),
              std::string::npos);
    EXPECT_THROW(partition_from_json(other_hash, "p.json"), core::Error);
}

TEST(partition, hostile_json_is_an_error) {
    for (const char* text :
         {R"({})", R"([])", R"({"students":2})", R"({"students":2,"owner":[0,2]})",
          R"({"students":2,"owner":[0,-1]})", R"({"students":2,"owner":[0,0]})",
          R"({"students":0,"owner":[]})", R"({"students":16777216,"owner":[0]})",
          R"({"students":1,"owner":[]})", R"({"students":1,"owner":[0.5]})",
          R"({"students":1,"owner":[1e300]})", R"({"students":9223372036854775807,"owner":[0]})",
          R"({"students":1,"owner":[0],"hash":7})"}) {
        EXPECT_THROW(partition_from_json(nlohmann::json::parse(text), "p.json"), core::Error)
            << text;
    }
}

TEST(partition, check_names_the_class_without_owner_and_the_idle_student) {
    EXPECT_NE(message_of([] { check({2, "", {0, -1, 1}}, "w"); }).find("w: class 1 has no owner"),
              std::string::npos);
    EXPECT_NE(message_of([] { check({3, "", {0, 2, 0}}, "w"); }).find("w: student 1 owns no class"),
              std::string::npos);
    EXPECT_NE(
        message_of([] { check({2, "", {0, 2, 1}}, "w"); }).find("class 1 belongs to student 2"),
        std::string::npos);
}

TEST(partition, an_impossible_number_of_students_is_a_usage_error) {
    EXPECT_THROW(partition_classes(request("consecutive", 0, 4)), core::UsageError);
    EXPECT_THROW(partition_classes(request("consecutive", -1, 4)), core::UsageError);
    EXPECT_NE(message_of<core::UsageError>([] {
                  partition_classes(request("random", 5, 4));
              }).find("4 classes"),
              std::string::npos);
}

TEST(partition, an_unknown_method_names_the_nearest) {
    EXPECT_NE(message_of<core::UsageError>([] {
                  partition_classes(request("kmean", 2, 4));
              }).find("did you mean \"kmeans\"?"),
              std::string::npos);
    EXPECT_NE(message_of<core::UsageError>([] {
                  partition_classes(request("zzzzzzzzzzz", 2, 4));
              }).find("known are consecutive, random"),
              std::string::npos);
}

TEST(partition, embeddings_and_difficulties_must_be_there_for_every_class) {
    PartitionRequest r = request("kmeans", 2, 4);
    r.embeddings.pop_back();
    EXPECT_THROW(partition_classes(r), core::UsageError);
    r = request("balanced", 2, 4);
    r.difficulty.pop_back();
    EXPECT_THROW(partition_classes(r), core::UsageError);
    r.difficulty.push_back(std::nan(""));
    EXPECT_THROW(partition_classes(r), core::Error);
}

TEST(partition, a_file_may_give_owners_or_cells) {
    const TemporaryFile owners(R"({"owner": [1, 0, 1]})"), cells(R"({"cells": [[1], [2, 0]]})");
    for (const auto* file : {&owners, &cells}) {
        PartitionRequest r = request("file", 2, 3);
        r.file = file->path();
        EXPECT_EQ(partition_classes(r).owner, (std::vector<std::int64_t>{1, 0, 1}));
    }
}

TEST(partition, a_file_that_the_program_wrote_may_be_given) {
    const Partition partition = partition_classes(request("random", 3, 9, 1));
    nlohmann::json json = to_json(partition);
    PartitionRequest r = request("file", 3, 9);
    const TemporaryFile good(json.dump());
    r.file = good.path();
    EXPECT_EQ(partition_classes(r).hash(), partition.hash());
    json["owner"][0] = (json["owner"][0].get<int>() + 1) % 3;
    const TemporaryFile tampered(json.dump());
    r.file = tampered.path();
    EXPECT_THROW(partition_classes(r), core::Error);
}

TEST(partition, a_file_with_gaps_doubles_or_other_sizes_is_an_error) {
    for (const char* text :
         {R"({"cells": [[1], [2]]})", R"({"cells": [[0, 1], [1, 2]]})", R"({"cells": [[0, 1, 2]]})",
          R"({"cells": [[0, 1], [2], []]})", R"({"cells": [[0, 1], [3]]})", R"({"cells": 3})",
          R"({"cells": [0, 1]})", R"({"owner": [0, 1]})", R"({"owner": [0, 1, 0, 1]})",
          R"({"owner": [0, 0, 0]})", R"({"owner": [0, 1, 2]})", R"({})",
          R"({"owner": [0, 1, 0], "cells": [[0, 2], [1]]})", "{", "[]"}) {
        const TemporaryFile file(text);
        PartitionRequest r = request("file", 2, 3);
        r.file = file.path();
        EXPECT_NE(message_of([&] { partition_classes(r); }).find(file.path()), std::string::npos)
            << text;
    }
    EXPECT_THROW(partition_classes(request("file", 2, 3)), core::UsageError);
}

}  // namespace
}  // namespace atelier::conditions
