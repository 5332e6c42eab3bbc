"""Budgets: what the user asks for, as text, and as the targets one run has to meet."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from hrnas.errors import BudgetError, InputError, did_you_mean

TOLERANCE: Final = 0.02
"""A found network costs more than (1 - TOLERANCE) of its budget and never more than the budget."""

LIMITED: Final = {"macs": "MACs", "params": "parameters"}
"""What a budget can limit, and how it is called in messages."""

_UNITS: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True, kw_only=True)
class Amount:
    """One number of a budget: absolute, or a share of the supernet's; exactly one is set.

    text: as the user wrote it, without the name before it.
    """

    text: str
    count: int | None = None
    share: float | None = None

    def resolve(self, widest: int) -> int:
        """Return the amount as a number; widest: what the supernet has of it."""
        return self.count if self.count is not None else int((self.share or 0.0) * widest)


@dataclass(frozen=True, kw_only=True)
class Target:
    """One network to be found: limits that all hold, of which at least one is used to more than 98 %.

    text: the part of the budget it stands for, as "macs=1G" or "macs=1G,params=2M".
    macs, params: the limits; None where there is none.
    """

    text: str
    macs: int | None = None
    params: int | None = None

    @property
    def limits(self) -> dict[str, int]:
        """The limits by name, "macs" or "params"."""
        given = {"macs": self.macs, "params": self.params}
        return {name: limit for name, limit in given.items() if limit is not None}

    @property
    def name(self) -> str:
        """The target as a folder's name: 1G, 60pct, params-2M, 1G-params-2M."""
        return self.text.removeprefix("macs=").replace("%", "pct").replace("=", "-").replace(",", "-")

    def share(self, counts: Mapping[str, int]) -> float:
        """Return the largest share of a limit that a network uses; counts: its "macs" and "params"."""
        return max(counts[name] / limit for name, limit in self.limits.items())

    def is_met(self, counts: Mapping[str, int]) -> bool:
        """True when no limit is exceeded and one is used to more than 98 %."""
        holds = all(counts[name] <= limit for name, limit in self.limits.items())
        return holds and any(counts[name] > (1 - TOLERANCE) * limit for name, limit in self.limits.items())

    def __str__(self) -> str:
        return " and ".join(f"{format_count(limit)} {LIMITED[name]}" for name, limit in self.limits.items())


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a user asks for: amounts of MACs, of parameters or both; at most one of them is a list.

    A list means several networks of one run; what is no list holds for each of them.
    """

    macs: tuple[Amount, ...] = ()
    params: tuple[Amount, ...] = ()

    def resolve(self, smallest: Mapping[str, int], widest: Mapping[str, int]) -> tuple[Target, ...]:
        """Return the targets, the dearest first.

        smallest, widest: "macs" and "params" of the space's smallest and widest network at the real input size.
        Raises BudgetError, with the reachable range, when a limit is below the smallest network or all of a target
        are so far above the widest that it would use less than 98 % of each; InputError for a target given twice.
        """
        given = {name: amounts for name, amounts in (("macs", self.macs), ("params", self.params)) if amounts}
        listed = max(given, key=lambda name: len(given[name]))
        targets = []
        for amount in given[listed]:
            chosen = {name: amount if name == listed else amounts[0] for name, amounts in given.items()}
            is_plain = list(chosen) == ["macs"] and amount.share is not None
            text = amount.text if is_plain else ",".join(f"{name}={part.text}" for name, part in chosen.items())
            limits = {name: part.resolve(widest[name]) for name, part in chosen.items()}
            targets.append(Target(text=text, **limits))
            _check_range(targets[-1], smallest, widest)
        targets.sort(key=lambda target: -target.limits[listed])
        for first, second in pairwise(targets):
            if first.limits == second.limits:
                raise InputError(f"Budget has '{first.text}' and '{second.text}', which are the same. Leave one out.")
        return tuple(targets)


def _check_range(target: Target, smallest: Mapping[str, int], widest: Mapping[str, int]) -> None:
    limits = target.limits
    below = [name for name, limit in limits.items() if limit < smallest[name]]
    is_above = all(widest[name] <= (1 - TOLERANCE) * limit for name, limit in limits.items())
    if not below and not is_above:
        return
    name = below[0] if below else next(iter(limits))
    side = "below the smallest" if below else "above the widest"
    step = 10 ** max(0, len(str(smallest[name])) - 3)
    lowest = -(-smallest[name] // step) * step  # to three digits upwards: the range as printed can be asked for
    where = " at this input size" if name == "macs" else ""
    raise BudgetError(
        f"Budget of {format_count(limits[name])} {LIMITED[name]} is {side} network of the space; budgets from "
        f"{format_count(lowest)} to {format_count(widest[name])} {LIMITED[name]} can be met{where}. "
        "Change the budget, the space or the input size."
    )


def parse_budget(text: str) -> Budget:
    """Return the budget that a text means. Raises InputError otherwise.

    `macs=1.5G`, `params=2M`; `60%` of the supernet's MACs, `params=50%` of its parameters; several limits at once,
    `macs=1G,params=2M`; several networks from one run, `macs=2G,1G,500M`.
    """
    amounts: dict[str, list[Amount]] = {}
    name = ""
    for part in text.replace(" ", "").split(","):
        head, equals, value = part.rpartition("=")
        if equals:
            name = head
        elif not name and value.endswith("%"):
            name = "macs"
        if name and name not in LIMITED:
            hint = did_you_mean(name, LIMITED)
            raise InputError(f"Unknown budget '{name}'. {hint} Write macs=1.5G, params=2M or 60%.")
        amount = _amount(value)
        if not name or amount is None:
            raise InputError(
                f"Budget is '{text}'; write macs= or params= and a number, or a share of the supernet, as macs=1.5G, "
                "params=2M or 60%; several at once as macs=1G,params=2M, several networks as macs=2G,1G."
            )
        if amount.share is not None and not 0 < amount.share <= 1:
            raise InputError(f"Budget is '{text}'; a share of the supernet lies above 0% and at most at 100%.")
        amounts.setdefault(name, []).append(amount)
    if sum(len(listed) > 1 for listed in amounts.values()) > 1:
        raise InputError(f"Budget is '{text}'; only one of macs and params can be a list. Give the other one value.")
    return Budget(**{name: tuple(listed) for name, listed in amounts.items()})


def _amount(text: str) -> Amount | None:
    """Return what `1.5G` or `60%` means; None for anything else."""
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)%", text):
        return Amount(text=text, share=float(match[1]) / 100)
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)([kKMGT]?)", text):
        count = round(float(match[1]) * _UNITS[match[2].replace("K", "k")])
        if count > 0:
            return Amount(text=text, count=count)
    return None


def format_count(count: float) -> str:
    """Return a count with three significant digits and its unit: 61.8G, 150M, 9.31k."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(count) >= 0.9995 * size:
            return f"{float(f'{count / size:.3g}'):g}{unit}"
    return f"{count:g}"
