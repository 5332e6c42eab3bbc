"""hrnas resume: go on with a run that was stopped, as if it never had been."""

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import rich

from hrnas.arch.file import fingerprint
from hrnas.commands.resolved import options_from
from hrnas.commands.run_directory import clear_leftovers, read_config
from hrnas.commands.search import SearchOptions, search
from hrnas.commands.train import TrainOptions, train
from hrnas.engine.checkpoint import Checkpoint, list_checkpoints, read_checkpoint, set_aside
from hrnas.errors import CheckpointError, DamagedError, InputError


@dataclass(frozen=True, kw_only=True)
class ResumeOptions:
    """Go on with a run from its last checkpoint.

    run: the run directory.
    """

    run: str


def resume(options: ResumeOptions, *, data: str | dict[str, Any] | None = None) -> dict[str, Any]:
    """Continue a search or a training; return its result.

    data: where the run's data now are, when a training goes on elsewhere; as its config.yaml has it where left out.
    Without a checkpoint the run begins anew; a damaged one is set aside for the one before it. Raises InputError when
    the run is finished or no run, CheckpointError when no checkpoint is whole or the last is of something else.
    """
    run = Path(options.run)
    verb, config = read_config(run)
    if (run / "result.json").is_file():
        if not (run / "report.html").is_file():
            _say(f"{run} is finished; only its report was missing.")
            return _finished_result(run)
        raise InputError(f"{run} is finished. Look at it with 'hrnas show {run}', or start another with --run.")
    checkpoint = last_checkpoint(run, verb)
    if clear_leftovers(run):
        _say(f"{run / 'best'} was being replaced when the run was killed; the network from before is back.")
    if verb == "search":
        search_options = replace(options_from(SearchOptions, config), run=str(run))
        return search(search_options, checkpoint=checkpoint, is_resumed=True)
    if verb == "train":
        train_options = replace(options_from(TrainOptions, config), run=str(run))
        if data is not None:
            train_options = replace(train_options, data=data)
        return train(train_options, checkpoint=checkpoint, is_resumed=True)
    raise InputError(f"{run} was written by '{verb}', which cannot be resumed; search and train can.")


def last_checkpoint(run: Path, verb: str) -> Checkpoint | None:
    """Return the last whole checkpoint and set aside damaged ones after it; None when the run has none at all."""
    damaged: dict[Path, DamagedError] = {}
    for path in reversed(list_checkpoints(run / "checkpoints")):
        try:
            checkpoint = read_checkpoint(path)
        except DamagedError as error:
            damaged[path] = error
            continue
        _check_belongs(checkpoint, run, verb)
        for other, error in damaged.items():
            _say(f"{error.fact} It is kept as {set_aside(other).name}; going on from step {checkpoint.state['step']}.")
        return checkpoint
    if damaged:
        raise CheckpointError(
            f"No checkpoint of {run} is whole: {next(iter(damaged.values())).fact} "
            f"Remove {run / 'checkpoints'} to begin the run anew."
        )
    return None


def _finished_result(run: Path) -> dict[str, Any]:
    try:
        result = json.loads((run / "result.json").read_text(encoding="utf-8"))
        return {**result, "run": str(run)}
    except (ValueError, TypeError) as error:
        raise InputError(f"{run / 'result.json'} is damaged ({error}). Remove it and resume.") from None


def _say(text: str) -> None:
    rich.get_console().print(text, markup=False, highlight=False, soft_wrap=True)


def _check_belongs(checkpoint: Checkpoint, run: Path, verb: str) -> None:
    """Raise CheckpointError unless the run had the checkpoint's architecture at the checkpoint's step."""
    expected = None
    # A last line half-written comes after every checkpoint; whatever else is wrong shows in the comparison.
    with suppress(OSError, ValueError, KeyError, TypeError):
        for line in (run / "architectures.jsonl").read_text(encoding="utf-8").splitlines():
            cut = json.loads(line)
            if cut["step"] <= checkpoint.state["step"]:
                expected = cut["fingerprint"]
    is_search = "shrinker" in checkpoint.state["extra"]
    if fingerprint(checkpoint.architecture) != expected or is_search != (verb == "search"):
        raise CheckpointError(
            f"{checkpoint.path} does not belong to {run}: architectures.jsonl has another network at step "
            f"{checkpoint.state['step']}. Remove this checkpoint to use the one before it."
        )
