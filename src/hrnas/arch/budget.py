"""Budgets: what the user asks for, as text, and as a number of MACs."""

import re
from dataclasses import dataclass
from typing import Final

from hrnas.errors import BudgetError, InputError, did_you_mean

TOLERANCE: Final = 0.02
"""A found network costs more than (1 - TOLERANCE) of its budget and never more than the budget."""

_UNITS: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A bound on MACs: absolute, or as a share of the supernet's; exactly one is set."""

    macs: int | None = None
    share: float | None = None

    def resolve(self, smallest_macs: int, widest_macs: int) -> int:
        """Return the budget in MACs.

        smallest_macs, widest_macs: cost of the space's smallest and widest network at the real input size.
        Raises BudgetError, with the reachable range, when no network of the space costs (0.98, 1.00] of it.
        """
        macs = self.macs if self.macs is not None else int((self.share or 0.0) * widest_macs)
        if smallest_macs <= macs and widest_macs > (1 - TOLERANCE) * macs:
            return macs
        side = "below the smallest" if macs < smallest_macs else "above the widest"
        step = 10 ** max(0, len(str(smallest_macs)) - 3)
        lowest = -(-smallest_macs // step) * step  # to three digits upwards: the range as printed can be asked for
        raise BudgetError(
            f"Budget of {format_count(macs)} MACs is {side} network of the space; budgets from "
            f"{format_count(lowest)} to {format_count(widest_macs)} MACs can be met at this input size. "
            "Change the budget, the space or the input size."
        )


def parse_budget(text: str) -> Budget:
    """Return the budget that a text such as `macs=1.5G`, `macs=150M` or `60%` means. Raises InputError otherwise."""
    compact = text.replace(" ", "")
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)%", compact):
        share = float(match[1]) / 100
        if not 0 < share <= 1:
            raise InputError(f"Budget is '{text}'; a share of the supernet lies above 0% and at most at 100%.")
        return Budget(share=share)
    name, equals, amount = compact.partition("=")
    if equals and name != "macs":
        raise InputError(f"Unknown budget '{name}'. {did_you_mean(name, ['macs'])} Write macs=1.5G or 60%.")
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)([kKMGT]?)", amount if equals else ""):
        macs = round(float(match[1]) * _UNITS[match[2].replace("K", "k")])
        if macs > 0:
            return Budget(macs=macs)
    raise InputError(
        f"Budget is '{text}'; write macs= and a number of MACs, or a share of the supernet, as macs=1.5G or 60%."
    )


def format_count(count: float) -> str:
    """Return a count with three significant digits and its unit: 61.8G, 150M, 9.31k."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(count) >= 0.9995 * size:
            return f"{float(f'{count / size:.3g}'):g}{unit}"
    return f"{count:g}"
