"""hrnas search: one run from a supernet to a trained network that meets the budget."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import rich
import torch

from hrnas.arch.architecture import Architecture
from hrnas.arch.budget import LIMITED, format_count, parse_budget
from hrnas.arch.presets import search_space
from hrnas.commands.beginning import begin_run
from hrnas.commands.budgets import budget_folder, refresh_pareto, write_pareto
from hrnas.commands.interruption import Interruption
from hrnas.commands.options import TrainingOptions
from hrnas.commands.progress import LoopProgress
from hrnas.commands.recorder import Recorder
from hrnas.commands.resolved import resolved_config
from hrnas.commands.run_directory import writing
from hrnas.commands.session import Session, open_training_session, sized_run_name
from hrnas.commands.set_aside import set_aside
from hrnas.commands.waiting import Waited
from hrnas.engine.averages import Averages
from hrnas.engine.checkpoint import Checkpoint, restore, save_checkpoint
from hrnas.engine.optimization import learning_rate, make_optimizer
from hrnas.engine.recomputation import recompute_blocks
from hrnas.engine.training import TrainState, train_step
from hrnas.errors import InputError, Interrupted, LostProcessError
from hrnas.models.network import Network
from hrnas.searching.control import ShrinkOptions, cost_curve
from hrnas.searching.shrinker import Shrinker, check_reachable, cost_range, factor_scale
from hrnas.searching.units import factors, unit_groups

DEVICE_ALIGN: Final = {"cpu": 8, "cuda": 8}
"""What `align: auto` means: measured for the CPU (benchmarks/2026-11-24-align-latency.md), by convention for CUDA."""

PROBE_IMAGES: Final = 2
"""Images on which the change of output by each cut is measured: with four, that was most of what a cut cost."""


@dataclass(frozen=True, kw_only=True)
class SearchOptions(TrainingOptions):
    """Search and train a network under a budget; writes a run directory.

    data: a data.yaml, a folder that holds one, or the name of a built-in set (toycity,
    toycity-pose, toycity-classification).
    budget: MACs of one image at the input size, as macs=1.5G, parameters, as params=2M, or a share of the supernet's
    MACs, as 60%. Both at once as macs=1G,params=2M; several networks from one run as macs=2G,1G,500M.
    space: the search space, hr or hr-small.
    transformers: none, residual or all. This and the next five: the space's own choice where left out.
    head_channels: width of the dense head.
    activation: relu or swish.
    squeeze_ratio: width of the squeeze-excitation of every block, relative to the block's input; 0 for none.
    norm_momentum, norm_eps: of every batch norm.
    align: keep the widths of kernel paths at multiples of this number; auto knows what the device likes.
    shrink: when and how hard the search shrinks.
    finish: train on, after the search, the networks set aside for the other budgets of a list, each for
    finish_steps of the steps; otherwise 'hrnas train RUN/budgets/NAME' does so later.
    finish_steps: share of the steps for which a network that was set aside trains on.
    """

    data: str | dict[str, Any]
    budget: str
    space: str = "hr-small"
    transformers: str | None = None
    head_channels: int | None = None
    activation: str | None = None
    squeeze_ratio: float | None = None
    norm_momentum: float | None = None
    norm_eps: float | None = None
    align: str = "auto"
    shrink: ShrinkOptions = field(default_factory=ShrinkOptions)
    finish: bool = True
    finish_steps: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.align != "auto" and not (self.align.isdecimal() and int(self.align) > 0):
            raise InputError(f"align is '{self.align}'; auto or a number of channels such as 1, 4, 8 or 16 is needed.")
        if not 0 < self.finish_steps <= 1:
            raise InputError(f"finish_steps is {self.finish_steps}; a share of the steps in (0, 1] is needed.")


def search(options: SearchOptions, *, checkpoint: Checkpoint | None = None, is_resumed: bool = False) -> dict[str, Any]:
    """Run a search, or go on with one; return the result, which is also in RUN/result.json.

    With several budgets the result has the networks of RUN/pareto.json as well.

    is_resumed: the run directory is there; go on from its checkpoint, or from the start where it has none.

    Raises InputError for data or options that cannot be used and BudgetError for a budget out of reach, both before
    anything is written; Interrupted after SIGINT or SIGTERM, with a checkpoint written.
    """
    session = open_training_session(options.data, options)
    options = session.settled(options)
    task, input_size, processes = session.task, session.input_size, session.processes
    supernet = make_supernet(options, session)
    smallest, widest = cost_range(supernet, input_size)
    targets = parse_budget(options.budget).resolve(smallest.counts, widest.counts)
    align = align_of(options.align, session.device)
    run = Path(options.run) if options.run else sized_run_name(session.description, options.budget)
    check_reachable(supernet, input_size, targets, align=align)
    session.check_batch(supernet, options)
    if not is_resumed:
        resolved = {"data": session.description.to_dict(), "input_size": input_size, "align": str(align)}
        config = resolved_config(options, **resolved)
        checkpoint, is_resumed = begin_run(run, "search", config, options, session)

    torch.manual_seed(options.seed)
    model = Network(supernet if checkpoint is None else checkpoint.architecture)
    model.to(session.device, memory_format=torch.channels_last)
    if options.recompute:
        recompute_blocks(model)
    schedule = {"steps": options.steps, "batch_size": options.batch_size}
    curve = cost_curve(options.shrink, supernet=widest.counts, targets=targets, steps=options.steps)
    shrinking_rates = [
        learning_rate(options.optimizer, step=step, **schedule) * options.optimizer.reach
        for step in range(curve.start_step, curve.end_step)
    ]
    optimizer = make_optimizer(
        model,
        options.optimizer,
        scaled=factors(model, unit_groups(model.architecture, input_size)),
        scale=factor_scale(options.shrink, shrinking_rates),
    )
    state = TrainState(
        model=model,
        optimizer=optimizer,
        averages=Averages(model, options.batch_size),
        processes=processes,
        sync_norm=options.sync_norm,
        seed=options.seed,
        precision=options.precision,
    )
    shrinker = Shrinker(
        model,
        optimizer,
        input_size=input_size,
        budget=targets,
        steps=options.steps,
        options=options.shrink,
        averages=state.averages.tensors,
        align=align,
        probe=next(
            session.calibration_inputs(
                batch_size=min(PROBE_IMAGES, options.batch_size), num_batches=1, seed=options.seed
            )
        ),
        agree=processes.agree,
    )
    recorder = Recorder(run=run, session=session, options=options)
    if checkpoint is None:
        recorder.begin(supernet, reason="supernet", units=shrinker.num_units)
    else:
        extra = restore(checkpoint, state)
        tensors = {name: value for name, value in extra.items() if torch.is_tensor(value)}
        shrinker.load_state_dict(extra["shrinker"] | tensors)
        recorder.resume(state.step, model.architecture, extra["best"])

    def save() -> None:
        values = shrinker.state_dict()
        tensors = {name: value for name, value in values.items() if torch.is_tensor(value)}
        plain = {name: value for name, value in values.items() if name not in tensors}
        extra = {"shrinker": plain, **tensors, "best": recorder.best}
        with processes.sharing_errors():
            if processes.is_zero:
                save_checkpoint(run / "checkpoints", state, extra=extra, keep_last=options.keep_checkpoints)

    batches = Waited(
        session.train_batches(
            batch_size=options.batch_size,
            seed=options.seed,
            first_step=state.step,
            num_steps=options.steps,
            augment=options.augment,
        )
    )
    rich.get_console().print(
        f"{run}: {options.space} ({format_count(widest.macs)} MACs at {input_size}, {format_count(widest.params)} "
        f"parameters) down to {', '.join(map(str, targets))} in {options.steps} steps of {options.batch_size}, "
        f"on {session.device}{f' in {processes.count} processes' if processes.count > 1 else ''}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    for remark in session.remarks():
        rich.get_console().print(remark, markup=False, highlight=False, soft_wrap=True)
    progress = LoopProgress(verb="search", steps=options.steps, first_step=state.step, metric=task.metric)
    with processes.guard(f"Continue with 'hrnas resume {run}'."), Interruption() as interruption, progress:
        started, is_stopping = time.monotonic() - state.seconds, False
        for batch in batches:
            rate = learning_rate(options.optimizer, step=state.step, **schedule)
            inputs = session.prepared(batch.inputs)
            loss = train_step(
                state, inputs, batch.targets.to(session.device), task, rate, accumulate=options.accumulate
            )
            has_changed, met = shrinker.step(), shrinker.target_met
            if has_changed:
                state.wrap()
            if has_changed or met is not None:
                assert shrinker.last_plan is not None
                recorder.cut(
                    state.step,
                    shrinker.last_plan,
                    units=shrinker.num_units,
                    budget=met and met.text,
                    change=shrinker.last_change,
                )
                progress.note(f"step {state.step}: {shrinker.last_plan}")
            if met is not None and not shrinker.is_finished:
                steps, units = max(1, round(options.finish_steps * options.steps)), shrinker.num_units
                set_aside(run, met, state, session, options, rate=rate, steps=steps, units=units)
            state.seconds = time.monotonic() - started
            target = targets[curve.index(state.step)]
            progress.update(state.step, loss=loss, price=shrinker.cost, target=target, units=shrinker.num_units)
            if state.step % options.log_every == 0 or state.step == options.steps:
                planned = {name: round(count) for name, count in shrinker.planned.items()}
                recorder.train_line(
                    state,
                    loss=loss,
                    rate=rate,
                    price=shrinker.cost,
                    data_seconds=batches.take_seconds(),
                    penalty=shrinker.penalty(),
                    penalty_weight=shrinker.weight,
                    gain=shrinker.gain,
                    **{f"planned_{name}": None if shrinker.is_finished else planned.get(name) for name in LIMITED},
                    units=shrinker.num_units,
                )
            # The last step of the whole supernet is validated too: what the found network is shown beside.
            if state.step in options.evaluation_steps or state.step == curve.start_step:
                progress.score(state.step, recorder.validate(state, has_final_shape=shrinker.is_finished))
                state.seconds = time.monotonic() - started
            is_stopping = processes.any(interruption.is_wanted)
            if state.step in options.checkpoint_steps or is_stopping:
                save()
                is_stopping = processes.any(interruption.is_wanted)  # a save may take long
            if is_stopping and state.step < options.steps:
                raise Interrupted(f"Stopped after step {state.step}; continue with 'hrnas resume {run}'.")

    seconds = state.seconds
    if len(targets) > 1:
        if options.steps not in options.checkpoint_steps:
            save()  # what was found is kept while the others are finished
        with processes.sharing_errors(), writing(run):
            if processes.is_zero:
                write_pareto(run, targets, metric=task.metric, input_size=input_size)
        if is_stopping and options.finish:
            raise Interrupted(f"Stopped before the other networks are finished; continue with 'hrnas resume {run}'.")
    for target in targets[:-1] if options.finish else ():
        seconds += _finished(budget_folder(run, target), run, session)["seconds"]
    result = recorder.finish(
        {
            "verb": "search",
            "run": str(run),
            "task": session.description.task,
            "space": options.space,
            "budget": options.budget,
            "budgets": [target.text for target in targets],
            "budget_macs": targets[-1].macs,
            "budget_params": targets[-1].params,
            "supernet": widest.counts,
            "found": shrinker.cost.counts,
            "share_of_budget": targets[-1].share(shrinker.cost.counts),
            "input_size": list(input_size),
            "steps": options.steps,
            "seconds": round(seconds, 1),
            "metric": task.metric,
            f"validation_{task.metric}": recorder.best,
        }
    )
    if len(targets) == 1:
        return result
    networks: list[dict[str, Any]] = []
    with processes.sharing_errors(), writing(run):
        if processes.is_zero:
            networks = refresh_pareto(run)
    return {**result, "networks": networks}


def make_supernet(options: SearchOptions, session: Session) -> Architecture:
    """Return the widest network of the space that the options name, with the head its task needs."""
    if options.head_channels is not None and session.task.head != "dense":
        raise InputError(
            f"head_channels is {options.head_channels}; it is the width of a dense head, and the task needs a head of "
            f"{session.task.head}. Leave it out."
        )
    space = search_space(
        options.space,
        options.transformers,
        head_channels=options.head_channels,
        activation=options.activation,
        squeeze_ratio=options.squeeze_ratio,
        norm_momentum=options.norm_momentum,
        norm_eps=options.norm_eps,
        stem_stride=session.task.stem_stride,
    )
    task = session.task
    return space.supernet(task.num_outputs, head=task.head, pillars=task.pillars(session.input_size))


def align_of(align: str, device: torch.device) -> int:
    """Return the number that an option `align` means on a device."""
    return DEVICE_ALIGN.get(device.type, 1) if align == "auto" else int(align)


def _finished(folder: Path, run: Path, session: Session) -> dict[str, Any]:
    """Finish a network that a run has set aside, unless it is finished; return its result."""
    from hrnas.commands.resume import ResumeOptions, resume  # not above: resume goes on with a search

    if (folder / "result.json").is_file():
        result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        return result
    rich.get_console().print(f"Finishing {folder}", markup=False, highlight=False, soft_wrap=True)
    remedy = f"ontinue with 'hrnas resume {run}'."
    try:
        return resume(ResumeOptions(run=str(folder)), session=session)
    except Interrupted:
        raise Interrupted(f"Stopped while {folder} is finished; c{remedy}") from None
    except LostProcessError as error:
        raise LostProcessError(error.reason, f"C{remedy}") from None
