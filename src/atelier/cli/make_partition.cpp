#include "atelier/cli/caption_table.h"
#include "atelier/cli/stages.h"
#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/data/sampling.h"
#include "atelier/distillation/score_matching.h"

namespace atelier::cli {

namespace {

/// A row a class: what the teacher's label layer makes of it.
std::vector<std::vector<double>> label_embeddings(const models::Model& teacher) {
    const char* name = "model.map_label.weight";
    if (!teacher.parameters.contains(name)) {
        throw core::UsageError("partition.method = \"kmeans\" needs a class-conditional teacher; this one has no label embedding");
    }
    const Tensor columns = teacher.parameters.at(name).to(at::kCPU, at::kDouble).t().contiguous();
    std::vector<std::vector<double>> rows;
    for (std::int64_t c = 0; c < columns.size(0); ++c) {
        const double* row = columns[c].const_data_ptr<double>();
        rows.emplace_back(row, row + columns.size(1));
    }
    return rows;
}

/// The teacher's denoising loss on up to 256 samples of each class.
std::vector<double> class_losses(Workshop& workshop) {
    constexpr std::int64_t most = 256;
    at::NoGradGuard no_gradients;
    const data::Dataset& data = *workshop.data();
    const models::Model& teacher = workshop.teacher();
    const auto denoiser = teacher.denoiser();
    std::vector<double> losses;
    for (std::int64_t c = 0; c < data.classes(); ++c) {
        const std::int64_t cell[]{c};
        const auto indices = data::seeded_sample(data, data::indices_of(data, cell), most,
                                                 workshop.seed(), "difficulty/samples");
        const auto n = static_cast<std::int64_t>(indices.size());
        core::RandomStream levels(workshop.seed(), "difficulty/sigma", static_cast<std::uint64_t>(c));
        core::RandomStream noise(workshop.seed(), "difficulty/noise", static_cast<std::uint64_t>(c));
        const Tensor x = data.samples(indices).to(workshop.device());
        const Tensor sigma = diffusion::training_levels(levels, n, teacher.scheme, workshop.config().teacher.level_mean,
                                                          workshop.config().teacher.level_deviation);
        const std::vector<std::int64_t> labels(indices.size(), c);
        losses.push_back(distillation::score_matching_loss(denoiser, nullptr, x, sigma.to(x.device()),
                                                           diffusion::normal_tensor(noise, x.sizes()).to(x.device()),
                                                           diffusion::one_hot(labels, data.classes(), x.device()), teacher.scheme)
                             .item<double>());
    }
    return losses;
}

/// The embedding of no caption.
std::vector<float> none_of(const std::filesystem::path& embeddings) {
    const Tensor row = ops::read_tensor(core::SafetensorsFile(embeddings), "none").contiguous();
    return {row.const_data_ptr<float>(), row.const_data_ptr<float>() + row.numel()};
}

std::string cell_words(const conditions::Partition& partition, std::int64_t student, const models::DataForm& form) {
    std::string words;
    for (const std::int64_t c : partition.cell(student)) {
        if (!words.empty()) words += ", ";
        words += form.class_names.empty() ? std::to_string(c) : form.class_names[static_cast<std::size_t>(c)];
    }
    return words;
}

/// Captions, split by what the teacher's text tower makes of them.
Split split_captions(Workshop& workshop, const training::StageFolder& stage) {
    const std::filesystem::path path = caption_embeddings(workshop);
    const conditions::Embeddings embeddings(path);
    const PartitionConfig& config = workshop.config().partition;
    conditions::PromptPartition prompts;
    const bool known = stage.finished() && std::filesystem::exists(workshop.output() / "partition.json");
    if (known) {
        prompts = conditions::read_prompt_partition(workshop.output());
    } else {
        prompts = conditions::partition_prompts(embeddings, {.students = config.students, .seed = workshop.seed(), .balanced = config.method == "balanced"});
        prompts.encoder = "the teacher's text_encoder";
        prompts.null_owner = prompts.router().route(none_of(path));
        conditions::write_prompt_partition(workshop.output(), prompts);
        stage.finish({{"hash", prompts.hash()}});
    }
    const conditions::PromptSurvey survey = conditions::survey(prompts, embeddings);
    Split split{{config.students, prompts.method, {survey.owners.begin(), survey.owners.end()}}, prompts};
    for (std::size_t k = 0; k < survey.cells.size(); ++k) {
        const auto& cell = survey.cells[k];
        if (cell.size == 0) core::fail("partition: student {} owns no caption; ask for fewer students, or partition.method = \"balanced\"", k);
        if (!known) core::log::info("partition: student {} owns {} captions, such as \"{}\"", k, cell.size, workshop.data()->captions()[static_cast<std::size_t>(cell.central.front())]);
    }
    return split;
}

}  // namespace

Split make_partition(Workshop& workshop) {
    const auto stage = workshop.stage("partition", "partition");
    if (!workshop.data()->captions().empty()) return split_captions(workshop, stage);
    const auto path = workshop.output() / "partition.json";
    if (stage.finished() && std::filesystem::exists(path)) return {conditions::partition_from_json(core::read_json(path), path.string()), {}};

    const RunConfig& config = workshop.config();
    conditions::PartitionRequest request;
    request.method = config.partition.method;
    request.students = config.partition.students;
    request.classes = std::max<std::int64_t>(1, workshop.data()->classes());
    request.seed = workshop.seed();
    request.file = config.partition.file;
    if (request.method == "kmeans") request.embeddings = label_embeddings(workshop.teacher());
    if (request.method == "balanced") request.difficulty = class_losses(workshop);
    const conditions::Partition partition = conditions::make_partition(request);
    core::write_json(path, conditions::to_json(partition));
    stage.finish({{"hash", partition.hash()}});
    for (std::int64_t k = 0; k < partition.students; ++k) {
        core::log::info("partition: student {} owns {}", k, cell_words(partition, k, workshop.data()->form()));
    }
    return {partition, {}};
}

}  // namespace atelier::cli
