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
from hrnas.commands.search import SearchOptions
from hrnas.commands.session import Session, open_training_session
from hrnas.costing.analytic import Cost, cost
from hrnas.engine.averages import Averages
from hrnas.engine.optimization import make_optimizer
from hrnas.engine.training import TrainState, train_step
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
    networks = {
        "widest": supernet,
        "middle": uniform_network(supernet, 0.5),
        "smallest": smallest_network(supernet),
    }
    prices = {name: cost(network, session.input_size) for name, network in networks.items()}
    table = Table(
        title=f"Space {options.space}, input {session.input_size}, batch {options.batch_size}", title_justify="left"
    )
    for column in ("network", "MACs", "parameters", "memory in training"):
        table.add_column(column, justify="left" if column == "network" else "right")
    for name, price in prices.items():
        table.add_row(
            name, format_count(price.macs), format_count(price.params), _bytes(memory(price, options.batch_size))
        )
    rich.print(table)

    widest = prices["widest"].counts
    targets = budget.resolve(prices["smallest"].counts, widest)
    check_reachable(supernet, session.input_size, targets)
    for target in targets:
        rich.print(f"Budget {target}: can be met, {1 / target.share(widest):.1%} of the supernet.")
    seconds = _search_seconds(options, session, networks, prices, targets)
    rich.print(
        f"Time: about {_duration(seconds)} for {options.steps} steps here on {session.device}, validations included; "
        f"measured on {_PROBE_STEPS} steps of the widest and the smallest network, so only as quiet as this machine is."
    )
    return {
        "verb": "plan",
        "space": options.space,
        "input_size": list(session.input_size),
        "budgets": [target.text for target in targets],
        "budget_macs": targets[-1].macs,
        "budget_params": targets[-1].params,
        "seconds": round(seconds, 1),
        "networks": {
            name: {"macs": price.macs, "params": price.params, "memory_bytes": memory(price, options.batch_size)}
            for name, price in prices.items()
        },
    }


def memory(price: Cost, batch_size: int) -> int:
    """Estimate the bytes a training step holds: float32 activations, weights, gradients, moments, averages."""
    return 4 * (price.activations * batch_size + 5 * price.params)


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
        state = TrainState(
            model=model,
            optimizer=make_optimizer(model, options.optimizer),
            averages=Averages(model, options.batch_size),
        )
        images = torch.randn(options.batch_size, 3, *session.input_size, device=session.device)
        images = images.contiguous(memory_format=torch.channels_last)
        targets = torch.zeros(options.batch_size, *session.input_size, dtype=torch.uint8, device=session.device)
        times = []
        for _ in range(1 + _PROBE_STEPS):
            started = time.perf_counter()
            train_step(state, images, targets, session.task, 1e-6)
            times.append(time.perf_counter() - started)
    return min(times[1:])


def _bytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
