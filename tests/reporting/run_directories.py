"""Run directories to report on, written as the commands write them: real architectures, synthetic curves.

To look at a report: PYTHONPATH=src:tests python -m reporting.run_directories FOLDER
"""

import json
import math
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from PIL import Image, ImageDraw

from hrnas.arch.architecture import Architecture
from hrnas.arch.file import fingerprint, to_data, to_json
from hrnas.arch.presets import search_space
from hrnas.costing.analytic import Cost, cost
from reporting.scorings import CLASSIFICATION, COLORS, NAMES, POSE, SEGMENTATION, Scoring

INPUT_SIZE = (180, 240)


def thinned(architecture: Architecture, keep: float, seed: int = 0) -> Architecture:
    """Return the network with about `keep` of its units, some blocks emptied, none of the mandatory fields touched."""
    generator = random.Random(seed)
    changed = {}
    for name, block in architecture.blocks():
        share = generator.choice((0.0, keep / 2, keep, min(2 * keep, 1.0)))
        kernels = {size: int(n * min(1.0, share * generator.uniform(0.0, 2.0))) for size, n in block.kernels}
        left = tuple((size, n) for size, n in kernels.items() if n)
        tokens = int(block.tokens * generator.choice((0.0, 0.3, 1.0))) if left else 0
        changed[name] = replace(block.with_kernels(left, shift=not left), tokens=tokens)
    return architecture.with_blocks(changed)


def units(architecture: Architecture) -> int:
    """Count the search units of a network."""
    return sum(block.hidden_channels + block.tokens for _, block in architecture.blocks())


def write_lines(path: Path, objects: Sequence[Mapping[str, Any]]) -> None:
    """Write a JSON-lines file."""
    path.write_text("".join(json.dumps(item) + "\n" for item in objects), encoding="utf-8")


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(data), encoding="utf-8")


def picture(path: Path, panels: int = 3, size: tuple[int, int] = (240, 180), seed: int = 0) -> None:
    """Write a made-up prediction picture of `panels` panels."""
    generator = random.Random(seed)
    width, height = size
    image = Image.new("RGB", (width * panels, height))
    draw = ImageDraw.Draw(image)
    for panel in range(panels):
        for index in range(12):
            color = COLORS[index % len(COLORS)]
            x, y = generator.randrange(width), generator.randrange(height)
            draw.rectangle((panel * width + x, y, (panel + 1) * width, height), fill=color)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def write_run(
    folder: Path,
    *,
    verb: str = "search",
    scoring: Scoring = SEGMENTATION,
    space: str = "hr-small",
    transformers: str | None = None,
    activation: str | None = None,
    squeeze_ratio: float | None = None,
    keep: float = 0.25,
    steps: int = 1000,
    stop_at: int | None = None,
    logged: int = 200,
    pictures: int = 4,
) -> Path:
    """Write a run directory of `verb` and return it.

    stop_at: the step at which the run was killed; None for a finished run.
    logged: training lines in metrics.jsonl of a whole run.
    """
    folder.mkdir(parents=True)
    head = "classes" if scoring.task == "classification" else "dense"
    whole = search_space(space, transformers, activation=activation, squeeze_ratio=squeeze_ratio)
    supernet = whole.supernet(len(scoring.names), head=head)
    found = thinned(supernet, keep)
    widest, left = cost(supernet, INPUT_SIZE), cost(found, INPUT_SIZE)
    budget_macs = math.ceil(left.macs * 1.006)
    searching = verb == "search"
    config: dict[str, Any] = {
        "data": {
            "task": scoring.task,
            "dataset": scoring.dataset,
            "path": f"/data/{scoring.dataset}",
            "names": list(scoring.names),
            "colors": [list(COLORS[index % len(COLORS)]) for index in range(len(scoring.names))],
        },
        "budget": f"macs={budget_macs}" if searching else None,
        "space": space,
        "input_size": "{}x{}".format(*INPUT_SIZE),
        "steps": steps,
        "batch_size": 8,
        "seed": 7,
        "optimizer": {"name": "adamw", "learning_rate": 0.002, "weight_decay": 0.01},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    last = steps if stop_at is None else stop_at
    freeze = int(steps * 0.7)
    cut_steps = [step for step in range(steps // 10, freeze + 1, steps // 20) if step <= last] if searching else []
    generator = random.Random(1)

    def macs_at(step: int) -> int:
        done = sum(cut <= step for cut in cut_steps) / max(len(cut_steps), 1) if cut_steps else 0.0
        done = done if stop_at is None else done * last / freeze
        if not searching or (step >= freeze and stop_at is None):
            return left.macs
        return int(widest.macs * (left.macs / widest.macs) ** min(done, 1.0))

    metrics: list[dict[str, Any]] = []
    stride = max(steps // logged, 1)
    for step in range(stride, last + 1, stride):
        line = {
            "kind": "train",
            "step": step,
            "loss": 0.35 + 2.0 * math.exp(-4 * step / steps) + generator.gauss(0, 0.08),
            "learning_rate": 0.002 * (1 - step / steps),
            "macs": macs_at(step),
            "seconds": 1.1 * step,
        }
        if searching:
            planned = int(widest.macs * (budget_macs / widest.macs) ** min(max(step / freeze, 0.0), 1.0))
            line |= {
                "penalty": 0.02 + 0.2 * generator.random(),
                "penalty_weight": 0.0
                if step >= freeze
                else 1e-5 * math.exp(3 * step / steps + generator.gauss(0, 0.1)),
                "planned_macs": planned if step < freeze else None,
                "units": units(found),
            }
        metrics.append(line)
        if step % (steps // 10) < stride:
            score = 0.42 * (1 - math.exp(-3 * step / steps)) + generator.gauss(0, 0.01)
            metrics.append(
                {
                    "kind": "evaluation",
                    "metric": scoring.metric,
                    "step": step,
                    "split": "validation",
                    **scoring.figures_of(max(score, 0.01)),
                    "macs": macs_at(step),
                    "seconds": 1.1 * step + 3,
                }
            )
    write_lines(folder / "metrics.jsonl", metrics)
    write_json(
        folder / "environment.json",
        {
            "verb": verb,
            "command": f"hrnas {verb} {scoring.dataset}.yaml --run {folder.name} --seed 7",
            "started": "2026-05-01T10:00:00+00:00",
            "hrnas": "0.1.0",
            "python": "3.12.3",
            "torch": "2.13.0",
            "numpy": "2.3.1",
            "platform": "Linux-6.1-x86_64",
            "processor": "x86_64",
            "cores": 2,
            "threads": 2,
        },
    )
    (folder / "architecture.json").write_text(to_json(found), encoding="utf-8")
    if searching:
        lines = [_cut_line(0, "supernet", supernet, units(supernet))]
        for index, step in enumerate(cut_steps):
            final = index + 1 == len(cut_steps)
            part = found if final else thinned(supernet, 0.9 - 0.04 * index)
            lines.append(_cut_line(step, "budget" if final else "dead", part, lines[-1]["units"]))
        write_lines(folder / "architectures.jsonl", lines)
    if stop_at is not None:
        return folder
    write_json(
        folder / "result.json",
        {
            "verb": verb,
            "task": scoring.task,
            "budget": config["budget"],
            "budget_macs": budget_macs if searching else None,
            "supernet": {"macs": widest.macs, "params": widest.params} if searching else None,
            "found": {"macs": left.macs, "params": left.params},
            "input_size": list(INPUT_SIZE),
            "steps": steps,
            "seconds": 1.1 * steps,
            "metric": scoring.metric,
        },
    )
    scores = {split: _score(split, scoring, left.macs, left.params, steps) for split in ("validation", "test")}
    write_json(folder / "evaluation.json", scores)
    for index in range(pictures):
        picture(folder / "predictions" / "validation" / f"street_{index:03d}.png", seed=index)
    return folder


def write_family(
    folder: Path,
    *,
    space: str = "hr-small",
    transformers: str = "all",
    keeps: Sequence[float] = (0.6, 0.4, 0.2),
    by_params: bool = False,
    set_aside: int | None = None,
    finished: Sequence[bool] = (True, True, True),
    steps: int = 1000,
    num_cuts: int = 30,
) -> Path:
    """Write a search with a budget for each of `keeps`, dearest first, and return it.

    by_params: budget the parameters too, of all networks.
    set_aside: how many networks it has reached; None for all, the search itself being finished.
    finished: whether each of them is trained to its end; the last is the run's own.
    """
    write_run(folder, space=space, transformers=transformers, keep=keeps[-1], steps=steps)
    supernet = search_space(space, transformers).supernet(len(NAMES))
    widest = cost(supernet, INPUT_SIZE)
    architectures = [thinned(supernet, keep) for keep in keeps]
    prices = [cost(architecture, INPUT_SIZE) for architecture in architectures]
    budgets = [f"macs={_upwards(price.macs)}" for price in prices]
    if by_params:
        budgets = [f"{text},params={_upwards(price.params)}" for text, price in zip(budgets, prices, strict=True)]
    reached = len(keeps) if set_aside is None else set_aside
    met_steps = [int(steps * (0.1 + 0.6 * (index + 1) / len(keeps))) for index in range(len(keeps))]
    last = steps if set_aside is None else met_steps[reached - 1] + steps // 20

    generator = random.Random(3)
    path = [(steps // 10, widest), *zip(met_steps, prices, strict=True)]
    lines = [_cut_line(0, "supernet", supernet, units(supernet)) | {"tokens": tokens(supernet), "output_change": None}]
    for index in range(1, num_cuts):
        step = steps // 10 + index * (met_steps[-1] - steps // 10) // num_cuts
        at = _between(path, step, "macs")
        part = thinned(supernet, 0.95 - 0.6 * index / num_cuts)
        change = 0.0002 + 0.006 * generator.random() ** 3
        lines.append(
            _cut_line(step, "dead", part, units(part) + generator.randrange(20, 300))
            | {"macs": at, "params": _between(path, step, "params")}
            | {"tokens": int(tokens(supernet) * at / widest.macs), "output_change": change, "budget": None}
        )
    for step, architecture, text in zip(met_steps, architectures, budgets, strict=True):
        met = _cut_line(step, "budget", architecture, units(architecture) + 41)
        lines.append(met | {"tokens": tokens(architecture), "output_change": 0.0031, "budget": text})
    lines = sorted((line for line in lines if line["step"] <= last), key=lambda line: int(line["step"]))
    write_lines(folder / "architectures.jsonl", lines)
    write_json(folder / "architecture.json", lines[-1]["architecture"])

    metrics: list[dict[str, Any]] = []
    for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()):
        step = line["step"]
        if step > last:
            break
        cut = [item for item in lines if item["step"] <= step][-1]
        line["macs"] = cut["macs"]
        if line["kind"] == "train":
            shrinks = steps // 10 <= step < met_steps[-1]
            planned = {name: int(0.97 * _between(path, step, name)) for name in ("macs", "params")}
            line |= {
                "gain": 1 + 6 * max(0.0, math.sin(9 * step / steps)) ** 2 if shrinks else 1.0,
                "penalty_weight": 1e-6 * math.exp(9 * step / steps + generator.gauss(0, 0.15)) if shrinks else 0.0,
                "planned_macs": planned["macs"] if step < met_steps[-1] else None,
                "planned_params": planned["params"] if by_params and step < met_steps[-1] else None,
                "params": cut["params"],
            }
        metrics.append(line)
    write_lines(folder / "metrics.jsonl", metrics)

    config = yaml.safe_load((folder / "config.yaml").read_text())
    text = ",".join(budgets) if by_params else "macs=" + ",".join(text.removeprefix("macs=") for text in budgets)
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"budget": text}, sort_keys=False))
    networks = []
    for index, (text, architecture, price) in enumerate(zip(budgets, architectures, prices, strict=True)):
        is_last, is_finished = index + 1 == len(keeps), finished[index]
        where = "." if is_last else f"budgets/{text.removeprefix('macs=').replace(',params=', '-params-')}"
        if index >= reached:
            continue
        if not is_last:
            stop_at = None if is_finished else steps // 4
            write_run(
                folder / where,
                verb="train",
                space=space,
                transformers=transformers,
                keep=keeps[index],
                stop_at=stop_at,
                logged=100,
                pictures=0,
            )
        networks.append(
            {
                "budget": text,
                "folder": where,
                "macs": price.macs,
                "params": price.params,
                "score": 0.55 - 0.05 * index if is_finished else None,
                "finished": is_finished,
                "fingerprint": fingerprint(architecture),
            }
        )
        if is_finished and not is_last:
            _set_score(folder / where, 0.55 - 0.05 * index)
    pareto = {"metric": "miou", "split": "validation", "input_size": list(INPUT_SIZE), "networks": networks}
    write_json(folder / "pareto.json", pareto)
    if set_aside is not None:
        (folder / "result.json").unlink()
        (folder / "evaluation.json").unlink()
        return folder
    _set_score(folder, 0.55 - 0.05 * (len(keeps) - 1))
    result = json.loads((folder / "result.json").read_text())
    limits = dict(part.split("=") for part in budgets[-1].split(","))
    write_json(
        folder / "result.json",
        result
        | {
            "budget": config["budget"],
            "budgets": budgets,
            "budget_macs": _amount(limits["macs"]),
            "budget_params": _amount(limits["params"]) if by_params else None,
        },
    )
    return folder


def tokens(architecture: Architecture) -> int:
    """Count the tokens of a network."""
    return sum(block.tokens for _, block in architecture.blocks())


def _between(path: Sequence[tuple[int, Cost]], step: int, name: str) -> int:
    """A cost on its way from one network to the next, by a constant factor a step."""
    for (before, wide), (after, left) in pairwise(path):
        if step <= after:
            done = max(step - before, 0) / (after - before)
            return int(getattr(wide, name) * (getattr(left, name) / getattr(wide, name)) ** done)
    return int(getattr(path[-1][1], name))


def _upwards(count: int) -> str:
    """Three digits with a unit, not below the count: 1.24G."""
    unit, size = next((unit, size) for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)) if count >= size)
    digits = 2 - int(math.log10(count / size))
    return f"{math.ceil(count / size * 10**digits) / 10**digits:g}{unit}"


def _amount(text: str) -> int:
    return round(float(text[:-1]) * {"k": 1e3, "M": 1e6, "G": 1e9}[text[-1]])


def _set_score(run: Path, miou: float) -> None:
    """Give the validation of an evaluation.json this miou, its test a little less."""
    data = json.loads((run / "evaluation.json").read_text())
    data["validation"]["miou"], data["test"]["miou"] = miou, miou - 0.03
    write_json(run / "evaluation.json", data)


def _cut_line(step: int, reason: str, architecture: Architecture, before: int) -> dict[str, Any]:
    spent = cost(architecture, INPUT_SIZE)
    return {
        "step": step,
        "reason": reason,
        "units": units(architecture),
        "removed": max(before - units(architecture), 0),
        "macs": spent.macs,
        "params": spent.params,
        "fingerprint": fingerprint(architecture),
        "architecture": to_data(architecture),
    }


def _score(split: str, scoring: Scoring, macs: int, params: int, steps: int) -> dict[str, Any]:
    generator = random.Random(split)
    rows: list[dict[str, Any]] = []
    for index, name in enumerate(scoring.names):
        row = {
            "name": name,
            "color": list(COLORS[index % len(COLORS)]),
            "value": round(generator.uniform(0.05, 0.7), 6),
        }
        rows.append(row | ({"share": 1 / len(scoring.names)} if "share" in scoring.parts else {}))
    rows[2]["value"] = None
    values = [row["value"] for row in rows if row["value"] is not None]
    return {
        "metric": scoring.metric,
        "split": split,
        "samples": 101 if split == "validation" else 233,
        "input_size": list(INPUT_SIZE),
        **scoring.figures_of(sum(values) / len(values)),
        "parts": {**scoring.parts, "rows": rows},
        "conditions": dict(scoring.conditions),
        "macs": macs,
        "params": params,
        "weights": "averaged, recalibrated",
        "step": steps,
    }


if __name__ == "__main__":
    from hrnas.reporting.report import write_report

    root = Path(sys.argv[1])
    print(write_report(write_run(root / "camvid-150m", keep=0.2, steps=3000, logged=600, pictures=6)))
    print(write_report(write_run(root / "hr-tokens", space="hr", keep=0.4, steps=3000, logged=3000)))
    print(write_report(write_run(root / "stopped", stop_at=430)))
    print(write_report(write_run(root / "trained", verb="train")))
    print(write_report(write_run(root / "pose", scoring=POSE)))
    print(write_report(write_run(root / "classification", scoring=CLASSIFICATION)))
    squeezed = write_run(
        root / "squeezed", scoring=CLASSIFICATION, space="hr", activation="swish", squeeze_ratio=0.5, keep=0.4
    )
    print(write_report(squeezed))
