"""Writes tests/golden/inception.safetensors and inception_shapes.json: the outputs of
torch-fidelity's Inception-v3 for a few small images, with weights that are functions of their
names.

    python scripts/make_inception_golden.py [--weights FILE.pth]

Needs torch-fidelity, torch, numpy and safetensors. --weights also saves the weights as a state
dictionary, to compare `atelier evaluate --inception` with torch-fidelity.
"""

import argparse
import json
import pathlib
import tempfile

import numpy as np
import torch
from golden_weights import weights
from safetensors.torch import save_file
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3


def formula(name, shape):
    """As the networks' golden weights; variances are around 1."""
    if name.endswith("running_var"):
        return weights(name, shape) + 1
    return weights(name, shape) if shape else torch.zeros(shape)


def state():
    layout = FeatureExtractorInceptionV3.__new__(FeatureExtractorInceptionV3)
    try:
        FeatureExtractorInceptionV3.__init__(
            layout, "inception", ["2048"], feature_extractor_weights_path="/nonexistent"
        )
    except (FileNotFoundError, AssertionError):
        pass  # only the layers are needed
    return {name: formula(name, tuple(value.shape)) for name, value in layout.state_dict().items()}


def images():
    """Uint8 [3,3,20,28], from the same generator as the weights."""
    numbers = weights("images", (3, 3, 20, 28)) / np.sqrt(3.0 / (3 * 20 * 28))
    return ((numbers + 1) * 127.99).to(torch.uint8)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=pathlib.Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.weights or pathlib.Path(folder) / "weights.pth"
        torch.save(state(), path)
        extractor = FeatureExtractorInceptionV3(
            "inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
        )
    with torch.no_grad():
        features, logits = extractor(images())
    golden = pathlib.Path(__file__).resolve().parent.parent / "tests/golden"
    save_file(
        {"images": images(), "features": features.contiguous(), "logits": logits.contiguous()},
        golden / "inception.safetensors",
    )
    (golden / "inception_shapes.json").write_text(
        json.dumps(
            {name: list(value.shape) for name, value in state().items() if value.dim() > 0},
            indent=0,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
