"""hrnas plan: what a search would cost and whether its budget can be met, before any training."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import rich
import torch
from rich.table import Table

from hrnas.arch.architecture import Architecture
from hrnas.arch.budget import Target, format_count, parse_budget
from hrnas.arch.presets import search_space
from hrnas.commands.fitting import Fit, Setting, fit
from hrnas.commands.search import SearchOptions, align_of
from hrnas.commands.session import Session, open_training_session
from hrnas.costing.analytic import Cost, cost
from hrnas.engine.averages import Averages
from hrnas.engine.free_memory import free_memory
from hrnas.engine.optimization import make_optimizer
from hrnas.engine.recomputation import recompute_blocks
from hrnas.engine.training import TrainState, train_step
from hrnas.kernels import compiling
from hrnas.models.network import Network
from hrnas.searching.control import cost_curve
from hrnas.searching.plan import smallest_network, uniform_network
from hrnas.searching.shrinker import check_reachable

_PROBE_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class PlanOptions(SearchOptions):
    """Show what a search with these options would cost; trains nothing and writes nothing."""


def plan(options: PlanOptions) -> dict[str, Any]:
    """Show and return the reachable range, memory and time of a search.

    Raises InputError for data or options that cannot be used; BudgetError, after showing the range, for a budget out
    of it.
    """
    budget = parse_budget(options.budget)
    session = open_training_session(options.data, options)
    supernet = search_space(options.space, options.transformers).supernet(session.task.num_outputs)
    session.check_batch(supernet, options)
    networks = {
        "widest": supernet,
        "middle": uniform_network(supernet, 0.5),
        "smallest": smallest_network(supernet),
    }
    prices = {name: cost(network, session.input_size) for name, network in networks.items()}
    setting = Setting(
        batch_size=options.batch_size,
        accumulate=options.accumulate,
        precision=options.precision,
        recompute=options.recompute,
        device=session.device.type,
        kernels=compiling.problem() is None,
    )
    memory = {name: setting.peak(network, session.input_size) for name, network in networks.items()}
    fitted = fit(supernet, session.input_size, setting, free_memory(session.device))
    table = Table(
        title=f"Space {options.space}, input {session.input_size}, batch {options.batch_size}", title_justify="left"
    )
    for column in ("network", "MACs", "parameters", "memory in training"):
        table.add_column(column, justify="left" if column == "network" else "right")
    for name, price in prices.items():
        table.add_row(name, format_count(price.macs), format_count(price.params), _bytes(memory[name]))
    rich.print(table)
    for line in _memory_lines(fitted, setting):
        rich.print(line)

    widest = prices["widest"].counts
    targets = budget.resolve(prices["smallest"].counts, widest)
    check_reachable(supernet, session.input_size, targets, align=align_of(options.align, session.device))
    for target in targets:
        rich.print(f"Budget {target}: can be met, {1 / target.share(widest):.1%} of the supernet.")
    seconds = None
    if fitted.fits is False:
        rich.print("Time: not measured, because a step may not fit into memory.")
    else:
        seconds = round(_search_seconds(options, session, networks, prices, targets), 1)
        rich.print(
            f"Time: about {_duration(seconds)} for {options.steps} steps here on {session.device}, validations "
            f"included; measured on {_PROBE_STEPS} steps of the widest and the smallest network, so only as quiet as "
            "this machine is."
        )
    return {
        "verb": "plan",
        "space": options.space,
        "input_size": list(session.input_size),
        "budgets": [target.text for target in targets],
        "budget_macs": targets[-1].macs,
        "budget_params": targets[-1].params,
        "seconds": seconds,
        "memory": {
            "predicted_bytes": fitted.predicted,
            "free_bytes": fitted.free,
            "fits": fitted.fits,
            "largest_batch_size": fitted.largest_batch_size,
            "remedies": [
                {"options": remedy.options, "predicted_bytes": remedy.predicted} for remedy in fitted.remedies
            ],
        },
        "networks": {
            name: {"macs": price.macs, "params": price.params, "memory_bytes": memory[name]}
            for name, price in prices.items()
        },
    }


def _memory_lines(fitted: Fit, setting: Setting) -> list[str]:
    """Say whether a step fits into memory; where it does not, what would."""
    predicted = f"{_bytes(fitted.predicted)} predicted at the highest point of a step of one process"
    if fitted.free is None:
        return [f"Memory: {predicted}; this system does not say how much is free."]
    largest = f"the largest batch that fits, with a fifth to spare, is {fitted.largest_batch_size}"
    if fitted.fits:
        return [f"Memory: {predicted}, {_bytes(fitted.free)} free; {largest}."]
    if not fitted.largest_batch_size:
        largest = "no batch fits with these options"
    lines = [f"Warning: too little memory: {predicted}, {_bytes(fitted.free)} free; {largest}."]
    lines += [
        f"  Batch {setting.batch_size} fits with {remedy.options}: {_bytes(remedy.predicted)}."
        for remedy in fitted.remedies
    ]
    if not fitted.remedies:
        lines.append("  Nothing makes this batch fit; a smaller space, input or --device with more memory may.")
    return lines


def _search_seconds(
    options: PlanOptions,
    session: Session,
    networks: dict[str, Architecture],
    prices: dict[str, Cost],
    targets: tuple[Target, ...],
) -> float:
    """Estimate a whole search from the step times of the widest and smallest network: time is a + b * MACs."""
    wide = _step_seconds(networks["widest"], options, session)
    small = _step_seconds(networks["smallest"], options, session)
    per_mac = max(wide - small, 0.0) / (prices["widest"].macs - prices["smallest"].macs)
    widest, smallest = prices["widest"], prices["smallest"]
    curve = cost_curve(options.shrink, supernet=widest.counts, targets=targets, steps=options.steps)

    def seconds(counts: Mapping[str, float]) -> float:
        # Where parameters alone are limited, MACs are taken to fall alike.
        macs = counts.get("macs", widest.macs * counts.get("params", 0) / widest.params)
        return small + per_mac * (macs - smallest.macs)

    training = sum(seconds(curve.planned(step)) for step in range(options.steps))
    if options.finish:
        training += sum(options.finish_steps * options.steps * seconds(target.limits) for target in targets[:-1])
    return training * 1.1  # validations and recalibration: about a tenth at the default settings


def _step_seconds(architecture: Architecture, options: PlanOptions, session: Session) -> float:
    """Return the fastest of a few training steps on random images."""
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
        images = torch.randn(options.batch_size, 3, *session.input_size, device=session.device)
        images = images.contiguous(memory_format=torch.channels_last)
        targets = torch.zeros(options.batch_size, *session.input_size, dtype=torch.uint8, device=session.device)
        times = []
        for _ in range(1 + _PROBE_STEPS):
            started = time.perf_counter()
            train_step(state, images, targets, session.task, 1e-6, accumulate=options.accumulate)
            times.append(time.perf_counter() - started)
    return min(times[1:])


def _bytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
