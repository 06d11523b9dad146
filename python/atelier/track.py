"""Follows a run and tells an experiment tracker what it logs.

    python -m atelier.track runs/toy2d --to wandb --project toys --follow
    python -m atelier.track runs/toy2d --to mlflow
    python -m atelier.track runs/toy2d --to tensorboard

A run's metrics.jsonl and images of samples are read, and nothing of the run is changed, so this may
begin before, during or after the run, on any machine that sees its directory. What was reported is
remembered in DIR/track/, and a second call goes on from there.

TensorBoard's scalars are written by the run itself, beside each metrics.jsonl; only the images are
added here. wandb and mlflow are your own, installed with pip, and configured as they always are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

State = dict[str, dict[str, int]]
"""By stage: the last step whose metrics were reported, and the last whose image was."""


class TrackingError(Exception):
    """What went wrong and how to fix it, in one line."""


# The run ----------------------------------------------------------------------------------------


def stages_of(run: Path) -> list[str]:
    """The folders of training stages, "teacher", "students/0/dm", ..., that have logged."""
    logs = [*run.glob("*/training/metrics.jsonl"), *run.glob("students/*/*/training/metrics.jsonl")]
    return sorted(str(log.parent.parent.relative_to(run)) for log in logs)


def new_metrics(run: Path, stage: str, after: int) -> Iterator[tuple[int, dict[str, float]]]:
    """The logged steps beyond `after`, each with its metrics. A line that is still being written is
    left for the next time."""
    text = (run / stage / "training" / "metrics.jsonl").read_text(encoding="utf-8")
    for line in text.split("\n")[:-1]:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        step = row.pop("step", None)
        if isinstance(step, int) and step > after:
            yield step, {k: float(v) for k, v in row.items() if isinstance(v, (int, float))}


def new_images(run: Path, stage: str, after: int) -> Iterator[tuple[int, Path]]:
    """The images of samples of steps beyond `after`."""
    for path in sorted((run / stage / "training" / "samples").glob("step-*.png")):
        number = path.stem.removeprefix("step-")
        if number.isdigit() and int(number) > after:
            yield int(number), path


def settings_of(run: Path) -> dict[str, Any]:
    """The settings of the run's stages, "dm.batch": 64, as the stages recorded them."""
    found: dict[str, Any] = {}

    def flatten(values: dict[str, Any], prefix: str) -> None:
        for key, value in values.items():
            if isinstance(value, dict):
                flatten(value, f"{prefix}{key}.")
            else:
                found[prefix + key] = value

    for manifest in [*run.glob("*/stage.json"), *run.glob("students/*/*/stage.json")]:
        try:
            flatten(json.loads(manifest.read_text(encoding="utf-8")).get("settings", {}), "")
        except (OSError, json.JSONDecodeError):
            continue  # it is just being replaced
    return found


def finished(run: Path) -> bool:
    return (run / "report.html").exists()


# TensorBoard ------------------------------------------------------------------------------------


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC_TABLE = _crc_table()


def masked_crc(data: bytes) -> int:
    """CRC-32C, masked as in TFRecord files."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def tf_record(data: bytes) -> bytes:
    """`data` with its length and both checksums."""
    length = struct.pack("<Q", len(data))
    crc_of_length, crc = (struct.pack("<I", masked_crc(part)) for part in (length, data))
    return length + crc_of_length + data + crc


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _number(field: int, number: int) -> bytes:
    return _varint(field << 3) + _varint(number)


def _real(field: int, number: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", number)


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def png_size(png: bytes) -> tuple[int, int, int]:
    """Height, width and channels of a PNG."""
    if png[:8] != b"\x89PNG\r\n\x1a\n" or len(png) < 33:
        raise TrackingError("an image of samples is no PNG")
    width, height, _, colours = struct.unpack(">IIBB", png[16:26])
    return height, width, {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}[colours]


def image_event(step: int, tag: str, png: bytes, wall_time: float) -> bytes:
    """tensorflow.Event with an image summary; field numbers as in TensorFlow's event.proto and
    summary.proto."""
    height, width, channels = png_size(png)
    image = _number(1, height) + _number(2, width) + _number(3, channels) + _bytes(4, png)
    summary = _bytes(1, _bytes(1, tag.encode()) + _bytes(4, image))
    return _real(1, wall_time) + _number(2, step) + _bytes(5, summary)


class TensorBoard:
    """Adds the images of samples to event files beside those of the scalars."""

    wants_metrics = False

    def __init__(self, run: Path, options: argparse.Namespace) -> None:
        self._run = run
        self._files: dict[str, Any] = {}

    def metrics(self, stage: str, step: int, values: dict[str, float]) -> None:
        """The run writes them itself."""

    def image(self, stage: str, step: int, path: Path) -> None:
        out = self._files.get(stage)
        if out is None:
            folder = self._run / stage / "training"
            name = f"events.out.tfevents.{int(time.time())}.images.{os.getpid()}.{step}"
            out = self._files[stage] = open(folder / name, "ab")  # noqa: SIM115
            out.write(tf_record(_real(1, time.time()) + _bytes(3, b"brain.Event:2")))
        event = image_event(step, "samples", path.read_bytes(), path.stat().st_mtime)
        out.write(tf_record(event))
        out.flush()

    def close(self) -> None:
        for out in self._files.values():
            out.close()


# Other trackers ---------------------------------------------------------------------------------


def _client(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError:
        why = f"{name} is not installed; install it with: pip install {name}"
        raise TrackingError(why) from None


class Wandb:
    """One run of Weights & Biases; metrics are named by their stage and drawn over its steps."""

    wants_metrics = True

    def __init__(self, run: Path, options: argparse.Namespace) -> None:
        self._wandb = _client("wandb")
        # The same id for the same directory, so that a second call goes on.
        name = hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:16]
        self._run = self._wandb.init(
            project=options.project,
            name=options.name,
            id=name,
            resume="allow",
            config=settings_of(run),
            dir=str(run / "track"),
        )
        self._known: set[str] = set()

    def _introduce(self, stage: str) -> None:
        if stage not in self._known:
            self._known.add(stage)
            self._run.define_metric(f"{stage}/step")
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")

    def metrics(self, stage: str, step: int, values: dict[str, float]) -> None:
        self._introduce(stage)
        self._run.log({f"{stage}/step": step, **{f"{stage}/{k}": v for k, v in values.items()}})

    def image(self, stage: str, step: int, path: Path) -> None:
        self._introduce(stage)
        picture = self._wandb.Image(str(path))
        self._run.log({f"{stage}/step": step, f"{stage}/samples": picture})

    def close(self) -> None:
        self._run.finish()


class Mlflow:
    """One run of MLflow; images of samples are artifacts."""

    wants_metrics = True
    _longest_parameter = 500

    def __init__(self, run: Path, options: argparse.Namespace) -> None:
        self._mlflow = _client("mlflow")
        self._mlflow.set_experiment(options.project)
        known = run / "track" / "mlflow-run"
        if known.exists():
            self._mlflow.start_run(run_id=known.read_text(encoding="utf-8").strip())
            return
        started = self._mlflow.start_run(run_name=options.name)
        for key, value in settings_of(run).items():
            self._mlflow.log_param(key, str(value)[: self._longest_parameter])
        _write(known, started.info.run_id + "\n")

    def metrics(self, stage: str, step: int, values: dict[str, float]) -> None:
        self._mlflow.log_metrics({f"{stage}/{k}": v for k, v in values.items()}, step=step)

    def image(self, stage: str, step: int, path: Path) -> None:
        self._mlflow.log_artifact(str(path), artifact_path=f"{stage}/samples")

    def close(self) -> None:
        self._mlflow.end_run()


TRACKERS: dict[str, Callable[[Path, argparse.Namespace], Any]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "mlflow": Mlflow,
}


# Following --------------------------------------------------------------------------------------


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _read_state(path: Path) -> State:
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        why = f"{path}: is damaged; delete it, and everything is reported again"
        raise TrackingError(why) from None


def report_news(run: Path, tracker: Any, state: State) -> int:
    """Reports to the tracker what is new since `state`, which is brought up to date; returns how
    many things that were. Steps that a resumed run logs again are not reported again."""
    reported = 0
    for stage in stages_of(run):
        here = state.setdefault(stage, {"metrics": 0, "images": 0})
        if tracker.wants_metrics:
            for step, values in new_metrics(run, stage, here["metrics"]):
                tracker.metrics(stage, step, values)
                here["metrics"] = step
                reported += 1
        for step, path in new_images(run, stage, here["images"]):
            tracker.image(stage, step, path)
            here["images"] = step
            reported += 1
    return reported


def follow(run: Path, options: argparse.Namespace) -> None:
    """Reports what there is, and with --follow what comes until the run has its report."""
    path = run / "track" / f"{options.to}.json"
    state = _read_state(path)
    path.parent.mkdir(exist_ok=True)
    tracker = TRACKERS[options.to](run, options)
    try:
        while True:
            done = finished(run)
            if report_news(run, tracker, state):
                _write(path, json.dumps(state, indent=2) + "\n")
            if done or not options.follow:
                return
            time.sleep(options.every)
    finally:
        tracker.close()


def parser() -> argparse.ArgumentParser:
    lines = (__doc__ or "").split("\n\n")
    options = argparse.ArgumentParser(
        prog="python -m atelier.track",
        description=lines[0],
        epilog="\n\n".join(lines[2:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("run", metavar="DIR", type=Path, help="the directory of a run")
    options.add_argument("--to", required=True, choices=list(TRACKERS), help="the tracker")
    options.add_argument("--follow", action="store_true", help="go on until the run has its report")
    options.add_argument(
        "--every", type=float, default=30, metavar="SECONDS", help="with --follow; 30 if not given"
    )
    options.add_argument(
        "--project", default="atelier", help="wandb's project, mlflow's experiment"
    )
    options.add_argument("--name", help="of the run in the tracker; DIR's name if not given")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    options.name = options.name or options.run.resolve().name
    try:
        if not options.run.is_dir():
            raise TrackingError(f"{options.run}: there is no such directory; name that of a run")
        if not options.follow and not stages_of(options.run):
            raise TrackingError(f"{options.run}: has logged nothing yet; --follow waits for it")
        follow(options.run, options)
    except TrackingError as error:
        print(f"atelier.track: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
