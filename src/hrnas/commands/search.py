"""hrnas search: one run from a supernet to a trained network that meets the budget."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rich
import torch

from hrnas.arch.budget import format_count, parse_budget
from hrnas.arch.presets import search_space
from hrnas.commands.interruption import Interruption
from hrnas.commands.options import TrainingOptions
from hrnas.commands.progress import LoopProgress
from hrnas.commands.recorder import Recorder
from hrnas.commands.resolved import resolved_config
from hrnas.commands.run_directory import check_free, create_run
from hrnas.commands.session import open_training_session, sized_run_name
from hrnas.costing.analytic import Cost, cost
from hrnas.data.transforms import normalize
from hrnas.engine.averages import Averages
from hrnas.engine.checkpoint import Checkpoint, restore, save_checkpoint
from hrnas.engine.optimization import learning_rate, make_optimizer
from hrnas.engine.recomputation import recompute_blocks
from hrnas.engine.training import TrainState, train_step
from hrnas.errors import Interrupted
from hrnas.models.network import Network
from hrnas.searching.control import ShrinkOptions, cost_curve
from hrnas.searching.shrinker import Shrinker, check_reachable, factor_scale, macs_range
from hrnas.searching.units import factors, unit_groups


@dataclass(frozen=True, kw_only=True)
class SearchOptions(TrainingOptions):
    """Search and train a network under a budget; writes a run directory.

    data: a data.yaml, a folder that holds one, or the name of a built-in set (toycity).
    budget: MACs of one image at the input size, as macs=1.5G, or a share of the supernet's, as 60%.
    space: the search space, hr or hr-small.
    transformers: none, residual or all; the space's own choice where left out.
    shrink: when and how hard the search shrinks.
    """

    data: str | dict[str, Any]
    budget: str
    space: str = "hr-small"
    transformers: str | None = None
    shrink: ShrinkOptions = field(default_factory=ShrinkOptions)


def search(options: SearchOptions, *, checkpoint: Checkpoint | None = None, is_resumed: bool = False) -> dict[str, Any]:
    """Run a search, or go on with one; return the result, which is also in RUN/result.json.

    is_resumed: the run directory is there; go on from its checkpoint, or from the start where it has none.

    Raises InputError for data or options that cannot be used and BudgetError for a budget out of reach, both before
    anything is written; Interrupted after SIGINT or SIGTERM, with a checkpoint written.
    """
    session = open_training_session(options.data, options)
    task, input_size = session.task, session.input_size
    supernet = search_space(options.space, options.transformers).supernet(task.num_outputs)
    smallest, widest = macs_range(supernet, input_size)
    budget_macs = parse_budget(options.budget).resolve(smallest.macs, widest.macs)
    run = Path(options.run) if options.run else sized_run_name(session.description, options.budget)
    check_reachable(supernet, input_size, budget_macs)
    session.check_batch(supernet, options.batch_size)
    if not is_resumed:
        check_free(run, overwrite=options.overwrite)
        session.read_samples(steps=options.steps, batch_size=options.batch_size, seed=options.seed)
        config = resolved_config(options, data=session.description.to_dict(), input_size=input_size)
        create_run(run, verb="search", config=config, overwrite=options.overwrite)

    torch.manual_seed(options.seed)
    model = Network(supernet if checkpoint is None else checkpoint.architecture)
    model.to(session.device, memory_format=torch.channels_last)
    if options.recompute:
        recompute_blocks(model)
    schedule = {"steps": options.steps, "batch_size": options.batch_size}
    curve = cost_curve(options.shrink, supernet_macs=widest.macs, budget_macs=budget_macs, steps=options.steps)
    shrinking_rates = [
        learning_rate(options.optimizer, step=step, **schedule) for step in range(curve.start_step, curve.end_step)
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
        precision=options.precision,
    )
    shrinker = Shrinker(
        model,
        optimizer,
        input_size=input_size,
        budget_macs=budget_macs,
        steps=options.steps,
        options=options.shrink,
        averages=state.averages.tensors,
    )
    recorder = Recorder(run=run, session=session, options=options)
    if checkpoint is None:
        recorder.begin(supernet, reason="supernet", units=shrinker.num_units)
    else:
        extra = restore(checkpoint, state)
        shrinker.load_state_dict(extra["shrinker"] | {"moving_average": extra["moving_average"]})
        recorder.resume(state.step, model.architecture, extra["best"])

    def save() -> None:
        shrinker_state = shrinker.state_dict()
        moving_average = shrinker_state.pop("moving_average")
        extra = {"shrinker": shrinker_state, "moving_average": moving_average, "best": recorder.best}
        save_checkpoint(run / "checkpoints", state, extra=extra, keep_last=options.keep_checkpoints)

    batches = session.train_batches(
        batch_size=options.batch_size,
        seed=options.seed,
        first_step=state.step,
        num_steps=options.steps,
        augment=options.augment,
    )
    rich.get_console().print(
        f"{run}: {options.space} ({format_count(widest.macs)} MACs at {input_size}) down to "
        f"{format_count(budget_macs)} in {options.steps} steps of {options.batch_size}, on {session.device}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    progress = LoopProgress(verb="search", steps=options.steps, first_step=state.step, metric=task.metric)
    with Interruption() as interruption, progress:
        started = time.monotonic() - state.seconds
        for batch in batches:
            rate = learning_rate(options.optimizer, step=state.step, **schedule)
            images = normalize(batch.images.to(session.device))
            loss = train_step(state, images, batch.targets.to(session.device), task.loss_terms, rate)
            if shrinker.step():
                assert shrinker.last_plan is not None
                recorder.cut(state.step, shrinker.last_plan, shrinker.num_units)
                progress.note(f"step {state.step}: {shrinker.last_plan}")
            state.seconds = time.monotonic() - started
            progress.update(
                state.step, loss=loss, macs=shrinker.macs, budget_macs=budget_macs, units=shrinker.num_units
            )
            if state.step % options.log_every == 0 or state.step == options.steps:
                recorder.train_line(
                    state,
                    loss=loss,
                    rate=rate,
                    macs=shrinker.macs,
                    penalty=shrinker.penalty(),
                    penalty_weight=shrinker.weight,
                    planned_macs=None if shrinker.is_finished else round(shrinker.planned_macs),
                    units=shrinker.num_units,
                )
            # The last step of the whole supernet is validated too: what the found network is shown beside.
            if state.step in options.evaluation_steps or state.step == curve.start_step:
                progress.score(state.step, recorder.validate(state, has_final_shape=shrinker.is_finished))
                state.seconds = time.monotonic() - started
            if state.step in options.checkpoint_steps or interruption.is_wanted:
                save()
            if interruption.is_wanted and state.step < options.steps:
                raise Interrupted(f"Stopped after step {state.step}; continue with 'hrnas resume {run}'.")

    found = cost(shrinker.architecture, input_size)
    return recorder.finish(
        {
            "verb": "search",
            "run": str(run),
            "task": session.description.task,
            "space": options.space,
            "budget": options.budget,
            "budget_macs": budget_macs,
            "supernet": _price(widest),
            "found": _price(found),
            "share_of_budget": found.macs / budget_macs,
            "input_size": list(input_size),
            "steps": options.steps,
            "seconds": round(state.seconds, 1),
            "metric": task.metric,
            f"validation_{task.metric}": recorder.best,
        }
    )


def _price(price: Cost) -> dict[str, int]:
    return {"macs": price.macs, "params": price.params}
