"""How a run begins: in an empty directory, or from its last checkpoint."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import rich
import torch
import yaml

from hrnas.arch.file import fingerprint
from hrnas.commands.options import TrainingOptions
from hrnas.commands.run_directory import MARK, check_free, create_run
from hrnas.commands.session import Session
from hrnas.engine.checkpoint import Checkpoint, keep_damaged, list_checkpoints, read_checkpoint
from hrnas.engine.distributed import Processes, launch
from hrnas.errors import CheckpointError, DamagedError, InputError


def begin_run(
    run: Path, verb: str, config: Mapping[str, Any], options: TrainingOptions, session: Session
) -> tuple[Checkpoint | None, bool]:
    """Read the samples and make the run directory; where torchrun has restarted the run, find it again instead.

    config: resolved. Returns the checkpoint to go on from, None to begin at the start, and whether the directory was
    there. Raises InputError, on all processes, when the directory is another run's or a sample cannot be read.
    """
    processes = session.processes
    restarts = 0 if (launched := launch()) is None else launched[1]
    # Of several machines only that on which a process died counts the restart.
    if processes.any(restarts > 0) and processes.agree(torch.tensor(_is_begun(run, config))):
        return last_checkpoint(run, verb, processes), True
    with processes.sharing_errors():
        if processes.is_zero:
            check_free(run, overwrite=options.overwrite)
    with processes.sharing_errors():
        session.read_samples(
            steps=max(options.steps, options.calibration_batches), batch_size=options.batch_size, seed=options.seed
        )
    with processes.sharing_errors():
        if processes.is_zero:
            create_run(run, verb=verb, config=config, overwrite=options.overwrite)
    return None, False


def last_checkpoint(run: Path, verb: str, processes: Processes) -> Checkpoint | None:
    """Return the last whole checkpoint of a run, the same on all processes; None where it has none at all.

    Damaged ones after it are renamed, with a line that says so. Raises CheckpointError when none is whole or the last
    is of something else, InputError when processes do not see the same.
    """
    checkpoint = None
    for is_zeros_turn in (True, False):  # rank zero first: it renames, the others find what is whole
        with processes.sharing_errors():
            if processes.is_zero is is_zeros_turn:
                checkpoint = _last_whole(run, verb)
    step = 0 if checkpoint is None else int(checkpoint.state["step"])
    of_zero = int(processes.agree(torch.tensor(step)))
    with processes.sharing_errors():
        if step != of_zero:
            raise InputError(
                f"Process {processes.rank} finds the checkpoint of step {step} in {run}, rank zero that of {of_zero}. "
                "Put the run on a disk that all machines share."
            )
    return checkpoint


def _last_whole(run: Path, verb: str) -> Checkpoint | None:
    damaged: dict[Path, DamagedError] = {}
    for path in reversed(list_checkpoints(run / "checkpoints")):
        try:
            checkpoint = read_checkpoint(path)
        except DamagedError as error:
            damaged[path] = error
            continue
        _check_belongs(checkpoint, run, verb)
        for other, error in damaged.items():
            step = checkpoint.state["step"]
            rich.get_console().print(
                f"{error.fact} It is kept as {keep_damaged(other).name}; going on from step {step}.",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        return checkpoint
    if damaged:
        raise CheckpointError(
            f"No checkpoint of {run} is whole: {next(iter(damaged.values())).fact} "
            f"Remove {run / 'checkpoints'} to begin the run anew."
        )
    return None


def _is_begun(run: Path, config: Mapping[str, Any]) -> bool:
    """Return whether this launch of torchrun has begun this very run before, with this configuration."""
    if (launched := launch()) is None:
        return False
    with suppress(OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        written = json.loads((run / "environment.json").read_text(encoding="utf-8"))["launch"]
        known = yaml.safe_load((run / MARK).read_text(encoding="utf-8"))
        return bool(written == launched[0] and known == config)
    return False


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
