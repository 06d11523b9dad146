"""Writes tests/golden/diffusers/: small models in diffusers' form without their weights (SDXL,
Stable Diffusion 3, DiT, tiny autoencoders), and the outputs of diffusers and transformers for small
inputs.

    python scripts/make_diffusers_golden.py

Needs diffusers, transformers, torch, numpy and safetensors. Weights are functions of their names
(golden_weights.py). Everything is computed in float64.
"""

import json
import pathlib
import shutil
import tempfile

import torch
from golden_weights import weights
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

ROOT = pathlib.Path(__file__).parents[1]
OUT = ROOT / "tests/golden/diffusers"
TOKENIZER = ROOT / "tests/golden/clip_tokenizer"
PROMPTS = ["a photo of a cat", "", "the dog's <|endoftext|> house!", "word " * 100]


def normal(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).float().double()


def filled(model):
    """The model with weights that follow from their names, in float64."""
    for name, parameter in model.named_parameters():
        outer = type(model) is CLIPTextModel and not name.startswith("text_model.")
        parameter.data = weights("text_model." + name if outer else name, tuple(parameter.shape))
    for name, buffer in model.named_buffers():
        if name == "pos_embed.pos_embed" and isinstance(model, SD3Transformer2DModel):
            buffer.copy_(weights(name, tuple(buffer.shape)))
    return model.eval().requires_grad_(False).double()


def vae(channels, **options):
    return filled(
        AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            latent_channels=channels,
            sample_size=16,
            **options,
        )
    )


def text(kind, width, projection, activation, layers):
    size = len(json.loads((TOKENIZER / "vocab.json").read_text()))
    return filled(
        kind(
            CLIPTextConfig(
                vocab_size=size,
                hidden_size=width,
                intermediate_size=40,
                num_hidden_layers=layers,
                num_attention_heads=2,
                projection_dim=projection,
                hidden_act=activation,
                eos_token_id=size - 1,
                bos_token_id=size - 2,
                pad_token_id=1,
            )
        )
    )


def tokenizers():
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(TOKENIZER, folder, dirs_exist_ok=True)
        return [
            CLIPTokenizer.from_pretrained(folder, pad_token=pad) for pad in ("<|endoftext|>", "!")
        ]


def ids_of(tokenizer):
    return torch.tensor(
        tokenizer(PROMPTS, padding="max_length", truncation=True, max_length=77)["input_ids"]
    )


def write(name, model, tensors, about=None):
    """The configs as `model` saves them, and answers.safetensors."""
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as whole:
        model.save_pretrained(whole)
        for file in pathlib.Path(whole).rglob("*.json"):
            part = file.relative_to(whole)
            if not part.parts[0].startswith("tokenizer"):
                (folder / part).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, folder / part)
    tensors = {
        k: v.contiguous() if v.dtype == torch.int64 else v.float().contiguous()
        for k, v in tensors.items()
    }
    save_file(
        tensors, folder / "answers.safetensors", metadata={"about": json.dumps(about or {})}
    )


def sampled(scheduler, count, noise, predict):
    """A sample, and the times at which the network was evaluated."""
    scheduler.set_timesteps(count)
    x = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(predict(seen, t), t, x).prev_sample.double()
    return x, scheduler.timesteps.clone()


def sdxl():
    unet = filled(
        UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            layers_per_block=2,
            norm_num_groups=4,
            block_out_channels=(8, 16, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=(1, 2, 4),
            transformer_layers_per_block=(1, 2, 3),
            use_linear_projection=True,
            cross_attention_dim=16 + 24,
            addition_embed_type="text_time",
            addition_time_embed_dim=6,
            projection_class_embeddings_input_dim=20 + 6 * 6,
        )
    )
    first = text(CLIPTextModel, 16, 16, "quick_gelu", 2)
    second = text(CLIPTextModelWithProjection, 24, 20, "gelu", 3)
    tokenizer, tokenizer_2 = tokenizers()
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="leading",
        steps_offset=1,
    )
    pipe = StableDiffusionXLPipeline(
        vae=vae(4),
        text_encoder=first,
        text_encoder_2=second,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=unet,
        scheduler=scheduler,
        add_watermarker=False,
    )
    ids, ids_2 = ids_of(tokenizer), ids_of(tokenizer_2)
    seen, seen_2 = (
        tower(i, output_hidden_states=True) for tower, i in ((first, ids), (second, ids_2))
    )
    hidden = torch.cat([seen.hidden_states[-2], seen_2.hidden_states[-2]], -1)
    pooled = seen_2.text_embeds
    x, t = normal(1, 2, 4, 8, 12), torch.tensor([3.0, 871.0], dtype=torch.float64)
    time_ids = torch.tensor([[16.0, 24, 0, 0, 16, 24], [512, 768, 3, 7, 16, 24]]).double()
    predict = lambda x, t, rows: unet(
        x,
        t,
        hidden[rows],
        added_cond_kwargs=dict(text_embeds=pooled[rows], time_ids=time_ids[: len(rows)]),
    ).sample
    noise = normal(2, 1, 4, 8, 12)
    tensors = {
        "input_ids": ids,
        "input_ids_2": ids_2,
        "hidden": hidden,
        "pooled": pooled,
        "x": x,
        "t": t,
        "time_ids": time_ids,
        "eps": predict(x, t, [0, 2]),
        "noise": noise,
    }
    schedulers = {}
    for name, count, options in (
        ("leading", 7, {}),
        ("trailing", 3, dict(timestep_spacing="trailing")),
        ("one step", 1, dict(timestep_spacing="trailing")),
        ("linspace", 7, dict(timestep_spacing="linspace", prediction_type="v_prediction")),
    ):
        used = EulerDiscreteScheduler.from_config(scheduler.config, **options)
        sample, times = sampled(used, count, noise, lambda x, t: predict(x, t, [0]))
        tensors |= {f"sampled {name}": sample, f"times {name}": times}
        config = {k: v for k, v in used.config.items() if not k.startswith("_")}
        schedulers[name] = dict(count=count, config=config)
    write("sdxl", pipe, tensors, {"schedulers": schedulers})


def sd3():
    options = dict(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        attention_head_dim=6,
        num_attention_heads=4,
        joint_attention_dim=44,
        caption_projection_dim=24,
        pooled_projection_dim=28,
    )
    # Stable Diffusion 3's form, without normalised queries and keys, and 3.5 medium's.
    plain = filled(SD3Transformer2DModel(**options, num_layers=2, pos_embed_max_size=5))
    dual = filled(
        SD3Transformer2DModel(
            **options,
            num_layers=3,
            pos_embed_max_size=9,
            qk_norm="rms_norm",
            dual_attention_layers=(0, 2),
        )
    )
    first = text(CLIPTextModelWithProjection, 16, 12, "quick_gelu", 2)
    second = text(CLIPTextModelWithProjection, 24, 16, "gelu", 2)
    tokenizer, tokenizer_2 = tokenizers()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    pipe = StableDiffusion3Pipeline(
        transformer=dual,
        scheduler=scheduler,
        vae=vae(
            4,
            use_quant_conv=False,
            use_post_quant_conv=False,
            shift_factor=0.06,
            scaling_factor=1.5,
        ),
        text_encoder=first,
        tokenizer=tokenizer,
        text_encoder_2=second,
        tokenizer_2=tokenizer_2,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    hidden, _, pooled, _ = pipe.encode_prompt(
        prompt=PROMPTS,
        prompt_2=None,
        prompt_3=None,
        do_classifier_free_guidance=False,
        device="cpu",
        max_sequence_length=77,
    )
    x, t = normal(3, 2, 4, 8, 10), torch.tensor([1000.0, 130.5], dtype=torch.float64)
    noise = normal(4, 1, 4, 8, 8)
    predict = lambda net, x, t, rows: net(
        hidden_states=x,
        timestep=t.double().expand(len(x)),
        encoder_hidden_states=hidden[rows],
        pooled_projections=pooled[rows],
    ).sample
    tensors = {
        "input_ids": ids_of(tokenizer),
        "input_ids_2": ids_of(tokenizer_2),
        "hidden": hidden,
        "pooled": pooled,
        "x": x,
        "t": t,
        "velocity": predict(dual, x, t, [0, 2]),
        "noise": noise,
    }
    for count in (1, 4):
        sample, times = sampled(
            scheduler, count, noise, lambda x, t: predict(dual, x, t, [0])
        )
        tensors |= {f"sampled {count}": sample, f"times {count}": times}
    write("sd3", pipe, tensors)
    tensors = {
        "x": x,
        "t": t,
        "hidden": hidden[[0, 2]][:, :9],
        "pooled": pooled[[0, 2]],
    }
    tensors["velocity"] = plain(
        hidden_states=x,
        timestep=t,
        encoder_hidden_states=tensors["hidden"],
        pooled_projections=tensors["pooled"],
    ).sample
    write("sd3_plain", plain, tensors)


def dit():
    options = dict(sample_size=8, in_channels=4, norm_eps=1e-5)
    whole = filled(
        DiTTransformer2DModel(
            **options,
            num_attention_heads=2,
            attention_head_dim=12,
            out_channels=8,
            num_layers=2,
            patch_size=2,
            num_embeds_ada_norm=5,
        )
    )
    other = filled(
        DiTTransformer2DModel(
            **options,
            num_attention_heads=3,
            attention_head_dim=4,
            num_layers=1,
            patch_size=4,
            num_embeds_ada_norm=3,
            attention_bias=False,
            norm_elementwise_affine=True,
            activation_fn="gelu",
        )
    )
    scheduler = DDIMScheduler(beta_schedule="linear", beta_start=1e-4, beta_end=0.02)
    pipe = DiTPipeline(transformer=whole, vae=vae(4), scheduler=scheduler)
    # Published ones have names, which this version does not save.
    pipe.register_to_config(id2label={str(i): f"class {i}, also {i}" for i in range(5)})
    t = torch.tensor([999, 4, 500])
    for name, net, model, side in (("dit", whole, pipe, 8), ("dit_other", other, other, 12)):
        x = normal(5, 3, 4, side, side)
        labels = torch.tensor([0, 2, net.config.num_embeds_ada_norm])
        eps = net(x, timestep=t, class_labels=labels).sample[:, :4]
        write(name, model, {"x": x, "t": t.double(), "labels": labels, "eps": eps})


def tiny():
    ones = (1,) * 3
    for name, options in (
        ("taesd", dict(num_encoder_blocks=(1, 2), num_decoder_blocks=(2, 1))),
        ("taesd_silu", dict(num_encoder_blocks=ones, num_decoder_blocks=ones, act_fn="silu")),
    ):
        levels = len(options["num_encoder_blocks"])
        net = filled(
            AutoencoderTiny(
                latent_channels=6,
                encoder_block_out_channels=(8,) * levels,
                decoder_block_out_channels=(16,) * levels,
                **options,
            )
        )
        x, image = 3 * normal(6, 2, 6, 5, 7), normal(7, 2, 3, 20, 12).clamp(-1, 1)
        write(
            name,
            net,
            {
                "x": x,
                "decoded": net.decode(x).sample,
                "image": image,
                "latent": net.encode(image).latents,
            },
        )


def main():
    torch.manual_seed(0)
    for make in (sdxl, sd3, dit, tiny):
        make()


main()
