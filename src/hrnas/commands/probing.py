"""How long a search will take, from a few real steps of the supernet and of a network thinned to the last budget.

Time does not follow MACs exactly, so both ends of the descent are measured, and what lies between is a straight line.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import torch

from hrnas.arch.architecture import Architecture
from hrnas.arch.budget import Target
from hrnas.commands.search import SearchOptions
from hrnas.commands.session import EVALUATION_BATCH, Session
from hrnas.costing.analytic import cost
from hrnas.engine.averages import Averages
from hrnas.engine.evaluation import averaged_network
from hrnas.engine.optimization import make_optimizer
from hrnas.engine.recomputation import recompute_blocks
from hrnas.engine.training import TrainState, train_step
from hrnas.errors import BudgetError
from hrnas.models.network import Network
from hrnas.nn.recalibration import recalibrate
from hrnas.searching.control import cost_curve
from hrnas.searching.plan import plan_budget
from hrnas.searching.units import unit_costs, unit_groups

PROBE_STEPS: Final = 20
"""Measured steps, half of each network; the first step of each, which compiles, comes before them."""
PROBE_SECONDS: Final = 60.0
"""Measured steps end after so long, but not before two of each network."""
CUT_STEPS: Final = 0.25
"""What a look for dead units and the cut after it take, in steps (benchmarks/profile_search.py)."""
_PROBE_BATCHES: Final = 3
"""Batches on which recalibration and evaluation are measured, about."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What was measured on one network.

    step_seconds: median of a step, waiting for its data included; num_steps: so many were measured.
    validation_seconds: of a whole validation: the averaged network, its recalibration, the split.
    """

    macs: int
    step_seconds: float
    validation_seconds: float
    num_steps: int


@dataclass(frozen=True, kw_only=True)
class TimeEstimate:
    """Seconds of a search, what its validations take of them, and the steps that were measured for it."""

    seconds: float
    validation_seconds: float
    num_steps: int


def estimate_time(
    options: SearchOptions, session: Session, supernet: Architecture, targets: tuple[Target, ...], *, align: int
) -> TimeEstimate:
    """Return how long a search takes from its first step on, the finishing of other budgets' networks included."""
    thinned = [thinned_network(supernet, session, target, align=align) for target in targets]
    wide, small = (probe(network, options, session) for network in (supernet, thinned[-1]))
    widest = cost(supernet, session.input_size)
    curve = cost_curve(options.shrink, supernet=widest.counts, targets=targets, steps=options.steps)
    # Where the network is at the corners of the descent: 0 the supernet, 1 the last budget.
    descent = max(wide.macs - small.macs, 1)
    places = [0.0, *((wide.macs - cost(network, session.input_size).macs) / descent for network in thinned)]
    corners = list(zip([curve.start_step, *curve.steps], places, strict=True))

    def at(step: int) -> float:
        # A search lags behind the curve at first: a straight line, not the curve, is where it is in the mean.
        for (first, before), (last, after) in itertools.pairwise(corners):
            if step <= last:
                return before + (after - before) * max(step - first, 0) / (last - first)
        return places[-1]

    def between(before: float, after: float, place: float) -> float:
        return before + (after - before) * place

    training = sum(between(wide.step_seconds, small.step_seconds, at(step)) for step in range(options.steps))
    looks = min(options.shrink.cuts, curve.end_step - curve.start_step)
    training += looks * CUT_STEPS * between(wide.step_seconds, small.step_seconds, 0.5)
    validated = [at(step) for step in options.evaluation_steps | {curve.start_step}]
    if options.finish:
        finishing = max(1, round(options.finish_steps * options.steps))
        evaluations = max(1, round(finishing / options.steps * options.evaluations))
        for place in places[1:-1]:
            training += finishing * between(wide.step_seconds, small.step_seconds, place)
            validated += [place] * evaluations
    validation = sum(between(wide.validation_seconds, small.validation_seconds, place) for place in validated)
    return TimeEstimate(
        seconds=training + validation, validation_seconds=validation, num_steps=wide.num_steps + small.num_steps
    )


def thinned_network(supernet: Architecture, session: Session, target: Target, *, align: int) -> Architecture:
    """Return the supernet cut to a target, evenly: every unit is worth its cost times a random number, always the same.

    Its kernel paths have widths as a search would leave them, multiples of `align`.
    """
    groups = unit_groups(supernet, session.input_size)
    costs = sum(counts / counts.double().mean() for counts in unit_costs(groups).values())
    assert torch.is_tensor(costs), "there is no unit"
    importance = costs * torch.rand(len(costs), generator=torch.Generator().manual_seed(0))
    try:
        return plan_budget(supernet, session.input_size, importance, target, align=align).architecture
    except BudgetError:  # by this importance what is left is too coarse, where by another it is not
        return plan_budget(supernet, session.input_size, torch.ones(len(costs)), target, align=align).architecture


def probe(architecture: Architecture, options: SearchOptions, session: Session) -> Probe:
    """Measure the steps and the validation of one network as the search would do them; trains nothing that is kept."""
    with torch.random.fork_rng(devices=[]):
        model = Network(architecture).to(session.device, memory_format=torch.channels_last)
        if options.recompute:
            recompute_blocks(model)
        state = TrainState(
            model=model,
            optimizer=make_optimizer(model, options.optimizer),
            averages=Averages(model, options.batch_size),
            precision=options.precision,
        )
        times = _step_seconds(state, options, session)
        validation = _validation_seconds(state, options, session)
    return Probe(
        macs=cost(architecture, session.input_size).macs,
        step_seconds=statistics.median(times),
        validation_seconds=validation,
        num_steps=len(times),
    )


def _step_seconds(state: TrainState, options: SearchOptions, session: Session) -> list[float]:
    """Return the seconds of each measured step."""
    most = PROBE_STEPS // 2
    batches = session.train_batches(
        batch_size=options.batch_size, seed=options.seed, first_step=0, num_steps=1 + most, augment=options.augment
    )
    times: list[float] = []
    started = last = None
    for batch in batches:
        inputs = session.prepared(batch.inputs)
        targets = batch.targets.to(session.device)
        train_step(state, inputs, targets, session.task, 1e-6, accumulate=options.accumulate)
        now = time.perf_counter()
        if started is None or last is None:
            started = now
        else:
            times.append(now - last)
            if len(times) >= 2 and now - started > PROBE_SECONDS / 2:
                break
        last = now
    return times


def _validation_seconds(state: TrainState, options: SearchOptions, session: Session) -> float:
    """Return the seconds of a whole validation, from a few of its batches."""
    started = time.perf_counter()
    network = averaged_network(state.model, state.averages, ())
    building = time.perf_counter() - started
    num_images = min(options.calibration_batches, _PROBE_BATCHES)
    calibration = session.calibration_inputs(batch_size=options.batch_size, num_batches=num_images, seed=options.seed)
    calibrating = _seconds_of(
        calibration, lambda inputs: recalibrate(network, [inputs]), total=options.calibration_batches
    )
    dataset = session.sets["validation"]
    score = session.task.make_score(dataset, session.input_size)
    size = session.evaluation_batch(EVALUATION_BATCH)
    share = (0, max(1, -(-len(dataset) // size) // _PROBE_BATCHES))
    batches = session.evaluation_batches("validation", share=share)
    with torch.no_grad():
        evaluating = _seconds_of(
            batches,
            lambda batch: score.update(session.outputs(network, batch.inputs), batch.truths),
            total=len(dataset),
            count=lambda batch: len(batch.names),
        )
    return building + calibrating + evaluating


def _seconds_of(
    items: Iterable[Any], work: Callable[[Any], object], *, total: int, count: Callable[[Any], int] = lambda _: 1
) -> float:
    """Return the seconds in which `total` things are read and worked on, from those given.

    The first item has the start in it. count: of the things in an item.
    """
    marks, counts = [time.perf_counter()], []
    for item in items:
        work(item)
        marks.append(time.perf_counter())
        counts.append(count(item))
    first, *others = (after - before for before, after in itertools.pairwise(marks))
    each = [seconds / number for seconds, number in zip(others, counts[1:], strict=True)] or [first / counts[0]]
    return first + (total - counts[0]) * statistics.median(each)
