"""The budgets of a run as numbers: the limits that the text the user wrote comes to, dearest first."""

from typing import Final

from hrnas.arch.budget import LIMITED, Target, parse_budget
from hrnas.costing.analytic import Cost
from hrnas.errors import BudgetError, InputError

_ANY: Final = 10**18
"""Stands for a supernet's cost that is not known, where the budget has no share of it."""


def read_targets(text: str | None, widest: Cost | None) -> tuple[Target, ...]:
    """Return the targets of a budget; none where it cannot be told what the text comes to.

    widest: cost of the supernet, which shares are of; without it a share comes to nothing.
    A grammar this version does not know comes to nothing too: the text is shown as it stands.
    """
    if not text or (widest is None and "%" in text):
        return ()
    counts = {name: _ANY if widest is None else int(getattr(widest, name)) for name in LIMITED}
    try:
        return parse_budget(text).resolve(dict.fromkeys(LIMITED, 0), counts)
    except (InputError, BudgetError):
        return ()


def share_of(target: Target, cost: Cost) -> float | None:
    """Return how much of the target a network takes; None where its limits are not known."""
    return target.share({"macs": cost.macs, "params": cost.params}) if target.limits else None
