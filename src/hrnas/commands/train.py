"""hrnas train: train a given architecture, fresh or from weights."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import rich
import torch

from hrnas.arch.architecture import Architecture
from hrnas.arch.file import fingerprint, read_architecture
from hrnas.arch.published import PUBLISHED, published_network
from hrnas.commands.beginning import begin_run
from hrnas.commands.budgets import refresh_pareto, set_aside_line
from hrnas.commands.interruption import Interruption
from hrnas.commands.options import TrainingOptions
from hrnas.commands.progress import LoopProgress
from hrnas.commands.recorder import Recorder
from hrnas.commands.resolved import resolved_config
from hrnas.commands.run_directory import read_config, record_data, writing
from hrnas.commands.same_data import check_same
from hrnas.commands.session import Session, open_training_session, sized_run_name
from hrnas.commands.waiting import Waited
from hrnas.costing.analytic import cost
from hrnas.data.data_yaml import parse_description
from hrnas.data.sizes import InputSize
from hrnas.engine.averages import Averages
from hrnas.engine.checkpoint import Checkpoint, restore, save_checkpoint
from hrnas.engine.optimization import learning_rate, make_optimizer
from hrnas.engine.recomputation import recompute_blocks
from hrnas.engine.training import TrainState, train_step
from hrnas.errors import InputError, Interrupted
from hrnas.models.loading import load_trained
from hrnas.models.network import Network
from hrnas.tasks.task import Task

OF_PLACE: Final = ("data", "device", "workers", "cache", "recompute")
"""Options that may differ when a network set aside by a search is finished elsewhere: where its data are, and means."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions(TrainingOptions):
    """Train a given architecture; writes a run directory.

    architecture: a run directory, a folder with architecture.json, an architecture file, or the name of a published
    network (hrnas-imagenet, hrnas-imagenet-se).
    data: a data.yaml, a folder that holds one, or the name of a built-in set (toycity,
    toycity-pose, toycity-classification). May be left out for a network
    that a search has set aside (RUN/budgets/NAME), which is then finished where it lies.
    weights: start from this run's or folder's model.safetensors; fresh weights where left out.
    """

    architecture: str
    data: str | dict[str, Any] | None = None
    weights: str | None = None


def train(
    options: TrainOptions,
    *,
    checkpoint: Checkpoint | None = None,
    is_resumed: bool = False,
    has_moved: bool = False,
    session: Session | None = None,
) -> dict[str, Any]:
    """Train a network, or go on with it; return the result, which is also in RUN/result.json.

    is_resumed: the run directory is there; go on from its checkpoint, or from the start where it has none.
    has_moved: its data are elsewhere now, as the options say; config.yaml is made to say so too.
    session: the one of the search that finishes it, whose data and decoded images are the same; opened where left out.

    Raises InputError for data, options or files that cannot be used, before anything is written; Interrupted after
    SIGINT or SIGTERM, with a checkpoint written.
    """
    if not is_resumed and options.run is None and set_aside_line(Path(options.architecture)) is not None:
        return _finish(options)
    if options.data is None:
        raise InputError(
            f"data is missing; only a network that a search has set aside, RUN/budgets/NAME, knows its own, and "
            f"{options.architecture} is none. Give a data.yaml after it."
        )
    if session is None or session.description.to_dict() != options.data or session.input_size != options.input_size:
        session = open_training_session(options.data, options)  # a folder may have been given other data since
    options = session.settled(options)
    task, input_size, processes = session.task, session.input_size, session.processes
    architecture = checkpoint.architecture if checkpoint else _architecture(options.architecture, task, input_size)
    network_name = f"{architecture.name}-{fingerprint(architecture)[:6]}"
    run = Path(options.run) if options.run else sized_run_name(session.description, network_name)
    session.check_batch(architecture, options)
    assert architecture.head is not None
    if architecture.head.outputs != task.num_outputs:
        raise InputError(
            f"The data have {task.num_outputs} names; the network of {run} has {architecture.head.outputs} outputs. "
            "Give data that fit, or give --run to train the architecture afresh."
        )
    if has_moved:
        with processes.sharing_errors():
            own = parse_description(read_config(run)[1]["data"], where=str(run), folder=run)
            check_same(session.description, own, "The data given", str(run))
        with processes.sharing_errors(), writing(run):
            if processes.is_zero:
                record_data(run, session.description.to_dict())
    torch.manual_seed(options.seed)
    model = Network(architecture)
    if options.weights is not None and checkpoint is None:
        is_whole = load_trained(model, options.weights)
        if not is_whole:
            rich.print(f"{options.weights} is for another number of outputs: the last layer starts afresh.")
    model.to(session.device, memory_format=torch.channels_last)
    if options.recompute:
        recompute_blocks(model)
    if not is_resumed:
        config = resolved_config(
            options,
            data=session.description.to_dict(),
            input_size=input_size,
            architecture=(
                options.architecture if options.architecture in PUBLISHED else str(Path(options.architecture).resolve())
            ),
            weights=None if options.weights is None else str(Path(options.weights).resolve()),
        )
        checkpoint, is_resumed = begin_run(run, "train", config, options, session)

    state = TrainState(
        model=model,
        optimizer=make_optimizer(model, options.optimizer),
        averages=Averages(model, options.batch_size),
        processes=processes,
        sync_norm=options.sync_norm,
        seed=options.seed,
        precision=options.precision,
    )
    recorder = Recorder(run=run, session=session, options=options)
    if checkpoint is None:
        recorder.begin(architecture, reason="given", units=0)
    else:
        best = restore(checkpoint, state)["best"]
        recorder.resume(state.step, architecture, best)

    batches = Waited(
        session.train_batches(
            batch_size=options.batch_size,
            seed=options.seed,
            first_step=state.step,
            num_steps=options.steps,
            augment=options.augment,
        )
    )
    price = cost(architecture, input_size)
    for remark in session.remarks():
        rich.get_console().print(remark, markup=False, highlight=False, soft_wrap=True)
    progress = LoopProgress(verb="train", steps=options.steps, first_step=state.step, metric=task.metric)
    with processes.guard(f"Continue with 'hrnas resume {run}'."), Interruption() as interruption, progress:
        started = time.monotonic() - state.seconds
        for batch in batches:
            rate = learning_rate(options.optimizer, step=state.step, steps=options.steps, batch_size=options.batch_size)
            inputs = session.prepared(batch.inputs)
            loss = train_step(
                state, inputs, batch.targets.to(session.device), task, rate, accumulate=options.accumulate
            )
            state.seconds = time.monotonic() - started
            progress.update(state.step, loss=loss, price=price)
            if state.step % options.log_every == 0 or state.step == options.steps:
                recorder.train_line(state, loss=loss, rate=rate, price=price, data_seconds=batches.take_seconds())
            if state.step in options.evaluation_steps:
                progress.score(state.step, recorder.validate(state, has_final_shape=True))
                state.seconds = time.monotonic() - started
            is_stopping = processes.any(interruption.is_wanted)
            if state.step in options.checkpoint_steps or is_stopping:
                extra = {"best": recorder.best}
                with processes.sharing_errors():
                    if processes.is_zero:
                        save_checkpoint(run / "checkpoints", state, extra=extra, keep_last=options.keep_checkpoints)
                is_stopping = processes.any(interruption.is_wanted)  # a save may take long
            if is_stopping and state.step < options.steps:
                raise Interrupted(f"Stopped after step {state.step}; continue with 'hrnas resume {run}'.")

    result = recorder.finish(
        {
            "verb": "train",
            "run": str(run),
            "task": session.description.task,
            "budget": None,
            "budget_macs": None,
            "supernet": None,
            "found": {"macs": price.macs, "params": price.params},
            "input_size": list(input_size),
            "steps": options.steps,
            "seconds": round(state.seconds, 1),
            "metric": task.metric,
            f"validation_{task.metric}": recorder.best,
        }
    )
    with processes.sharing_errors(), writing(run):
        if processes.is_zero and set_aside_line(run) is not None:
            search_run = run.resolve().parents[1]
            if (search_run / "pareto.json").is_file():
                refresh_pareto(search_run)
    return result


def _finish(options: TrainOptions) -> dict[str, Any]:
    """Finish a network that a search has set aside, with the settings it was set aside with.

    Where it runs may differ: data, device and workers are those given, cache and recompute where they are given.
    Raises InputError for other settings.
    """
    from hrnas.commands.recipes import recipe_values
    from hrnas.commands.resume import ResumeOptions, resume  # not above: resume goes on with a training

    folder = Path(options.architecture)
    _, config = read_config(folder)
    plain = TrainOptions(architecture=options.architecture)
    default, own = _leaves(resolved_config(plain)), _leaves(config)
    recipe = {} if options.data is None else recipe_values(None, options.data, TrainOptions)
    for name, value in _leaves(resolved_config(options)).items():
        if value not in (default.get(name), own.get(name), recipe.get(name)):
            raise InputError(
                f"{name} is {value}; {folder} is finished with the settings of its search, here {own.get(name)}. "
                "Leave it out, or give --run to train the architecture afresh."
            )
    elsewhere = {name: getattr(options, name) for name in OF_PLACE}
    for name in ("cache", "recompute"):
        if elsewhere[name] == getattr(plain, name):
            del elsewhere[name]
    return resume(ResumeOptions(run=str(folder)), elsewhere=elsewhere)


def _leaves(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a config.yaml that a finishing settles, those of groups by dotted names."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if name not in OF_PLACE:
            found |= (
                {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {name: value}
            )
    return found


def _architecture(given: str, task: Task, input_size: InputSize) -> Architecture:
    """Return the architecture a path means, with the outputs, and the pillars, that the task's data need."""
    path = Path(given)
    if path.is_dir():
        path = path / "best" / "architecture.json" if (path / "best").is_dir() else path / "architecture.json"
    architecture = published_network(given) if given in PUBLISHED else read_architecture(path)
    if architecture.head is None:
        raise InputError(f"{path} describes a backbone without head; give the architecture of a whole network.")
    if architecture.head.kind != task.head:
        raise InputError(
            f"{path} has a head of kind {architecture.head.kind}; the task of the data needs one of kind {task.head}. "
            "Give an architecture that was searched for such a task, or other data."
        )
    # The head's last convolution is the data's, and so is where the pillars stand; the rest is the architecture's.
    stride = architecture.features[0].stride
    if task.stem_stride is not None and stride != task.stem_stride:
        raise InputError(
            f"{path} has a stem of stride {stride}; the task of the data needs {task.stem_stride}. Give one "
            "that was searched for such a task."
        )
    if architecture.head.outputs != task.num_outputs:
        architecture = replace(architecture, head=replace(architecture.head, outputs=task.num_outputs))
    there, needed = architecture.pillars, task.pillars(input_size)
    if there is not None and needed is not None:
        where = {name: getattr(needed, name) for name in ("cell", "rows", "columns", "bottom", "top")}
        architecture = replace(architecture, pillars=replace(there, **where))
    elif there is not None or needed is not None:
        got, takes = ("clouds", "images") if there else ("images", "clouds")
        raise InputError(f"{path} takes {got}; the data are {takes}. Give one that was searched for such data.")
    return architecture
