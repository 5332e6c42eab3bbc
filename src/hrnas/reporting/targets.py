"""The budgets of a run as numbers: the limits that the text the user wrote comes to, dearest first."""

import re
from dataclasses import dataclass
from typing import Final

from hrnas.costing.analytic import Cost

_UNITS: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_PART: Final = re.compile(r"(?:(macs|params)=)?(\d+(?:\.\d+)?[kMGT%]?)")


@dataclass(frozen=True, kw_only=True)
class Target:
    """What one network of a search must not exceed.

    text: as a budget is written, `macs=1G`.
    macs, params: the limits at the input size; None where the budget sets none.
    """

    text: str
    macs: int | None = None
    params: int | None = None

    @property
    def name(self) -> str:
        """The target as its folder is called: 1G, 60pct, params-2M."""
        return self.text.removeprefix("macs=").replace("%", "pct").replace("=", "-").replace(",", "-")


def read_targets(text: str | None, widest: Cost | None) -> tuple[Target, ...]:
    """Return the targets of a budget; none where it cannot be told what the text comes to.

    widest: cost of the supernet, which shares are of; without it a share comes to nothing.
    A grammar this version does not know comes to nothing too: the text is shown as it stands.
    """
    amounts: dict[str, list[str]] = {}
    kind = "macs"
    for part in (text or "").replace(" ", "").split(","):
        match = _PART.fullmatch(part)
        if match is None or (match[2].endswith("%") and widest is None):
            return ()
        kind = match[1] or kind
        amounts.setdefault(kind, []).append(match[2])
    # At most one of them is a list; what is no list holds for each network.
    listed = max(amounts, key=lambda name: len(amounts[name]))
    if any(len(words) > 1 for name, words in amounts.items() if name != listed):
        return ()
    targets = []
    for word in amounts[listed]:
        chosen = {name: word if name == listed else words[0] for name, words in sorted(amounts.items())}
        is_plain = list(chosen) == ["macs"] and word.endswith("%")
        limits = {name: _limit(name, amount, widest) for name, amount in chosen.items()}
        written = word if is_plain else ",".join(f"{name}={amount}" for name, amount in chosen.items())
        targets.append(Target(text=written, **limits))
    return tuple(sorted(targets, key=lambda target: -(getattr(target, listed) or 0)))


def _limit(name: str, amount: str, widest: Cost | None) -> int:
    if amount.endswith("%"):
        return int(float(amount[:-1]) / 100 * getattr(widest, name))
    number = amount.rstrip("kMGT")
    return round(float(number) * _UNITS[amount[len(number) :]])


def share_of(target: Target, cost: Cost) -> float | None:
    """Return how much of the target a network takes: the largest of cost over limit."""
    shares = [cost.macs / target.macs if target.macs else 0.0, cost.params / target.params if target.params else 0.0]
    return max(shares) or None
