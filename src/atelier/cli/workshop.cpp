#include "atelier/cli/workshop.h"

#include <fmt/ranges.h>

#include "atelier/cli/caption_table.h"
#include "atelier/cli/latent_data.h"
#include "atelier/cli/perception.h"
#include "atelier/cli/yardstick.h"
#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/diffusion/guidance.h"
#include "atelier/inference/engine.h"
#include "atelier/models/diffusers_directory.h"

namespace atelier::cli {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t sha256_length = 64;

}  // namespace

void check_data(const models::DataForm& form, std::int64_t classes, const RunConfig& config) {
    const auto words = [](std::int64_t count) { return count == 0 ? "no labels" : fmt::format("{} classes", count); };
    if (config.data_classes >= 0 && classes != config.data_classes) {
        throw core::UsageError(fmt::format("{}: has {}, but data.classes asks for {}; name other data, or set data.classes = {}", config.data_path,
                                           words(classes), words(config.data_classes), classes));
    }
    if (!config.data_shape.empty() && form.shape != config.data_shape && form.kind == models::DataForm::Kind::latent) {
        throw core::UsageError(fmt::format("{}: the teacher's latents are {}, but data.shape asks for {}; set data.shape = {}, or leave it out", config.teacher.path,
                                           core::to_string(form.shape), core::to_string(config.data_shape), core::to_string(form.shape)));
    }
    if (!config.data_shape.empty() && form.shape != config.data_shape) {
        throw core::UsageError(fmt::format("{}: samples are {}, but data.shape asks for {}; make them so with: atelier import {} NEW.zip --size {}", config.data_path,
                                           core::to_string(form.shape), core::to_string(config.data_shape), config.data_path, config.data_shape.back()));
    }
}

void check_teacher(const models::Model& teacher, const models::DataForm& form, std::int64_t label_width, bool captions,
                   const RunConfig& config) {
    const auto labelled = [](std::int64_t width, bool text) {
        if (text) return fmt::format("with captions embedded in {} values", width);
        return width == 0 ? "unlabelled" : fmt::format("in {} classes", width);
    };
    const bool reads = teacher.config.value("condition", "") == "text";
    if (teacher.form.shape == form.shape && teacher.network.classes == label_width && reads == captions) return;
    throw core::UsageError(fmt::format("{}: this teacher is for samples of {} {}; those of {} are {} {}. Name data like those that it was trained on (data.path), "
                                       "or another teacher", config.teacher.path, core::to_string(teacher.form.shape), labelled(teacher.network.classes, reads),
                                       config.data_path, core::to_string(form.shape), labelled(label_width, captions)));
}

Workshop::Workshop(LoadedConfig loaded) : loaded_(std::move(loaded)), output_(config().output), device_(inference::device_of(config().device)) {}

const std::shared_ptr<const data::Dataset>& Workshop::raw_data() {
    if (!raw_data_) raw_data_ = data::open_dataset({.path = config().data_path, .split = "train", .limit = 0});
    return raw_data_;
}

const std::shared_ptr<const data::Dataset>& Workshop::data() {
    if (!data_) data_ = draws_latents(config()) ? latents_of(*this, raw_data()) : raw_data();
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

std::vector<fs::path> weights_of_teacher(const fs::path& teacher) {
    if (!models::is_diffusers_directory(teacher)) return {teacher / "config.json", teacher / "model.safetensors"};
    std::vector<fs::path> files;
    for (const models::DiffusersWeights& part : {models::DiffusersDirectory(teacher).unet_weights(), models::DiffusersDirectory(teacher).text_weights()}) {
        files.insert(files.end(), part.files().begin(), part.files().end());
    }
    return files;
}

}  // namespace

training::StageIdentity Workshop::identity(const std::string& stage) {
    training::StageIdentity identity{.settings = loaded_.values_of(stage), .contents = {{"data.path", raw_data()->hash()}}, .defaults = loaded_.defaults};
    const auto tie = [&](const std::string& key, const std::vector<fs::path>& files) {
        const std::string hash = hash_of_files(files);
        if (!hash.empty()) identity.contents[key] = hash;
    };
    if (stage == "teacher") {
        if (config().teacher.path.empty()) identity.growing = "teacher.steps";
        else if (fs::exists(config().teacher.path)) tie("teacher.path", weights_of_teacher(config().teacher.path));
        return identity;
    }
    const std::string& method = config().partition.method;
    const bool by_teacher = method == "kmeans" || method == "balanced";  // captions know no other ones
    if (stage != "partition" || by_teacher) {
        const auto teacher = training::StageFolder::is_finished(output_ / "teacher");
        if (teacher) identity.contents["teacher"] = teacher_hash();
    }
    if (stage == "partition") {
        if (method == "file") tie("partition.file", {config().partition.file});
        return identity;
    }
    if (stage == "pairs") return identity;
    tie("partition", {output_ / "partition.json"});
    if (!config().students.start.empty()) {
        const fs::path start = config().students.start;
        tie("students.start", {start / "model.safetensors", start / "fake_score.safetensors"});
    }
    if (stage == "tsm") return identity;
    if (config().dm.regression != "none" || (stage == "adm" && config().adm.regression != "none")) {
        tie("pairs.path", {(config().pairs.path.empty() ? output_ / "pairs" : fs::path(config().pairs.path)) / "manifest.json"});
    }
    if (config().uses_lpips()) {
        tie("lpips.backbone", {config().lpips.backbone});
        tie("lpips.linear", {config().lpips.linear});
    }
    if (config().uses_classifier(stage) && raw_data()->has_samples() && raw_data()->form().kind == models::DataForm::Kind::image && !draws_latents(config())) {
        const fs::path classifier = probe_classifier();
        tie("probe.classifier", {classifier / "config.json", classifier / "classifier.safetensors"});
        identity.contents.emplace("probe.classifier", "none");
    }
    return identity;
}

std::string Workshop::probe_classifier() const {
    if (!config().probe.classifier.empty()) return config().probe.classifier;
    const nlohmann::json noted = training::StageFolder::note_of(output_ / "teacher", "probe.classifier");
    return noted.is_string() ? noted.get<std::string>() : config().evaluation.classifier;
}

const models::Model& Workshop::teacher() {
    if (!teacher_) {
        if (!models::is_model_directory(output_ / "teacher")) {
            core::fail("{}: the run has no teacher yet; make it with: atelier teacher {}", (output_ / "teacher").string(), loaded_.path);
        }
        teacher_ = std::make_unique<models::Model>(models::read_model(output_ / "teacher", device_));
    }
    return *teacher_;
}

const std::string& Workshop::teacher_hash() {
    if (teacher_hash_.empty()) teacher_hash_ = ops::hash_of(teacher().parameters);
    return teacher_hash_;
}

models::Model Workshop::frozen_teacher() {
    conditions();  // captions are embedded by the teacher's hash: later it would be read once more, and stay
    models::Model frozen = teacher();
    teacher_.reset();
    if (const auto type = config().compute().type) frozen.parameters = frozen.parameters.with_matrices_as(*type);
    return frozen;
}

const diffusion::ConditionTable& Workshop::conditions() {
    if (!conditions_) conditions_ = data()->captions().empty() ? diffusion::ConditionTable::classes(data()->classes()) : caption_table(*this);
    return *conditions_;
}

std::unique_ptr<diffusion::Denoiser> Workshop::asked(const models::Model& teacher) {
    const double guidance = config().teacher.guidance;
    auto plain = std::make_unique<diffusion::EdmDenoiser>(teacher.denoiser(config().compute()));
    if (guidance == 1) return plain;
    const std::int64_t none = -1;
    return std::make_unique<diffusion::GuidedDenoiser>(std::move(plain), conditions().of({&none, 1}, device_).labels, guidance);
}

training::LoopSettings Workshop::loop_settings(const std::string& label, const std::filesystem::path& folder, std::span<const std::int64_t> classes,
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
    settings.probe_noise = diffusion::image_noise(seed(), 0, config().probe.count, dataset->form().shape).to(device_);
    settings.probe_condition = conditions.of(labels, device_);
    settings.distance = distance_to_data(*this, classes);
    if (dataset->form().kind == models::DataForm::Kind::latent) {
        if (!autoencoder_) autoencoder_ = std::make_shared<inference::Autoencoder>(output_ / "teacher" / "vae", inference::Engine{.device = device_});
        settings.draw = [autoencoder = autoencoder_](const std::filesystem::path& stem, const Tensor& samples) { draw_latents(stem, *autoencoder, samples); };
        return settings;
    }
    settings.draw = [form = dataset->form(), labels](const std::filesystem::path& stem, const Tensor& samples) {
        draw_samples(stem, form, samples, labels);
    };
    return settings;
}

void check_plan(Workshop& workshop) {
    const data::Dataset& data = *workshop.raw_data();
    const RunConfig& config = workshop.config();
    const PartitionConfig& partition = config.partition;
    if (data.classes() == 0 && partition.students > 1) {
        throw core::UsageError(fmt::format("{}: is unlabelled, so its conditions cannot be shared by {} students; label it (atelier import makes classes of "
                                           "folders), or set partition.students = 1", config.data_path, partition.students));
    }
    if (draws_latents(config)) {
        check_latents(config, data);
    } else if (!data.has_samples()) {
        throw core::UsageError(config.data_path + ": prompts alone are for a teacher that exists (teacher.path, a diffusers directory)");
    } else if (check_data(data.form(), class_count(data), config); config.teacher.path.empty()) {
        networks::make_network(core::JsonObject(network_json(config.network, data.form(), label_width(config, data)), workshop.loaded().path));
    } else {
        check_teacher(models::read_model_config(config.teacher.path), data.form(), label_width(config, data), !data.captions().empty(), config);
    }
    if (config.uses_lpips()) {
        if (data.form().kind != models::DataForm::Kind::image) throw core::UsageError("regression = \"lpips\" is for images; the data are points, use pseudo_huber");
        lpips_loss(config.lpips, at::kCPU);
    }
    if (!data.captions().empty()) return check_captions(config, data);
    conditions::PartitionRequest request;
    request.students = partition.students;
    request.classes = std::max<std::int64_t>(1, data.classes());
    request.file = partition.file;
    // The other methods need the teacher; how many students there can be is known without it.
    if (partition.method == "file") request.method = "file";
    conditions::make_partition(request);
}

namespace {

/// Levels halve the patches' grid, so that its side must be a multiple of what they make of it.
void check_patches(const NetworkConfig& config, std::int64_t side) {
    const std::int64_t halvings = std::int64_t{1} << (config.channel_mult.size() - 1), unit = config.patch_size * halvings;
    if (side % unit == 0) return;
    constexpr std::int64_t largest_patch = 16;
    std::vector<std::int64_t> patches;
    for (std::int64_t p = 1; p <= largest_patch; ++p) {
        if (side % (p * halvings) == 0) patches.push_back(p);
    }
    const std::string sizes = side > unit ? fmt::format("{} or {}", side / unit * unit, (side / unit + 1) * unit) : std::to_string(unit);
    const std::string others = patches.empty() ? "fewer levels (network.channel_mult)" : fmt::format("network.patch_size = {}", fmt::join(patches, ", "));
    throw core::UsageError(fmt::format("images of {0}x{0} (data.shape) do not fit network.patch_size = {1} with {2} levels (network.channel_mult): the side must be a multiple of {3}. For {0} pixels take {4}; "
                                       "or import the pictures at {5} pixels", side, config.patch_size, config.channel_mult.size(), unit, others, sizes));
}

/// Stable Diffusion 1's, with these sizes: all levels but the lowest attend, in 8 heads, to `classes` numbers a token.
nlohmann::json sd_unet_json(const NetworkConfig& config, const models::DataForm& form, std::int64_t classes) {
    std::vector<std::int64_t> channels;
    for (const std::int64_t factor : config.channel_mult) channels.push_back(factor * config.model_channels);
    std::vector<std::string> down(channels.size(), "CrossAttnDownBlock2D"), up(channels.size(), "CrossAttnUpBlock2D");
    down.back() = "DownBlock2D", up.front() = "UpBlock2D";
    return {{"architecture", "sd_unet"}, {"data", models::to_json(form)}, {"condition", "text"}, {"preconditioning", "ddpm"},
            {"scheduler", {{"beta_schedule", "scaled_linear"}, {"beta_start", 0.00085}, {"beta_end", 0.012}}},
            {"unet", {{"_class_name", "UNet2DConditionModel"}, {"sample_size", form.shape.at(1)}, {"in_channels", form.shape.at(0)}, {"out_channels", form.shape.at(0)},
                      {"block_out_channels", channels}, {"layers_per_block", config.num_blocks}, {"attention_head_dim", 8}, {"cross_attention_dim", classes},
                      {"down_block_types", down}, {"up_block_types", up}}}};
}

}  // namespace

nlohmann::json network_json(const NetworkConfig& config, const models::DataForm& form, std::int64_t classes) {
    nlohmann::json json{{"architecture", config.architecture}, {"classes", classes}, {"data", models::to_json(form)}};
    if (config.architecture == "mlp") {
        if (form.shape.size() != 1) throw core::UsageError("network.architecture = \"mlp\" is for points; the data are images, use adm_unet");
        json.update({{"dimensions", form.shape[0]}, {"hidden", config.hidden}, {"blocks", config.blocks}});
        return json;
    }
    if (config.architecture == "sd_unet") return sd_unet_json(config, form, classes);
    if (form.shape.size() != 3) {
        throw core::UsageError(fmt::format("network.architecture = \"{}\" is for images; the data are points, use mlp", config.architecture));
    }
    if (config.architecture == "adm_unet") check_patches(config, form.shape[1]);
    json.update({{"resolution", form.shape[1]},
                 {"channels", form.shape[0]},
                 {"model_channels", config.model_channels},
                 {"channel_mult", config.channel_mult},
                 {"num_blocks", config.num_blocks},
                 {"attention_resolutions", config.attention_resolutions},
                 {"channel_mult_emb", config.channel_mult_emb},
                 {"patch_size", config.patch_size}});
    return json;
}

}  // namespace atelier::cli
