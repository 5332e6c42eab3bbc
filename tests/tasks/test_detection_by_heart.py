"""A tiny network learns two scenes by heart: all parts of 3D detection at work together."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch

from hrnas.arch.architecture import StemConv
from hrnas.arch.space import SearchSpace, StageSpace
from hrnas.data.description import DataDescription, SplitKitti
from hrnas.data.kitti import KittiSet
from hrnas.data.kitti_classes import CLASSES, COLORS
from hrnas.data.loading import train_batches
from hrnas.data.opening import open_split
from hrnas.data.transforms import AugmentOptions
from hrnas.models.network import Network
from hrnas.tasks import make_task
from hrnas.tasks.detection3d import Detection3D
from hrnas.tasks.task import TargetOptions, settled
from kitti_sets import write_frame

SCENES: Final = {
    "000000": (
        ("Car", (12.0, 2.0, -0.95, 3.9, 1.6, 1.56, 0.1)),
        ("Car", (18.0, -5.0, -0.9, 4.2, 1.7, 1.5, 1.9)),
        ("Car", (22.0, 3.0, -0.85, 3.6, 1.55, 1.45, -2.4)),
        ("Pedestrian", (9.0, -3.0, -0.85, 0.8, 0.6, 1.73, 1.2)),
    ),
    "000001": (
        ("Car", (9.0, -1.5, -0.95, 4.1, 1.65, 1.6, 3.0)),
        ("Car", (16.0, 3.5, -1.0, 3.8, 1.6, 1.5, -1.3)),
        ("Car", (26.0, -4.0, -0.9, 4.0, 1.7, 1.55, 0.8)),
        ("Cyclist", (14.0, -2.0, -0.9, 1.76, 0.6, 1.73, -2.0)),
    ),
}
INPUT: Final = (64, 64)
"""Rows and columns of pillars of 0.5 m: 32 m x 32 m."""
SPACE: Final = SearchSpace(
    name="tiny",
    stem=(StemConv(out_channels=16),),
    stages=(StageSpace(blocks=(1,), channels=(16,)), StageSpace(blocks=(1, 1), channels=(16, 24))),
    head_channels=8,
    kernel_sizes=(3,),
    expand_ratio=2,
    norm_momentum=0.1,
)
STEPS: Final = 150
RATE: Final = 0.005


def test_a_tiny_network_learns_two_scenes_by_heart(tmp_path: Path) -> None:
    for name, scene in SCENES.items():
        write_frame(tmp_path / "training", name, scene, image=None)
    training = SplitKitti(kitti="training")
    description = DataDescription(
        task="detection3d",
        path=tmp_path,
        splits={"train": training, "validation": training},
        names=tuple(known.name for known in CLASSES),
        colors=COLORS,
        classes=CLASSES,
    )
    task, frames = make_task(description, TargetOptions(cell=0.5)), open_split(description, "train")
    assert isinstance(task, Detection3D)
    assert isinstance(frames, KittiSet)
    options = settled(AugmentOptions.none(), task.own, "detection3d", "augment")

    torch.manual_seed(0)
    pillars = replace(task.pillars(INPUT), channels=16)
    network = Network(SPACE.supernet(task.num_outputs, head=task.head, pillars=pillars))
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    batches = train_batches(
        frames, task, batch_size=2, input_size=INPUT, seed=0, first_step=0, num_steps=STEPS, options=options, workers=0
    )
    for step, batch in enumerate(batches):
        optimizer.param_groups[0]["lr"] = RATE * min(1, 2 - 2 * step / STEPS)
        terms = task.loss_terms(network(task.prepared(batch.inputs)), batch.targets)
        optimizer.zero_grad()
        (sum(terms.values(), torch.tensor(0.0)) / task.weight(batch.targets)).backward()
        optimizer.step()

    network.eval()
    score = task.make_score(frames, INPUT)
    for index, scene in enumerate(SCENES.values()):
        sample = frames.read(index)
        with torch.no_grad():
            outputs = network(task.prepared(torch.from_numpy(task.evaluation_view(sample, INPUT))[None]))
        score.update(outputs, [sample.truth])
        found = task.decode(outputs[0], sample, INPUT)
        for name, box in scene:
            (nearest,) = [i for i in range(len(found)) if math.dist(found.boxes[i, :2], box[:2]) < 0.2]
            assert task.names[found.labels[nearest]] == name
            assert math.cos(found.boxes[nearest, 6] - box[6]) > 0.99
    result = score.result()
    assert result["ap_3d_car_moderate"] == 1.0
    assert result["ap_3d"] == 1.0
    assert result["aos"] > 0.999
