"""Reading a run directory into a RunRecord."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hrnas.arch.architecture import Architecture
from hrnas.arch.file import from_data, read_architecture
from hrnas.costing.analytic import Cost
from hrnas.errors import InputError
from hrnas.reporting.plain_files import Fields, read_json, read_json_lines, read_yaml
from hrnas.reporting.record import (
    Cut,
    EvaluationPoint,
    Parts,
    PartScore,
    Picture,
    Result,
    RunRecord,
    SetAside,
    SplitScore,
    TrainPoint,
)

SPLIT_ORDER: Final = ("validation", "test", "images")
"""Order of splits in tables and pictures; others follow by name."""

NO_FIGURES: Final = frozenset({"step", "samples", "macs", "params", "seconds", "evaluation_seconds"})
"""Numbers that stand beside the figures of an evaluation; every other number there is a figure."""


def read_run(path: str | Path) -> RunRecord:
    """Return what a run directory says.

    A run that was stopped half way is read as far as it came. Raises InputError, naming the file and the remedy,
    when config.yaml or metrics.jsonl is missing or any file is broken.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder. Give the run directory of hrnas search or hrnas train.")
    if not (folder / "config.yaml").is_file():
        raise InputError(
            f"{folder} holds no config.yaml, so it is no run directory. Give the one of hrnas search or hrnas train."
        )
    if not (folder / "metrics.jsonl").is_file():
        raise InputError(
            f"{folder} holds no metrics.jsonl: the run had not begun to train. Run `hrnas resume {folder}` first."
        )
    config = read_yaml(folder / "config.yaml")
    data = config.mapping("data") if config.has("data") else Fields(config.source, {})
    result = _result(folder)
    cuts, supernet, latest = _cuts(folder)
    train, evaluations = _metrics(folder)
    architecture = latest
    if (folder / "architecture.json").is_file():
        architecture = read_architecture(folder / "architecture.json")
    start = cuts[0] if cuts and cuts[0].reason == "supernet" else None
    budget = config.values.get("budget")
    environment = _environment(folder)
    return RunRecord(
        folder=folder,
        verb=environment.get("verb", "train" if budget is None else "search"),
        task=str(data.values.get("task", "")),
        dataset=_dataset(data),
        config=config.values,
        budget=None if budget is None else str(budget),
        input_size=config.size("input_size"),
        steps=config.integer("steps"),
        environment=environment,
        architecture=architecture,
        supernet=supernet if start is not None else None,
        start=start,
        cuts=cuts[1:] if start is not None else cuts,
        train=train,
        evaluations=evaluations,
        result=result,
        scores=_scores(folder),
        predictions=_predictions(folder),
        pareto=_pareto(folder),
        finishing=_finishing(folder),
    )


def _dataset(data: Fields) -> str:
    """Name the data set for people: the known set's name, else the folder's."""
    if isinstance(known := data.values.get("dataset"), str):
        return known
    path = data.values.get("path")
    return Path(path).name or "data" if isinstance(path, str) else "data"


def _environment(folder: Path) -> Mapping[str, str]:
    path = folder / "environment.json"
    if not path.is_file():
        return {}
    return {key: str(value) for key, value in read_json(path).values.items() if value is not None}


def _optional(fields: Fields, key: str, read: Any) -> Any:
    return read(key) if fields.has(key) else None


def _finite(fields: Fields, key: str) -> float | None:
    """Return a number; None where it is absent, null or nan."""
    value = fields.number(key) if key in fields.values else math.nan
    return value if math.isfinite(value) else None


def _metrics(folder: Path) -> tuple[tuple[TrainPoint, ...], tuple[EvaluationPoint, ...]]:
    """Read metrics.jsonl; where a resume went back, what it runs anew replaces what was logged from there on."""
    train: dict[int, TrainPoint] = {}
    evaluations: dict[tuple[str, int], EvaluationPoint] = {}
    last = -1
    for fields in read_json_lines(folder / "metrics.jsonl"):
        kind, step = fields.text("kind"), fields.integer("step")
        if kind == "evaluation":
            metric, figures = _figures(fields)
            point = EvaluationPoint(
                step=step,
                split=fields.text("split"),
                metric=metric,
                figures=figures,
                macs=fields.integer("macs"),
                seconds=fields.number("seconds"),
                evaluation_seconds=_optional(fields, "evaluation_seconds", fields.number),
            )
            evaluations[point.split, step] = point
        elif kind == "train":
            if step <= last:
                train = {at: kept for at, kept in train.items() if at < step}
                evaluations = {key: kept for key, kept in evaluations.items() if key[1] < step}
            last = step
            train[step] = TrainPoint(
                step=step,
                loss=fields.number("loss"),
                learning_rate=fields.number("learning_rate"),
                macs=fields.integer("macs"),
                seconds=fields.number("seconds"),
                penalty=_optional(fields, "penalty", fields.number),
                penalty_weight=_optional(fields, "penalty_weight", fields.number),
                gain=_optional(fields, "gain", fields.number),
                planned_macs=_optional(fields, "planned_macs", fields.integer),
                planned_params=_optional(fields, "planned_params", fields.integer),
                params=_optional(fields, "params", fields.integer),
                units=_optional(fields, "units", fields.integer),
                data_seconds=_optional(fields, "data_seconds", fields.number),
            )
    return (
        tuple(train.values()),
        tuple(sorted(evaluations.values(), key=lambda point: (point.step, point.split))),
    )


def _figures(fields: Fields) -> tuple[str, Mapping[str, float]]:
    """Return the name of the figure that decides, and all figures.

    Scores write it first; so it is told where an older run does not name it.
    """
    figures = {
        name: fields.number(name)
        for name, value in fields.values.items()
        if name not in NO_FIGURES and (value is None or type(value) in (int, float))
    }
    metric = fields.text("metric") if fields.has("metric") or not figures else next(iter(figures))
    return metric, {**figures, metric: fields.number(metric)}


def _cuts(folder: Path) -> tuple[tuple[Cut, ...], Architecture | None, Architecture | None]:
    """Return the cuts, the supernet first, with the first and the last architecture."""
    path = folder / "architectures.jsonl"
    if not path.is_file():
        return (), None, None
    cuts: list[Cut] = []
    lines: list[Fields] = []
    for fields in read_json_lines(path):
        cut = Cut(
            step=fields.integer("step"),
            reason=fields.text("reason"),
            units=fields.integer("units"),
            removed=fields.integer("removed"),
            macs=fields.integer("macs"),
            params=fields.integer("params"),
            fingerprint=fields.text("fingerprint"),
            budget=_optional(fields, "budget", fields.text),
            tokens=_optional(fields, "tokens", fields.integer),
            output_change=_optional(fields, "output_change", fields.number),
        )
        # Two cuts may share a step (dead units, then the budget's); the same step and reason again is a resume.
        stale = [old.step > cut.step or (old.step, old.reason) == (cut.step, cut.reason) for old in cuts]
        again = stale.index(True) if any(stale) else len(cuts)
        cuts[again:], lines[again:] = [cut], [fields]
    if not lines:
        return (), None, None
    first, last = (from_data(line.mapping("architecture").values, line.source) for line in (lines[0], lines[-1]))
    return tuple(cuts), first, last


def _cost(fields: Fields) -> Cost:
    return Cost(macs=fields.integer("macs"), params=fields.integer("params"))


def _result(folder: Path) -> Result | None:
    path = folder / "result.json"
    if not path.is_file():
        return None
    fields = read_json(path)
    return Result(
        budget=_optional(fields, "budget", fields.text),
        budgets=tuple(fields.texts("budgets")) if fields.has("budgets") else (),
        budget_macs=_optional(fields, "budget_macs", fields.integer),
        budget_params=_optional(fields, "budget_params", fields.integer),
        supernet=_cost(fields.mapping("supernet")) if fields.has("supernet") else None,
        found=_cost(fields.mapping("found")),
        input_size=fields.size("input_size"),
        steps=fields.integer("steps"),
        seconds=fields.number("seconds"),
    )


def _scores(folder: Path) -> Mapping[str, SplitScore]:
    path = folder / "evaluation.json"
    if not path.is_file():
        return {}
    fields = read_json(path)
    return {split: _score(split, fields.mapping(split)) for split in _in_order(fields.values)}


def _score(split: str, fields: Fields) -> SplitScore:
    metric, figures = _figures(fields)
    return SplitScore(
        split=split,
        samples=fields.integer("samples"),
        input_size=fields.size("input_size"),
        metric=metric,
        figures=figures,
        parts=_parts(fields.mapping("parts")) if fields.has("parts") else None,
        conditions=fields.mapping("conditions").text_values() if fields.has("conditions") else {},
        macs=fields.integer("macs"),
        params=fields.integer("params"),
        weights=str(fields.values.get("weights", "")),
        step=_optional(fields, "step", fields.integer),
    )


def _parts(fields: Fields) -> Parts:
    return Parts(
        title=fields.text("title"),
        value=fields.text("value"),
        share=_optional(fields, "share", fields.text) or "",
        rows=tuple(
            PartScore(
                name=row.text("name"),
                value=_finite(row, "value"),
                share=_finite(row, "share"),
                color=_optional(row, "color", row.color),
            )
            for row in fields.objects("rows")
        ),
    )


def _pareto(folder: Path) -> tuple[SetAside, ...]:
    path = folder / "pareto.json"
    if not path.is_file():
        return ()
    return tuple(
        SetAside(
            budget=fields.text("budget"),
            folder=fields.inner_folder("folder"),
            macs=fields.integer("macs"),
            params=fields.integer("params"),
            score=_optional(fields, "score", fields.number),
            finished=fields.flag("finished"),
        )
        for fields in read_json(path).objects("networks")
    )


def _finishing(folder: Path) -> Mapping[str, RunRecord]:
    """Read the runs in budgets/; one that has not begun to train has nothing to tell yet."""
    runs = sorted((folder / "budgets").glob("*/metrics.jsonl"))
    return {path.parent.relative_to(folder).as_posix(): read_run(path.parent) for path in runs}


def _predictions(folder: Path) -> tuple[Picture, ...]:
    root = folder / "predictions"
    splits = [entry.name for entry in root.iterdir() if entry.is_dir()] if root.is_dir() else []
    return tuple(
        Picture(split=split, name=file.relative_to(root / split).with_suffix("").as_posix(), path=file)
        for split in _in_order(splits)
        for file in sorted((root / split).rglob("*.png"))
        if not file.name.endswith(".labels.png")  # a prediction as indices, not a picture
    )


def _in_order(splits: Any) -> list[str]:
    def place(split: str) -> tuple[int, str]:
        return (SPLIT_ORDER.index(split) if split in SPLIT_ORDER else len(SPLIT_ORDER), split)

    return sorted(splits, key=place)
