#include <CLI/CLI.hpp>

#include <fstream>
#include <numeric>

#include "atelier/cli/commands.h"
#include "atelier/cli/engine_options.h"
#include "atelier/cli/usage.h"
#include "atelier/conditions/prompt_hints.h"
#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/log.h"
#include "atelier/core/mapped_file.h"
#include "atelier/core/progress.h"
#include "atelier/core/signals.h"
#include "atelier/data/prompt_file.h"
#include "atelier/data/shards.h"
#include "atelier/inference/diffusers_model.h"
#include "atelier/models/identify_path.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

struct EmbedArguments {
    std::string model, prompts, out, shard;
    EngineOptions engine;
};

// Prompts that go through the encoder together. Every way of dividing the work keeps these batches,
// so that all of them give the same bytes.
constexpr std::int64_t prompts_per_batch = 64;
constexpr std::int64_t prompts_per_file = 4 * prompts_per_batch;  // of a shard

/// Embeddings written so far: raw float32 rows on disk with a JSON description beside them, so that
/// an interrupted run can be resumed.
class PartialEmbeddings {
public:
    PartialEmbeddings(const std::string& out, std::int64_t width, const nlohmann::json& of)
        : rows_(out + ".unfinished"),
          description_(out + ".unfinished.json"),
          row_bytes_(width * 4) {
        const bool resumable =
            fs::exists(rows_) && fs::exists(description_) && core::read_json(description_) == of;
        if (!resumable) {
            fs::remove(rows_);
            core::write_json(description_, of);
            std::ofstream(rows_, std::ios::binary);
        }
        const auto rows = static_cast<std::int64_t>(fs::file_size(rows_)) / row_bytes_;
        rows_done_ = rows / prompts_per_batch * prompts_per_batch;
        fs::resize_file(rows_, static_cast<std::uintmax_t>(rows_done_ * row_bytes_));
        file_.open(rows_, std::ios::binary | std::ios::app);
    }

    std::int64_t done() const { return rows_done_; }

    void add(const Tensor& rows) {
        const Tensor values = rows.to(at::kFloat).contiguous();
        file_.write(static_cast<const char*>(values.const_data_ptr()),
                    static_cast<std::streamsize>(values.nbytes()));
        file_.flush();
        if (!file_) core::fail("{}: cannot be written; is the disk full?", rows_);
        rows_done_ += rows.size(0);
    }

    void finish(const std::string& out, std::int64_t width,
                const std::map<std::string, std::string>& metadata) {
        file_.close();
        {
            const core::MappedFile all(rows_);
            core::write_safetensors(
                out, {{"embeddings", core::DType::F32, {rows_done_, width}, all.bytes()}},
                metadata);
        }
        fs::remove(rows_);
        fs::remove(description_);
    }

private:
    std::string rows_, description_;
    std::int64_t row_bytes_, rows_done_ = 0;
    std::ofstream file_;
};

/// The prompts of a file, in batches.
class Prompts {
public:
    Prompts(std::string path, inference::DiffusersModel& model)
        : path_(std::move(path)), file_(path_), model_(model), long_prompts_(model.tokenizer()) {}

    /// Goes on to line `line` (from 0), which must not have been read yet.
    void skip_to(std::int64_t line) {
        std::string prompt;
        while (file_.line() < line && file_.next(prompt)) continue;
    }

    /// The embeddings [n,width] of the next n prompts; fewer at the end of the file.
    Tensor embed(std::int64_t n) {
        std::vector<Tensor> ids;
        std::string prompt;
        while (static_cast<std::int64_t>(ids.size()) < n && file_.next(prompt)) {
            try {
                ids.push_back(model_.tokens({&prompt, 1}));
                long_prompts_.add(prompt);
            } catch (const core::Error& error) {
                core::fail("{}: line {}: {}", path_, file_.line(), error.what());
            }
        }
        return model_.read(at::cat(ids)).pooled;
    }

    void warn_of_long_ones() const { long_prompts_.warn(path_, "lines"); }

private:
    std::string path_;
    data::PromptFile file_;
    inference::DiffusersModel& model_;
    conditions::LongPrompts long_prompts_;
};

void throw_if_interrupted(std::int64_t done, std::int64_t total) {
    if (core::stop_requested())
        throw core::Interrupted(
            fmt::format("interrupted after {} of {} prompts; run the same command again to go on",
                        done, total));
}

/// What the embeddings follow from.
using Origin = std::map<std::string, std::string>;

void embed_all(const std::string& out, Prompts& prompts, std::int64_t total, std::int64_t width,
               const Origin& origin) {
    PartialEmbeddings rows(
        out, width,
        {{"encoder", origin.at("encoder")}, {"prompts", origin.at("prompts")}, {"width", width}});
    prompts.skip_to(rows.done());
    if (rows.done() > 0) core::log::info("resuming after {} of {} prompts", rows.done(), total);
    core::Progress progress("embedding", total, "prompts", rows.done());
    while (rows.done() < total) {
        throw_if_interrupted(rows.done(), total);
        rows.add(prompts.embed(prompts_per_batch));
        progress.update(rows.done());
    }
    rows.finish(out, width, origin);
}

/// Writes all rows of the finished files of `folder` to `out`.
void join(const std::string& out, const fs::path& folder, const data::ShardSpec& spec,
          std::int64_t width) {
    const data::Shards shards(folder, spec);
    const fs::path rows = folder / "rows.float32";
    core::AtomicFile together(rows);
    for (std::int64_t first = 0; first < spec.count; first += prompts_per_file) {
        std::vector<std::int64_t> lines(
            static_cast<std::size_t>(std::min(prompts_per_file, spec.count - first)));
        std::iota(lines.begin(), lines.end(), first);
        const Tensor some = shards.rows("embeddings", lines).contiguous();
        together.write(
            std::span(static_cast<const std::byte*>(some.const_data_ptr()), some.nbytes()));
    }
    together.commit();
    const core::MappedFile all(rows);
    core::write_safetensors(
        out, {{"embeddings", core::DType::F32, {spec.count, width}, all.bytes()}}, spec.origin);
}

/// Embeds the shard's files of prompts in a folder beside `out`, which the shard that finds all of
/// them there writes.
void embed_shard(const std::string& out, Prompts& prompts, std::int64_t total, std::int64_t width,
                 const Origin& origin, const core::Shard& shard) {
    if (fs::exists(out) && core::SafetensorsFile(out).metadata() == origin) {
        core::log::info("{}: all shards are done", out);
        return;
    }
    const fs::path folder = out + ".parts";
    const data::ShardSpec spec{total, prompts_per_file, origin};
    const std::int64_t own = spec.rows_of(shard);
    core::Progress progress("embedding", own, "prompts");
    std::int64_t done = 0;
    const bool all = data::write_shards(
        folder, spec,
        [&](std::int64_t first, std::int64_t count) {
            prompts.skip_to(first);
            std::vector<Tensor> batches;
            for (std::int64_t i = 0; i < count; i += prompts_per_batch) {
                throw_if_interrupted(done, own);
                batches.push_back(prompts.embed(std::min(prompts_per_batch, count - i)));
            }
            return backends::Parameters({{"embeddings", at::cat(batches).to(at::kFloat)}});
        },
        [&](std::int64_t after) { progress.update(done = after); }, shard);
    if (!all) {
        core::log::info("shard {} is done; the shard that finds all of them done writes {}",
                        shard.name(), out);
        return;
    }
    try {
        join(out, folder, spec, width);
    } catch (const core::Error&) {
        // Another shard may have found the same, written the same file and removed the folder.
        if (!fs::exists(out) || core::SafetensorsFile(out).metadata() != origin) throw;
    }
    std::error_code ignored;
    fs::remove_all(folder, ignored);
}

void embed(const EmbedArguments& arguments) {
    if (!arguments.out.ends_with(".safetensors"))
        throw core::UsageError("--out: " + arguments.out + " must end in .safetensors");
    std::optional<core::Shard> shard;
    if (!arguments.shard.empty()) shard = core::shard_of(arguments.shard);
    core::check_output_file(arguments.out);
    if (!models::is_diffusers_directory(arguments.model)) {
        models::model_at(arguments.model);  // says what else it is
        throw core::UsageError(
            arguments.model +
            ": is not a diffusers directory; prompts are embedded with one of Stable Diffusion");
    }
    inference::DiffusersModel model(arguments.model, arguments.engine.chosen());
    if (!model.directory().reads_prompts())
        throw core::UsageError(arguments.model + ": knows classes and embeds no prompts");
    const std::int64_t total = data::count_prompts(arguments.prompts), width = model.pooled_width();
    if (total == 0) core::fail("{}: holds no prompt", arguments.prompts);
    std::string weights;
    for (const std::string& part : model.directory().text_parts()) {
        const models::DiffusersWeights read = model.directory().text_weights(part);
        for (const fs::path& file : read.files()) weights += core::sha256_of_file(file);
    }
    const Origin origin{{"encoder", core::sha256(weights)},
                        {"prompts", core::sha256_of_file(arguments.prompts)}};
    Prompts prompts(arguments.prompts, model);
    if (shard) embed_shard(arguments.out, prompts, total, width, origin, *shard);
    else embed_all(arguments.out, prompts, total, width, origin);
    prompts.warn_of_long_ones();
}

}  // namespace

void add_embed_command(CLI::App& app) {
    auto arguments = std::make_shared<EmbedArguments>();
    CLI::App* command = app.add_subcommand(
        "embed",
        "Embed a file of prompts with Stable Diffusion's text encoder, for atelier partition");
    command->add_option("MODEL", arguments->model, "a diffusers directory")->required();
    command->add_option("PROMPTS", arguments->prompts, "a text file with one prompt per line")
        ->required();
    command
        ->add_option(
            "--out", arguments->out,
            "the .safetensors to write: embeddings [N,D], one row per line; written when all are "
            "computed; interrupted runs can be resumed")
        ->required();
    arguments->engine.add_to(*command);
    add_shard_option(*command, arguments->shard,
                     "rows; the shard that finds all others done writes the file");
    command->footer(
        "Example:\n  atelier embed stable-diffusion-v1-5 prompts.txt --out embeddings.safetensors\n"
        "  atelier partition embeddings.safetensors --prompts prompts.txt --students 4 --out "
        "prompts-k4");
    command->callback([arguments] { embed(*arguments); });
}

}  // namespace atelier::cli
