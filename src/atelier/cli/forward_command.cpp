#include "atelier/cli/commands.h"
#include "atelier/cli/engine_options.h"
#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/inference/text_to_image.h"
#include "atelier/models/ensemble.h"
#include "atelier/models/identify_path.h"

namespace atelier::cli {

namespace {

struct ForwardArguments {
    std::string model, in, out, part;
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

/// Runs one of Stable Diffusion's networks.
void forward_part(const ForwardArguments& arguments) {
    at::NoGradGuard no_gradients;
    inference::StableDiffusion model(arguments.model, arguments.engine.chosen());
    const backends::Parameters tensors = backends::read_parameters(arguments.in);
    const auto named = [&](const char* name) {
        if (!tensors.contains(name))
            core::fail("{}: there is no tensor \"{}\"; see atelier forward --help", arguments.in,
                       name);
        return tensors.at(name);
    };
    const auto write = [&](std::map<std::string, Tensor> answers) {
        backends::write_parameters(arguments.out, backends::Parameters(std::move(answers)));
    };
    if (arguments.part == "unet")
        return write({{"eps", model.predict(named("x"), named("t"), named("hidden"))}});
    if (arguments.part == "vae") return write({{"image", model.autoencoder().decode(named("x"))}});
    if (arguments.part == "vae-encode") {
        const auto moments = model.autoencoder().encode(named("image"));
        return write({{"mean", moments.mean}, {"logvar", moments.logvar.contiguous()}});
    }
    const auto text = model.read(named("input_ids"));
    write({{"hidden", text.hidden}, {"pooled", text.pooled}});
}

void forward(ForwardArguments arguments) {
    arguments.model = models::model_at(arguments.model).string();
    core::check_output_file(arguments.out);
    if (models::is_ensemble_directory(arguments.model)) {
        throw core::UsageError(
            fmt::format("{}: is an ensemble; name one of its students: {}", arguments.model,
                        models::read_ensemble(arguments.model).students.front().string()));
    }
    if (models::is_diffusers_directory(arguments.model)) {
        if (arguments.part.empty()) arguments.part = "unet";
        return forward_part(arguments);
    }
    if (!arguments.part.empty())
        throw core::UsageError("--part is for diffusers directories; " + arguments.model +
                               " is none");
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
                                           "of Stable Diffusion, on tensors from a file");
    command->add_option("MODEL", arguments->model, "a model directory or a diffusers directory")
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
        ->add_option("--part", arguments->part,
                     "of a diffusers directory: unet (x, t [N], hidden [N,77,D] -> eps), vae (x, "
                     "an unscaled latent -> image), vae-encode (image -> mean, "
                     "logvar) or text (input_ids [N,77] -> hidden, pooled); without: unet")
        ->check(CLI::IsMember({"unet", "vae", "vae-encode", "text"}));
    arguments->engine.add_to(*command);
    command->footer(
        "Examples:\n  atelier forward models/fashion-mnist/teacher --in in.safetensors --out "
        "out.safetensors\n"
        "  atelier forward stable-diffusion-v1-5 --part text --in ids.safetensors --out "
        "hidden.safetensors");
    command->callback([arguments] { forward(*arguments); });
}

}  // namespace atelier::cli
