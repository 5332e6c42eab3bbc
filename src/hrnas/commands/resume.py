"""hrnas resume: go on with a run that was stopped, as if it never had been."""

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hrnas.arch.file import fingerprint
from hrnas.commands.resolved import options_from
from hrnas.commands.run_directory import read_config
from hrnas.commands.search import SearchOptions, search
from hrnas.commands.train import TrainOptions, train
from hrnas.engine.checkpoint import Checkpoint, list_checkpoints, read_checkpoint
from hrnas.errors import CheckpointError, InputError


@dataclass(frozen=True, kw_only=True)
class ResumeOptions:
    """Go on with a run from its last checkpoint.

    run: the run directory.
    """

    run: str


def resume(options: ResumeOptions, *, data: str | dict[str, Any] | None = None) -> dict[str, Any]:
    """Continue a search or a training; return its result.

    data: where the run's data now are, when a training goes on elsewhere; as its config.yaml has it where left out.
    Without a checkpoint the run begins anew. Raises InputError when the run is finished or no run,
    CheckpointError when its last checkpoint is damaged.
    """
    run = Path(options.run)
    verb, config = read_config(run)
    if (run / "result.json").is_file():
        raise InputError(f"{run} is finished. Look at it with 'hrnas show {run}', or start another with --run.")
    found = list_checkpoints(run / "checkpoints")
    checkpoint = read_checkpoint(found[-1]) if found else None
    if checkpoint is not None:
        _check_belongs(checkpoint, run, verb)
    if verb == "search":
        search_options = replace(options_from(SearchOptions, config), run=str(run))
        return search(search_options, checkpoint=checkpoint, is_resumed=True)
    if verb == "train":
        train_options = replace(options_from(TrainOptions, config), run=str(run))
        if data is not None:
            train_options = replace(train_options, data=data)
        return train(train_options, checkpoint=checkpoint, is_resumed=True)
    raise InputError(f"{run} was written by '{verb}', which cannot be resumed; search and train can.")


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
