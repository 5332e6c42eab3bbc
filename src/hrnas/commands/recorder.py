"""What a loop leaves in its run directory while it runs: lines, checkpoints, the best network, its evaluation."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrnas.arch.architecture import Architecture
from hrnas.arch.file import fingerprint, to_data, to_json
from hrnas.commands.options import TrainingOptions
from hrnas.commands.run_directory import save_network
from hrnas.commands.session import Session
from hrnas.costing.analytic import cost
from hrnas.engine.evaluation import averaged_network
from hrnas.engine.records import append_line, keep_lines_until, write_json, write_text
from hrnas.engine.training import TrainState
from hrnas.searching.plan import Plan


@dataclass
class Recorder:
    """Writes the files of one run; on other processes than rank zero, none.

    best: the highest validation metric of a network of final shape so far.
    """

    run: Path
    session: Session
    options: TrainingOptions
    best: float | None = None

    def begin(self, architecture: Architecture, *, reason: str, units: int) -> None:
        """Write the network the run starts from, in place of whatever an earlier start has left."""
        if not self._writes:
            return
        for name in ("metrics.jsonl", "architectures.jsonl"):
            (self.run / name).unlink(missing_ok=True)
        self._architecture_line(0, architecture, reason=reason, units=units, removed=0)

    def resume(self, step: int, architecture: Architecture, best: float | None) -> None:
        """Drop what was written after the checkpoint the run goes on from."""
        self.best = best
        if not self._writes:
            return
        write_text(self.run / "architecture.json", to_json(architecture))
        for name in ("metrics.jsonl", "architectures.jsonl"):
            keep_lines_until(self.run / name, step)

    def train_line(self, state: TrainState, *, loss: float, rate: float, macs: int, **search: float | None) -> None:
        """Append a training line; search: penalty, penalty_weight, planned_macs, units of a search."""
        if not self._writes:
            return
        append_line(
            self.run / "metrics.jsonl",
            {
                "kind": "train",
                "step": state.step,
                "loss": loss,
                **search,
                "learning_rate": rate,
                "macs": macs,
                "seconds": round(state.seconds, 2),
            },
        )

    def cut(self, step: int, plan: Plan, units: int) -> None:
        """Write what a cut has left."""
        if not self._writes:
            return
        self._architecture_line(step, plan.architecture, reason=plan.reason, units=units, removed=plan.removed)

    def validate(self, state: TrainState, *, has_final_shape: bool) -> float:
        """Evaluate the averaged weights on the validation split, record it, keep the network if it is the best yet.

        Returns the task's metric, which is the same on all processes; all come here.
        """
        options, session = self.options, self.session
        calibration = session.calibration_images(
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
        if not self._writes:
            return score
        append_line(
            self.run / "metrics.jsonl",
            {
                "kind": "evaluation",
                "step": state.step,
                "split": "validation",
                **{name: value for name, value in figures.items() if isinstance(value, float)},
                "macs": price.macs,
                "seconds": round(state.seconds, 2),
            },
        )
        if is_best:
            save_network(self.run / "best", network)
            write_evaluation(self.run, figures, network.architecture, session, step=state.step)
        return score

    def finish(self, result: dict[str, Any]) -> dict[str, Any]:
        """Write result.json and return it."""
        if self._writes:
            write_json(self.run / "result.json", result)
        return result

    @property
    def _writes(self) -> bool:
        return self.session.processes.is_zero

    def _architecture_line(
        self, step: int, architecture: Architecture, *, reason: str, units: int, removed: int
    ) -> None:
        price = cost(architecture, self.session.input_size)
        append_line(
            self.run / "architectures.jsonl",
            {
                "step": step,
                "reason": reason,
                "units": units,
                "removed": removed,
                "macs": price.macs,
                "params": price.params,
                "fingerprint": fingerprint(architecture),
                "architecture": to_data(architecture),
            },
        )
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
        **figures,
        "macs": price.macs,
        "params": price.params,
        "weights": "averaged, recalibrated",
        "step": step if step is not None else known.get("validation", {}).get("step"),
    }
    write_json(file, known)
