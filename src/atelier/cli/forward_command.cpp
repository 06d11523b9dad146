#include "atelier/cli/commands.h"
#include "atelier/cli/engine_options.h"
#include "atelier/cli/low_rank_option.h"
#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/inference/diffusers_model.h"
#include "atelier/models/ensemble.h"
#include "atelier/models/identify_path.h"

namespace atelier::cli {

namespace {

struct ForwardArguments {
    std::string model, in, out, part;
    std::vector<std::string> low_rank;
    EngineOptions engine;
};

const Tensor& tensor_named(const backends::Parameters& tensors, const std::string& name,
                           const std::string& path) {
    if (!tensors.contains(name))
        core::fail("{}: there is no tensor \"{}\"; forward reads x, sigma and class_labels", path,
                   name);
    return tensors.at(name);
}

/// Checks `tensor` against [n, shape...].
void check_shape(const Tensor& tensor, std::int64_t n, const std::vector<std::int64_t>& shape,
                 const std::string& name, const std::string& path) {
    std::vector<std::int64_t> expected{n};
    expected.insert(expected.end(), shape.begin(), shape.end());
    if (tensor.sizes().vec() != expected) {
        core::fail("{}: \"{}\" is {}, the model wants {}", path, name,
                   core::to_string(tensor.sizes().vec()), core::to_string(expected));
    }
}

/// The function of a network in diffusers' form that --part names.
std::string function_of(const ForwardArguments& arguments,
                        const networks::NamedFunctions& functions) {
    static const std::map<std::string, std::string> known{
        {"", "denoise"},   {"unet", "denoise"},      {"transformer", "denoise"},
        {"vae", "decode"}, {"vae-encode", "encode"}, {"text", "text"}};
    const std::string function = known.at(arguments.part);
    if (functions.contains(function)) return function;
    throw core::UsageError(fmt::format("--part: {} {}", arguments.model,
                                       functions.contains("decode")
                                           ? "is an autoencoder; its parts are vae and vae-encode"
                                           : "has no such part"));
}

/// Evaluates a network in diffusers' form: a part of a directory, or one in a folder of its own.
void forward_part(const ForwardArguments& arguments) {
    at::NoGradGuard no_gradients;
    const inference::Engine engine = arguments.engine.chosen();
    const std::vector<models::LowRankFile> low_rank = low_rank_files(arguments.low_rank);
    const std::string where = arguments.in + ": ";
    const std::map<std::string, Tensor> in = backends::read_parameters(arguments.in).tensors();
    std::map<std::string, Tensor> out;
    const bool whole = models::is_diffusers_directory(arguments.model);
    if (arguments.part == "text" && whole) {
        inference::DiffusersModel model(arguments.model, engine, low_rank);
        const auto ids = in.find("input_ids"), second = in.find("input_ids_2");
        if (ids == in.end())
            core::fail("{}there is no tensor \"input_ids\"; see atelier forward --help", where);
        const auto text = model.read(ids->second, second == in.end() ? Tensor() : second->second);
        out = {{"hidden", text.hidden}, {"pooled", text.pooled}};
    } else {
        std::optional<models::DiffusersPart> part;
        backends::Parameters deltas;
        if (whole) {
            const models::DiffusersDirectory directory(arguments.model);
            const bool vae = arguments.part.starts_with("vae");
            part = vae ? models::DiffusersPart(directory.path() / "vae", {"AutoencoderKL"})
                       : directory.denoiser();
            auto all = models::read_low_rank(low_rank, directory);
            if (!vae) deltas = all[directory.denoiser_part()];
        } else {
            part = models::DiffusersPart(arguments.model);
            deltas = models::read_low_rank(low_rank, *part);
        }
        out = inference::NamedNetwork(*part, function_of(arguments, part->functions()), engine,
                                      deltas)
                  .run(in, where);
        if (const auto logvar = out.find("logvar"); logvar != out.end())
            logvar->second = logvar->second.clamp(-30, 20);  // as diffusers does
    }
    backends::write_parameters(arguments.out, backends::Parameters(std::move(out)));
}

void forward(ForwardArguments arguments) {
    const bool network = models::is_diffusers_part(arguments.model);
    if (!network) arguments.model = models::model_at(arguments.model).string();
    core::check_output_file(arguments.out);
    if (models::is_ensemble_directory(arguments.model)) {
        throw core::UsageError(
            fmt::format("{}: is an ensemble; name one of its students: {}", arguments.model,
                        models::read_ensemble(arguments.model).students.front().string()));
    }
    if (network || models::is_diffusers_directory(arguments.model)) return forward_part(arguments);
    if (!arguments.part.empty() || !arguments.low_rank.empty())
        throw core::UsageError(fmt::format("{} is for diffusers directories; {} is none",
                                           arguments.part.empty() ? "--lora" : "--part",
                                           arguments.model));
    at::NoGradGuard no_gradients;
    const inference::Engine engine = arguments.engine.chosen();
    const at::Device device = engine.device;
    const models::Model model = models::read_model(arguments.model, device, engine.weights());
    const backends::Parameters tensors = backends::read_parameters(arguments.in).to(device);
    const Tensor& x = tensor_named(tensors, "x", arguments.in);
    if (x.dim() == 0)
        core::fail("{}: \"x\" is a single number; the model wants a batch", arguments.in);
    const std::int64_t n = x.size(0);
    check_shape(x, n, model.network.data_shape, "x", arguments.in);
    const Tensor& sigma = tensor_named(tensors, "sigma", arguments.in);
    check_shape(sigma, n, {}, "sigma", arguments.in);
    diffusion::Condition condition;
    if (model.network.label_dim > 0) {
        condition.labels = tensor_named(tensors, "class_labels", arguments.in);
        check_shape(condition.labels, n, {model.network.label_dim}, "class_labels", arguments.in);
    }
    if (model.network.augment_dim > 0 && tensors.contains("augment_labels")) {
        condition.augment = tensors.at("augment_labels");
        check_shape(condition.augment, n, {model.network.augment_dim}, "augment_labels",
                    arguments.in);
    }
    const auto denoiser = inference::open_denoiser(model, engine);
    backends::write_parameters(
        arguments.out, backends::Parameters({{"out", denoiser->denoise(x, sigma, condition)}}));
}

}  // namespace

void add_forward_command(CLI::App& app) {
    auto arguments = std::make_shared<ForwardArguments>();
    CLI::App* command = app.add_subcommand("forward",
                                           "One evaluation of a model as a denoiser, or of a part "
                                           "of a diffusers directory, on tensors from a file");
    command
        ->add_option("MODEL", arguments->model,
                     "a model directory, a diffusers directory, or a folder with one network of "
                     "diffusers', e.g. an autoencoder")
        ->required();
    command
        ->add_option("--in", arguments->in,
                     "safetensors with x [N,...], sigma [N], class_labels [N,classes] where "
                     "conditional, augment_labels [N,A] if any")
        ->required();
    command
        ->add_option("--out", arguments->out,
                     "safetensors that gets out [N,...], the denoised samples")
        ->required();
    command
        ->add_option(
            "--part", arguments->part,
            "of a diffusers directory: unet or transformer (x, t [N], and of Stable Diffusion "
            "hidden [N,77,D] -> eps; of SDXL pooled [N,P] and time_ids [N,6], too; of Stable "
            "Diffusion 3 hidden and pooled -> velocity; of DiT labels [N] -> eps), vae (x, an "
            "unscaled latent -> image), vae-encode (image -> mean, logvar) or text (input_ids "
            "[N,77], and input_ids_2 where the second encoder's differ -> hidden, pooled); "
            "without: the network that denoises")
        ->check(CLI::IsMember({"unet", "transformer", "vae", "vae-encode", "text"}));
    add_low_rank_option(*command, arguments->low_rank);
    arguments->engine.add_to(*command);
    command->footer(
        "Examples:\n  atelier forward models/fashion-mnist/teacher --in in.safetensors --out "
        "out.safetensors\n"
        "  atelier forward stable-diffusion-v1-5 --part text --in ids.safetensors --out "
        "hidden.safetensors\n"
        "  atelier forward taesd --part vae --in latent.safetensors --out image.safetensors\n"
        "  atelier forward sdxl --lora style.safetensors:0.8 --in in.safetensors --out "
        "out.safetensors");
    command->callback([arguments] { forward(*arguments); });
}

}  // namespace atelier::cli
