"""Writes tests/golden/lpips.safetensors: distances and a gradient of the lpips package, with
weights that are functions of their names.

    python scripts/make_lpips_golden.py

Needs lpips, torchvision, torch, numpy and safetensors.
"""

import pathlib

import lpips
import torch
from golden_weights import weights
from safetensors.torch import save_file
from torch.nn import functional as F

SLICES = {
    "vgg": {
        "0.0": 0,
        "0.2": 2,
        "1.5": 5,
        "1.7": 7,
        "2.10": 10,
        "2.12": 12,
        "2.14": 14,
        "3.17": 17,
        "3.19": 19,
        "3.21": 21,
        "4.24": 24,
        "4.26": 26,
        "4.28": 28,
    },
    "alex": {"0.0": 0, "1.3": 3, "2.6": 6, "3.8": 8, "4.10": 10},
}


def images(name, channels, size):
    """Uniform in [-1,1], a function of the name."""
    numbers = weights(name, (2, channels, size, size))
    return numbers / numbers.abs().max()


def model(network):
    """Weights are named "features.<n>.weight" and so on.

    Those of the linear layers are positive, as trained ones are.
    """
    net = lpips.LPIPS(
        net=network, pretrained=False, pnet_rand=True, verbose=False, lpips=True
    ).eval()
    with torch.no_grad():
        for place, number in SLICES[network].items():
            layer = dict(net.net.named_modules())[
                f"slice{int(place.split('.')[0]) + 1}.{place.split('.')[1]}"
            ]
            layer.weight.copy_(
                weights(f"features.{number}.weight", tuple(layer.weight.shape)) * 2**0.5
            )
            layer.bias.copy_(weights(f"features.{number}.bias", tuple(layer.bias.shape)))
        for i, lin in enumerate(net.lins):
            lin.model[-1].weight.copy_(
                weights(f"lin{i}.model.1.weight", tuple(lin.model[-1].weight.shape)).abs()
            )
    return net


def main():
    tensors = {}
    for network in SLICES:
        net = model(network)
        for channels, size in ((3, 64), (1, 80)):
            a, b = (
                images(f"{network}/{channels}/a", channels, size).requires_grad_(True),
                images(f"{network}/{channels}/b", channels, size),
            )
            distance = net(a.expand(-1, 3, -1, -1), b.expand(-1, 3, -1, -1)).flatten()
            tensors[f"{network}/{channels}/distance"] = distance.detach()
            tensors[f"{network}/{channels}/slope"] = torch.autograd.grad(distance.sum(), a)[0][
                :1, :1
            ].contiguous()
            resized = [F.interpolate(x.expand(-1, 3, -1, -1), 224, mode="bilinear") for x in (a, b)]
            tensors[f"{network}/{channels}/resized"] = net(*resized).mean().detach().reshape(1)
    save_file(
        tensors, pathlib.Path(__file__).resolve().parent.parent / "tests/golden/lpips.safetensors"
    )


if __name__ == "__main__":
    main()
