"""Which student owns which class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Partition:
    """Assigns every class to exactly one student. Made by a run, never changed."""

    students: int
    """The number of students (K)."""
    method: str
    """How it was made: "consecutive", "random", "kmeans", "balanced" or "file"; "whole" for a
    single model that owns all."""
    hash: str
    """SHA-256 of the assignment, recorded in every student."""
    owner: tuple[int, ...]
    """The student of each class."""

    @property
    def cells(self) -> tuple[tuple[int, ...], ...]:
        """The classes of each student, increasing."""
        return tuple(
            tuple(c for c, owner in enumerate(self.owner) if owner == k)
            for k in range(self.students)
        )

    @classmethod
    def _of(cls, json: dict[str, Any]) -> Partition:
        return cls(json["students"], json["method"], json["hash"], tuple(json["owner"]))
