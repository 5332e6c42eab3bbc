"""Where the wall time of a whole search goes: a table, a picture, what a cut costs, how long a step waits for data.

    python benchmarks/profile_search.py --out runs/profile toycity --recipe demo --steps 120 --evaluations 1
    python benchmarks/profile_search.py --out runs/profile camvid.yaml --budget macs=150M --steps 260 --evaluations 1

All words after --out FOLDER are those of `hrnas search`; the run goes to FOLDER/run. The functions of a search are
wrapped in stopwatches, and each second counts for the innermost of them. A shortened run keeps the shares where it
keeps the steps between two validations and between two checkpoints; but not that of the cuts, of which there are about
as many in a short run as in a long one. The time Python takes to start and import torch is left out. What is printed
is also in FOLDER/table.md, the picture in FOLDER/pie.svg.

A cut costs what the shrinker takes in its step and what the four steps after it take beyond the usual: new shapes are
compiled. "Steps" are those around it.
"""

import argparse
import importlib
import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hrnas.cli import prepare_process, run_verb

PARTS = {
    "opening the data set": [("hrnas.commands.search", "open_training_session")],
    "reading every file once": [("hrnas.commands.session", "Session.read_samples")],
    "loss": [("hrnas.tasks.segmentation", "Segmentation.loss_terms")],
    "backward": [("torch", "Tensor.backward")],
    "gradient norm": [("torch.nn.utils", "get_total_norm")],
    "optimizer": [("torch.optim", "AdamW.step")],
    "averages": [("hrnas.engine.averages", "Averages.update")],
    "normalisation": [("hrnas.commands.search", "normalize")],
    "records": [("hrnas.commands.recorder", "Recorder.train_line"), ("hrnas.commands.recorder", "Recorder.cut")],
    "checkpoints": [("hrnas.commands.search", "save_checkpoint"), ("hrnas.commands.train", "save_checkpoint")],
    "validation: the rest": [("hrnas.commands.recorder", "Recorder.validate")],
    "validation: building the network": [("hrnas.engine.evaluation", "Network")],
    "validation: recalibration": [("hrnas.engine.evaluation", "recalibrate")],
    "validation: evaluation": [("hrnas.commands.session", "Session.evaluate")],
    "validation: saving the best": [("hrnas.commands.recorder", "save_network")],
    "setting networks aside": [("hrnas.commands.search", "set_aside")],
    "report": [("hrnas.reporting.report", "write_report")],
}
"""What is timed as a whole: by the name of the part, the functions, each by the module it is looked up in."""
STEP, FORWARD, WAIT, SHRINKER, CUT, REST = "step: the rest", "forward", "waiting for data", "shrinker", "cuts", "rest"
AFTER = 4
"""Steps after a cut that may still pay for it."""


class Stopwatches:
    """Seconds by part; the innermost part counts. calls: of every part, each call's seconds, inner parts included."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.calls: dict[str, list[float]] = {}
        self._open: list[list[Any]] = []

    @property
    def innermost(self) -> str | None:
        """The part that is running."""
        return self._open[-1][0] if self._open else None

    @contextmanager
    def part(self, name: str) -> Iterator[list[Any]]:
        """Count what is inside for a part; its name is the first entry of what is given, and may be changed inside."""
        entry, started = [name, 0.0], time.perf_counter()
        self._open.append(entry)
        try:
            yield entry
        finally:
            seconds = time.perf_counter() - started
            self._open.pop()
            self.seconds[entry[0]] += seconds - entry[1]
            self.calls.setdefault(entry[0], []).append(seconds)
            if self._open:
                self._open[-1][1] += seconds

    def timed(self, name: str, items: Iterable[Any]) -> Iterator[Any]:
        """Yield the items, the waiting for each counted for a part."""
        items = iter(items)
        while True:
            with self.part(name):
                item = next(items, None)
            if item is None:
                return
            yield item


def wrap(module: str, path: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace a function or method, looked up in a module by its dotted path."""
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    setattr(owner, name, around(getattr(owner, name)))


def attach(watches: Stopwatches, cuts: list[tuple[int, float]], steps: list[float]) -> None:
    """Put stopwatches into the functions of a search.

    cuts: gets the number of steps done and the shrinker's seconds of each cut; steps: the seconds of each step.
    """

    def whole(part: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def around(function: Callable[..., Any]) -> Callable[..., Any]:
            def timed(*given: Any, **named: Any) -> Any:
                with watches.part(part):
                    return function(*given, **named)

            return timed

        return around

    def forward(function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            if watches.innermost != STEP:  # of a validation, or of a cut's probe
                return function(*given, **named)
            with watches.part(FORWARD):
                return function(*given, **named)

        return timed

    def step(function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            with watches.part(STEP):
                result = function(*given, **named)
            steps.append(watches.calls[STEP][-1])
            return result

        return timed

    def shrink(function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(shrinker: Any) -> Any:
            with watches.part(SHRINKER) as entry:
                has_changed = function(shrinker)
                if has_changed or shrinker.target_met is not None:
                    entry[0] = CUT
            if entry[0] == CUT:
                cuts.append((len(steps), watches.calls[CUT][-1]))
            return has_changed

        return timed

    def waiting(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given, **named: watches.timed(WAIT, function(*given, **named))

    for part, places in PARTS.items():
        for module, path in places:
            wrap(module, path, whole(part))
    for module in ("hrnas.commands.search", "hrnas.commands.train"):
        wrap(module, "train_step", step)
    wrap("hrnas.models.network", "Network.forward", forward)
    wrap("hrnas.searching.shrinker", "Shrinker.step", shrink)
    wrap("hrnas.commands.session", "Session.train_batches", waiting)


def price_of_cuts(cuts: list[tuple[int, float]], steps: list[float]) -> list[tuple[int, float, float, float]]:
    """Return of each cut the step, the shrinker's seconds, what the steps after it took beyond the usual, and a step.

    The usual is the median of the steps after those, up to the next cut; of those before where the next comes at once.
    """
    found = []
    for place, (at, own) in enumerate(cuts):
        end = cuts[place + 1][0] if place + 1 < len(cuts) else len(steps)
        after, later = steps[at : min(at + AFTER, end)], steps[at + AFTER : min(end, at + AFTER + 20)]
        usual = statistics.median(later or steps[max(0, at - 10) : at])
        found.append((at, own, sum(after) - usual * len(after), usual))
    return found


def picture(seconds: dict[str, float], total: float, label: str) -> str:
    """Return bars of the parts' shares as an SVG file's text."""
    from hrnas.reporting import svg

    row, left, width = 22.0, 210.0, 640.0
    longest = max(seconds.values())
    style = (
        "text { font: 12px system-ui, 'Liberation Sans', sans-serif; fill: #1b1f24 } .title { font-size: 14px } "
        ".bar { fill: #3a94b3 } .number { fill: #67707b } svg { background: #ffffff }"
    )
    parts = [svg.element("style", style), svg.text(0, 16, label, "title")]
    for place, (name, value) in enumerate(seconds.items()):
        top = 30 + place * row
        length = max((width - left - 110) * value / longest, 0.5)
        parts += [
            svg.text(left - 8, top + 11, name, anchor="end"),
            svg.rectangle(left, top, length, 14, "bar", radius=2),
            svg.text(left + length + 8, top + 11, f"{value / total:.1%}", "number"),
        ]
    return str(svg.drawing(width, 30 + len(seconds) * row + 6, *parts, label=label)) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("words", nargs=argparse.REMAINDER, help="data and options of 'hrnas search'")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    prepare_process()
    from cells import machine, markdown_table

    watches, cuts, steps = Stopwatches(), [], []
    attach(watches, cuts, steps)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with watches.part(REST):
        result = run_verb("search", [*given.words, f"--run={given.out / 'run'}", "--overwrite"])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = watches.calls[REST][0]
    loading = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    seconds = dict(sorted(watches.seconds.items(), key=lambda part: -part[1]))
    validation = sum(value for name, value in seconds.items() if name.startswith("validation"))
    waits = sorted(watches.calls[WAIT][1:])  # the first step waits for the processes that read to start
    priced = price_of_cuts(cuts, steps)
    in_steps = [(own + extra) / usual for _, own, extra, usual in priced]
    all_cuts = sum(own + extra for _, own, extra, _ in priced)
    lines = [
        machine(),
        f"`python benchmarks/profile_search.py {' '.join(sys.argv[1:])}`",
        f"{result['steps']} steps, {total:.1f} s, of which the loop {result['seconds']:.1f} s; the processes that read "
        f"took {loading:.1f} s of processor time beside it.",
        markdown_table(
            ["part", "share of the run", "calls", "share of a step, a call"],
            [
                [name, f"{value / total:.1%}", len(watches.calls[name]),
                 f"{statistics.median(watches.calls[name]) / statistics.median(steps):.1%}"]
                for name, value in seconds.items()
            ],
        ),
        f"Validation and recalibration: {validation / total:.1%} of the run. Waiting for data: "
        f"{sum(waits) / total:.2%}; median {1e3 * statistics.median(waits):.2f} ms a step, 95 % of the steps below "
        f"{1e3 * waits[int(0.95 * (len(waits) - 1))]:.2f} ms, a step {1e3 * statistics.median(steps):.0f} ms.",
    ]  # fmt: skip
    if priced:
        lines += [
            f"Cuts: {len(priced)}, together {all_cuts / total:.1%} of the run; one costs "
            f"{statistics.median(in_steps):.1f} steps in the median, {max(in_steps):.1f} at most.",
            markdown_table(
                ["cut after step", "shrinker, in steps", "slower steps after it, in steps"],
                [[at, f"{own / usual:.1f}", f"{extra / usual:.1f}"] for at, own, extra, usual in priced],
            ),
        ]
    text = "\n\n".join(lines)
    (given.out / "table.md").write_text(text + "\n", encoding="utf-8")
    label = f"Where {total:.0f} s of a search go"
    (given.out / "pie.svg").write_text(picture(seconds, total, label), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
