"""Writes tests/golden/edm_*.pkl and *.pth: small networks in the format of NVlabs/edm's pickles and
in both formats of torch.save.

    python scripts/make_pickle_golden.py        (needs what make_network_golden.py needs)

Beside each is edm_*.safetensors with x, sigma, labels and the denoised images. Weights are
functions of their names as in golden_weights.py. EDM's objects pickle as a call of
torch_utils.persistence._reconstruct_persistent_obj with a dictionary of class, source and state;
ours are made here, so that none of EDM's code is needed.
"""

import collections
import pickle
import sys
import types

import numpy as np
import torch
from physicsnemo.models.diffusion_unets import dhariwal_unet
from safetensors.torch import save_file

import make_network_golden as golden

SIZES = dict(
    resolution=8,
    channels=3,
    model_channels=8,
    channel_mult=[1, 2],
    num_blocks=1,
    channel_mult_emb=2,
)
CASES = {
    "edm_adm": ("EDMPrecond", "DhariwalUNet", dict(**SIZES, classes=3, attention_resolutions=[4])),
    "edm_ncsnpp": (
        "VEPrecond",
        "SongUNet",
        dict(
            **SIZES,
            classes=0,
            augment_dim=9,
            attention_resolutions=[4],
            preconditioning="ve",
            embedding_type="fourier",
            channel_mult_noise=2,
            encoder_type="residual",
            resample_filter=[1, 3, 3, 1],
        ),
    ),
    "edm_ddpmpp": (
        "VPPrecond",
        "SongUNet",
        dict(**SIZES, classes=4, attention_resolutions=[], preconditioning="vp"),
    ),
}
EDM_NAMES = {"classes": "label_dim", "attention_resolutions": "attn_resolutions"}


class Block(dhariwal_unet.UNetBlock):
    """As EDM's: no attention with too few channels for a head, which physicsnemo rejects."""

    def __init__(self, *args, out_channels, attention=False, **options):
        super().__init__(
            *args, out_channels=out_channels, attention=attention and out_channels >= 64, **options
        )


dhariwal_unet.UNetBlock = Block


def reconstruct(about):
    raise NotImplementedError


persistence = types.ModuleType("torch_utils.persistence")
persistence._reconstruct_persistent_obj = reconstruct
reconstruct.__module__, reconstruct.__qualname__ = (
    "torch_utils.persistence",
    "_reconstruct_persistent_obj",
)
sys.modules |= {
    "torch_utils": types.ModuleType("torch_utils"),
    "torch_utils.persistence": persistence,
}
sys.modules["torch_utils"].persistence = persistence


class Persistent:
    def __init__(self, class_name, **state):
        self.about = dict(
            type="class",
            version=6,
            module_src="raise SystemExit('never run')",
            class_name=class_name,
            state=state,
        )

    def __reduce__(self):
        return reconstruct, (self.about,)


def module(class_name, tensors, **attributes):
    """A module with the tensors {dotted name: tensor}, nested as the names say."""
    own, inner = {}, {}
    for name, tensor in tensors.items():
        first, _, rest = name.partition(".")
        if rest:
            inner.setdefault(first, {})[rest] = tensor
        else:
            own[first] = tensor
    parameters = {
        name: tensor for name, tensor in own.items() if isinstance(tensor, torch.nn.Parameter)
    }
    buffers = {name: tensor for name, tensor in own.items() if name not in parameters} | {
        "absent": None
    }
    children = {
        name: module("Layer", tensors, skip_scale=np.sqrt(0.5)) for name, tensors in inner.items()
    }
    return Persistent(
        class_name,
        training=False,
        _parameters=collections.OrderedDict(parameters),
        _buffers=collections.OrderedDict(buffers),
        _modules=collections.OrderedDict(children),
        **attributes,
    )


def state_of(net):
    """Parameters and buffers under EDM's names, without the prefix "model."."""
    state = {
        name.removeprefix("model."): tensor for name, tensor in golden.parameters_of(net).items()
    }
    return state | {
        name: buffer for name, buffer in net.named_buffers() if name.endswith(".resample_filter")
    }


def pickled(outer, inner, config, state):
    arguments = {
        EDM_NAMES.get(key, key): value
        for key, value in config.items()
        if key not in ("resolution", "channels", "preconditioning")
    }
    network = module(
        inner,
        state,
        _init_args=(config["resolution"], config["channels"]),
        _init_kwargs=dict(out_channels=config["channels"], dropout=0.13, **arguments),
    )
    constants = {
        "EDMPrecond": dict(sigma_data=0.5, sigma_min=0, sigma_max=float("inf")),
        "VEPrecond": dict(sigma_min=0.02, sigma_max=100),
        "VPPrecond": dict(beta_d=19.9, beta_min=0.1, M=1000, sigma_min=0.001, sigma_max=152.2),
    }[outer]
    denoiser = Persistent(
        outer,
        _init_args=(),
        _init_kwargs={},
        _parameters=collections.OrderedDict(),
        _buffers=collections.OrderedDict(),
        _modules=collections.OrderedDict(model=network),
        **constants,
    )
    return pickle.dumps(dict(ema=denoiser, loss_fn=None, dataset_kwargs=dict(path="data.zip")))


def main():
    folder = golden.pathlib.Path(__file__).parent.parent / "tests" / "golden"
    golden.SLOPES = []
    for name, (outer, inner, config) in CASES.items():
        architecture = "adm_unet" if inner == "DhariwalUNet" else "song_unet"
        tensors, _ = golden.case(config, architecture)
        state = {
            key: tensor.float() if tensor is not None else None
            for key, tensor in state_of(golden.build(config, architecture)).items()
        }
        state = {
            key: torch.nn.Parameter(tensor) if tensor.requires_grad else tensor
            for key, tensor in state.items()
        }
        (folder / f"{name}.pkl").write_bytes(pickled(outer, inner, config, state))
        save_file(
            {key: tensor for key, tensor in tensors.items() if not key.startswith("slope:")},
            folder / f"{name}.safetensors",
        )
    named = {"model." + key: tensor.detach() for key, tensor in state.items()}
    torch.save(named, folder / "edm_ddpmpp.pth")
    torch.save(
        {"model": {"net": named, "fake_score": named}},
        folder / "edm_ddpmpp_nested_legacy.pth",
        _use_new_zipfile_serialization=False,
    )


if __name__ == "__main__":
    main()
