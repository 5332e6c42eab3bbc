"""The score of 3D detection over a whole set: KITTI's average precisions of the boxes found in all its scenes.

N scenes of the set, B of a batch, K classes.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

from hrnas.data.kitti_frames import to_objects
from hrnas.metrics.kitti import MEASURES, KittiAP, Measure, kitti_ap
from hrnas.structures import DIFFICULTIES, Boxes3D, Scene
from hrnas.tasks.anchors import MOST_BOXES, no_boxes
from hrnas.tasks.task import scored_parts

FIGURES: Final[dict[Measure, str]] = {"3d": "ap_3d", "bev": "ap_bev", "2d": "ap_2d", "aos": "aos"}
"""What the measures are called among the figures, that which decides first."""
DECISIVE: Final = "moderate"
"""The difficulty by which the benchmark ranks."""
FEW: Final = 40
"""Objects up to which the development kit's own figure stays below 1 even where all are found."""

_POINTS: Final[tuple[Literal[40, 11], ...]] = (40, 11)
_ROW: Final = 9
"""Of a box: 7 numbers, its score, and 1 more than its class, so that 0 is no box."""


class DetectionScore:
    """Figures of a set whose scenes have been scored; those that have not are left out.

    dataset: gives its length, names, colors, classes and scene(index). found: the boxes in a scene's outputs.
    """

    def __init__(self, dataset: Any, found: Callable[[Tensor], Boxes3D]) -> None:
        self.dataset = dataset
        self._found = found
        self._boxes = torch.zeros(len(dataset), MOST_BOXES, _ROW, dtype=torch.float64)
        self._scored = torch.zeros(len(dataset), dtype=torch.int64)
        self._scenes: dict[int, Scene] = {}  # that this process has scored; the others' are read again

    @property
    def sums(self) -> tuple[Tensor, ...]:
        return self._boxes, self._scored

    def update(self, outputs: Tensor, truths: Sequence[Scene]) -> None:
        """Add outputs (B, channels, H0, W0) and scenes, one each."""
        for of_scene, scene in zip(outputs, truths, strict=True):
            boxes = no_boxes() if scene.is_empty else self._found(of_scene)
            rows = np.column_stack([boxes.boxes, boxes.scores, boxes.labels + 1])
            self._boxes[scene.index, : len(rows)] = torch.from_numpy(rows)
            self._scored[scene.index] = 1
            self._scenes[scene.index] = scene

    def result(self) -> dict[str, Any]:
        """Return ap_3d and its kin: means over the classes, moderate, at 40 recall positions (R40); then R11; by class.

        A class without an object that counts is left out of a mean. All figures stand in `by_class`.
        """
        truths, found = [], []
        for index in self._scored.nonzero()[:, 0].tolist():
            scene, rows = self._scenes.get(index) or self.dataset.scene(index), self._boxes[index].numpy()
            rows = rows[rows[:, -1] > 0]
            boxes = Boxes3D(boxes=rows[:, :7], labels=rows[:, 8].astype(np.int64) - 1, scores=rows[:, 7])
            truths.append(scene.objects)
            found.append(to_objects(boxes, self.dataset.names, scene.calibration, scene.image_size))
        figures = kitti_ap(truths, found, self.dataset.classes)
        means = {
            f"{name}{'' if points == 40 else '_r11'}": _mean(figures, measure, points)
            for points in _POINTS
            for measure, name in FIGURES.items()
        }
        by_class = {
            f"{FIGURES[measure]}_{name.lower()}_{difficulty.name}": figures.value(measure, name, difficulty.name, 40)
            for measure in ("3d", "bev")
            for name in self.dataset.names
            for difficulty in DIFFICULTIES
        }
        return {
            **means,
            **by_class,
            "by_class": {name: _all_of(figures, name) for name in self.dataset.names},
            "parts": self._parts(figures),
            "conditions": self._conditions(figures),
        }

    def _parts(self, figures: KittiAP) -> dict[str, Any]:
        counts = figures.objects[:, [known.name for known in DIFFICULTIES].index(DECISIVE)]
        return scored_parts(
            f"AP_3D by class, {DECISIVE}, R40",
            value="AP_3D",
            share="share of objects that count",
            names=self.dataset.names,
            colors=self.dataset.colors,
            values=[figures.value("3d", name, DECISIVE, 40) for name in self.dataset.names],
            shares=(counts / max(1, counts.sum())).tolist(),
        )

    def _conditions(self, figures: KittiAP) -> dict[str, str]:
        classes = self.dataset.classes
        few = [
            f"{known.name} {difficulty.name} {count}"
            for known, counts in zip(classes, figures.objects.tolist(), strict=True)
            for difficulty, count in zip(DIFFICULTIES, counts, strict=True)
            if 0 < count <= FEW
        ]
        return {
            "AP": f"at 40 recall positions (R40), r11 at 11; {DECISIVE}, mean of the classes, where none is named",
            "overlap": ", ".join(f"{known.name} above {known.overlap:g}" for known in classes),
            **({"few objects": f"{', '.join(few)}; the development kit itself gives less for so few"} if few else {}),
        }


def _mean(figures: KittiAP, measure: Measure, points: Literal[40, 11]) -> float:
    """Return the mean over the classes that have a figure; nan where none has."""
    values = [figures.value(measure, name, DECISIVE, points) for name in figures.class_names]
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


def _all_of(figures: KittiAP, name: str) -> dict[str, dict[str, float]]:
    """Return all figures of a class by difficulty."""
    return {
        difficulty.name: {
            f"{FIGURES[measure]}_r{points}": figures.value(measure, name, difficulty.name, points)
            for measure in MEASURES
            for points in _POINTS
        }
        for difficulty in DIFFICULTIES
    }
