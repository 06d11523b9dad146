"""Writes tests/golden/dinov2.safetensors and dinov2_shapes.json: the outputs of transformers'
Dinov2Model for a few small images, with weights that are functions of their names.

    python scripts/make_dinov2_golden.py [--weights FILE.safetensors]

Needs transformers, torch, numpy and safetensors. --weights also saves the weights, to try
`atelier evaluate --dinov2`. The network computes in float64.
"""

import argparse
import json
import pathlib

import torch
from golden_weights import weights
from safetensors.torch import save_file
from transformers import Dinov2Config, Dinov2Model

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = {"small": (3, 3, 20, 28), "large": (1, 3, 260, 300)}  # neither is 224


def images(name):
    """Uint8, from the same generator as the weights."""
    shape = SIZES[name]
    numbers = weights(name, (torch.Size(shape).numel(),))
    return ((numbers * 4 + 1).clamp(0, 2) * 127.5).to(torch.uint8).reshape(shape)


def preprocessed(levels):
    seen = torch.nn.functional.interpolate(
        levels.float(), size=(224, 224), mode="bicubic", antialias=True
    )
    mean, deviation = (torch.tensor(x).view(1, 3, 1, 1) for x in (MEAN, DEVIATION))
    return (seen / 255 - mean) / deviation


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=pathlib.Path)
    args = parser.parse_args()
    # 5x5 positions are interpolated to the 16x16 patches of 224 pixels, and to others.
    config = Dinov2Config(
        hidden_size=128, num_hidden_layers=2, num_attention_heads=2, image_size=70, patch_size=14
    )
    model = Dinov2Model(config).eval().requires_grad_(False)
    state = {name: weights(name, tuple(value.shape)) for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    if args.weights:
        save_file(state, args.weights)
    model.double()
    answers = {}
    for name in SIZES:
        answers[f"{name} images"] = images(name)
        seen = preprocessed(images(name))
        answers[f"{name} features"] = model(seen.double()).pooler_output.float()
    # Without resizing: the trained grid, and one that is not square.
    for name, shape in {"trained": (2, 3, 70, 70), "wide": (2, 3, 42, 98)}.items():
        answers[f"{name} seen"] = weights(name, (torch.Size(shape).numel(),)).reshape(shape) * 4
        answers[f"{name} features"] = model(answers[f"{name} seen"].double()).pooler_output.float()
    golden = pathlib.Path(__file__).resolve().parent.parent / "tests/golden"
    save_file(
        {name: value.contiguous() for name, value in answers.items()},
        golden / "dinov2.safetensors",
    )
    (golden / "dinov2_shapes.json").write_text(
        json.dumps({name: list(value.shape) for name, value in state.items()}, indent=0) + "\n"
    )


if __name__ == "__main__":
    main()
