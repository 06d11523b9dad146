"""Writes tests/golden/NETWORK_*.safetensors: what independent implementations of networks compute,
with EDM's preconditionings, for small inputs.

    python scripts/make_network_golden.py [CASE ...]

Needs nvidia-physicsnemo, torch, numpy and safetensors. A new network is one entry of NETWORKS, with
its cases in CASES; the test finds the files by their names.

A file contains x, sigma, the labels and augment labels if there are any, the denoised images, and
the gradients of their mean square with respect to x and a few weights; its metadata contain the
config and every parameter's shape. The weights would take megabytes: they are functions of their
names by `weights`, which tests/diffusion/network_golden_test.cpp implements too. Everything is
computed in float64 except what EDM rounds to float32 on the way into the network: c_noise and the
angles of Fourier features.
"""

import json
import pathlib
import sys
from typing import Callable, NamedTuple

import numpy as np
import torch
from golden_weights import weights
from physicsnemo.models.diffusion_unets import DhariwalUNet, SongUNet
from physicsnemo.nn.module.embedding_layers import FourierEmbedding
from safetensors.torch import save_file
from torch.nn import functional as F

SIGMA_DATA = 0.5
SIGMAS = [0.002, 0.3, 5.0, 80.0]
# Configs by the names of the files, which begin with that of a network.
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
    "dit_classes": dict(
        resolution=8, channels=3, classes=5, hidden=32, blocks=3, patch_size=2, heads=4
    ),
    # One patch a pixel, one head, and no classes.
    "dit_unconditional": dict(
        resolution=6, channels=4, classes=0, hidden=16, blocks=2, patch_size=1, heads=1
    ),
}
ATTENTION = {
    "attn.norm.": "norm2.",
    "attn.qkv.": "qkv.",
    "attn.proj.": "proj.",
}  # physicsnemo's names and EDM's
SONG = ["embedding_type", "channel_mult_noise", "encoder_type", "decoder_type", "resample_filter"]


def parameters_of(net):
    """The network's parameters and Fourier frequencies under EDM's names."""
    named = {}
    noise = getattr(net, "map_noise", None)
    fourier = isinstance(noise, FourierEmbedding)
    frequencies = [("map_noise.freqs", noise.freqs)] if fourier else []
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


def options_of(config):
    """What both of physicsnemo's U-Nets take."""
    return dict(
        label_dim=config["classes"],
        augment_dim=config.get("augment_dim", 0),
        model_channels=config["model_channels"],
        channel_mult=config["channel_mult"],
        channel_mult_emb=config.get("channel_mult_emb", 4),
        num_blocks=config["num_blocks"],
        attn_resolutions=config["attention_resolutions"],
        dropout=0.0,
    )


class InPatches(torch.nn.Module):
    """A U-Net on images whose patches are channels."""

    def __init__(self, net, patch):
        super().__init__()
        self.net, self.patch = net, patch

    def forward(self, x, *conditions, **more):
        inside = self.net(F.pixel_unshuffle(x, self.patch), *conditions, **more)
        return F.pixel_shuffle(inside, self.patch)


def adm_unet(config):
    patch = config.get("patch_size", 1)
    inside = config["channels"] * patch**2
    net = DhariwalUNet(config["resolution"] // patch, inside, inside, **options_of(config))
    return net, InPatches(net, patch)


def song_unet(config):
    own = {key: config[key] for key in SONG if key in config}
    channels = config["channels"]
    net = SongUNet(config["resolution"], channels, channels, **options_of(config), **own)
    return net, net


class Transformer(torch.nn.Module):
    """The diffusion transformer of Peebles and Xie (2023), adaLN-Zero, in plain PyTorch."""

    def __init__(self, config):
        super().__init__()
        width, patch, channels = config["hidden"], config["patch_size"], config["channels"]
        linear, parts = torch.nn.Linear, torch.nn.ModuleDict
        self.patch, self.heads, self.blocks = patch, config["heads"], config["blocks"]
        self.map_patches = torch.nn.Conv2d(channels, width, patch, patch)
        self.map_noise = parts({"linear_1": linear(256, width), "linear_2": linear(width, width)})
        if config["classes"]:
            self.map_label = linear(config["classes"], width, bias=False)
        for i in range(self.blocks):
            attention = {name: linear(width, width) for name in ("to_q", "to_k", "to_v")}
            attention["to_out"] = torch.nn.ModuleList([linear(width, width)])
            first, last = parts({"proj": linear(width, 4 * width)}), linear(4 * width, width)
            block = {
                "affine": linear(width, 6 * width),
                "attn1": parts(attention),
                "ff": parts({"net": torch.nn.ModuleList([first, torch.nn.Identity(), last])}),
            }
            setattr(self, f"block{i}", parts(block))
        self.affine = linear(width, 2 * width)
        self.output = linear(width, patch * patch * channels)

    def positions(self, side, width):
        """Sinusoids of column and row of every patch, [side*side,width]."""
        rates = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
        angles = torch.arange(side, dtype=torch.float64)[:, None] * rates
        one = torch.cat([angles.sin(), angles.cos()], 1)
        return torch.cat(
            [one.expand(side, side, -1), one[:, None].expand(side, side, -1)], 2
        ).reshape(side * side, width)

    def forward(self, x, c_noise, labels, augment_labels=None):
        norm = lambda tokens, eps: F.layer_norm(tokens, tokens.shape[-1:], eps=eps)
        seen = lambda tokens, shift, scale: tokens * (1 + scale[:, None]) + shift[:, None]
        rates = 10000.0 ** -(torch.arange(128, dtype=torch.float64) / 127)
        angles = c_noise[:, None] * rates
        condition = torch.cat([angles.cos(), angles.sin()], 1)
        condition = self.map_noise["linear_2"](F.silu(self.map_noise["linear_1"](condition)))
        if labels is not None:
            condition = condition + self.map_label(labels)
        condition = F.silu(condition)
        grid = self.map_patches(x)
        side, width = grid.shape[-1], grid.shape[1]
        tokens = grid.flatten(2).mT + self.positions(side, width)
        for i in range(self.blocks):
            block = getattr(self, f"block{i}")
            shift, scale, gate, ff_shift, ff_scale, ff_gate = block["affine"](condition).chunk(6, 1)
            inside = seen(norm(tokens, 1e-6), shift, scale)
            q, k, v = (
                block["attn1"][name](inside).unflatten(2, (self.heads, -1)).transpose(1, 2)
                for name in ("to_q", "to_k", "to_v")
            )
            attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            tokens = tokens + gate[:, None] * block["attn1"]["to_out"][0](attended)
            inside = seen(norm(tokens, 1e-5), ff_shift, ff_scale)
            first, _, last = block["ff"]["net"]
            inside = last(F.gelu(first["proj"](inside), approximate="tanh"))
            tokens = tokens + ff_gate[:, None] * inside
        shift, scale = self.affine(condition).chunk(2, 1)
        pixels = self.output(seen(norm(tokens, 1e-6), shift, scale))
        pixels = pixels.reshape(-1, side, side, self.patch, self.patch, x.shape[1])
        return pixels.permute(0, 5, 1, 3, 2, 4).reshape(x.shape)


def dit(config):
    net = Transformer(config)
    return net, net


def fourier_in_float32(config, net):
    if config.get("embedding_type") == "fourier":
        in_float32(net)


def slopes_of_unet(config, last):
    """A bias of the embedding, weights at the lowest resolution, and the last weight."""
    levels = len(config["channel_mult"])
    bottom = config["resolution"] // config.get("patch_size", 1) >> levels - 1
    return [
        "model.map_layer0.bias",
        f"model.dec.{bottom}x{bottom}_in0.qkv.bias",
        f"model.dec.{bottom}x{bottom}_in1.norm1.weight",
        f"{last}.weight",
    ]


class Network(NamedTuple):
    """How a network is made by another implementation."""

    # Of a config: the module that has the parameters, and the one that is called, as
    # f(x, c_noise, labels, augment_labels=...).
    build: Callable
    # Of a config: the four parameters whose gradients are written, by our names.
    slopes: Callable
    # Of a config: the shape of one sample.
    sample: Callable = lambda config: [config["channels"], *2 * [config["resolution"]]]
    # Of a config and the module, which is in float64: sets what it computes in float32.
    settle: Callable = lambda config, net: None


NETWORKS = {
    "adm_unet": Network(
        adm_unet,
        slopes=lambda config: slopes_of_unet(config, "model.out_conv"),
    ),
    "song_unet": Network(
        song_unet,
        slopes=lambda config: slopes_of_unet(
            config, "model.dec.{0}x{0}_aux_conv".format(config["resolution"])
        ),
        settle=fourier_in_float32,
    ),
    "dit": Network(
        dit,
        slopes=lambda config: [
            "model.map_noise.linear_1.bias",
            "model.block0.attn1.to_q.weight",
            "model.block1.affine.weight",
            "model.output.weight",
        ],
    ),
}


def network_of(name):
    """The name of the network that a case is of."""
    return next(network for network in NETWORKS if name.startswith(network + "_"))


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
    c_skip, c_out, c_in, c_noise = preconditioning(config.get("preconditioning", "edm"), sigma)
    across = lambda c: c.reshape(-1, *[1] * (x.dim() - 1))
    raw = net(across(c_in) * x, c_noise.double(), labels, augment_labels=augment)
    return across(c_skip) * x + across(c_out) * raw


def case(config, architecture):
    network = NETWORKS[architecture]
    own, net = network.build(config)
    parameters = parameters_of(own)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights(name, tuple(parameter.shape)))
    own.double()
    network.settle(config, own)
    sigma = torch.tensor(SIGMAS)
    n, shape = len(SIGMAS), network.sample(config)
    noise = torch.randn([n, *shape], generator=torch.Generator().manual_seed(1))
    x = noise * (sigma**2 + SIGMA_DATA**2).sqrt().reshape(-1, *[1] * len(shape))
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
    for name in network.slopes(config):
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
    for name in sys.argv[1:] or CASES:
        tensors, metadata = case(CASES[name], network_of(name))
        save_file(tensors, folder / f"{name}.safetensors", metadata)


if __name__ == "__main__":
    main()
