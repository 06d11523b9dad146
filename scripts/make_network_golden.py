"""Writes tests/golden/adm_unet_*.safetensors: what an independent ADM U-Net with EDM's preconditioning makes of small inputs.

    python scripts/make_network_golden.py        (needs nvidia-physicsnemo, torch, numpy and safetensors)

A file holds x, sigma, the labels where there are classes, the denoised images, and the slopes of their mean square on x and on a few
weights; its metadata holds the config and every parameter's shape. The weights themselves would be megabytes: they follow
from their names by `weights`, which tests/diffusion/adm_unet_golden_test.cpp repeats. All is computed in float64.
"""
import json
import pathlib

import numpy as np
import torch
from physicsnemo.models.diffusion_unets import DhariwalUNet
from safetensors.torch import save_file
from torch.nn import functional as F

SIGMA_DATA = 0.5
SIGMAS = [0.002, 0.3, 5.0, 80.0]
CASES = {
    "unconditional": dict(resolution=8, channels=1, classes=0, model_channels=16, channel_mult=[1, 4], num_blocks=1,
                          attention_resolutions=[]),
    # Several levels that attend, with one head and with two.
    "attention": dict(resolution=16, channels=3, classes=7, model_channels=32, channel_mult=[1, 2, 4], num_blocks=2,
                      attention_resolutions=[8, 4]),
    # 2x2 patches as channels, an odd size at the bottom, another width of the embedding.
    "patches": dict(resolution=28, channels=1, classes=10, model_channels=64, channel_mult=[1, 2], num_blocks=1, attention_resolutions=[7],
                    channel_mult_emb=2, patch_size=2),
}
ATTENTION = {"attn.norm.": "norm2.", "attn.qkv.": "qkv.", "attn.proj.": "proj."}  # physicsnemo's names and EDM's
SLOPES = ["model.map_layer0.bias", "model.{bottom}_in0.qkv.bias", "model.{bottom}_in1.norm1.weight", "model.out_conv.weight"]


def fnv1a(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def parameters_of(net):
    """The network's parameters by EDM's names."""
    named = {}
    for name, parameter in net.named_parameters():
        for theirs, ours in ATTENTION.items():
            name = name.replace(theirs, ours)
        named["model." + name] = parameter
    return named


def weights(name, shape):
    """Uniform numbers from splitmix64 that starts at the name's hash: weights of unit gain, norms near 1, biases near 0."""
    state = np.uint64(fnv1a(name)) + np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    signed = (state >> np.uint64(40)).astype(np.float64) / 2**23 - 1
    if len(shape) == 1:
        numbers = 0.25 * signed + (1.0 if name.endswith(".weight") else 0.0)
    else:
        numbers = signed * np.sqrt(3.0 / np.prod(shape[1:]))
    return torch.from_numpy(numbers.astype(np.float32)).reshape(shape)


def build(config):
    patch = config.get("patch_size", 1)
    inside = config["channels"] * patch**2
    net = DhariwalUNet(config["resolution"] // patch, inside, inside, label_dim=config["classes"], model_channels=config["model_channels"],
                       channel_mult=config["channel_mult"], channel_mult_emb=config.get("channel_mult_emb", 4),
                       num_blocks=config["num_blocks"], attn_resolutions=config["attention_resolutions"], dropout=0.0)
    with torch.no_grad():
        for name, parameter in parameters_of(net).items():
            parameter.copy_(weights(name, tuple(parameter.shape)))
    return net.double()


def denoise(net, config, x, sigma, labels):
    patch = config.get("patch_size", 1)
    s = sigma.reshape(-1, 1, 1, 1)
    total = s**2 + SIGMA_DATA**2
    inside = F.pixel_unshuffle(x / total.sqrt(), patch)
    raw = F.pixel_shuffle(net(inside, sigma.log() / 4, labels), patch)
    return SIGMA_DATA**2 / total * x + s * SIGMA_DATA / total.sqrt() * raw


def case(config):
    net = build(config)
    sigma = torch.tensor(SIGMAS)
    n, channels, size = len(SIGMAS), config["channels"], config["resolution"]
    noise = torch.randn([n, channels, size, size], generator=torch.Generator().manual_seed(1))
    x = noise * (sigma**2 + SIGMA_DATA**2).sqrt().reshape(-1, 1, 1, 1)
    tensors = {"x": x, "sigma": sigma}
    labels = None
    if config["classes"]:
        tensors["labels"] = F.one_hot(torch.arange(n) * 3 % config["classes"], config["classes"]).float()
        labels = tensors["labels"].double()
    x = x.double().requires_grad_()
    denoised = denoise(net, config, x, sigma.double(), labels)
    denoised.square().mean().backward()
    tensors |= {"denoised": denoised, "slope:x": x.grad}
    parameters = parameters_of(net)
    bottom = config["resolution"] // config.get("patch_size", 1) >> len(config["channel_mult"]) - 1
    for name in SLOPES:
        name = name.format(bottom=f"dec.{bottom}x{bottom}")
        tensors["slope:" + name] = parameters[name].grad
    about = {"config": {"architecture": "adm_unet", **config},
             "parameters": {name: list(parameter.shape) for name, parameter in parameters.items()}}
    # One entry, as safetensors writes several in an order of chance.
    return {name: tensor.detach().float().contiguous() for name, tensor in tensors.items()}, {"about": json.dumps(about)}


def main():
    folder = pathlib.Path(__file__).parent.parent / "tests" / "golden"
    for name, config in CASES.items():
        tensors, metadata = case(config)
        save_file(tensors, folder / f"adm_unet_{name}.safetensors", metadata)


if __name__ == "__main__":
    main()
