"""The networks of one search with several budgets: where each is finished, and all of them in pareto.json."""

import json
from pathlib import Path
from typing import Any

from hrnas.arch.budget import Target
from hrnas.arch.file import fingerprint, read_architecture
from hrnas.costing.analytic import Size, cost
from hrnas.engine.records import write_json
from hrnas.errors import InputError


def budget_folder(run: Path, target: Target) -> Path:
    """Return where a target's network is finished; that of the last target is the run itself."""
    return run / "budgets" / target.name


def set_aside_line(folder: Path) -> dict[str, Any] | None:
    """Return the first line of architectures.jsonl of a folder that a search has made for a budget; else None."""
    try:
        with (folder / "architectures.jsonl").open(encoding="utf-8") as lines:
            first: dict[str, Any] = json.loads(next(lines))
        return first if first["reason"] == "given" and first["budget"] is not None else None
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return None


def write_pareto(run: Path, targets: tuple[Target, ...], *, metric: str, input_size: Size) -> list[dict[str, Any]]:
    """Write RUN/pareto.json from what the folders of the budgets hold so far; return its networks."""
    networks = []
    for target in targets:
        folder = run if target is targets[-1] else budget_folder(run, target)
        networks.append({"budget": target.text, "folder": folder.relative_to(run).as_posix()})
    write_json(
        run / "pareto.json",
        {"metric": metric, "split": "validation", "input_size": list(input_size), "networks": networks},
    )
    return refresh_pareto(run)


def refresh_pareto(run: Path) -> list[dict[str, Any]]:
    """Bring cost, score and state of the networks in RUN/pareto.json up to date; return them.

    Raises InputError when the file is damaged.
    """
    file = run / "pareto.json"
    try:
        pareto = json.loads(file.read_text(encoding="utf-8"))
        size = (pareto["input_size"][0], pareto["input_size"][1])
        found = [_network(run / entry["folder"], size, pareto["metric"]) for entry in pareto["networks"]]
        pareto["networks"] = [
            {"budget": entry["budget"], "folder": entry["folder"], **network}
            for entry, network in zip(pareto["networks"], found, strict=True)
        ]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file} is damaged ({error!r}). Remove it; 'hrnas resume' writes it anew.") from None
    write_json(file, pareto)
    networks: list[dict[str, Any]] = pareto["networks"]
    return networks


def _network(folder: Path, input_size: Size, metric: str) -> dict[str, Any]:
    best = folder / "best" / "architecture.json"
    file = best if best.is_file() else folder / "architecture.json"
    if not file.is_file():
        return {"macs": None, "params": None, "score": None, "finished": False, "fingerprint": None}
    architecture = read_architecture(file)
    try:
        score = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))["validation"][metric]
    except (OSError, ValueError, KeyError, TypeError):
        score = None
    return {
        **cost(architecture, input_size).counts,
        "score": score,
        "finished": (folder / "result.json").is_file(),
        "fingerprint": fingerprint(architecture),
    }
