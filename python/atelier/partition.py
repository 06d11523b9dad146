"""Which student owns which class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Partition:
    """Every class belongs to exactly one student. Made by a run, never changed."""

    students: int
    """How many students there are (K)."""
    method: str
    """How it was made: "consecutive", "random", "kmeans", "balanced", "file", or "whole" where one model owns all."""
    hash: str
    """SHA-256 of who owns what; every student carries it."""
    owner: tuple[int, ...]
    """The student of each class."""

    @property
    def cells(self) -> tuple[tuple[int, ...], ...]:
        """The classes of each student, increasing."""
        return tuple(tuple(c for c, owner in enumerate(self.owner) if owner == k) for k in range(self.students))

    @classmethod
    def _of(cls, json: dict[str, Any]) -> Partition:
        return cls(json["students"], json["method"], json["hash"], tuple(json["owner"]))
