#include "atelier/pipeline/run_context.h"

#include <fmt/ranges.h>

#include "atelier/backends/torch/accelerator.h"
#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/log.h"
#include "atelier/diffusion/guidance.h"
#include "atelier/inference/engine.h"
#include "atelier/models/diffusers_directory.h"
#include "atelier/networks/architecture.h"
#include "atelier/pipeline/budgets.h"
#include "atelier/pipeline/caption_table.h"
#include "atelier/pipeline/latent_data.h"
#include "atelier/pipeline/make_stages.h"
#include "atelier/pipeline/pair_losses.h"
#include "atelier/pipeline/probe_distance.h"
#include "atelier/pipeline/stages.h"

namespace atelier::pipeline {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t sha256_length = 64;

}  // namespace

void check_data(const data::SampleSpec& spec, std::int64_t classes, const RunConfig& config) {
    const auto label_text = [](std::int64_t count) {
        return count == 0 ? "no labels" : fmt::format("{} classes", count);
    };
    if (config.data_classes >= 0 && classes != config.data_classes) {
        throw core::UsageError(fmt::format(
            "{}: has {}, but data.classes asks for {}; name other data, or set data.classes = {}",
            config.data_path, label_text(classes), label_text(config.data_classes), classes));
    }
    if (!config.data_shape.empty() && spec.shape != config.data_shape &&
        spec.kind == data::SampleSpec::Kind::latent) {
        throw core::UsageError(
            fmt::format("{}: the teacher's latents are {}, but data.shape asks for {}; set "
                        "data.shape = {}, or leave it out",
                        config.teacher.path, core::to_string(spec.shape),
                        core::to_string(config.data_shape), core::to_string(spec.shape)));
    }
    if (!config.data_shape.empty() && spec.shape != config.data_shape) {
        throw core::UsageError(fmt::format(
            "{}: samples are {}, but data.shape asks for {}; convert them with: atelier import {} "
            "NEW.zip --size {}",
            config.data_path, core::to_string(spec.shape), core::to_string(config.data_shape),
            config.data_path, config.data_shape.back()));
    }
}

void check_teacher(const models::ModelCard& teacher, const data::SampleSpec& spec,
                   std::int64_t label_width, bool captions, const RunConfig& config) {
    const auto labelled = [](std::int64_t width, bool text) {
        if (text) return fmt::format("with captions embedded in {} values", width);
        return width == 0 ? "unlabelled" : fmt::format("in {} classes", width);
    };
    const bool reads_text = teacher.reads_text();
    if (teacher.spec.shape == spec.shape && teacher.network.label_dim == label_width &&
        reads_text == captions)
        return;
    throw core::UsageError(
        fmt::format("{}: this teacher is for samples of {} {}; those of {} are {} {}. Name data "
                    "like those that it was trained on (data.path), "
                    "or another teacher",
                    config.teacher.path, core::to_string(teacher.spec.shape),
                    labelled(teacher.network.label_dim, reads_text), config.data_path,
                    core::to_string(spec.shape), labelled(label_width, captions)));
}

namespace {

/// Of ranks whose device is "cuda", each has the GPU of its number on its machine; where a batch
/// system shows it one GPU only, that one.
at::Device device_of_rank(const std::string& name, const parallel::Ranks& ranks) {
    if (ranks.is_alone() || name != "cuda" || !inference::has_device("cuda:1"))
        return inference::device_of(name);
    return inference::device_of(fmt::format("cuda:{}", ranks.local_rank()));
}

}  // namespace

RunContext::RunContext(LoadedConfig loaded, parallel::Ranks& ranks)
    : loaded_(std::move(loaded)),
      ranks_(ranks),
      output_(config().output),
      device_(device_of_rank(config().device, ranks)) {
    ranks_.use_device(device_);
    if (device_.is_cpu()) return;
    backends::configure_accelerators(
        {.tf32 = config().precision == "tf32", .deterministic = config().deterministic});
    core::log::info("device {}: {}, with {} kernels", device_.str(), config().precision,
                    config().deterministic ? "deterministic" : "the quickest");
}

bool RunContext::is_finished(const training::StageFolder& stage) const {
    if (ranks_.is_alone()) return stage.finished();
    return !ranks_.from_leader(stage.finished() ? "finished" : "").empty();
}

const std::shared_ptr<const data::Dataset>& RunContext::raw_data() {
    if (!raw_data_)
        raw_data_ = data::open_dataset({.path = config().data_path, .split = "train", .limit = 0});
    return raw_data_;
}

const std::shared_ptr<const data::Dataset>& RunContext::data() {
    if (!data_ && !draws_latents(config())) data_ = raw_data();
    if (!data_)
        data_ = ranks_.leader_first("latents", [&] { return latent_dataset(*this, raw_data()); });
    return data_;
}

std::string hash_of_files(const std::vector<fs::path>& files) {
    std::string hashes;
    for (const fs::path& file : files) {
        if (fs::is_regular_file(file)) hashes += core::sha256_of_file(file);
    }
    return hashes.size() > sha256_length ? core::sha256(hashes) : hashes;
}

namespace {

std::vector<fs::path> teacher_weight_files(const fs::path& teacher) {
    if (!models::is_diffusers_directory(teacher))
        return {teacher / "config.json", teacher / "model.safetensors"};
    std::vector<fs::path> files;
    for (const models::DiffusersWeights& part :
         {models::DiffusersDirectory(teacher).unet_weights(),
          models::DiffusersDirectory(teacher).text_weights()}) {
        files.insert(files.end(), part.files().begin(), part.files().end());
    }
    return files;
}

/// What a student that starts from a stage's folder reads there.
std::vector<fs::path> student_weight_files(const fs::path& stage) {
    return {stage / "model.safetensors", stage / "fake_score.safetensors",
            stage / "moments.safetensors"};
}

}  // namespace

fs::path RunContext::trunk_folder() const {
    return path_of(last_student_stage(config().of_trunk()), trunk);
}

training::StageIdentity RunContext::identity(StageKind stage, std::optional<std::int64_t> student) {
    training::StageIdentity identity{.settings = loaded_.values_of(stage, student),
                                     .contents = {{"data.path", raw_data()->hash()}},
                                     .defaults = loaded_.defaults,
                                     .former_keys = loaded_.former_keys};
    const auto tie = [&](const std::string& key, const std::vector<fs::path>& files) {
        const std::string hash = hash_of_files(files);
        if (!hash.empty()) identity.contents[key] = hash;
    };
    if (stage == StageKind::teacher) {
        if (config().teacher.path.empty()) identity.extensible_key = "teacher.steps";
        else if (fs::exists(config().teacher.path))
            tie("teacher.path", teacher_weight_files(config().teacher.path));
        return identity;
    }
    const auto needs = conditions::needs_of(config().partition.method);
    if (stage != StageKind::partition || conditions::is_of_teacher(needs)) {
        const auto teacher = training::StageFolder::is_finished(path_of(StageKind::teacher));
        if (teacher) identity.contents["teacher"] = teacher_hash();
    }
    if (stage == StageKind::partition) {
        if (needs == conditions::PartitionNeeds::file)
            tie("partition.file", {config().partition.file});
        return identity;
    }
    if (stage == StageKind::pairs) return identity;
    if (student != trunk) tie("partition", {output_ / "partition.json"});
    if (student != trunk && config().trunk.exists())
        tie("trunk", student_weight_files(trunk_folder()));
    if (!config().students.start.empty())
        tie("students.start", student_weight_files(config().students.start));
    if (stage == StageKind::tsm) return identity;
    if (student != trunk && config().students.budget == Budget::difficulty)
        tie("difficulty", {output_ / "difficulty.json"});
    if (config().dm.uses_pairs() || (stage == StageKind::adm && config().adm.uses_pairs())) {
        tie("pairs.path", {(config().pairs.path.empty() ? path_of(StageKind::pairs)
                                                        : fs::path(config().pairs.path)) /
                           "manifest.json"});
    }
    if (config().uses_lpips()) {
        tie("lpips.backbone", {config().lpips.backbone});
        tie("lpips.linear", {config().lpips.linear});
    }
    if (config().uses_classifier(stage) && raw_data()->has_samples() &&
        raw_data()->spec().kind == data::SampleSpec::Kind::image && !draws_latents(config())) {
        const fs::path classifier = probe_classifier();
        tie("probe.classifier",
            {classifier / "config.json", classifier / "classifier.safetensors"});
        identity.contents.emplace("probe.classifier", "none");
    }
    return identity;
}

const Split& RunContext::split() {
    if (!split_) split_ = ranks_.leader_first("partition", [&] { return make_partition(*this); });
    return *split_;
}

const std::vector<double>& RunContext::shares() {
    if (!shares_) shares_ = ranks_.leader_first("budgets", [&] { return measured_shares(*this); });
    return *shares_;
}

std::string RunContext::probe_classifier() const {
    if (!config().probe.classifier.empty()) return config().probe.classifier;
    const nlohmann::json noted =
        training::StageFolder::note_of(path_of(StageKind::teacher), "probe.classifier");
    return noted.is_string() ? noted.get<std::string>() : config().evaluation.classifier;
}

const models::Model& RunContext::teacher() {
    if (!teacher_) {
        if (!models::is_model_directory(path_of(StageKind::teacher))) {
            core::fail("{}: the run has no teacher yet; make it with: atelier teacher {}",
                       (path_of(StageKind::teacher)).string(), loaded_.path);
        }
        teacher_ = std::make_unique<models::Model>(
            models::read_model(path_of(StageKind::teacher), device_));
    }
    return *teacher_;
}

const std::string& RunContext::teacher_hash() {
    if (teacher_hash_.empty()) teacher_hash_ = backends::hash_of(teacher().parameters);
    return teacher_hash_;
}

models::Model RunContext::frozen_teacher() {
    conditions();  // embeds captions now; later that would read the teacher again, and keep it
    models::Model frozen = teacher();
    teacher_.reset();
    if (const auto type = config().compute().type)
        frozen.parameters = frozen.parameters.cast_weights(*type);
    return frozen;
}

const diffusion::ConditionTable& RunContext::conditions() {
    if (!conditions_ && data()->captions().empty())
        conditions_ = diffusion::ConditionTable::classes(data()->classes());
    if (!conditions_)
        conditions_ = ranks_.leader_first("captions", [&] { return caption_table(*this); });
    return *conditions_;
}

std::unique_ptr<diffusion::Denoiser> RunContext::guided_teacher(const models::Model& teacher) {
    const double guidance = config().teacher.guidance;
    auto plain = std::make_unique<diffusion::EdmDenoiser>(teacher.denoiser(config().compute()));
    if (guidance == 1) return plain;
    const std::int64_t none = -1;
    return std::make_unique<diffusion::GuidedDenoiser>(
        std::move(plain), conditions().of({&none, 1}, device_).labels, guidance);
}

distillation::StageContext RunContext::stage_context(const models::Model& model,
                                                     std::string stream) const {
    return {training_noise(model, config()), config().compute(), seed(), std::move(stream)};
}

training::LoopSettings RunContext::loop_settings(const std::string& label,
                                                 const std::filesystem::path& folder,
                                                 std::span<const std::int64_t> classes,
                                                 const diffusion::ConditionTable& conditions) {
    const auto& dataset = data();
    conditions::Prior prior = data::prior_of(*dataset);
    if (!classes.empty()) prior = conditions::restricted(prior, classes);
    std::vector<std::int64_t> labels;
    for (std::int64_t i = 0; i < config().probe.count; ++i) {
        labels.push_back(conditions::draw_class(prior, seed(), static_cast<std::uint64_t>(i)));
    }
    training::LoopSettings settings;
    settings.label = label;
    settings.folder = folder;
    settings.checkpoint_seconds = config().checkpoint_seconds;
    settings.checkpoints_kept = static_cast<int>(config().checkpoints_kept);
    settings.probe_batch = config().probe.batch;
    settings.log_every = config().log_every;
    settings.probe_every = config().probe.every;
    settings.probe_noise =
        diffusion::image_noise(seed(), 0, config().probe.count, dataset->spec().shape).to(device_);
    settings.probe_condition = conditions.of(labels, device_);
    settings.reduction = config().reduction;
    settings.ranks = &ranks_;
    settings.optimizer_sharding = config().optimizer_sharding;
    if (!ranks_.leads()) return settings;  // rank 0 measures and draws
    settings.distance = distance_to_data(*this, classes);
    if (dataset->spec().kind == data::SampleSpec::Kind::latent) {
        if (!autoencoder_)
            autoencoder_ = std::make_shared<inference::Autoencoder>(
                path_of(StageKind::teacher) / "vae", inference::Engine{.device = device_});
        settings.draw = [autoencoder = autoencoder_](const std::filesystem::path& stem,
                                                     const Tensor& samples) {
            draw_latents(stem, *autoencoder, samples);
        };
        return settings;
    }
    settings.draw = [spec = dataset->spec(), labels](const std::filesystem::path& stem,
                                                     const Tensor& samples) {
        draw_samples(stem, spec, samples, labels);
    };
    return settings;
}

void check_run(RunContext& context) {
    const data::Dataset& data = *context.raw_data();
    const RunConfig& config = context.config();
    const PartitionConfig& partition = config.partition;
    if (data.classes() == 0 && partition.students > 1) {
        throw core::UsageError(
            fmt::format("{}: is unlabelled, so its conditions cannot be split among {} students; "
                        "label it (atelier import makes classes of "
                        "folders), or set partition.students = 1",
                        config.data_path, partition.students));
    }
    if (draws_latents(config)) {
        check_latents(config, data);
    } else if (!data.has_samples()) {
        throw core::UsageError(
            config.data_path +
            ": prompts alone are for a teacher that exists (teacher.path, a diffusers directory)");
    } else if (check_data(data.spec(), class_count(data), config); config.teacher.path.empty()) {
        networks::make_network(core::JsonObject(
            teacher_json(config, data.spec(), label_width(config, data)), context.loaded().path));
    } else {
        check_teacher(models::read_card(config.teacher.path), data.spec(),
                      label_width(config, data), !data.captions().empty(), config);
    }
    if (config.uses_lpips()) {
        if (data.spec().kind != data::SampleSpec::Kind::image)
            throw core::UsageError(
                "regression = \"lpips\" is for images; the data are points, use pseudo_huber");
        lpips_loss(config.lpips, at::kCPU);
    }
    if (!data.captions().empty()) return check_captions(config, data);
    conditions::PartitionRequest request;
    request.students = partition.students;
    request.classes = std::max<std::int64_t>(1, data.classes());
    request.file = partition.file;
    // Some methods need the teacher, but the possible number of students does not.
    if (!conditions::is_of_teacher(conditions::needs_of(partition.method)))
        request.method = partition.method;
    conditions::partition_classes(request);
}

namespace {

/// Throws core::UsageError where a size is given that this network does not read, but others for
/// such samples do.
void check_sizes(const NetworkConfig& config, const graph::Shape& sample) {
    const nlohmann::json values = values_of(config), defaults = values_of({});
    const networks::Architecture& wanted =
        networks::architecture_named(config.architecture, "network.architecture");
    for (const auto& [key, value] : values.items()) {
        if (key == "architecture" || value == defaults.at(key) || wanted.reads(key)) continue;
        for (const auto& [name, other] : networks::known_architectures()) {
            if (!other.fits(sample) || !other.reads(key)) continue;
            throw core::UsageError(
                fmt::format("network.{} = {} is of {}, and {} does not read it; leave it out", key,
                            value.dump(), networks::readers_of(key), config.architecture));
        }
    }
}

/// The network's part of a teacher's config.json.
nlohmann::json network_json(const NetworkConfig& config, const data::SampleSpec& spec,
                            std::int64_t label_width) {
    nlohmann::json json =
        networks::describe(config.architecture, values_of(config), spec.shape, label_width);
    check_sizes(config, spec.shape);
    networks::check_side(json, spec.shape);
    json["data"] = data::to_json(spec);
    return json;
}

/// The noise of the teacher that a run trains; Stable Diffusion's networks, whose weights are not
/// here yet, bring their own.
diffusion::NoiseSchedule teacher_noise(const TeacherConfig& config, const nlohmann::json& network) {
    diffusion::NoiseSchedule noise = trained_noise(config);
    if (network.contains("scheduler")) {
        noise = diffusion::NoiseSchedule::read(core::JsonObject(network, "teacher"));
    } else {
        noise.sigma_min = config.sigma_min;
        noise.sigma_max = config.sigma_max;
    }
    noise.sigma_data = config.sigma_data;
    // A time step goes to the network as a U-Net knows it; the mlp stretches it a hundredfold.
    if (auto* flow = std::get_if<diffusion::FlowNoise>(&noise.kind);
        flow && network.at("architecture") == "mlp")
        flow->timesteps = 10;
    return noise;
}

}  // namespace

nlohmann::json teacher_json(const RunConfig& config, const data::SampleSpec& spec,
                            std::int64_t label_width) {
    nlohmann::json json = network_json(config.network, spec, label_width);
    teacher_noise(config.teacher, json).write(json);
    return json;
}

diffusion::NoiseSchedule training_noise(const models::Model& model, const RunConfig& config) {
    diffusion::NoiseSchedule noise = model.noise;
    if (config.teacher.levels_given) {
        noise.p_mean = config.teacher.p_mean;
        noise.p_std = config.teacher.p_std;
    }
    return noise;
}

}  // namespace atelier::pipeline
