#pragma once

#include "atelier/pipeline/run_context.h"
#include "core/test_folder.h"

namespace atelier::pipeline {

/// The context of a toy run in "run" of `folder` whose teacher is finished, with random weights.
inline RunContext run_with_teacher(const core::TestFolder& folder,
                                   std::vector<std::string> overrides) {
    overrides.push_back("output=" + (folder / "run").string());
    RunContext context(load_config(ATELIER_SOURCE_DIR "/configs/toy2d.toml", overrides));
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

}  // namespace atelier::pipeline
