"""hrnas resume: go on with a run that was stopped, as if it never had been."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import rich

from hrnas.commands.beginning import last_checkpoint
from hrnas.commands.resolved import options_from
from hrnas.commands.run_directory import clear_leftovers, read_config
from hrnas.commands.search import SearchOptions, search
from hrnas.commands.session import Session
from hrnas.commands.train import TrainOptions, train
from hrnas.engine.distributed import join_processes
from hrnas.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ResumeOptions:
    """Go on with a run from its last checkpoint.

    run: the run directory.
    """

    run: str


def resume(
    options: ResumeOptions,
    *,
    elsewhere: Mapping[str, Any] | None = None,
    session: Session | None = None,
) -> dict[str, Any]:
    """Continue a search or a training; return its result.

    elsewhere: options of a training that goes on elsewhere: where its data now are (written into config.yaml), if
    given, and what it runs on; as config.yaml has them where left out.
    session: of the search that finishes a training.
    Without a checkpoint the run begins anew; a damaged one is set aside for the one before it. Raises InputError when
    the run is finished or no run, CheckpointError when no checkpoint is whole or the last is of something else.
    """
    run = Path(options.run)
    processes = join_processes()
    with processes.sharing_errors():
        verb, config = read_config(run)
        is_finished = (run / "result.json").is_file()
        if is_finished and (run / "report.html").is_file():
            raise InputError(f"{run} is finished. Look at it with 'hrnas show {run}', or start another with --run.")
    if is_finished:
        _say(f"{run} is finished; only its report was missing.")
        return _finished_result(run)
    checkpoint = last_checkpoint(run, verb, processes)
    if processes.is_zero and clear_leftovers(run):
        _say(f"{run / 'best'} was being replaced when the run was killed; the network from before is back.")
    if verb == "search":
        search_options = replace(options_from(SearchOptions, config), run=str(run))
        return search(search_options, checkpoint=checkpoint, is_resumed=True)
    if verb == "train":
        train_options = replace(options_from(TrainOptions, config), run=str(run))
        moved = {name: value for name, value in (elsewhere or {}).items() if value is not None}
        train_options = replace(train_options, **moved)
        return train(train_options, checkpoint=checkpoint, is_resumed=True, has_moved="data" in moved, session=session)
    raise InputError(f"{run} was written by '{verb}', which cannot be resumed; search and train can.")


def _finished_result(run: Path) -> dict[str, Any]:
    try:
        result = json.loads((run / "result.json").read_text(encoding="utf-8"))
        return {**result, "run": str(run)}
    except (ValueError, TypeError) as error:
        raise InputError(f"{run / 'result.json'} is damaged ({error}). Remove it and resume.") from None


def _say(text: str) -> None:
    rich.get_console().print(text, markup=False, highlight=False, soft_wrap=True)
