"""How runs of several tasks write their evaluations: figures, parts and conditions, all made up."""

from collections.abc import Mapping
from dataclasses import dataclass, field

NAMES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
COLORS = (
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
    (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
)  # fmt: skip
JOINTS = (
    "nose", "left eye", "right eye", "left ear", "right ear", "left shoulder", "right shoulder", "left elbow",
    "right elbow", "left wrist", "right wrist", "left hip", "right hip", "left knee", "right knee", "left ankle",
    "right ankle",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How a task writes its evaluations. figures: by name, each a factor of the first, or None where undefined."""

    task: str
    dataset: str
    names: tuple[str, ...]
    figures: Mapping[str, float | None]
    parts: Mapping[str, str]
    conditions: Mapping[str, str] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        return next(iter(self.figures))

    def figures_of(self, score: float) -> dict[str, float | None]:
        """Return the figures of an evaluation whose metric is `score`."""
        return {name: None if factor is None else factor * score for name, factor in self.figures.items()}


SEGMENTATION = Scoring(
    task="segmentation",
    dataset="camvid",
    names=NAMES,
    figures={"miou": 1.0, "pixel_accuracy": 1.3},
    parts={"title": "IoU by class", "value": "IoU", "share": "share of pixels"},
)
POSE = Scoring(
    task="pose",
    dataset="coco",
    names=JOINTS,
    figures={"oks_ap": 1.0, "oks_ap_50": 1.3, "oks_ap_75": 1.1, "oks_ap_medium": None, "oks_ar": 1.08, "pck": 1.2},
    parts={"title": "PCK@0.2 of the torso by joint", "value": "PCK"},
    conditions={"boxes": "ground truth", "flip test": "yes", "decoder": "dark"},
)
CLASSIFICATION = Scoring(
    task="classification",
    dataset="imagenet",
    names=tuple(f"class {index}" for index in range(150)),
    figures={"top1": 1.0, "top5": 1.4},
    parts={"title": "top1 by class", "value": "top1", "share": "share of images"},
)
