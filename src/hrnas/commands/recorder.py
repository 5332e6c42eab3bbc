"""What a loop leaves in its run directory while it runs: lines, checkpoints, the best network, its evaluation."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrnas.arch.architecture import Architecture
from hrnas.arch.file import fingerprint, to_data, to_json
from hrnas.commands.options import TrainingOptions
from hrnas.commands.run_directory import save_network, writing
from hrnas.commands.session import Session
from hrnas.costing.analytic import Cost, cost
from hrnas.engine.evaluation import averaged_network
from hrnas.engine.records import append_line, keep_lines_until, write_json, write_text
from hrnas.engine.training import TrainState
from hrnas.searching.plan import Plan


@dataclass
class Recorder:
    """Writes the files of one run; on other processes than rank zero, none.

    best: the highest validation metric of a network of final shape so far.
    Its methods raise InputError, on all processes, when the disk refuses; what was written before is whole.
    """

    run: Path
    session: Session
    options: TrainingOptions
    best: float | None = None

    def begin(self, architecture: Architecture, *, reason: str, units: int, budget: str | None = None) -> None:
        """Write the network the run starts from, in place of whatever an earlier start has left."""
        with self._writing() as writes:
            if writes:
                for name in ("metrics.jsonl", "architectures.jsonl"):
                    (self.run / name).unlink(missing_ok=True)
        self._architecture_line(0, architecture, reason=reason, units=units, budget=budget)

    def resume(self, step: int, architecture: Architecture, best: float | None) -> None:
        """Drop what was written after the checkpoint the run goes on from."""
        self.best = best
        with self._writing() as writes:
            if writes:
                write_text(self.run / "architecture.json", to_json(architecture))
                for name in ("metrics.jsonl", "architectures.jsonl"):
                    keep_lines_until(self.run / name, step)

    def train_line(
        self,
        state: TrainState,
        *,
        loss: float,
        rate: float,
        price: Cost,
        data_seconds: float,
        **search: float | None,
    ) -> None:
        """Append a training line.

        data_seconds: waited for data since the last line. search: penalty, penalty_weight, gain, what the curve plans,
        units of a search.
        """
        self._append(
            "metrics.jsonl",
            {
                "kind": "train",
                "step": state.step,
                "loss": loss,
                **search,
                "learning_rate": rate,
                **price.counts,
                "seconds": round(state.seconds, 2),
                "data_seconds": round(data_seconds, 3),
            },
        )

    def cut(self, step: int, plan: Plan, *, units: int, budget: str | None, change: float | None) -> None:
        """Write what a cut has left; budget: the text of the target it has met; change: of the output, by the cut."""
        self._architecture_line(
            step,
            plan.architecture,
            reason=plan.reason,
            units=units,
            removed=plan.removed,
            budget=budget,
            change=change,
        )

    def validate(self, state: TrainState, *, has_final_shape: bool) -> float:
        """Evaluate the averaged weights on the validation split, record it, keep the network if it is the best yet.

        Returns the task's metric, which is the same on all processes; all come here.
        """
        started = time.monotonic()
        options, session = self.options, self.session
        calibration = session.calibration_inputs(
            batch_size=options.batch_size, num_batches=options.calibration_batches, seed=options.seed
        )
        network = averaged_network(state.model, state.averages, calibration)
        figures = session.evaluate(network, "validation")
        architecture = network.architecture
        price = cost(architecture, session.input_size)
        metric = session.task.metric
        score = float(figures[metric])
        is_best = has_final_shape and (self.best is None or score >= self.best)
        if is_best:
            self.best = None if math.isnan(score) else score  # nan: no labelled pixel
        self._append(
            "metrics.jsonl",
            {
                "kind": "evaluation",
                "metric": metric,
                "step": state.step,
                "split": "validation",
                **{name: value for name, value in figures.items() if isinstance(value, float)},
                "macs": price.macs,
                "seconds": round(state.seconds, 2),
                "evaluation_seconds": round(time.monotonic() - started, 2),
            },
        )
        with self._writing() as writes:
            if writes and is_best:
                save_network(self.run / "best", network)
                write_evaluation(self.run, figures, network.architecture, session, step=state.step)
        return score

    def finish(self, result: dict[str, Any]) -> dict[str, Any]:
        """Write result.json and return it."""
        with self._writing() as writes:
            if writes:
                write_json(self.run / "result.json", result)
        return result

    @contextmanager
    def _writing(self) -> Iterator[bool]:
        """Give whether this process writes; what the disk refuses it is raised on all."""
        processes = self.session.processes
        with processes.sharing_errors(), writing(self.run):
            yield processes.is_zero

    def _append(self, name: str, line: dict[str, Any]) -> None:
        with self._writing() as writes:
            if writes:
                append_line(self.run / name, line)

    def _architecture_line(
        self,
        step: int,
        architecture: Architecture,
        *,
        reason: str,
        units: int,
        budget: str | None,
        removed: int = 0,
        change: float | None = None,
    ) -> None:
        price = cost(architecture, self.session.input_size)
        self._append(
            "architectures.jsonl",
            {
                "step": step,
                "reason": reason,
                "budget": budget,
                "units": units,
                "tokens": sum(block.tokens for _, block in architecture.blocks()),
                "removed": removed,
                **price.counts,
                "output_change": change,
                "fingerprint": fingerprint(architecture),
                "architecture": to_data(architecture),
            },
        )
        with self._writing() as writes:
            if writes:
                write_text(self.run / "architecture.json", to_json(architecture))


def write_evaluation(
    run: Path, figures: dict[str, Any], architecture: Architecture, session: Session, *, step: int | None
) -> None:
    """Put the figures of one split into evaluation.json, beside those of the others."""
    file = run / "evaluation.json"
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    price = cost(architecture, session.input_size)
    known[figures["split"]] = {
        "metric": session.task.metric,
        **figures,
        "macs": price.macs,
        "params": price.params,
        "weights": "averaged, recalibrated",
        "step": step if step is not None else known.get("validation", {}).get("step"),
    }
    write_json(file, known)
