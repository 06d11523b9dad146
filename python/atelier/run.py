"""Reads run directories."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from atelier import _atelier
from atelier.ensemble import PathLike
from atelier.partition import Partition


@dataclass(frozen=True)
class Stage:
    """A stage of a run: the teacher's training, the pairs, or one stage of one student."""

    path: Path
    finished: bool
    settings: dict[str, Any]
    """The config values on which its result depends."""
    result: dict[str, Any]
    """The summary written when it finished, e.g. {"seconds": 1766.2}."""

    @property
    def metrics(self) -> list[dict[str, float]]:
        """Its log, one row per logged step: [{"step": 50, "loss": 1.12, ...}, ...].

        Empty for stages without training.
        """
        log = self.path / "training" / "metrics.jsonl"
        return [_row(line, f"{log}:{number}") for number, line in enumerate(_lines(log), 1)]


@dataclass(frozen=True)
class Run:
    """A run directory, finished or not."""

    path: Path
    stages: Mapping[str, Stage]
    """By folder: "teacher", "pairs", "students/0/dm", ..."""
    partition: Partition | None
    evaluation: dict[str, Any] | None
    """evaluation.json: {"order": [name, ...], "models": {name: {"metrics", "classes", "protocol",
    ...}}, ...}."""

    @property
    def ensemble(self) -> Path | None:
        """The ensemble's directory, for `load`; None before it is made."""
        return _if_there(self.path / "ensemble", "ensemble.json")

    @property
    def teacher(self) -> Path | None:
        """The teacher's directory, for `load`; None before it is trained."""
        return _if_there(self.path / "teacher", "config.json")

    @property
    def report(self) -> Path | None:
        """The path of report.html; None before it is written."""
        page = self.path / "report.html"
        return page if page.is_file() else None


def read_run(path: PathLike) -> Run:
    """Read a run directory, as `atelier run` makes it.

    Raises Error when it is not a run directory or when one of its files is broken.
    """
    folder = Path(path)
    if (
        not (folder / "teacher" / "stage.json").is_file()
        and not (folder / "partition.json").is_file()
    ):
        raise _atelier.Error(
            f"{folder}: is no run directory; it has neither teacher/stage.json nor partition.json"
        )
    stages = {
        str(file.parent.relative_to(folder)): _stage(file)
        for file in sorted(folder.rglob("stage.json"))
    }
    partition, evaluation = folder / "partition.json", folder / "evaluation.json"
    return Run(
        path=folder,
        stages=MappingProxyType(stages),
        partition=Partition._of(_atelier.read_partition(partition))
        if partition.is_file()
        else None,
        evaluation=_atelier.read_object(evaluation) if evaluation.is_file() else None,
    )


def _stage(file: Path) -> Stage:
    manifest = _atelier.read_object(file)
    return Stage(
        file.parent,
        manifest.get("status") == "finished",
        manifest.get("settings", {}),
        manifest.get("result", {}),
    )


def _lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8").splitlines() if log.is_file() else []


def _row(line: str, where: str) -> dict[str, float]:
    try:
        return dict(json.loads(line))
    except (TypeError, ValueError):
        raise _atelier.Error(f"{where}: is no line of a log, but {line[:40]!r}") from None


def _if_there(folder: Path, manifest: str) -> Path | None:
    return folder if (folder / manifest).is_file() else None
