#include <CLI/CLI.hpp>

#include <fstream>

#include "atelier/cli/commands.h"
#include "atelier/cli/engine_options.h"
#include "atelier/conditions/prompt_hints.h"
#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/log.h"
#include "atelier/core/mapped_file.h"
#include "atelier/core/progress.h"
#include "atelier/core/signals.h"
#include "atelier/data/prompt_file.h"
#include "atelier/inference/diffusers_model.h"
#include "atelier/models/identify_path.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

struct EmbedArguments {
    std::string model, prompts, out;
    EngineOptions engine;
};

constexpr std::int64_t prompts_per_batch = 64;

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
        rows_done_ = static_cast<std::int64_t>(fs::file_size(rows_)) / row_bytes_;
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

void embed(const EmbedArguments& arguments) {
    if (!arguments.out.ends_with(".safetensors"))
        throw core::UsageError("--out: " + arguments.out + " must end in .safetensors");
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
    const std::map<std::string, std::string> metadata{
        {"encoder", core::sha256(weights)}, {"prompts", core::sha256_of_file(arguments.prompts)}};
    PartialEmbeddings rows(arguments.out, width,
                           {{"encoder", metadata.at("encoder")},
                            {"prompts", metadata.at("prompts")},
                            {"width", width}});
    data::PromptFile file(arguments.prompts);
    std::string prompt;
    conditions::LongPrompts long_prompts(model.tokenizer());
    while (file.line() < rows.done() && file.next(prompt)) long_prompts.add(prompt);
    if (rows.done() > 0) core::log::info("resuming after {} of {} prompts", rows.done(), total);
    core::Progress progress("embedding", total, "prompts", rows.done());
    while (rows.done() < total) {
        if (core::stop_requested())
            throw core::Interrupted(fmt::format(
                "interrupted after {} of {} prompts; run the same command again to go on",
                rows.done(), total));
        std::vector<Tensor> ids;
        while (static_cast<std::int64_t>(ids.size()) < prompts_per_batch && file.next(prompt)) {
            try {
                ids.push_back(model.tokens({&prompt, 1}));
                long_prompts.add(prompt);
            } catch (const core::Error& error) {
                core::fail("{}: line {}: {}", arguments.prompts, file.line(), error.what());
            }
        }
        rows.add(model.read(at::cat(ids)).pooled);
        progress.update(rows.done());
    }
    rows.finish(arguments.out, width, metadata);
    long_prompts.warn(arguments.prompts, "lines");
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
    command->footer(
        "Example:\n  atelier embed stable-diffusion-v1-5 prompts.txt --out embeddings.safetensors\n"
        "  atelier partition embeddings.safetensors --prompts prompts.txt --students 4 --out "
        "prompts-k4");
    command->callback([arguments] { embed(*arguments); });
}

}  // namespace atelier::cli
