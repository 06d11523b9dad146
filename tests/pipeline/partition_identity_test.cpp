#include <gtest/gtest.h>

#include <fstream>

#include "atelier/pipeline/run_context.h"
#include "core/test_folder.h"

namespace atelier::pipeline {

namespace {

/// The context of a toy run whose teacher is finished.
RunContext run_with_teacher(const core::TestFolder& folder, const std::string& method) {
    std::ofstream(folder / "cells.json") << "{}";
    RunContext context(
        load_config(ATELIER_SOURCE_DIR "/configs/toy2d.toml",
                    {"output=" + (folder / "run").string(), "partition.method=" + method,
                     "partition.file=" + (folder / "cells.json").string()}));
    const data::Dataset& data = *context.data();
    const training::StageFolder stage = context.stage(StageKind::teacher);
    if (stage.finished()) return context;
    stage.begin();
    models::write_model(
        stage.path(),
        models::init_model(teacher_json(context.config(), data.spec(), data.classes()), 0));
    stage.finish({});
    return context;
}

}  // namespace

TEST(PartitionIdentity, holds_what_each_method_needs) {
    using conditions::PartitionNeeds;
    const core::TestFolder folder;
    for (const std::string& method : conditions::partition_methods()) {
        RunContext context = run_with_teacher(folder, method);
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
