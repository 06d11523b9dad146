#include <gtest/gtest.h>

#include <fstream>

#include "pipeline/toy_run.h"

namespace atelier::pipeline {

namespace {

RunContext run_of_method(const core::TestFolder& folder, const std::string& method) {
    std::ofstream(folder / "cells.json") << "{}";
    return run_with_teacher(folder, {"partition.method=" + method,
                                     "partition.file=" + (folder / "cells.json").string()});
}

}  // namespace

TEST(PartitionIdentity, holds_what_each_method_needs) {
    using conditions::PartitionNeeds;
    const core::TestFolder folder;
    for (const std::string& method : conditions::partition_methods()) {
        RunContext context = run_of_method(folder, method);
        const training::StageIdentity identity = context.identity(StageKind::partition);
        const PartitionNeeds needs = conditions::needs_of(method);
        EXPECT_EQ(identity.contents.contains("teacher"), conditions::is_of_teacher(needs))
            << method;
        EXPECT_EQ(identity.contents.contains("partition.file"), needs == PartitionNeeds::file)
            << method;
        EXPECT_EQ(identity.settings.contains("teacher"), needs == PartitionNeeds::difficulty)
            << method;
    }
}

}  // namespace atelier::pipeline
