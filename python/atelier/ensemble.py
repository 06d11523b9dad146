"""A loaded model or ensemble."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from atelier import _atelier
from atelier.arguments import indices, path_word, real, strings, whole, word
from atelier.images import Images
from atelier.partition import Partition

PathLike = str | os.PathLike[str]
Class = str | SupportsIndex
"""A class: its id, or its name in any case."""
Classes = Class | Iterable[Class]
Prompts = str | Iterable[str]


def load(
    path: PathLike,
    *,
    engine: str = "auto",
    precision: str = "auto",
    device: str = "cpu",
    sampler: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    negative: str | None = None,
    height: int | None = None,
    width: int | None = None,
) -> Ensemble:
    """Open an ensemble, a model (an ensemble of one), the ensemble of a run, or a diffusers
    directory.

    engine      "native" or "openvino" (CPUs), "torch", or "auto": on CPUs native for small networks
                in fp32, else OpenVINO; LibTorch on GPUs
    precision   "fp32", "bf16", "int8" (quantised models), or "auto": int8 for those, else fp32
    device      "cpu", "cuda" or "cuda:N", or a torch.device
    sampler     "one-step", "heun", "ddim" or "stochastic" (EDM's, with settings:
                "stochastic:256,S_churn=40"); of diffusers directories "dpm++", "ddim" or "euler";
                None: one step for students, 18 Heun steps for other models, 25 of dpm++ for Stable
                Diffusion 1 and 2, what the scheduler names for other diffusers directories
    steps       for heun, ddim, stochastic, dpm++ and euler
    guidance    for diffusers directories and teachers that read prompts; None: that of diffusers'
                pipeline (7.5 for Stable Diffusion 1 and 2), or the guidance used to distil the
                teacher's students
    negative    the negative prompt, of diffusers directories, as are
    height,     of the images in pixels; None: the model's own
    width

    An ensemble's students are loaded on first use. Raises Error when the directory is not a valid
    model, UsageError (a ValueError) on invalid arguments.
    """
    if type(device).__module__ == "torch":
        device = str(device)
    how: dict[str, Any] = {
        "engine": word("engine", engine),
        "precision": word("precision", precision),
        "device": word("device", device),
        "sampler": "" if sampler is None else word("sampler", sampler),
        "steps": None if steps is None else whole("steps", steps, 1),
    }
    model = _atelier.model_at(path_word("path", path))
    how["guidance"] = None if guidance is None else real("guidance", guidance)
    how["negative"] = "" if negative is None else word("negative", negative)
    how["height"] = 0 if height is None else whole("height", height, 8)
    how["width"] = 0 if width is None else whole("width", width, 8)
    return Ensemble(_atelier.Ensemble(model, *how.values()), model, how)


def _loaded_again(path: str, how: dict[str, Any]) -> Ensemble:
    unset = {name: None for name in ("sampler", "negative", "height", "width") if not how[name]}
    return load(path, **{**how, **unset})


class Ensemble:
    """K students, each owning some of the classes or some of all prompts. Made by `load`.

    Thread-safe: calls wait for each other, and other Python threads run meanwhile. A pickle holds
    the absolute path and the options of `load`, not the weights; unpickling loads the directory
    again.

    A process forked after anything was computed (`load` of a single model computes) cannot draw and
    raises Error, since the computing threads are not inherited.
    """

    def __init__(self, core: _atelier.Ensemble, path: Path, how: dict[str, Any]) -> None:
        self._core = core
        self._how = how
        self._facts = core.facts()
        self._partition = Partition._of(self._facts["partition"])
        self.path = path

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.shape))
        owned = "prompts" if self.reads_prompts else f"{len(self.partition.owner)} classes"
        return (
            f"<atelier.Ensemble {str(self.path)!r}: {self.students} student(s), {owned}, "
            f"{self.kind} {shape}>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _loaded_again, (os.path.abspath(self.path), self._how)

    @property
    def reads_prompts(self) -> bool:
        """Whether it takes `prompts` instead of `classes`."""
        return bool(self._facts["reads_prompts"])

    @property
    def students(self) -> int:
        """The number of students (K)."""
        return self._partition.students

    @property
    def partition(self) -> Partition:
        """The owner of each class; for prompts only the number of students and the method."""
        return self._partition

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class; empty when the data had none."""
        return tuple(self._facts["class_names"])

    @property
    def prior(self) -> tuple[float, ...]:
        """How often each class occurred in the training data."""
        return tuple(self._facts["prior"])

    @property
    def kind(self) -> str:
        """ "image" or "points"."""
        return str(self._facts["kind"])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample as `sample` returns it: (height, width, channels), or (dimensions,)."""
        shape = self._facts["shape"]
        return (shape[1], shape[2], shape[0]) if self.kind == "image" else tuple(shape)

    @property
    def engine(self) -> str:
        """The runtime: "native" (Atelier's own kernels, fp32) or "openvino" on CPUs, or "torch"."""
        return str(self._facts["engine"])

    @property
    def precision(self) -> str:
        """Of matrix products and convolutions: "fp32", "bf16" or "int8"."""
        return str(self._facts["precision"])

    @property
    def sampler(self) -> str:
        """ "one-step", "heun", "ddim", "stochastic" or "dpm++"."""
        return str(self._facts["sampler"])

    @property
    def evaluations(self) -> int:
        """Network evaluations per sample."""
        return int(self._facts["evaluations"])

    @property
    def hash(self) -> str:
        """SHA-256 of the weights of all students, as in result files. Reads every student."""
        return self._core.hash()

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of these weights: `{name: {"mean", "spread", "values"}}`.

        They are read from the `evaluation.json` in or beside the directory; empty when it has none
        for these weights. Reads every student, to compare their hash.
        """
        for folder in (self.path, self.path.resolve().parent):
            file = folder / "evaluation.json"
            if not file.is_file():
                continue
            for result in _atelier.read_object(file).get("models", {}).values():
                measured = result.get("protocol", {}).get("model", {})
                if self._measured(measured):
                    return dict(result["metrics"])
        return {}

    def route(
        self, classes: Classes | None = None, *, prompts: Prompts | None = None
    ) -> NDArray[np.int64]:
        """The student that owns each of `classes`, or of `prompts`: int64 [N]."""
        if self.reads_prompts:
            return self._core.route([], self._words(classes, prompts))
        self._no_prompts(prompts)
        if classes is None:
            raise _atelier.UsageError("classes is missing; name one or more")
        return self._core.route(self._ids(classes), [])

    def sample(
        self,
        count: int | None = None,
        classes: Classes | None = None,
        seed: int = 0,
        *,
        prompts: Prompts | None = None,
    ) -> NDArray[Any]:
        """Draw samples.

        Returns uint8 [N, height, width, channels] for images (`Images`), float32 [N, dimensions]
        for points.

        count     number of samples; None: one for each of `classes` or `prompts`, or one
        classes   ids or names, repeated in order up to the count; None: drawn from the prior
                  (`labels` returns them)
        prompts   texts, repeated likewise, for a model that reads prompts
        seed      from 0 to 2**63-1; sample i depends only on the seed, i, its class or prompt and
                  the weights

        Warns (UserWarning) about prompts that exceed the tokens that the model reads. The samples
        have the same bytes as those that `atelier sample PATH --count N --class ... --seed S --out
        x.npz` (or `--prompt`) writes on the same machine.
        """
        if self.reads_prompts:
            words = self._words(classes, prompts)
            for rest in filter(None, self._core.unread(list(dict.fromkeys(words)))):
                warnings.warn(
                    f"what is beyond the tokens that this model reads changes nothing: {rest!r}",
                    stacklevel=2,
                )
            drawn = self._core.sample(
                len(words) if count is None else whole("count", count, None),
                whole("seed", seed),
                [],
                words,
            )
        else:
            self._no_prompts(prompts)
            drawn = self._core.sample(*self._request(count, classes, seed), [])
        return drawn.view(Images) if self.kind == "image" else drawn

    def labels(
        self, count: int | None = None, classes: Classes | None = None, seed: int = 0
    ) -> NDArray[np.int64]:
        """The classes of the samples that `sample` draws with the same arguments: int64 [N]."""
        if self.reads_prompts:
            raise _atelier.UsageError("this model reads prompts and knows no classes")
        return self._core.labels(*self._request(count, classes, seed))

    def evaluate(
        self,
        data: PathLike | None = None,
        count: int = 10000,
        seed: int = 0,
        *,
        seeds: int = 1,
        split: str = "test",
        classifier: PathLike = "models/classifier",
        attributes: PathLike = "",
        inception: PathLike | None = None,
        reference: PathLike | None = None,
        latency: bool = False,
    ) -> dict[str, Any]:
        """Evaluate against held-out data, as `atelier evaluate` does (docs/evaluation.md).

        data        a data set in any format that Atelier reads, or "toy:..."; its `split` is used
                    when it has several
        count       samples per seed, 2 or more
        seed, seeds the first seed and their number; metrics are means over them
        classifier  directory of the classifier whose features are compared; "": compares pixels
        attributes  of captioned data: JSON file of what captions mention (docs/captions.md)
        inception   weights of Inception-v3 instead, for FID and related metrics
        reference   statistics (.npz with mu and sigma) instead of data
        latency     also measure the time of one request

        Returns the entry of a model in a result file: "metrics" ({name: {"mean", "spread",
        "values"}}), "classes", "protocol", "evaluations", "parameters", "students", and "latency"
        when requested.
        """
        data = None if data is None else path_word("data", data)
        reference = None if reference is None else path_word("reference", reference)
        if (data is None) == (reference is None):
            raise _atelier.UsageError(
                "give data to measure against, or reference: statistics of it (.npz); one of the"
                " two"
            )
        count, seed, seeds = (
            whole("count", count, None),
            whole("seed", seed),
            whole("seeds", seeds, None),
        )
        if count < 2 or seeds < 1:
            raise _atelier.UsageError(
                f"count is {count} and seeds {seeds}; at least 2 samples and 1 seed are needed"
            )
        words = (
            word("split", split),
            path_word("classifier", classifier),
            path_word("attributes", attributes),
            "" if inception is None else path_word("inception", inception),
        )
        if self.reads_prompts and data is None:
            raise _atelier.UsageError(
                "a model that reads prompts is measured against captioned data, which it draws the"
                " captions of; give data instead of reference"
            )
        if words[2] and not self.reads_prompts:
            raise _atelier.UsageError("attributes are what captions mention; this model reads none")
        return self._core.evaluate(
            data or "", reference or "", count, seed, seeds, *words, bool(latency)
        )

    def _measured(self, model: dict[str, Any]) -> bool:
        """Whether a result file's words on the model it measured are about these weights."""
        if self.reads_prompts:
            return bool(model.get("hashes") == self._core.hashes())
        return bool(model.get("hash") == self.hash)

    def _words(self, classes: Classes | None, prompts: Prompts | None) -> list[str]:
        if classes is not None or prompts is None:
            raise _atelier.UsageError(
                "this model reads prompts and knows no classes; ask with prompts="
            )
        words = strings("prompts", prompts)
        if not words:
            raise _atelier.UsageError("prompts is empty; give one or more")
        return words

    def _no_prompts(self, prompts: Prompts | None) -> None:
        if prompts is not None:
            raise _atelier.UsageError(
                "this model knows classes and reads no prompts; ask with classes="
            )

    def _ids(self, classes: Classes) -> list[int]:
        ids = [
            self._core.class_named(c) if isinstance(c, str) else c
            for c in indices("classes", classes)
        ]
        if not ids:
            raise _atelier.UsageError("classes is empty; name one or more, or leave it out")
        return ids

    def _request(
        self, count: int | None, classes: Classes | None, seed: int
    ) -> tuple[int, int, list[int]]:
        ids = [] if classes is None else self._ids(classes)
        return (
            (len(ids) or 1) if count is None else whole("count", count, None),
            whole("seed", seed),
            ids,
        )
