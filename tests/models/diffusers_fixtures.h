#pragma once

#include "atelier/core/atomic_file.h"
#include "atelier/models/diffusers_directory.h"
#include "backends/tensors.h"
#include "diffusion/golden_weights.h"

namespace atelier::models {

/// tests/golden/stable_diffusion_<version> with weights derived from their names and the small
/// tokenizer, as diffusers would write it.
class SmallStableDiffusion {
public:
    explicit SmallStableDiffusion(int version)
        : golden_(std::filesystem::path(ATELIER_SOURCE_DIR) /
                  fmt::format("tests/golden/stable_diffusion_{}", version)) {
        namespace fs = std::filesystem;
        fs::copy(golden_, path(), fs::copy_options::recursive);
        fs::copy(golden_.parent_path() / "clip_tokenizer", path() / "tokenizer",
                 fs::copy_options::recursive);
        if (version == 2)
            core::write_text(path() / "tokenizer/tokenizer_config.json",
                             R"({"pad_token": "!", "model_max_length": 77})");
        const DiffusersDirectory directory(path());
        write(unet_file(), parameters_of(directory.unet()));
        write(vae_file(), parameters_of(directory.vae()));
        write(text_file(), parameters_of(directory.text()));
    }

    std::filesystem::path path() const { return folder_ / "model"; }
    std::filesystem::path unet_file() const {
        return path() / "unet/diffusion_pytorch_model.safetensors";
    }
    std::filesystem::path vae_file() const {
        return path() / "vae/diffusion_pytorch_model.safetensors";
    }
    std::filesystem::path text_file() const { return path() / "text_encoder/model.safetensors"; }

    backends::Parameters answers() const {
        return backends::read_parameters(golden_ / "answers.safetensors");
    }
    nlohmann::json about() const {
        return core::parse_json(
            core::SafetensorsFile(golden_ / "answers.safetensors").metadata().at("about"), "about");
    }

    /// Rewrites a file with changed tensors.
    static void change(const std::filesystem::path& file,
                       const std::function<void(std::map<std::string, Tensor>&)>& by) {
        auto tensors = backends::read_parameters(file, /*keep_types=*/true).tensors();
        by(tensors);
        backends::write_parameters(file, backends::Parameters(std::move(tensors)));
    }

private:
    static void write(const std::filesystem::path& file,
                      const std::vector<graph::ParameterSpec>& specs) {
        backends::Parameters parameters;
        for (const auto& spec : specs)
            parameters.set(spec.name, diffusion::golden_weights(spec.name, spec.shape));
        backends::write_parameters(file, parameters);
    }

    core::TestFolder folder_;
    std::filesystem::path golden_;
};

/// A folder of tests/golden/diffusers (scripts/make_diffusers_golden.py), a directory or a network
/// alone, with weights derived from their names and the small tokenizer.
class SmallDiffusers {
public:
    explicit SmallDiffusers(const std::string& name)
        : golden_(std::filesystem::path(ATELIER_SOURCE_DIR) / "tests/golden/diffusers" / name) {
        namespace fs = std::filesystem;
        fs::copy(golden_, path(), fs::copy_options::recursive);
        fs::remove(path() / "answers.safetensors");
        if (!is_diffusers_directory(path())) {
            write(path(), networks::parameters_of(DiffusersPart(path()).functions()), false);
            return;
        }
        const DiffusersDirectory directory(path());
        write(path() / directory.denoiser_part(),
              networks::parameters_of(directory.denoiser().functions()), false);
        write(path() / "vae", parameters_of(directory.vae()), false);
        for (const std::string& part : directory.text_parts())
            write(path() / part, parameters_of(directory.text(part)), true);
        for (const fs::path& folder : directory.tokenizers()) {
            fs::copy(golden_.parent_path().parent_path() / "clip_tokenizer", folder,
                     fs::copy_options::recursive);
            if (folder.filename() == "tokenizer_2")
                core::write_text(folder / "tokenizer_config.json",
                                 R"({"pad_token": "!", "model_max_length": 77})");
        }
    }

    std::filesystem::path path() const { return folder_ / "model"; }

    backends::Parameters answers() const {
        return backends::read_parameters(golden_ / "answers.safetensors");
    }
    nlohmann::json about() const {
        return core::parse_json(
            core::SafetensorsFile(golden_ / "answers.safetensors").metadata().at("about"), "about");
    }

private:
    static void write(const std::filesystem::path& folder,
                      const std::vector<graph::ParameterSpec>& specs, bool text) {
        backends::Parameters parameters;
        for (const auto& spec : specs)
            parameters.set(spec.name, diffusion::golden_weights(spec.name, spec.shape));
        backends::write_parameters(
            folder / (text ? "model.safetensors" : "diffusion_pytorch_model.safetensors"),
            parameters);
    }

    core::TestFolder folder_;
    std::filesystem::path golden_;
};

}  // namespace atelier::models
