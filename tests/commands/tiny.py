"""Whole runs in a second: two tiny search spaces, tiny data sets, and the command line in process."""

import atexit
import io
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hrnas.arch.architecture import StemConv
from hrnas.arch.presets import SPACES
from hrnas.arch.space import SearchSpace, StageSpace
from hrnas.cli import main
from hrnas.engine.training import TrainState, train_step

TINY = SearchSpace(
    name="tiny",
    stem=(StemConv(out_channels=6), StemConv(out_channels=6)),
    stages=(StageSpace(blocks=(1,), channels=(6,)), StageSpace(blocks=(1, 1), channels=(6, 8))),
    head_channels=8,
    class_channels=(6, 8),
    class_features=12,
    expand_ratio=2,
    head_expand_ratio=1,
)
TINY_TRANSFORMERS = replace(TINY, name="tiny-transformers", transformers="residual", tokens=4)

STEPS = 20
"""Of a run: shrinking begins after step 2 and ends with step 14."""


@dataclass(frozen=True)
class Outcome:
    """What a command left on its streams, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        """The object that --json prints: all of stdout, and strict JSON."""

        def refuse(name: str) -> None:
            raise AssertionError(f"{name} is not JSON")

        assert self.code == 0, self.err
        assert self.out.count("\n") == 1
        found = json.loads(self.out, parse_constant=refuse)
        assert isinstance(found, dict)
        return found


@contextmanager
def tiny_world() -> Iterator[None]:
    """Add the tiny spaces, and keep Toy City's cache out of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        for space in (TINY, TINY_TRANSFORMERS):
            patch.setitem(SPACES, space.name, space)
        patch.setenv("HRNAS_CACHE", cache_folder())
        yield


@cache
def cache_folder() -> str:
    folder = tempfile.mkdtemp(prefix="hrnas-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def hrnas(*words: object) -> Outcome:
    """Run a command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with tiny_world(), redirect_stdout(out), redirect_stderr(err):
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:  # --help
            code = int(stop.code or 0)
    return Outcome(code, out.getvalue(), err.getvalue())


def options(run: Path, *, space: str | None = "tiny", budget: str | None = "60%", **more: object) -> list[str]:
    """Return the options of a run of STEPS steps; space and budget are None for train."""
    values: dict[str, object] = {
        "run": run, "space": space, "budget": budget, "steps": STEPS, "batch-size": 4, "workers": 0, "log-every": 2,
        "evaluations": 2, "checkpoints": 4, "calibration-batches": 2,
        "align": 1 if space else None,
    }  # fmt: skip
    values |= {name.replace("_", "-"): value for name, value in more.items()}
    return [word for name, value in values.items() if value is not None for word in (f"--{name}", str(value))]


def search(data: Path, run: Path, *words: object, **more: object) -> Outcome:
    """Search on the tiny space."""
    return hrnas("search", data, *options(run, **more), *words)


def train(architecture: Path, data: Path, run: Path, *words: object, **more: object) -> Outcome:
    """Train a given architecture."""
    return hrnas("train", architecture, data, *options(run, space=None, budget=None, **more), *words)


def toycity(folder: Path, task: str = "segmentation") -> Path:
    """Write the data.yaml of a tiny Toy City; with people it needs larger scenes."""
    size = [24, 32] if task == "segmentation" else [96, 128]
    file = folder / "data.yaml"
    file.write_text(
        f"dataset: toycity\ntask: {task}\nsize: {size}\nlength: {{train: 8, validation: 4, test: 4}}\n",
        encoding="utf-8",
    )
    return file


def classes(folder: Path) -> Path:
    """Write a folder of pictures for each of seven classes, 2 for training, 1 to validate and 1 to test."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        for name in ("ape", "bee", "car", "dog", "elk", "fox", "gnu"):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                image = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(image).save(folder / split / name / f"{number}.jpg")
    file = folder / "data.yaml"
    file.write_text("task: classification\n", encoding="utf-8")
    return file


def pictures(folder: Path, *, classes: int = 3, mapped: bool = False) -> Path:
    """Write a data set of files: 6 training, 3 validation images of 24x32, and return its data.yaml.

    mapped: label values are 10, 20, ... in the files and become classes by label_map; 0 is void.
    """
    rng = np.random.default_rng(0)
    values = np.array([10 * (index + 1) if mapped else index for index in range(classes)], np.uint8)
    for split, count in (("train", 6), ("validation", 3)):
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
            mask = rng.choice(values, (24, 32))
            Image.fromarray(image).save(folder / split / "images" / f"{number}.jpg")
            Image.fromarray(mask).save(folder / split / "masks" / f"{number}.png")
    label_map = {int(value): index for index, value in enumerate(values)} | {0: None} if mapped else None
    plain = {
        "task": "segmentation",
        "train": {"images": "train/images", "labels": "train/masks"},
        "validation": {"images": "validation/images", "labels": "validation/masks"},
        "names": [f"class {index}" for index in range(classes)],
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in plain.items()]
    if label_map is not None:
        shown = ", ".join(f"{value}: {'null' if target is None else target}" for value, target in label_map.items())
        lines.append(f"label_map: {{{shown}}}")
    file = folder / "data.yaml"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


@contextmanager
def at_step(number: int, what: Any) -> Iterator[None]:
    """Call `what` as soon as the weights of step `number` are computed, within the loops of search and train."""

    def step(state: TrainState, *others: Any, **named: Any) -> float:
        loss = train_step(state, *others, **named)
        if state.step == number:
            what()
        return loss

    with pytest.MonkeyPatch.context() as patch:
        for verb in ("search", "train"):
            patch.setattr(import_module(f"hrnas.commands.{verb}"), "train_step", step)
        yield


def ask_to_stop() -> None:
    """Send this process what Ctrl-C sends."""
    os.kill(os.getpid(), signal.SIGINT)


def lines(file: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON-lines file; every line must be whole."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def without_seconds(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the records without what differs between two runs of the same: seconds, data_seconds, ..."""
    return [{key: value for key, value in record.items() if not key.endswith("seconds")} for record in records]


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
