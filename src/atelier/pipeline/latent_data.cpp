#include "atelier/pipeline/latent_data.h"

#include <numeric>

#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/log.h"
#include "atelier/core/progress.h"
#include "atelier/core/signals.h"
#include "atelier/data/latents.h"
#include "atelier/diffusion/ddpm_schedule.h"
#include "atelier/inference/images_together.h"
#include "atelier/models/identify_path.h"
#include "atelier/models/latent_model.h"
#include "atelier/models/prompt_encoder.h"
#include "atelier/pipeline/caption_table.h"
#include "atelier/pipeline/make_stages.h"

namespace atelier::pipeline {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t rows_per_shard = 1024, text_batch_size = 64;
constexpr std::int64_t shown_latents = 8, latent_columns = 4;

void throw_if_stopped() {
    if (core::stop_requested())
        throw core::Interrupted(
            "stopped; the finished shards are kept, run the same command again to go on");
}

/// Concatenates rows first..first+count-1, made in batches of up to `batch_size` by
/// `make(first, count)`.
backends::Parameters in_batches(
    std::int64_t first, std::int64_t count, std::int64_t batch_size,
    const std::function<backends::Parameters(std::int64_t, std::int64_t)>& make) {
    std::map<std::string, std::vector<Tensor>> batches;
    for (std::int64_t done = 0; done < count; done += batch_size) {
        throw_if_stopped();
        const backends::Parameters batch = make(first + done, std::min(batch_size, count - done));
        for (const auto& [name, tensor] : batch.tensors()) batches[name].push_back(tensor);
    }
    backends::Parameters whole;
    for (const auto& [name, tensors] : batches) whole.set(name, at::cat(tensors));
    return whole;
}

/// A folder of shards that is complete once all processes have encoded theirs.
struct EncodedFolder {
    fs::path path;
    data::ShardSpec spec;
};

EncodedFolder latents_folder(const RunContext& context, const data::Dataset& raw) {
    EncodedFolder folder{context.output() / "latents",
                         {raw.size(), rows_per_shard, {{"data", raw.hash()}}}};
    const models::DiffusersWeights weights(fs::path(context.config().teacher.path) / "vae");
    for (const fs::path& file : weights.files())
        folder.spec.origin["autoencoder"] += core::sha256_of_file(file);
    return folder;
}

/// Encodes the images of the shards that are `mine`; whether all shards are there.
bool encode_latents(const RunContext& context, const data::Dataset& raw,
                    const EncodedFolder& folder, const core::Shard& mine) {
    if (data::shards_complete(folder.path, folder.spec)) return true;
    core::log::info("latents: encoding {} images into {}", raw.size(), folder.path.string());
    inference::Autoencoder autoencoder(fs::path(context.config().teacher.path) / "vae",
                                       {.device = context.device()});
    const std::vector<std::int64_t>& image = raw.spec().shape;
    const std::int64_t together =
        inference::images_together(context.device(), image.at(1), image.at(2));
    core::Progress progress("encoding", folder.spec.rows_of(mine), "images");
    std::int64_t done = 0;
    const auto encode_images = [&](std::int64_t first, std::int64_t count) {
        std::vector<std::int64_t> indices(static_cast<std::size_t>(count));
        std::iota(indices.begin(), indices.end(), first);
        const auto moments = autoencoder.encode(raw.samples(indices));
        progress.update(done += count);
        const double scaling = autoencoder.network().scaling;
        return backends::Parameters(
            {{"mean", (moments.mean * scaling).to(at::kHalf)},
             {"deviation", ((0.5 * moments.logvar).exp() * scaling).to(at::kHalf)}});
    };
    return data::write_shards(
        folder.path, folder.spec,
        [&](std::int64_t first, std::int64_t count) {
            return in_batches(first, count, together, encode_images);
        },
        [&](std::int64_t after) { progress.update(done = after); }, mine);
}

/// The text tower of the run's teacher, and the folder of what it makes of the run's captions.
struct CaptionEncoding {
    models::PromptEncoder encoder;
    EncodedFolder folder;
};

CaptionEncoding caption_encoding(RunContext& context) {
    const data::Dataset& raw = *context.raw_data();
    const models::PromptEncoder here = models::read_prompt_encoder(context.output() / "teacher");
    return {{here.tower, here.parameters.to(context.device()), here.tokenizer},
            {context.output() / "texts",
             {static_cast<std::int64_t>(raw.captions().size()),
              rows_per_shard,
              {{"data", raw.hash()}, {"text_encoder", backends::hash_of(here.parameters)}}}}};
}

/// Encodes the captions of the shards that are `mine`; whether all shards are there.
bool encode_captions(std::span<const std::string> captions, const CaptionEncoding& encoding,
                     const core::Shard& mine) {
    const EncodedFolder& folder = encoding.folder;
    if (data::shards_complete(folder.path, folder.spec)) return true;
    core::log::info("texts: encoding {} captions into {}", captions.size(), folder.path.string());
    core::Progress progress("encoding captions", folder.spec.rows_of(mine), "captions");
    std::int64_t done = 0;
    const auto encode = [&](std::int64_t first, std::int64_t count) {
        const auto encoded_prompts = encoding.encoder.encode(
            captions.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)));
        progress.update(done += count);
        return backends::Parameters({{"states", encoded_prompts.states.to(at::kCPU, at::kHalf)},
                                     {"embedding", encoded_prompts.embeddings.to(at::kCPU)}});
    };
    return data::write_shards(
        folder.path, folder.spec,
        [&](std::int64_t first, std::int64_t count) {
            return in_batches(first, count, text_batch_size, encode);
        },
        [&](std::int64_t after) { progress.update(done = after); }, mine);
}

}  // namespace

bool draws_latents(const RunConfig& config) {
    const fs::path path = config.teacher.path;
    if (path.empty()) return false;
    if (models::is_diffusers_directory(path)) return true;
    if (!models::is_model_directory(path)) return config.network.architecture == "sd_unet";
    return core::read_json(path / "config.json").value("architecture", "") == "sd_unet";
}

models::ModelCard latent_teacher_card(const RunConfig& config) {
    const fs::path path = config.teacher.path;
    if (models::is_diffusers_directory(path))
        return models::card_of(models::DiffusersDirectory(path));
    if (models::is_model_directory(path)) return models::read_card(path);
    models::reject_as_model(path);
}

data::SampleSpec latent_spec(const RunConfig& config) { return latent_teacher_card(config).spec; }

std::shared_ptr<const data::Dataset> latent_dataset(const RunContext& context,
                                                    std::shared_ptr<const data::Dataset> raw) {
    const RunConfig& config = context.config();
    const data::SampleSpec spec = latent_spec(config);
    if (!raw->has_samples())
        return std::make_shared<data::Latents>(std::move(raw), spec, std::nullopt);
    const EncodedFolder folder = latents_folder(context, *raw);
    encode_latents(context, *raw, folder, {});
    return std::make_shared<data::Latents>(std::move(raw), spec,
                                           data::Shards(folder.path, folder.spec));
}

void check_latents(const RunConfig& config, const data::Dataset& data) {
    const data::SampleSpec spec = latent_spec(config);
    check_data(spec, class_count(data), config);
    if (data.captions().empty()) {
        throw core::UsageError(
            config.data_path +
            ": has no captions, and the teacher reads prompts; name prompts:FILE, or a folder of "
            "images with a .txt of its caption beside each");
    }
    const std::vector<std::int64_t> expected_shape =
        models::read_vae_config(fs::path(config.teacher.path) / "vae").image_shape(spec.shape);
    if (data.has_samples() && data.spec().shape != expected_shape) {
        throw core::UsageError(
            fmt::format("{}: images are {}, the teacher's are {}; bring them to that size first: "
                        "atelier import {} NEW --size {}",
                        config.data_path, core::to_string(data.spec().shape),
                        core::to_string(expected_shape), config.data_path, expected_shape.back()));
    }
    if (config.flips)
        throw core::UsageError(
            "data.flips is for pixels; a mirrored latent is no latent of the mirrored image");
    if (data.has_samples()) return;
    if (config.adm.steps > 0)
        throw core::UsageError(config.data_path +
                               ": prompts alone have nothing real for the GAN head to see; set "
                               "adm.steps = 0, or name captioned images");
    const nlohmann::json teacher = latent_teacher_card(config).config;
    for (std::int64_t k = 0; k < config.partition.students; ++k) {
        if (needs_tsm(student_config(teacher, config.students, k), teacher, config)) {
            throw core::UsageError(
                config.data_path +
                ": students of another size begin with teacher score matching on images, and these "
                "are prompts alone; name captioned images, or set students.start");
        }
    }
}

Tensor CaptionStates::embeddings(std::int64_t count) const {
    std::vector<std::int64_t> all(static_cast<std::size_t>(count));
    std::iota(all.begin(), all.end(), 0);
    return shards.rows("embedding", all);
}

CaptionStates caption_states(RunContext& context) {
    const CaptionEncoding encoding = caption_encoding(context);
    encode_captions(context.raw_data()->captions(), encoding, {});
    const std::string empty;
    const auto none = encoding.encoder.encode({&empty, 1});
    return {{encoding.folder.path, encoding.folder.spec},
            none.states[0].to(at::kCPU),
            none.embeddings[0].to(at::kCPU)};
}

void encode_data(RunContext& context) {
    const RunConfig& config = context.config();
    if (!draws_latents(config))
        throw core::UsageError(
            context.loaded().path +
            ": only teachers of latents read encoded images and captions; there is nothing to "
            "encode here");
    if (!training::StageFolder::is_finished(context.path_of(StageKind::teacher)))
        throw core::UsageError(
            fmt::format("{}: has no finished teacher yet, whose text tower encodes the captions; "
                        "run atelier teacher first",
                        context.output().string()));
    const data::Dataset& raw = *context.raw_data();
    const core::Shard& mine = context.shard();
    bool all = true;
    if (raw.has_samples()) all = encode_latents(context, raw, latents_folder(context, raw), mine);
    all = encode_captions(raw.captions(), caption_encoding(context), mine) && all;
    if (!all)
        core::log::info("encoding: shard {} is done, others of the {} are not", mine.name(),
                        mine.count);
}

void draw_latents(const fs::path& stem, inference::Autoencoder& autoencoder,
                  const Tensor& samples) {
    const Tensor shown = autoencoder.decode_to_pixels(
        samples.narrow(0, 0, std::min(shown_latents, samples.size(0))));
    core::write_png(stem.string() + ".png", core::grid(data::images_of(shown), latent_columns));
}

}  // namespace atelier::pipeline
