"""A run as typed data: what the files of a run directory say, and nothing computed from it but lookups."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hrnas.arch.architecture import Architecture
from hrnas.arch.budget import Target
from hrnas.costing.analytic import Cost, Size, cost
from hrnas.reporting.targets import read_targets

RGB = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class TrainPoint:
    """One logged training step. What a train run, or an older one, does not log is None.

    planned_macs, planned_params: where the plan wants the cost to be; None where it is not budgeted, or final.
    gain: what the control multiplies the penalty's weight by while the cost lags behind the plan.
    seconds: of the loop so far; data_seconds: waited for data since the last logged step.
    """

    step: int
    loss: float
    learning_rate: float
    macs: int
    seconds: float
    penalty: float | None = None
    penalty_weight: float | None = None
    gain: float | None = None
    planned_macs: int | None = None
    planned_params: int | None = None
    params: int | None = None
    units: int | None = None
    data_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationPoint:
    """One evaluation during the run.

    metric: name of the figure that decides; figures: all of them by name, nan where one does not exist.
    seconds: of the loop before it; evaluation_seconds: it took itself, recalibration included. None in older runs.
    """

    step: int
    split: str
    metric: str
    figures: Mapping[str, float]
    macs: int
    seconds: float
    evaluation_seconds: float | None = None

    @property
    def score(self) -> float:
        """The figure that decides; higher is better."""
        return self.figures[self.metric]


@dataclass(frozen=True, kw_only=True)
class Cut:
    """One line of architectures.jsonl: a cut, or the supernet (reason "supernet", removed 0).

    budget: text of the target this cut met; None for any other.
    tokens: left in the network.
    output_change: relative change of the output on a fixed batch by this cut alone.
    """

    step: int
    reason: str
    units: int
    removed: int
    macs: int
    params: int
    fingerprint: str
    budget: str | None = None
    tokens: int | None = None
    output_change: float | None = None


@dataclass(frozen=True, kw_only=True)
class PartScore:
    """What a part of an evaluation, a class or a joint, scores. value, share: 0..1; None where undefined."""

    name: str
    value: float | None
    share: float | None
    color: RGB | None


@dataclass(frozen=True, kw_only=True)
class Parts:
    """An evaluation taken apart. title: of the table; value, share: what the numbers of a row are called."""

    title: str
    value: str
    share: str
    rows: tuple[PartScore, ...]


@dataclass(frozen=True, kw_only=True)
class SplitScore:
    """The evaluation of the finished network on one split.

    metric: name of the figure that decides; figures: all of them by name, nan where one does not exist.
    parts: None where the file has none.
    conditions: what else the figures depend on, by name, as "boxes" -> "ground truth".
    """

    split: str
    samples: int
    input_size: Size
    metric: str
    figures: Mapping[str, float]
    parts: Parts | None
    conditions: Mapping[str, str]
    macs: int
    params: int
    weights: str
    step: int | None

    @property
    def score(self) -> float:
        """The figure that decides; higher is better."""
        return self.figures[self.metric]


@dataclass(frozen=True, kw_only=True)
class Result:
    """result.json: what the finished run says of itself."""

    budget: str | None
    budgets: tuple[str, ...] = ()
    budget_macs: int | None
    budget_params: int | None = None
    supernet: Cost | None
    found: Cost
    input_size: Size
    steps: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """A network of pareto.json. folder: of the run that finishes it, seen from the run directory; "." is the run."""

    budget: str
    folder: str
    macs: int
    params: int
    score: float | None
    finished: bool


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One prediction picture, as the task drew it: the truth, where there is one, left of the prediction."""

    split: str
    name: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Everything a run directory says. Optional files that are absent give None or an empty tuple or mapping.

    folder: the run directory; its name stands in commands.
    verb: "search" or "train".
    config: the resolved options, plain values.
    budget: as the user wrote it.
    architecture: the network as it stands now.
    supernet: of a search run; None otherwise.
    cuts: the lines of architectures.jsonl after the supernet's, in step order.
    train, evaluations: in step order, one per step.
    scores: by split, of evaluation.json.
    pareto: the networks set aside at several budgets, dearest first.
    finishing: by folder ("budgets/1G"), the runs that finish them, as far as they have begun.
    """

    folder: Path
    verb: str
    task: str
    dataset: str
    config: Mapping[str, Any]
    budget: str | None
    input_size: Size
    steps: int
    environment: Mapping[str, str]
    architecture: Architecture | None
    supernet: Architecture | None
    start: Cut | None
    cuts: tuple[Cut, ...]
    train: tuple[TrainPoint, ...]
    evaluations: tuple[EvaluationPoint, ...]
    result: Result | None
    scores: Mapping[str, SplitScore]
    predictions: tuple[Picture, ...]
    pareto: tuple[SetAside, ...] = ()
    finishing: Mapping[str, "RunRecord"] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The run directory's own name, as commands use it."""
        return self.folder.resolve().name

    @property
    def is_search(self) -> bool:
        """True for a run of `hrnas search`."""
        return self.verb == "search"

    @property
    def finished(self) -> bool:
        """True when the run came to its end."""
        return self.result is not None

    @property
    def metric(self) -> str:
        """Name of the figure that decides; "score" before the first evaluation has told it."""
        names = [score.metric for score in self.scores.values()] + [point.metric for point in self.evaluations]
        return names[0] if names else "score"

    @property
    def last_step(self) -> int:
        """The last step any record speaks of; 0 before the first."""
        steps = [point.step for point in self.train] + [point.step for point in self.evaluations]
        return max(steps + [cut.step for cut in self.cuts], default=0)

    @property
    def seconds(self) -> float | None:
        """Seconds the run took, over its resumes; None before the first record."""
        if self.result is not None:
            return self.result.seconds
        seconds = [point.seconds for point in self.train] + [point.seconds for point in self.evaluations]
        return max(seconds, default=None)

    @property
    def loop_seconds(self) -> float | None:
        """Seconds of the run's own loop as far as it is recorded, without what it finishes of several budgets."""
        seconds = [point.seconds for point in self.train]
        seconds += [point.seconds + (point.evaluation_seconds or 0.0) for point in self.evaluations]
        return max(seconds, default=None)

    @property
    def evaluation_seconds(self) -> float | None:
        """Seconds the loop spent on its evaluations; None where an older run did not record them."""
        return _sum([point.evaluation_seconds for point in self.evaluations])

    @property
    def data_seconds(self) -> float | None:
        """Seconds the loop waited for data; None where an older run did not record them."""
        return _sum([point.data_seconds for point in self.train])

    @property
    def supernet_cost(self) -> Cost | None:
        """Cost of the supernet at the input size: as the run wrote it, else from the architecture."""
        if self.result is not None and self.result.supernet is not None:
            return self.result.supernet
        return None if self.supernet is None else cost(self.supernet, self.input_size)

    @property
    def found_cost(self) -> Cost | None:
        """Cost of the network as it stands at the input size."""
        if self.result is not None:
            return self.result.found
        return None if self.architecture is None else cost(self.architecture, self.input_size)

    @property
    def targets(self) -> tuple[Target, ...]:
        """What the budget comes to, dearest first; the last is that of the run's own network.

        Empty without a budget, or when it cannot be told before the run ends.
        """
        result, widest = self.result, self.supernet_cost
        texts = result.budgets if result is not None and result.budgets else (self.budget,)
        targets = tuple(target for text in texts for target in read_targets(text, widest))
        if result is None or (result.budget_macs, result.budget_params) == (None, None):
            return targets
        last = targets[-1] if targets else Target(text=texts[-1] or "")
        return (*targets[:-1], replace(last, macs=result.budget_macs, params=result.budget_params))

    @property
    def target(self) -> Target | None:
        """What the run's own network must not exceed, the smallest of several; None where there is none."""
        return self.targets[-1] if self.targets else None


def _sum(parts: list[float | None]) -> float | None:
    """Return the sum; None where there is nothing to add, or a part is not known."""
    known = [part for part in parts if part is not None]
    return sum(known) if known and len(known) == len(parts) else None
