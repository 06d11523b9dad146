from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

class Error(Exception):
    """What went wrong, where, and how to fix it."""

class UsageError(Error, ValueError):
    """An argument is wrong: an Error that is a ValueError too."""

class Ensemble:
    def __init__(
        self,
        path: str | PathLike[str],
        engine: str,
        precision: str,
        device: str,
        sampler: str,
        steps: int | None,
        guidance: float | None,
        negative: str,
        height: int,
        width: int,
    ) -> None: ...
    def sample(
        self, count: int, seed: int, classes: list[int], prompts: list[str]
    ) -> NDArray[Any]: ...
    def labels(self, count: int, seed: int, classes: list[int]) -> NDArray[np.int64]: ...
    def unread(self, prompts: list[str]) -> list[str]: ...
    def route(self, classes: list[int], prompts: list[str]) -> NDArray[np.int64]: ...
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
    def hashes(self) -> list[str]: ...
    def class_named(self, word: str) -> int: ...
    def facts(self) -> dict[str, Any]: ...

__version__: str

def encode_png(pixels: NDArray[np.uint8]) -> bytes: ...
def model_at(path: str) -> str: ...
def read_partition(path: str | PathLike[str]) -> dict[str, Any]: ...
def read_object(path: str | PathLike[str]) -> dict[str, Any]: ...
