#include "atelier/cli/latent_data.h"

#include <numeric>

#include "atelier/cli/caption_table.h"
#include "atelier/cli/stages.h"
#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/log.h"
#include "atelier/core/progress.h"
#include "atelier/core/signals.h"
#include "atelier/data/latents.h"
#include "atelier/diffusion/ddpm_schedule.h"
#include "atelier/models/latent_model.h"
#include "atelier/models/prompt_encoder.h"
#include "atelier/models/what_is.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t rows_a_shard = 1024, texts_at_once = 64;
constexpr std::int64_t pictures_shown = 8, picture_columns = 4;

void stop_where_asked() {
    if (core::stop_requested()) throw core::Interrupted("stopped; the finished shards are kept, run the same command again to go on");
}

/// Rows first..first+count-1 in pieces of `at_once`, each made by `make(first, count)`, as one.
ops::Parameters in_pieces(std::int64_t first, std::int64_t count, std::int64_t at_once, const std::function<ops::Parameters(std::int64_t, std::int64_t)>& make) {
    std::map<std::string, std::vector<Tensor>> pieces;
    for (std::int64_t done = 0; done < count; done += at_once) {
        stop_where_asked();
        const ops::Parameters piece = make(first + done, std::min(at_once, count - done));
        for (const auto& [name, tensor] : piece.tensors()) pieces[name].push_back(tensor);
    }
    ops::Parameters whole;
    for (const auto& [name, tensors] : pieces) whole.set(name, at::cat(tensors));
    return whole;
}

data::Shards encoded(const Workshop& workshop, const data::Dataset& raw, const fs::path& vae) {
    const fs::path folder = workshop.output() / "latents";
    data::ShardPlan plan{raw.size(), rows_a_shard, {{"data", raw.hash()}}};
    const models::DiffusersWeights weights(vae);
    for (const fs::path& file : weights.files()) plan.origin["autoencoder"] += core::sha256_of_file(file);
    if (!data::shards_are_made(folder, plan)) {
        core::log::info("latents: {} images are encoded into {}", raw.size(), folder.string());
        inference::Autoencoder autoencoder(vae, {.device = workshop.device()});
        core::Progress progress("encoding", raw.size(), "images");
        std::int64_t done = 0;
        const auto one = [&](std::int64_t i, std::int64_t) {
            const auto moments = autoencoder.encode(raw.samples({&i, 1}));
            progress.update(++done);
            const double scaling = autoencoder.network().scaling;
            return ops::Parameters({{"mean", (moments.mean * scaling).to(at::kHalf)}, {"deviation", ((0.5 * moments.logvar).exp() * scaling).to(at::kHalf)}});
        };
        data::write_shards(folder, plan, [&](std::int64_t first, std::int64_t count) { return in_pieces(first, count, 1, one); }, [&](std::int64_t after) { progress.update(done = after); });
    }
    return {folder, plan};
}

}  // namespace

bool draws_latents(const RunConfig& config) {
    const fs::path path = config.teacher.path;
    if (path.empty()) return false;
    if (models::is_diffusers_directory(path)) return true;
    if (!models::is_model_directory(path)) return config.network.architecture == "sd_unet";
    return core::read_json(path / "config.json").value("architecture", "") == "sd_unet";
}

nlohmann::json latent_teacher_json(const RunConfig& config) {
    const fs::path path = config.teacher.path;
    if (models::is_diffusers_directory(path)) {
        const models::DiffusersDirectory teacher(path);
        diffusion::DdpmSchedule::of(core::JsonObject(teacher.scheduler_config(), teacher.scheduler_file().string()));  // what is not supported is refused before anything is written
        return models::model_config_of(teacher);
    }
    if (models::is_model_directory(path)) return core::read_json(path / "config.json");
    models::refuse_as_model(path);
}

models::DataForm latent_form(const RunConfig& config) {
    const nlohmann::json json = latent_teacher_json(config);
    return models::data_form_from_json(core::JsonObject(json, config.teacher.path).object("data"));
}

std::shared_ptr<const data::Dataset> latents_of(const Workshop& workshop, std::shared_ptr<const data::Dataset> raw) {
    const RunConfig& config = workshop.config();
    const models::DataForm form = latent_form(config);
    if (!raw->has_samples()) return std::make_shared<data::Latents>(std::move(raw), form, std::nullopt);
    data::Shards shards = encoded(workshop, *raw, fs::path(config.teacher.path) / "vae");
    return std::make_shared<data::Latents>(std::move(raw), form, std::move(shards));
}

void check_latents(const RunConfig& config, const data::Dataset& data) {
    const models::DataForm form = latent_form(config);
    check_data(form, class_count(data), config);
    if (data.captions().empty()) {
        throw core::UsageError(config.data_path + ": has no captions, and the teacher reads prompts; name prompts:FILE, or a folder of images with a .txt of its caption beside each");
    }
    const std::vector<std::int64_t> wanted = models::read_vae_config(fs::path(config.teacher.path) / "vae").image_shape(form.shape);
    if (data.has_samples() && data.form().shape != wanted) {
        throw core::UsageError(fmt::format("{}: images are {}, the teacher's are {}; bring them to that size first: atelier import {} NEW --size {}", config.data_path,
                                           core::to_string(data.form().shape), core::to_string(wanted), config.data_path, wanted.back()));
    }
    if (config.flips) throw core::UsageError("data.flips is for pixels; a mirrored latent is no latent of the mirrored image");
    if (data.has_samples()) return;
    if (config.adm.steps > 0) throw core::UsageError(config.data_path + ": prompts alone have nothing real for the GAN head to see; set adm.steps = 0, or name captioned images");
    const nlohmann::json teacher = latent_teacher_json(config);
    for (std::int64_t k = 0; k < config.partition.students; ++k) {
        if (needs_tsm(sized(teacher, config.students, k), teacher, config)) {
            throw core::UsageError(config.data_path + ": students of another size begin with teacher score matching on images, and these are prompts alone; name captioned images, or set students.start");
        }
    }
}

Tensor CaptionStates::embeddings(std::int64_t count) const {
    std::vector<std::int64_t> all(static_cast<std::size_t>(count));
    std::iota(all.begin(), all.end(), 0);
    return shards.rows("embedding", all);
}

CaptionStates caption_states(Workshop& workshop) {
    const auto& captions = workshop.data()->captions();
    const fs::path folder = workshop.output() / "texts";
    const models::PromptEncoder here = models::read_prompt_encoder(workshop.output() / "teacher");
    const data::ShardPlan plan{static_cast<std::int64_t>(captions.size()), rows_a_shard, {{"data", workshop.data()->hash()}, {"text_encoder", ops::hash_of(here.parameters)}}};
    const models::PromptEncoder encoder{here.tower, here.parameters.to(workshop.device()), here.tokenizer};
    if (!data::shards_are_made(folder, plan)) {
        core::log::info("texts: {} captions are read once, into {}", captions.size(), folder.string());
        core::Progress progress("reading captions", plan.count, "captions");
        std::int64_t done = 0;
        const auto some = [&](std::int64_t first, std::int64_t count) {
            const auto reading = encoder.read(std::span(captions).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)));
            progress.update(done += count);
            return ops::Parameters({{"states", reading.states.to(at::kCPU, at::kHalf)}, {"embedding", reading.embeddings.to(at::kCPU)}});
        };
        data::write_shards(folder, plan, [&](std::int64_t first, std::int64_t count) { return in_pieces(first, count, texts_at_once, some); },
                           [&](std::int64_t after) { progress.update(done = after); });
    }
    const std::string empty;
    const auto none = encoder.read({&empty, 1});
    return {{folder, plan}, none.states[0].to(at::kCPU), none.embeddings[0].to(at::kCPU)};
}

void draw_latents(const fs::path& stem, inference::Autoencoder& autoencoder, const Tensor& samples) {
    const Tensor shown = autoencoder.pictures(samples.narrow(0, 0, std::min(pictures_shown, samples.size(0))));
    core::write_png(stem.string() + ".png", core::grid(models::images_of(shown), picture_columns));
}

}  // namespace atelier::cli
