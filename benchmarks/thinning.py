"""Networks of a wanted cost that no search has found: what the studies set beside a search.

All of them cost as much of the budget as their units allow, and never more. U number of units.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random

import torch
from torch import Tensor

from hrnas.arch.architecture import Architecture
from hrnas.costing.analytic import Size, cost
from hrnas.searching.plan import Plan, make_plan, uniform_network

Path = tuple[str, int]
"""A kernel path: the name of its block and its kernel size."""


def uniform_at_budget(supernet: Architecture, input_size: Size, budget_macs: int) -> Architecture:
    """Return the supernet with every kernel path thinned alike, the widest that is not above the budget."""
    share = _largest(lambda share: cost(uniform_network(supernet, share), input_size).macs <= budget_macs, 1.0)
    return uniform_network(supernet, share)


def cut_in_order(network: Architecture, input_size: Size, order: Tensor, budget_macs: int) -> Plan:
    """Plan to remove units in that order until the network is not above the budget; order: int64 (U,)."""

    def plan(removed: int) -> Plan:
        kept = torch.ones(len(order), dtype=torch.bool)
        kept[order[:removed]] = False
        return make_plan(network, input_size, kept, "budget")

    few, many = 0, len(order)
    while few < many:  # the fewest removals that meet the budget
        middle = (few + many) // 2
        few, many = (few, middle) if plan(middle).cost.macs <= budget_macs else (middle + 1, many)
    return plan(few)


def drawn_shares(supernet: Architecture, seed: int) -> dict[Path, float]:
    """Draw for every kernel path how much of it is wanted, relative to the others: 0.2 to 1.8, as searches differ."""
    random = Random(seed)
    return {path: random.uniform(0.2, 1.8) for path in path_widths(supernet)}


def network_of_multiples(
    supernet: Architecture, input_size: Size, shares: Mapping[Path, float], *, multiple: int, budget_macs: int
) -> Architecture:
    """Return the network whose kernel paths have these shares of the supernet's, rounded to multiples.

    One scale for all shares brings it to the budget; what rounding leaves goes to the paths it took most from. A path
    rounded to nothing is gone.
    """
    full = path_widths(supernet)
    most = {path: width // multiple * multiple for path, width in full.items()}

    def wanted(path: Path, scale: float) -> float:
        return min(scale * shares[path] * full[path], most[path])

    def rounded(scale: float) -> dict[Path, int]:
        return {path: round(wanted(path, scale) / multiple) * multiple for path in shares}

    scale = _largest(lambda scale: cost(with_widths(supernet, rounded(scale)), input_size).macs <= budget_macs, 20.0)
    widths = rounded(scale)
    for path in sorted(widths, key=lambda path: widths[path] - wanted(path, scale)):
        wider = {**widths, path: widths[path] + multiple}
        if wider[path] <= most[path] and cost(with_widths(supernet, wider), input_size).macs <= budget_macs:
            widths = wider
    return with_widths(supernet, widths)


def path_widths(architecture: Architecture) -> dict[Path, int]:
    """Return the width of every kernel path."""
    return {(name, size): width for name, block in architecture.blocks() for size, width in block.kernels}


def with_widths(architecture: Architecture, widths: Mapping[Path, int]) -> Architecture:
    """Return the network with these kernel paths; a path that is not given, or of width 0, is gone."""
    blocks = {}
    for name, block in architecture.blocks():
        kernels = tuple((size, widths[name, size]) for size, _ in block.kernels if widths.get((name, size)))
        blocks[name] = replace(block, kernels=kernels, shift=not kernels)
    return architecture.with_blocks(blocks)


def _largest(holds: Callable[[float], bool], most: float) -> float:
    """Return the largest number up to `most` for which a condition holds that holds for small ones, by bisection."""
    low, high = 0.0, most
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
