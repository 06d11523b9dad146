#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/pipeline/budgets.h"
#include "atelier/pipeline/caption_table.h"
#include "atelier/pipeline/make_stages.h"

namespace atelier::pipeline {

namespace {

/// One row per class: its column of the teacher's label embedding.
std::vector<std::vector<double>> label_embeddings(const models::Model& teacher,
                                                  const std::string& method) {
    const std::string& name = teacher.network.label_embedding;
    if (name.empty() || !teacher.parameters.contains(name)) {
        throw core::UsageError(
            fmt::format("partition.method = \"{}\" needs a class-conditional teacher; this one has "
                        "no label embedding",
                        method));
    }
    const Tensor columns = teacher.parameters.at(name).to(at::kCPU, at::kDouble).t().contiguous();
    std::vector<std::vector<double>> rows;
    for (std::int64_t c = 0; c < columns.size(0); ++c) {
        const double* row = columns[c].const_data_ptr<double>();
        rows.emplace_back(row, row + columns.size(1));
    }
    return rows;
}

/// The embedding of the empty caption.
std::vector<float> none_of(const std::filesystem::path& embeddings) {
    const Tensor row =
        backends::read_tensor(core::SafetensorsFile(embeddings), "none").contiguous();
    return {row.const_data_ptr<float>(), row.const_data_ptr<float>() + row.numel()};
}

std::string cell_description(const conditions::Partition& partition, std::int64_t student,
                             const data::SampleSpec& spec) {
    std::string text;
    for (const std::int64_t c : partition.cell(student)) {
        if (!text.empty()) text += ", ";
        text += spec.class_names.empty() ? std::to_string(c)
                                         : spec.class_names[static_cast<std::size_t>(c)];
    }
    return text;
}

/// Splits captions by their embeddings of the teacher's text tower.
Split split_captions(RunContext& context, const training::StageFolder& stage) {
    const std::filesystem::path path = caption_embeddings(context);
    const conditions::Embeddings embeddings(path);
    const PartitionConfig& config = context.config().partition;
    conditions::PromptPartition prompts;
    const bool known =
        stage.finished() && std::filesystem::exists(context.output() / "partition.json");
    if (known) {
        prompts = conditions::read_prompt_partition(context.output());
    } else {
        prompts = conditions::partition_prompts(
            embeddings,
            {.students = config.students, .seed = context.seed(), .method = config.method});
        prompts.encoder = "the teacher's text_encoder";
        prompts.null_owner = prompts.router().route(none_of(path));
        conditions::write_prompt_partition(context.output(), prompts);
        stage.finish({{"hash", prompts.hash()}});
    }
    const conditions::PromptSurvey survey = conditions::survey(prompts, embeddings);
    Split split{{config.students, prompts.method, {survey.owners.begin(), survey.owners.end()}},
                prompts};
    for (std::size_t k = 0; k < survey.cells.size(); ++k) {
        const auto& cell = survey.cells[k];
        if (cell.size == 0)
            core::fail(
                "partition: student {} owns no caption; set fewer students, or "
                "partition.method = \"balanced\"",
                k);
        if (!known)
            core::log::info(
                "partition: student {} owns {} captions, such as \"{}\"", k, cell.size,
                context.data()->captions()[static_cast<std::size_t>(cell.central.front())]);
    }
    return split;
}

}  // namespace

Split make_partition(RunContext& context) {
    const auto stage = context.stage(StageKind::partition);
    if (!context.data()->captions().empty()) return split_captions(context, stage);
    const auto path = context.output() / "partition.json";
    if (stage.finished() && std::filesystem::exists(path))
        return {conditions::partition_from_json(core::read_json(path), path.string()), {}};

    const RunConfig& config = context.config();
    conditions::PartitionRequest request;
    request.method = config.partition.method;
    request.students = config.partition.students;
    request.classes = std::max<std::int64_t>(1, context.data()->classes());
    request.seed = context.seed();
    request.file = config.partition.file;
    const auto needs = conditions::needs_of(request.method);
    if (needs == conditions::PartitionNeeds::embeddings)
        request.embeddings = label_embeddings(context.teacher(), request.method);
    if (needs == conditions::PartitionNeeds::difficulty) request.difficulty = class_losses(context);
    const conditions::Partition partition = conditions::partition_classes(request);
    core::write_json(path, conditions::to_json(partition));
    stage.finish({{"hash", partition.hash()}});
    for (std::int64_t k = 0; k < partition.students; ++k) {
        core::log::info("partition: student {} owns {}", k,
                        cell_description(partition, k, context.data()->spec()));
    }
    return {partition, {}};
}

}  // namespace atelier::pipeline
