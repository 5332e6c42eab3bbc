"""Boxes in space for tests, and the outputs a perfect network gives for them."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hrnas.structures import BoxClass, Boxes3D
from hrnas.tasks.anchors import AnchorGrid, assigned, split_outputs


def random_boxes(
    rng: np.random.Generator,
    count: int,
    grid: AnchorGrid,
    classes: Sequence[BoxClass],
    *,
    spread: float = 1.0,
    apart: float = 0.0,
) -> Boxes3D:
    """Return boxes of all classes over the map, of sizes near the usual ones and any yaw.

    spread: of their middles, in maps. apart: metres between middles, at least.
    """
    ahead, aside = grid.columns * grid.step, grid.rows * grid.step
    middles: list[np.ndarray] = []
    while len(middles) < count:
        x, y = (rng.random(2) - 0.5) * spread
        middle = np.array([(x + 0.5) * ahead, y * aside])
        if all(np.hypot(*(middle - other)) >= apart for other in middles):
            middles.append(middle)
    labels = np.arange(count) % len(classes)
    sizes = np.array([known.size for known in classes])[labels] * rng.uniform(0.85, 1.15, (count, 3))
    heights = np.array([known.z for known in classes])[labels] + rng.uniform(-0.3, 0.3, count)
    yaws = rng.uniform(-math.pi, math.pi, count)
    return Boxes3D(
        boxes=np.column_stack([np.array(middles).reshape(-1, 2), heights, sizes, yaws]),
        labels=labels,
        scores=np.ones(count),
    )


def perfect_outputs(grid: AnchorGrid, boxes: Boxes3D) -> Tensor:
    """Return outputs (A (K + 9), H0, W0) that say of every anchor what it stands for, and nothing of those ignored."""
    num_classes = len(grid.classes)
    outputs = torch.zeros(1, 2 * num_classes * (num_classes + 9), grid.rows, grid.columns)
    logits, residuals, directions = split_outputs(outputs, num_classes)
    logits -= 9.0
    for row in torch.from_numpy(assigned(grid, boxes)):
        if row[1] < 0:
            continue
        kind, place = divmod(int(row[0]), grid.rows * grid.columns)
        line, column = divmod(place, grid.columns)
        logits[0, kind, int(row[1]), line, column] = 9.0
        residuals[0, kind, :, line, column] = row[2:9]
        directions[0, kind, int(row[9]), line, column] = 9.0
    return outputs[0]
