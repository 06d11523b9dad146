#include "atelier/cli/workshop.h"

#include "atelier/cli/caption_table.h"
#include "atelier/cli/latent_data.h"
#include "atelier/cli/perception.h"
#include "atelier/cli/yardstick.h"
#include "atelier/core/error.h"
#include "atelier/diffusion/guidance.h"
#include "atelier/inference/engine.h"

namespace atelier::cli {

void check_data(const models::DataForm& form, std::int64_t classes, const RunConfig& config) {
    const auto words = [](std::int64_t count) { return count == 0 ? "no labels" : fmt::format("{} classes", count); };
    if (config.data_classes >= 0 && classes != config.data_classes) {
        throw core::UsageError(fmt::format("{}: has {}, but data.classes asks for {}; name other data, or set data.classes = {}", config.data_path,
                                           words(classes), words(config.data_classes), classes));
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

const std::shared_ptr<const data::Dataset>& Workshop::data() {
    if (!data_) {
        const auto opened = data::open_dataset({.path = config().data_path, .split = "train", .limit = 0});
        if (draws_latents(config())) {
            data_ = latents_of(*this, opened);
            return data_;
        }
        if (!opened->has_samples()) throw core::UsageError(config().data_path + ": prompts alone are for a teacher that exists (teacher.path, a diffusers directory)");
        check_data(opened->form(), class_count(*opened), config());
        data_ = opened;
    }
    return data_;
}

training::StageFolder Workshop::stage(const std::string& folder, const std::vector<std::string>& keys) const {
    nlohmann::json settings = training::selected(loaded_.result_values, keys);
    // A key that is younger than runs that may be gone on with is left out where it says nothing.
    for (const char* matching : {"dm", "adm"}) {
        if (settings.contains(matching) && settings.at(matching).value("critic_warmup", -1) == -1) settings.at(matching).erase("critic_warmup");
    }
    return {output_ / folder, std::move(settings)};
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
    const data::Dataset& data = *workshop.data();
    const RunConfig& config = workshop.config();
    const PartitionConfig& partition = config.partition;
    if (data.classes() == 0 && partition.students > 1) {
        throw core::UsageError(fmt::format("{}: is unlabelled, so its conditions cannot be shared by {} students; label it (atelier import makes classes of "
                                           "folders), or set partition.students = 1", config.data_path, partition.students));
    }
    if (draws_latents(config)) {
        check_latents(config, data);
    } else if (config.teacher.path.empty()) {
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
