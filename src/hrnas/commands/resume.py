"""hrnas resume: go on with a run that was stopped, as if it never had been."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hrnas.commands.beginning import last_checkpoint
from hrnas.commands.resolved import options_from
from hrnas.commands.run_directory import read_config
from hrnas.commands.search import SearchOptions, search
from hrnas.commands.train import TrainOptions, train
from hrnas.engine.distributed import join_processes
from hrnas.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ResumeOptions:
    """Go on with a run from its last checkpoint.

    run: the run directory.
    """

    run: str


def resume(options: ResumeOptions) -> dict[str, Any]:
    """Continue a search or a training; return its result.

    Without a checkpoint the run begins anew. Raises InputError when the run is finished or no run,
    CheckpointError when its last checkpoint is damaged.
    """
    run = Path(options.run)
    processes = join_processes()
    with processes.sharing_errors():
        verb, config = read_config(run)
        if (run / "result.json").is_file():
            raise InputError(f"{run} is finished. Look at it with 'hrnas show {run}', or start another with --run.")
    checkpoint = last_checkpoint(run, verb, processes)
    if verb == "search":
        search_options = replace(options_from(SearchOptions, config), run=str(run))
        return search(search_options, checkpoint=checkpoint, is_resumed=True)
    if verb == "train":
        train_options = replace(options_from(TrainOptions, config), run=str(run))
        return train(train_options, checkpoint=checkpoint, is_resumed=True)
    raise InputError(f"{run} was written by '{verb}', which cannot be resumed; search and train can.")
