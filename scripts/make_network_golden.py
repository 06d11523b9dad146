"""Writes tests/golden/adm_unet_*.safetensors and song_unet_*.safetensors: the outputs of
independent U-Nets with EDM's preconditionings for small inputs.

    python scripts/make_network_golden.py

Needs nvidia-physicsnemo, torch, numpy and safetensors.

A file contains x, sigma, the labels and augment labels if there are any, the denoised images, and
the gradients of their mean square with respect to x and a few weights; its metadata contain the
config and every parameter's shape. The weights would take megabytes: they are functions of their
names by `weights`, which tests/diffusion/network_golden_test.cpp implements too. Everything is
computed in float64 except what EDM rounds to float32 on the way into the network: c_noise and the
angles of Fourier features.
"""

import json
import pathlib

import numpy as np
import torch
from golden_weights import weights
from physicsnemo.models.diffusion_unets import DhariwalUNet, SongUNet
from physicsnemo.nn.module.embedding_layers import FourierEmbedding
from safetensors.torch import save_file
from torch.nn import functional as F

SIGMA_DATA = 0.5
SIGMAS = [0.002, 0.3, 5.0, 80.0]
CASES = {
    "adm_unet_unconditional": dict(
        resolution=8,
        channels=1,
        classes=0,
        model_channels=16,
        channel_mult=[1, 4],
        num_blocks=1,
        attention_resolutions=[],
    ),
    # Attention at several resolutions, with one head and with two.
    "adm_unet_attention": dict(
        resolution=16,
        channels=3,
        classes=7,
        model_channels=32,
        channel_mult=[1, 2, 4],
        num_blocks=2,
        attention_resolutions=[8, 4],
    ),
    # 2x2 patches as channels, an odd size at the lowest resolution, another embedding width.
    "adm_unet_patches": dict(
        resolution=28,
        channels=1,
        classes=10,
        model_channels=64,
        channel_mult=[1, 2],
        num_blocks=1,
        attention_resolutions=[7],
        channel_mult_emb=2,
        patch_size=2,
    ),
    "song_unet_ddpmpp": dict(
        resolution=16,
        channels=3,
        classes=5,
        augment_dim=9,
        model_channels=32,
        channel_mult=[1, 2, 2],
        num_blocks=2,
        attention_resolutions=[8],
        preconditioning="vp",
    ),
    "song_unet_ncsnpp": dict(
        resolution=16,
        channels=3,
        classes=0,
        augment_dim=9,
        model_channels=32,
        channel_mult=[1, 2, 2],
        num_blocks=1,
        attention_resolutions=[8],
        embedding_type="fourier",
        channel_mult_noise=2,
        encoder_type="residual",
        resample_filter=[1, 3, 3, 1],
        preconditioning="ve",
    ),
    "song_unet_skips": dict(
        resolution=24,
        channels=1,
        classes=4,
        model_channels=16,
        channel_mult=[2, 1, 3],
        num_blocks=1,
        attention_resolutions=[12],
        encoder_type="skip",
        decoder_type="skip",
        resample_filter=[1, 3, 3, 1],
        channel_mult_emb=2,
    ),
    "song_unet_residual_boxes": dict(
        resolution=8,
        channels=2,
        classes=0,
        model_channels=16,
        channel_mult=[1, 2],
        num_blocks=1,
        attention_resolutions=[],
        embedding_type="fourier",
        encoder_type="residual",
        decoder_type="skip",
    ),
}
ATTENTION = {
    "attn.norm.": "norm2.",
    "attn.qkv.": "qkv.",
    "attn.proj.": "proj.",
}  # physicsnemo's names and EDM's
SLOPES = [
    "model.map_layer0.bias",
    "model.{bottom}_in0.qkv.bias",
    "model.{bottom}_in1.norm1.weight",
    "{last}.weight",
]
SONG = ["embedding_type", "channel_mult_noise", "encoder_type", "decoder_type", "resample_filter"]


def parameters_of(net):
    """The network's parameters and Fourier frequencies under EDM's names."""
    named = {}
    frequencies = (
        [("map_noise.freqs", net.map_noise.freqs)]
        if isinstance(net.map_noise, FourierEmbedding)
        else []
    )
    for name, parameter in [*net.named_parameters(), *frequencies]:
        for theirs, ours in ATTENTION.items():
            name = name.replace(theirs, ours)
        named["model." + name] = parameter
    return named


def in_float32(net):
    """Computes a Fourier embedding in float32, as EDM does, within a network in float64."""
    net.map_noise.float()
    net.map_noise.register_forward_pre_hook(lambda module, inputs: (inputs[0].float(),))
    net.map_noise.register_forward_hook(lambda module, inputs, output: output.double())


def build(config, architecture):
    patch = config.get("patch_size", 1)
    inside = config["channels"] * patch**2
    options = dict(
        label_dim=config["classes"],
        augment_dim=config.get("augment_dim", 0),
        model_channels=config["model_channels"],
        channel_mult=config["channel_mult"],
        channel_mult_emb=config.get("channel_mult_emb", 4),
        num_blocks=config["num_blocks"],
        attn_resolutions=config["attention_resolutions"],
        dropout=0.0,
    )
    if architecture == "song_unet":
        net = SongUNet(
            config["resolution"],
            inside,
            inside,
            **options,
            **{key: config[key] for key in SONG if key in config},
        )
    else:
        net = DhariwalUNet(config["resolution"] // patch, inside, inside, **options)
    with torch.no_grad():
        for name, parameter in parameters_of(net).items():
            parameter.copy_(weights(name, tuple(parameter.shape)))
    net = net.double()
    if config.get("embedding_type") == "fourier":
        in_float32(net)
    return net


def preconditioning(kind, sigma):
    """c_skip, c_out and c_in in float64, c_noise in float32 (Karras et al. 2022, table 1)."""
    s, one = sigma.double(), torch.ones_like(sigma, dtype=torch.float64)
    if kind == "vp":
        beta_d, beta_min = 19.9, 0.1
        time = ((beta_min**2 + 2 * beta_d * (1 + sigma**2).log()).sqrt() - beta_min) / beta_d
        return one, -s, 1 / (s**2 + 1).sqrt(), 999 * time
    if kind == "ve":
        return one, s, one, (sigma / 2).log()
    total = s**2 + SIGMA_DATA**2
    return SIGMA_DATA**2 / total, s * SIGMA_DATA / total.sqrt(), 1 / total.sqrt(), sigma.log() / 4


def denoise(net, config, x, sigma, labels, augment):
    patch = config.get("patch_size", 1)
    c_skip, c_out, c_in, c_noise = preconditioning(config.get("preconditioning", "edm"), sigma)
    across = lambda c: c.reshape(-1, 1, 1, 1)
    inside = F.pixel_unshuffle(across(c_in) * x, patch)
    raw = F.pixel_shuffle(net(inside, c_noise.double(), labels, augment_labels=augment), patch)
    return across(c_skip) * x + across(c_out) * raw


def case(config, architecture):
    net = build(config, architecture)
    sigma = torch.tensor(SIGMAS)
    n, channels, size = len(SIGMAS), config["channels"], config["resolution"]
    noise = torch.randn([n, channels, size, size], generator=torch.Generator().manual_seed(1))
    x = noise * (sigma**2 + SIGMA_DATA**2).sqrt().reshape(-1, 1, 1, 1)
    tensors = {"x": x, "sigma": sigma}
    labels = augment = None
    if config["classes"]:
        tensors["labels"] = F.one_hot(
            torch.arange(n) * 3 % config["classes"], config["classes"]
        ).float()
        labels = tensors["labels"].double()
    if config.get("augment_dim"):
        tensors["augment"] = torch.randn(
            [n, config["augment_dim"]], generator=torch.Generator().manual_seed(2)
        )
        augment = tensors["augment"].double()
    x = x.double().requires_grad_()
    denoised = denoise(net, config, x, sigma, labels, augment)
    denoised.square().mean().backward()
    tensors |= {"denoised": denoised, "slope:x": x.grad}
    parameters = parameters_of(net)
    bottom = config["resolution"] // config.get("patch_size", 1) >> len(config["channel_mult"]) - 1
    top = config["resolution"]
    last = "model.out_conv" if architecture == "adm_unet" else f"model.dec.{top}x{top}_aux_conv"
    for name in SLOPES:
        name = name.format(bottom=f"dec.{bottom}x{bottom}", last=last)
        tensors["slope:" + name] = parameters[name].grad
    about = {
        "config": {"architecture": architecture, **config},
        "parameters": {name: list(parameter.shape) for name, parameter in parameters.items()},
    }
    # One metadata entry, since safetensors writes several in random order.
    return {name: tensor.detach().float().contiguous() for name, tensor in tensors.items()}, {
        "about": json.dumps(about)
    }


def main():
    folder = pathlib.Path(__file__).parent.parent / "tests" / "golden"
    for name, config in CASES.items():
        tensors, metadata = case(config, name[: name.index("unet") + 4])
        save_file(tensors, folder / f"{name}.safetensors", metadata)


if __name__ == "__main__":
    main()
