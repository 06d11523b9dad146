import os
import subprocess
import sys
from pathlib import Path

import pytest

import atelier

PROJECT = Path(__file__).resolve().parents[2]
MODELS = PROJECT / "models" / "fashion-mnist"


@pytest.fixture(scope="session")
def k4():
    return atelier.load(MODELS / "k4")


@pytest.fixture(scope="session")
def teacher():
    return atelier.load(MODELS / "teacher")


def program(*arguments):
    """Runs the `atelier` program; its standard output."""
    done = subprocess.run([os.environ["ATELIER_PROGRAM"], *map(str, arguments)], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def python(code):
    """Runs Python code in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory):
    """A run on 2-D points that takes a second or two and learns next to nothing."""
    folder = tmp_path_factory.mktemp("runs") / "toy"
    settings = ["network.hidden=16", "network.blocks=1", "teacher.steps=20", "teacher.batch=32", "pairs.count=64", "pairs.shard=32",
                "dm.steps=10", "dm.batch=16", "adm.steps=5", "adm.batch=16", "partition.students=2", "evaluate.count=200"]
    program("run", "configs/toy2d.toml", f"output={folder}", "log_every=5", *settings)
    return folder
