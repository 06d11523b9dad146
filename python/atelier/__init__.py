"""Ensembles of one-step students: load, route, sample and evaluate them, and read run directories.

import atelier

ensemble = atelier.load("models/fashion-mnist/k4")
images = ensemble.sample(classes=["sandal", "bag"], seed=1)    # uint8 [2, 28, 28, 1]
"""

import atelier_program

atelier_program.load_torch()  # before the next line asks for LibTorch by name

from atelier._atelier import Error, UsageError, __version__  # noqa: E402
from atelier.ensemble import Ensemble, load  # noqa: E402
from atelier.images import Images  # noqa: E402
from atelier.partition import Partition  # noqa: E402
from atelier.run import Run, Stage, read_run  # noqa: E402

__all__ = [
    "Ensemble",
    "Error",
    "Images",
    "Partition",
    "Run",
    "Stage",
    "UsageError",
    "load",
    "read_run",
]
