from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

class Error(Exception):
    """What went wrong, where, and what to do about it, in plain words."""

class UsageError(Error, ValueError):
    """An argument is wrong: an Error that is a ValueError too."""

class Ensemble:
    def __init__(self, path: str | PathLike[str], engine: str, precision: str, device: str, sampler: str, steps: int | None) -> None: ...
    def sample(self, count: int, seed: int, classes: list[int]) -> NDArray[Any]: ...
    def labels(self, count: int, seed: int, classes: list[int]) -> NDArray[np.int64]: ...
    def route(self, classes: list[int]) -> NDArray[np.int64]: ...
    def evaluate(
        self,
        data: str,
        reference: str,
        count: int,
        seed: int,
        seeds: int,
        split: str,
        classifier: str,
        inception: str,
        latency: bool,
    ) -> dict[str, Any]: ...
    def hash(self) -> str: ...
    def class_named(self, word: str) -> int: ...
    def facts(self) -> dict[str, Any]: ...

def read_partition(path: str | PathLike[str]) -> dict[str, Any]: ...
def read_object(path: str | PathLike[str]) -> dict[str, Any]: ...
