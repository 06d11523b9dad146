#include <CLI/CLI.hpp>

#include <fstream>

#include "atelier/cli/commands.h"
#include "atelier/cli/engine_options.h"
#include "atelier/cli/prompt_hints.h"
#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/log.h"
#include "atelier/core/mapped_file.h"
#include "atelier/core/progress.h"
#include "atelier/core/signals.h"
#include "atelier/data/prompt_file.h"
#include "atelier/inference/text_to_image.h"
#include "atelier/models/what_is.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

struct EmbedArguments {
    std::string model, prompts, out;
    EngineOptions engine;
};

constexpr std::int64_t prompts_at_once = 64;

/// Rows that lie on disk before all are there: numbers one after another, beside a file that says of what they are.
class Unfinished {
public:
    Unfinished(const std::string& out, std::int64_t width, const nlohmann::json& of) : rows_(out + ".unfinished"), about_(out + ".unfinished.json"), row_bytes_(width * 4) {
        const bool ours = fs::exists(rows_) && fs::exists(about_) && core::read_json(about_) == of;
        if (!ours) {
            fs::remove(rows_);
            core::write_json(about_, of);
            std::ofstream(rows_, std::ios::binary);
        }
        done_ = static_cast<std::int64_t>(fs::file_size(rows_)) / row_bytes_;
        fs::resize_file(rows_, static_cast<std::uintmax_t>(done_ * row_bytes_));
        file_.open(rows_, std::ios::binary | std::ios::app);
    }

    std::int64_t done() const { return done_; }

    void add(const Tensor& rows) {
        const Tensor numbers = rows.to(at::kFloat).contiguous();
        file_.write(static_cast<const char*>(numbers.const_data_ptr()), static_cast<std::streamsize>(numbers.nbytes()));
        file_.flush();
        if (!file_) core::fail("{}: cannot be written; is the disk full?", rows_);
        done_ += rows.size(0);
    }

    void finish(const std::string& out, std::int64_t width, const std::map<std::string, std::string>& metadata) {
        file_.close();
        {
            const core::MappedFile all(rows_);
            core::write_safetensors(out, {{"embeddings", core::DType::F32, {done_, width}, all.bytes()}}, metadata);
        }
        fs::remove(rows_);
        fs::remove(about_);
    }

private:
    std::string rows_, about_;
    std::int64_t row_bytes_, done_ = 0;
    std::ofstream file_;
};

void embed(const EmbedArguments& arguments) {
    if (!arguments.out.ends_with(".safetensors")) throw core::UsageError("--out: " + arguments.out + " must end in .safetensors");
    core::check_output_file(arguments.out);
    if (!models::is_diffusers_directory(arguments.model)) {
        models::model_at(arguments.model);
        throw core::UsageError(arguments.model + ": is no diffusers directory; prompts are embedded with one of Stable Diffusion");
    }
    inference::StableDiffusion model(arguments.model, arguments.engine.chosen());
    const std::int64_t total = data::count_prompts(arguments.prompts), width = model.text().width;
    if (total == 0) core::fail("{}: holds no prompt", arguments.prompts);
    std::string weights;
    const std::vector<fs::path> files = model.directory().text_weights().files();
    for (const fs::path& file : files) weights += core::sha256_of_file(file);
    const std::map<std::string, std::string> metadata{{"encoder", core::sha256(weights)}, {"prompts", core::sha256_of_file(arguments.prompts)}};
    Unfinished rows(arguments.out, width, {{"encoder", metadata.at("encoder")}, {"prompts", metadata.at("prompts")}, {"width", width}});
    data::PromptFile file(arguments.prompts);
    std::string prompt;
    LongPrompts long_ones(model.tokenizer());
    while (file.line() < rows.done() && file.next(prompt)) long_ones.look_at(prompt);
    if (rows.done() > 0) core::log::info("going on after {} of {} prompts", rows.done(), total);
    core::Progress progress("embedding", total, "prompts", rows.done());
    while (rows.done() < total) {
        if (core::stop_requested()) throw core::Interrupted(fmt::format("interrupted after {} of {} prompts; run the same command again to go on", rows.done(), total));
        std::vector<Tensor> ids;
        while (static_cast<std::int64_t>(ids.size()) < prompts_at_once && file.next(prompt)) {
            try {
                ids.push_back(model.tokens({&prompt, 1}));
                long_ones.look_at(prompt);
            } catch (const core::Error& error) {
                core::fail("{}: line {}: {}", arguments.prompts, file.line(), error.what());
            }
        }
        rows.add(model.read(at::cat(ids)).pooled);
        progress.update(rows.done());
    }
    rows.finish(arguments.out, width, metadata);
    long_ones.tell(arguments.prompts, "lines");
}

}  // namespace

void add_embed_command(CLI::App& app) {
    auto arguments = std::make_shared<EmbedArguments>();
    CLI::App* command = app.add_subcommand("embed", "Embed a file of prompts with Stable Diffusion's text encoder, for atelier partition");
    command->add_option("MODEL", arguments->model, "a diffusers directory")->required();
    command->add_option("PROMPTS", arguments->prompts, "a text file with a prompt a line")->required();
    command->add_option("--out", arguments->out, ".safetensors that gets embeddings [N,D], a row a line; written when all are there, and interrupted runs go on")->required();
    arguments->engine.add_to(*command);
    command->footer("Example:\n  atelier embed stable-diffusion-v1-5 prompts.txt --out embeddings.safetensors\n"
                    "  atelier partition embeddings.safetensors --prompts prompts.txt --students 4 --out prompts-k4");
    command->callback([arguments] { embed(*arguments); });
}

}  // namespace atelier::cli
