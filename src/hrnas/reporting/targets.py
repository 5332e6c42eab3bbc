"""The budgets of a run as numbers: the limits that the text the user wrote comes to, dearest first."""

import re
from dataclasses import dataclass
from typing import Final

from hrnas.costing.analytic import Cost

_UNITS: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_PART: Final = re.compile(r"(?:(macs|params)=)?(\d+(?:\.\d+)?)([kMGT%]?)")


@dataclass(frozen=True, kw_only=True)
class Target:
    """What one network of a search must not exceed.

    text: as a budget is written, `macs=1G`.
    name: short, as its folder is called, `1G`.
    macs, params: the limits at the input size; None where the budget sets none.
    """

    text: str
    name: str
    macs: int | None = None
    params: int | None = None


def read_targets(text: str | None, widest: Cost | None) -> tuple[Target, ...]:
    """Return the targets of a budget; none where it cannot be told what the text comes to.

    widest: cost of the supernet, which shares are of; without it a share comes to nothing.
    A grammar this version does not know comes to nothing too: the text is shown as it stands.
    """
    amounts: dict[str, list[tuple[str, int]]] = {}
    kind = "macs"
    for part in (text or "").replace(" ", "").split(","):
        match = _PART.fullmatch(part)
        if match is None:
            return ()
        kind = match[1] or kind
        limit = _limit(kind, float(match[2]), match[3], widest)
        if limit is None:
            return ()
        amounts.setdefault(kind, []).append((match[2] + match[3], limit))
    if len(amounts) > 1 and any(len(limits) > 1 for limits in amounts.values()):
        return ()
    if len(amounts) > 1:
        return (_target({kind: limits[0] for kind, limits in amounts.items()}),)
    targets = [_target({kind: limit}) for kind, limits in amounts.items() for limit in limits]
    return tuple(sorted(targets, key=lambda target: -(target.macs or target.params or 0)))


def _limit(kind: str, amount: float, unit: str, widest: Cost | None) -> int | None:
    if unit != "%":
        return round(amount * _UNITS[unit])
    return None if widest is None else int(amount / 100 * getattr(widest, kind))


def _target(limits: dict[str, tuple[str, int]]) -> Target:
    words = {kind: word for kind, (word, _) in limits.items()}
    name = "-".join(word if kind == "macs" else f"{kind}-{word}" for kind, word in words.items())
    return Target(
        text=",".join(
            word if word.endswith("%") and kind == "macs" else f"{kind}={word}" for kind, word in words.items()
        ),
        name=name.replace("%", "pct"),
        **{kind: limit for kind, (_, limit) in limits.items()},
    )


def share_of(target: Target, cost: Cost) -> float | None:
    """Return how much of the target a network takes: the largest of cost over limit."""
    shares = [cost.macs / target.macs if target.macs else 0.0, cost.params / target.params if target.params else 0.0]
    return max(shares) or None
