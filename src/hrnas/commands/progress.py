"""Live progress of a loop: a line that renews itself on a terminal, now and then a line elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import rich
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from hrnas.arch.budget import LIMITED, Target, format_count
from hrnas.costing.analytic import Cost

_SECONDS_BETWEEN_LINES = 20.0
_SECONDS_WITHOUT_A_WORD = 1.5


@contextmanager
def counted_progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Give a function that shows how many of `total` are done; what takes a moment only shows nothing.

    A bar on a terminal; elsewhere one line at the start and one at the end.
    """
    console = rich.get_console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task(what, total=total)
    started, is_shown = time.monotonic(), False

    def show(done: int) -> None:
        nonlocal is_shown
        bar.update(task, completed=done)
        if not is_shown and time.monotonic() - started > _SECONDS_WITHOUT_A_WORD and done < total:
            is_shown = True
            bar.start()
            if not console.is_terminal:
                console.print(f"{what}: {done} of {total}", highlight=False, soft_wrap=True)

    try:
        yield show
        if is_shown and not console.is_terminal:
            console.print(f"{what}: {total} of {total}", highlight=False, soft_wrap=True)
    finally:
        bar.stop()


class LoopProgress:
    """Shows step, loss, metric, MACs now / budget, units left and time left of one loop.

    steps: of the whole run; first_step: where this process begins; metric: the metric's name.
    """

    def __init__(self, *, verb: str, steps: int, first_step: int, metric: str) -> None:
        self.steps, self.first_step, self.metric = steps, first_step, metric
        self._console = rich.get_console()
        self._bar = Progress(
            TextColumn(f"[bold]{verb}[/]"),
            BarColumn(bar_width=None, table_column=Column(min_width=10, ratio=1)),
            TaskProgressColumn(),
            TextColumn("{task.fields[figures]}", table_column=Column(no_wrap=True)),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=steps, completed=first_step, figures="")
        self._last_line = self._last_time = time.monotonic()
        self._seconds_per_step: float | None = None
        self._score: float | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(
        self, step: int, *, loss: float, price: Cost, target: Target | None = None, units: int | None = None
    ) -> None:
        """Show the state after `step` steps; target: what the search goes for next."""
        now = time.monotonic()
        seconds, self._last_time = now - self._last_time, now
        old = self._seconds_per_step
        self._seconds_per_step = seconds if old is None else 0.95 * old + 0.05 * seconds
        parts = [f"step {step}/{self.steps}", f"loss {loss:.3f}"]
        if self._score is not None:
            parts.append(f"{self.metric} {self._score:.3f}")
        limits = target.limits if target else {}
        for name in limits or ("macs",):
            limit = f" / {format_count(limits[name])}" if limits else ""
            parts.append(f"{LIMITED[name]} {format_count(price.counts[name])}{limit}")
        if units is not None:
            parts.append(f"units {units}")
        left = int(self._seconds_per_step * (self.steps - step))
        parts.append(f"{left // 60}:{left % 60:02d} left")
        figures = " · ".join(parts)
        self._bar.update(self._task, completed=step, figures=figures)
        due = now - self._last_line >= _SECONDS_BETWEEN_LINES or step in (self.first_step + 1, self.steps)
        if not self._console.is_terminal and due:
            self._console.print(figures, highlight=False, soft_wrap=True)
            self._last_line = now

    def score(self, step: int, score: float) -> None:
        """Show the metric of a validation."""
        self._score = score
        self._console.print(f"step {step}: validation {self.metric} {score:.4f}", highlight=False)
        self._last_time = time.monotonic()

    def note(self, text: str) -> None:
        """Show a line that stays."""
        self._console.print(text, highlight=False, soft_wrap=True)
