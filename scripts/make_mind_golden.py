"""Writes tests/golden/mind.json: two small sets of features, directions, and the Monge Inception
Distance that torch-fidelity computes of them.

    python scripts/make_mind_golden.py TORCH_FIDELITY

Needs torch and numpy, and a checkout of https://github.com/toshas/torch-fidelity (5e211a9; PyPI's
0.4.0 has no MIND). For sets of one size its generator draws directions and nothing else, so the
same seed gives those that it used.
"""

import importlib
import json
import pathlib
import sys
import types

import torch

SEED, DIRECTIONS, SAMPLES, WIDTH = 7, 12, 30, 5


def metric_of(checkout):
    """Torch-fidelity's function of two sets of features. What the package imports for images
    (torchvision) is left out: features are given."""
    package = types.ModuleType("torch_fidelity")
    package.__path__ = [str(pathlib.Path(checkout) / "torch_fidelity")]
    for_images = types.ModuleType("torch_fidelity.utils")
    for_images.__getattr__ = lambda name: None
    sys.modules.update({"torch_fidelity": package, "torch_fidelity.utils": for_images})
    module = importlib.import_module("torch_fidelity.metric_mind")
    return lambda *sets, **settings: module.mind_features_to_metric(*sets, **settings)[
        module.KEY_METRIC_MIND
    ]


def main():
    metric = metric_of(sys.argv[1])
    generator = torch.Generator().manual_seed(1)
    a, b = (
        torch.randn(SAMPLES, WIDTH, generator=generator).mul(1000).round() / 1000 for _ in range(2)
    )
    b = b * torch.tensor([1.0, 2.0, 0.5, 1.0, 1.0]) + torch.tensor([0.5, 0.0, 0.0, -1.0, 0.0])
    value = metric(a, b, mind_num_projections=DIRECTIONS, cuda=False, rng_seed=SEED, verbose=False)
    generator = torch.Generator(device="cpu").manual_seed(SEED)
    directions = torch.randn(DIRECTIONS, WIDTH, generator=generator, dtype=torch.float32)
    directions = directions / directions.norm(dim=1, keepdim=True)
    golden = {
        "a": a.tolist(),
        "b": b.tolist(),
        "directions": directions.tolist(),
        "mind": value,
    }
    path = pathlib.Path(__file__).resolve().parent.parent / "tests/golden/mind.json"
    path.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
