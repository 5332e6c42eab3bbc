"""The networks of a run with several budgets: each with its limits, its cost, its scores and how far it has come."""

from dataclasses import dataclass

from hrnas.arch.budget import Target
from hrnas.costing.analytic import Cost
from hrnas.reporting.record import Cut, RunRecord, SetAside
from hrnas.reporting.targets import read_targets, share_of

OWN_FOLDER = "."
"""Folder of the smallest network: the run directory itself."""


@dataclass(frozen=True, kw_only=True)
class BudgetNetwork:
    """One network of several.

    folder: of the run that finishes it, seen from the run directory; None before it is set aside.
    step: at which it was set aside; None where that is not told.
    cost: None before it is set aside.
    score: the metric on validation; of a network that is not finished, the last there is.
    test: the metric on test, once evaluated.
    state: in words.
    """

    target: Target
    folder: str | None
    step: int | None
    cost: Cost | None
    score: float | None
    test: float | None
    finished: bool
    state: str

    @property
    def share(self) -> float | None:
        """How much of its budget the network takes: the largest of cost over limit."""
        return None if self.cost is None else share_of(self.target, self.cost)


def budget_networks(record: RunRecord) -> tuple[BudgetNetwork, ...]:
    """Return the networks of a run with several budgets, dearest first; none of a run with one."""
    targets = record.targets
    if len(targets) < len(record.pareto):  # a grammar not known as a whole; each network names its own budget
        targets = tuple(_target_of(entry, record) for entry in record.pareto)
    if len(targets) < 2:
        return ()
    return tuple(_network(record, target, is_last=target is targets[-1]) for target in targets)


def _target_of(entry: SetAside, record: RunRecord) -> Target:
    read = read_targets(entry.budget, record.supernet_cost)
    return read[0] if len(read) == 1 else Target(text=entry.budget)


def _network(record: RunRecord, target: Target, *, is_last: bool) -> BudgetNetwork:
    cut = next((cut for cut in record.cuts if cut.budget == target.text), None)
    entry = _entry(record, target, cut, is_last=is_last)
    if entry is None:
        return BudgetNetwork(
            target=target,
            folder=None,
            step=None,
            cost=None,
            score=None,
            test=None,
            finished=False,
            state="not reached yet",
        )
    own = record if entry.folder == OWN_FOLDER else record.finishing.get(entry.folder)
    finished = entry.finished or (own is not None and own.finished)
    scores = own.scores if own is not None else {}
    return BudgetNetwork(
        target=target,
        folder=entry.folder,
        step=None if cut is None else cut.step,
        cost=Cost(macs=entry.macs, params=entry.params),
        score=scores["validation"].score if "validation" in scores else _score_so_far(record, own, entry),
        test=scores["test"].score if "test" in scores else None,
        finished=finished,
        state=_state(own, finished=finished),
    )


def _entry(record: RunRecord, target: Target, cut: Cut | None, *, is_last: bool) -> SetAside | None:
    """Return the network's entry of pareto.json, or, before there is one, what the cut that met its budget says."""
    for entry in record.pareto:
        if entry.budget == target.text:
            return entry
    if cut is None:
        return None
    folder = OWN_FOLDER if is_last else f"budgets/{target.name}"
    return SetAside(budget=target.text, folder=folder, macs=cut.macs, params=cut.params, score=None, finished=False)


def _score_so_far(record: RunRecord, own: RunRecord | None, entry: SetAside) -> float | None:
    """Return the score of pareto.json, else of the last validation of this network, in its own run or in the search."""
    if entry.score is not None:
        return entry.score
    in_search = [point for point in record.evaluations if point.macs == entry.macs]
    in_own = own.evaluations if own is not None and own is not record else ()
    points = [point for point in (*in_search, *in_own) if point.split == "validation"]
    return points[-1].score if points else None


def _state(own: RunRecord | None, *, finished: bool) -> str:
    if finished:
        return "finished"
    if own is None or not own.last_step:
        return "set aside, not trained on yet"
    return f"at step {own.last_step:,} of {own.steps:,}"
