"""Builds Atelier's wheel: scikit-build-core with LibTorch, without the rest of the torch package
(see wheels.py for the reason).

The wheel contains the libraries of LibTorch that it links, so that it does not depend on torch.
LibTorch is taken from an environment that has torch, the target environment or .venv; otherwise it
is downloaded into build/libtorch.
"""

import glob
import pathlib
import sys
import sysconfig

import wheels
from scikit_build_core import build as core
from scikit_build_core.build import *  # noqa: F403


def _with_libtorch(settings):
    settings = dict(settings or {})
    if "cmake.define.ATELIER_LIBTORCH" not in settings:
        places = [
            pathlib.Path(sysconfig.get_path("purelib")),
            *map(pathlib.Path, glob.glob(str(wheels.ROOT / ".venv/lib/python3*/site-packages"))),
        ]
        there = [
            place / "torch"
            for place in places
            if wheels.has_libtorch(place) and not wheels.loads(place / "torch")
        ]
        try:
            settings["cmake.define.ATELIER_LIBTORCH"] = str(
                there[0] if there else wheels.provide_libtorch(wheels.ROOT / "build/libtorch")
            )
        except wheels.Failed as failed:
            sys.exit(str(failed))
    return settings


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    return core.build_wheel(wheel_directory, _with_libtorch(config_settings), metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return core.build_editable(wheel_directory, _with_libtorch(config_settings), metadata_directory)
