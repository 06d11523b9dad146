"""Writes tests/golden/stable_diffusion_{1,2}/: small models in the layouts of Stable Diffusion 1
and 2, as diffusers writes them but without their weights, and the outputs of diffusers and
transformers for small inputs.

    python scripts/make_stable_diffusion_golden.py
    python scripts/make_stable_diffusion_golden.py --full DIR    # directories with weights, for
                                                                 # manual experiments

Needs diffusers, transformers, torch, numpy and safetensors. Weights are functions of their names by
make_network_golden's formula, which tests/diffusion/golden_weights.h implements too. Everything is
computed in float64.
"""

import json
import pathlib
import shutil
import sys
import tempfile

import torch
from golden_weights import weights
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

ROOT = pathlib.Path(__file__).parents[1]
TOKENIZER = ROOT / "tests/golden/clip_tokenizer"
SCHEDULER = dict(
    num_train_timesteps=1000,
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    set_alpha_to_one=False,
    steps_offset=1,
)


def filled(model):
    for name, parameter in model.named_parameters():
        known = (
            name
            if not isinstance(model, CLIPTextModel) or name.startswith("text_model.")
            else "text_model." + name
        )
        parameter.data = weights(known, tuple(parameter.shape))
    return model.eval().requires_grad_(False)


def pipeline(form):
    size = len(json.loads((TOKENIZER / "vocab.json").read_text()))
    second = form == 2
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=24 if second else 16,
        block_out_channels=(8, 16, 16) if second else (8, 16),
        down_block_types=("CrossAttnDownBlock2D",) * (2 if second else 1) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (2 if second else 1),
        attention_head_dim=(1, 2, 4) if second else 2,
        use_linear_projection=second,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=16,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=size,
            hidden_size=24 if second else 16,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=2,
            hidden_act="gelu" if second else "quick_gelu",
            eos_token_id=size - 1 if second else 2,
            bos_token_id=size - 2,
            pad_token_id=1,
        )
    )
    scheduler = (
        DDIMScheduler(**SCHEDULER, clip_sample=False, prediction_type="v_prediction")
        if second
        else PNDMScheduler(**SCHEDULER, skip_prk_steps=True)
    )
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(TOKENIZER, folder, dirs_exist_ok=True)
        tokenizer = CLIPTokenizer.from_pretrained(
            folder, pad_token="!" if second else "<|endoftext|>"
        )
    return StableDiffusionPipeline(
        vae=filled(vae),
        text_encoder=filled(text),
        tokenizer=tokenizer,
        unet=filled(unet),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


SAMPLERS = {  # our sampler, diffusers' scheduler and its options beyond the pipeline's own
    "ddim leading": (DDIMScheduler, dict(timestep_spacing="leading")),
    "ddim trailing": (DDIMScheduler, dict(timestep_spacing="trailing", set_alpha_to_one=True)),
    "ddim linspace": (
        DDIMScheduler,
        dict(timestep_spacing="linspace", clip_sample=True, beta_schedule="linear"),
    ),
    "dpm++ linspace": (DPMSolverMultistepScheduler, dict(timestep_spacing="linspace")),
    "dpm++ leading": (DPMSolverMultistepScheduler, dict(timestep_spacing="leading")),
    "dpm++ trailing": (
        DPMSolverMultistepScheduler,
        dict(timestep_spacing="trailing", beta_schedule="squaredcos_cap_v2"),
    ),
}


def sampled(pipe, noise, hidden):
    answers, configs = {}, {}
    for name, (kind, options) in SAMPLERS.items():
        base = {**dict(pipe.scheduler.config), "clip_sample": False, **options}
        config = {k: v for k, v in base.items() if not k.startswith("_")}
        scheduler = kind.from_config(config)
        scheduler.set_timesteps(7)
        x = noise.clone()
        for t in scheduler.timesteps:
            x = scheduler.step(pipe.unet(x, t, hidden).sample, t, x).prev_sample
        answers[f"sampled {name}"], configs[name] = x, config
        answers[f"times {name}"] = scheduler.timesteps.clone()
    return answers, configs


def answers_of(pipe, form):
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.double()
    normal = lambda *shape: (
        torch.randn(
            *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(form + len(shape))
        )
        .float()
        .double()
    )
    prompts = ["a photo of a cat", "", "the dog's <|endoftext|> house!", "word " * 100]
    ids = torch.tensor(
        pipe.tokenizer(prompts, padding="max_length", truncation=True, max_length=77)["input_ids"]
    )
    text = pipe.text_encoder(ids)
    x, t, image, latent = (
        normal(2, 4, 8, 16),
        torch.tensor([3.0, 871.0], dtype=torch.float64),
        normal(2, 3, 16, 32),
        normal(2, 4, 8, 12),
    )
    hidden = text.last_hidden_state[[0, 2]]
    moments = pipe.vae.encode(image).latent_dist
    tensors = {
        "input_ids": ids,
        "hidden": text.last_hidden_state,
        "pooled": text.pooler_output,
        "x": x,
        "t": t,
        "eps": pipe.unet(x, t, hidden).sample,
        "image": image,
        "mean": moments.mean,
        "logvar": moments.logvar,
        "latent": latent,
        "decoded": pipe.vae.decode(latent).sample,
        "noise": normal(1, 4, 8, 8),
    }
    answers, configs = sampled(pipe, tensors["noise"], hidden[:1])
    tensors |= answers
    return {
        k: v.contiguous() if v.dtype == torch.int64 else v.float().contiguous()
        for k, v in tensors.items()
    }, {"prompts": prompts, "schedulers": configs}


def main():
    torch.manual_seed(0)
    for form in (1, 2):
        pipe = pipeline(form)
        if "--full" in sys.argv:
            pipe.save_pretrained(pathlib.Path(sys.argv[-1]) / f"stable_diffusion_{form}")
            continue
        folder = ROOT / f"tests/golden/stable_diffusion_{form}"
        shutil.rmtree(folder, ignore_errors=True)
        with tempfile.TemporaryDirectory() as whole:
            pipe.save_pretrained(whole)
            for file in pathlib.Path(whole).rglob("*.json"):
                if file.parent.name != "tokenizer":
                    (folder / file.relative_to(whole)).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file, folder / file.relative_to(whole))
        tensors, about = answers_of(pipe, form)
        save_file(tensors, folder / "answers.safetensors", metadata={"about": json.dumps(about)})


main()
