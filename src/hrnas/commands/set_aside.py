"""A network that a search sets aside at one of its budgets: a run directory, to be finished now, later, elsewhere."""

from dataclasses import fields, replace
from pathlib import Path

from hrnas.arch.budget import Target
from hrnas.arch.file import fingerprint
from hrnas.commands.budgets import budget_folder, set_aside_line
from hrnas.commands.options import TrainingOptions
from hrnas.commands.recorder import Recorder
from hrnas.commands.resolved import resolved_config
from hrnas.commands.run_directory import create_run
from hrnas.commands.session import Session
from hrnas.commands.train import TrainOptions
from hrnas.engine.checkpoint import list_checkpoints, save_checkpoint
from hrnas.engine.training import TrainState


def set_aside(
    run: Path,
    target: Target,
    state: TrainState,
    session: Session,
    options: TrainingOptions,
    *,
    rate: float,
    steps: int,
    units: int,
) -> None:
    """Make a run directory of the verb train for the network as it stands, with a checkpoint to go on from.

    It trains on without penalty for `steps` steps, from the present learning rate down to nothing (half a cosine,
    whatever the search's schedule). What an earlier start of the search has set aside there stays, finished or not,
    where it is the same network.
    """
    folder, processes = budget_folder(run, target), session.processes
    if processes.any(processes.is_zero and _is_there(folder, fingerprint(state.model.architecture))):
        return
    share = steps / options.steps
    highest = rate * options.optimizer.reference_batch / options.batch_size
    finishing = replace(
        TrainOptions(
            architecture=str(folder.resolve() / "architecture.json"),
            **{field.name: getattr(options, field.name) for field in fields(TrainingOptions)},
        ),
        steps=steps,
        evaluations=max(1, round(share * options.evaluations)),
        checkpoints=max(1, round(share * options.checkpoints)),
        optimizer=replace(
            options.optimizer,
            schedule="one-cycle",
            learning_rate=highest,
            warmup=0.0,
            milestones=None,
            decay=None,
            decay_every=None,
        ),
    )
    config = resolved_config(finishing, data=session.description.to_dict(), input_size=session.input_size)
    with processes.sharing_errors():
        if processes.is_zero:
            create_run(folder, verb="train", config=config, overwrite=True)
    recorder = Recorder(run=folder, session=session, options=finishing)
    recorder.begin(state.model.architecture, reason="given", units=units, budget=target.text)
    searched = state.step, state.seconds
    try:
        state.step, state.seconds = 0, 0.0
        with processes.sharing_errors():
            if processes.is_zero:
                save_checkpoint(folder / "checkpoints", state, extra={"best": None}, keep_last=options.keep_checkpoints)
    finally:
        state.step, state.seconds = searched


def _is_there(folder: Path, network: str) -> bool:
    """True when a folder holds the network of this fingerprint with a checkpoint to go on from, or finished."""
    line = set_aside_line(folder)
    if line is None or line["fingerprint"] != network:
        return False
    return (folder / "result.json").is_file() or bool(list_checkpoints(folder / "checkpoints"))
