"""hrnas plan: what a search would cost and whether its budget can be met, before any training."""

from dataclasses import dataclass
from typing import Any

import rich
from rich.table import Table

from hrnas.arch.budget import format_count, parse_budget
from hrnas.commands.fitting import Fit, Setting, fit
from hrnas.commands.probing import PROBE_SECONDS, PROBE_STEPS, TimeEstimate, estimate_time
from hrnas.commands.search import SearchOptions, align_of, make_supernet
from hrnas.commands.session import open_training_session
from hrnas.costing.analytic import cost, pillar_cost
from hrnas.engine.free_memory import free_memory
from hrnas.kernels import compiling
from hrnas.reporting.tables import pillar_words
from hrnas.searching.plan import smallest_network, uniform_network
from hrnas.searching.shrinker import check_reachable


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
    options = session.settled(options)
    supernet = make_supernet(options, session)
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
        kernels=session.device.type == "cpu" and compiling.problem() is None,
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
    if supernet.pillars is not None:
        rich.print(f"The grid of pillars reaches {supernet.pillars.reach_words}.")
        rich.print(f"The pillars before it, which no other figure here counts: {pillar_words(supernet.pillars)}.")
    for line in _memory_lines(fitted, setting):
        rich.print(line)

    widest = prices["widest"].counts
    targets = budget.resolve(prices["smallest"].counts, widest)
    align = align_of(options.align, session.device)
    check_reachable(supernet, session.input_size, targets, align=align)
    for target in targets:
        rich.print(f"Budget {target}: can be met, {1 / target.share(widest):.1%} of the supernet.")
    estimate = None
    if fitted.fits is False:
        rich.print("Time: not measured, because a step may not fit into memory.")
    else:
        estimate = estimate_time(options, session, supernet, targets, align=align)
        rich.print(_time_line(options, estimate, session.device.type))
    return {
        "verb": "plan",
        "space": options.space,
        "input_size": list(session.input_size),
        "pillars_per_point": None if supernet.pillars is None else pillar_cost(supernet.pillars).counts,
        "budgets": [target.text for target in targets],
        "budget_macs": targets[-1].macs,
        "budget_params": targets[-1].params,
        "seconds": None if estimate is None else round(estimate.seconds, 1),
        "validation_seconds": None if estimate is None else round(estimate.validation_seconds, 1),
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


def _time_line(options: PlanOptions, estimate: TimeEstimate, device: str) -> str:
    """Say how long the search takes, and on what that was measured."""
    fewer = f" ({PROBE_STEPS} would take more than {PROBE_SECONDS:.0f} s)" if estimate.num_steps < PROBE_STEPS else ""
    return (
        f"Time: about {_duration(estimate.seconds)} for {options.steps} steps here on {device}, of which validations "
        f"{_duration(estimate.validation_seconds)}; measured on {estimate.num_steps} steps{fewer}, half of "
        "the supernet, half of a network of the last budget; only as good as this machine is quiet."
    )


def _bytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
