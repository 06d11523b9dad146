"""Tests run with PYTHONPATH at the built package and ATELIER_PROGRAM at the program.

ctest sets both.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import atelier

PROJECT = Path(__file__).resolve().parents[2]
MODELS = PROJECT / "models" / "fashion-mnist"
CAPTIONS = PROJECT / "models" / "captions"


@pytest.fixture(scope="session")
def k4():
    return atelier.load(MODELS / "k4")


@pytest.fixture(scope="session")
def captions():
    return atelier.load(CAPTIONS)


@pytest.fixture(scope="session")
def teacher():
    return atelier.load(MODELS / "teacher", engine="torch", sampler="heun", steps=2)


@pytest.fixture(scope="session")
def program():
    """Runs the `atelier` program and returns its standard output."""

    def run(*arguments):
        done = subprocess.run(
            [os.environ["ATELIER_PROGRAM"], *map(str, arguments)],
            cwd=PROJECT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def python():
    """Runs Python in a separate process, in `folder`, and returns its standard output."""

    def run(*arguments, folder=PROJECT):
        done = subprocess.run(
            [sys.executable, *map(str, arguments)], cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def importable_torch():
    """Skips when torch is installed as LibTorch only (scripts/wheels.py)."""
    done = subprocess.run([sys.executable, "-c", "import torch"], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("import torch: " + done.stderr.strip().splitlines()[-1])


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory, program):
    """A run on 2-D points that takes seconds and learns almost nothing."""
    folder = tmp_path_factory.mktemp("runs") / "toy"
    settings = (
        "network.hidden=16 network.blocks=1 teacher.steps=20 teacher.batch=32 pairs.count=64 "
        "pairs.steps=4 pairs.shard=32 dm.steps=10 dm.batch=16 adm.steps=5 adm.batch=16 "
        "probe.every=5 probe.count=64 partition.students=2 evaluate.count=200 log_every=5 "
        "students.parallel=1"
    )
    program(
        "run", "configs/toy2d.toml", f"output={folder}", "data.path=toy:ring", *settings.split()
    )
    return folder
