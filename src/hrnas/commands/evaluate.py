"""hrnas evaluate: the figures of a trained network over a whole split."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import rich

from hrnas.commands.options import default_workers
from hrnas.commands.recorder import write_evaluation
from hrnas.commands.resolved import options_from
from hrnas.commands.run_directory import read_config
from hrnas.commands.same_data import check_same
from hrnas.commands.session import Session, open_session
from hrnas.data.data_yaml import parse_description, read_description
from hrnas.data.description import SPLITS, Split
from hrnas.data.sizes import InputSize
from hrnas.engine.distributed import join_processes
from hrnas.errors import InputError, did_you_mean
from hrnas.models.loading import load
from hrnas.models.network import Network
from hrnas.reporting.run_directory import read_run
from hrnas.reporting.tables import format_score
from hrnas.reporting.terminal import score_tables
from hrnas.tasks.task import EvaluationOptions, TargetOptions


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Score a run's best network over a split; adds to RUN/evaluation.json.

    run: the run directory.
    split: validation, test or train.
    data: another data description with the same classes or joints, or with other boxes; the run's own where left out.
    Nothing is then written.
    batch_size: images at a time.
    workers: processes that read; 0 reads in the main process.
    device: auto, cpu, cuda, cuda:0, ...
    evaluation: how the network is evaluated; as in the run where left out. With another way nothing is written.
    """

    run: str
    split: str = "validation"
    data: str | None = None
    batch_size: int = 8
    workers: int = field(default_factory=default_workers)
    device: str = "auto"
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """Evaluate a run's network; return the figures with the cost. Raises InputError for a run or data not usable."""
    split = find_split(options.split)
    network, session = open_run(
        Path(options.run),
        data=options.data,
        split=split,
        device=options.device,
        workers=options.workers,
        evaluation=options.evaluation,
    )
    figures = session.evaluate(network, split, batch_size=options.batch_size)
    is_the_runs = options.data is None and options.evaluation == EvaluationOptions()
    if is_the_runs and session.processes.is_zero:
        write_evaluation(Path(options.run), figures, network.architecture, session, step=None)
        for table in score_tables(read_run(options.run)):
            rich.print(table)
    metric = session.task.metric
    rich.print(
        f"{split}, {figures['samples']} samples at {session.input_size}: {metric} {format_score(figures[metric])}"
    )
    if not is_the_runs:
        values = {name: value for name, value in figures.items() if isinstance(value, float) and name != metric}
        for line in (
            ", ".join(f"{name} {format_score(value)}" for name, value in values.items()),
            ", ".join(f"{name}: {text}" for name, text in figures["conditions"].items()),
            f"Not the run's own way of evaluating: {Path(options.run) / 'evaluation.json'} stays as it is.",
        ):
            rich.get_console().print(line, markup=False, highlight=False, soft_wrap=True)
    return {"verb": "evaluate", "run": options.run, "metric": session.task.metric, **figures}


def open_run(
    run: Path,
    *,
    data: str | None,
    split: Split | None,
    device: str,
    workers: int,
    evaluation: EvaluationOptions,
) -> tuple[Network, Session]:
    """Return a run's best network, in evaluation mode on its device, and its session with `split` checked.

    evaluation: in the place of the run's, where it says something.
    """
    with join_processes().sharing_errors():
        _, config = read_config(run)
        if missing := {"data", "input_size"} - config.keys():
            raise InputError(f"{run / 'config.yaml'} has no '{min(missing)}', so it is no run's. Give another folder.")
        network = load(run)
        own = options_from(EvaluationOptions, config.get("evaluation", {}))
        given = {option.name: getattr(evaluation, option.name) for option in fields(evaluation)}
        evaluation = replace(own, **{name: value for name, value in given.items() if value is not None})
        if data is not None:
            own_data = parse_description(config["data"], where=str(run), folder=run)
            check_same(read_description(data), own_data, data, str(run))
    session = open_session(
        config["data"] if data is None else data,
        input_size=InputSize.parse(config["input_size"]),
        device=device,
        workers=workers,
        splits=(split,) if split else (),
        targets=options_from(TargetOptions, config.get("targets", {})),
        evaluation=evaluation,
    )
    assert network.architecture.head is not None
    got, needed = session.task.num_outputs, network.architecture.head.outputs
    if got != needed:
        raise InputError(f"{run / 'config.yaml'} has {got} names; the network has {needed} outputs. Give another run.")
    return network.to(session.device), session


def find_split(name: str) -> Split:
    """Return the split of that name. Raises InputError when unknown."""
    for split in SPLITS:
        if split == name:
            return split
    raise InputError(f"Unknown split '{name}'. {did_you_mean(name, SPLITS)}")
