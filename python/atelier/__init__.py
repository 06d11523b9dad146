"""Ensembles of one-step students: load, route, sample, measure, and read what a run left behind.

    import atelier

    ensemble = atelier.load("models/fashion-mnist/k4")
    images = ensemble.sample(classes=["sandal", "bag"], seed=1)    # uint8 [2, 28, 28, 1]
"""

from atelier._atelier import Error, UsageError
from atelier.ensemble import Ensemble, load
from atelier.partition import Partition
from atelier.run import Run, Stage, read_run

__all__ = ["Ensemble", "Error", "Partition", "Run", "Stage", "UsageError", "load", "read_run"]
