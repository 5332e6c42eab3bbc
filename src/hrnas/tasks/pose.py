"""Human pose, top-down: heatmaps of the joints of one person in its box; OKS AP and PCK over the set.

B batch, K joints, H, W size of the input, H', W' of the heatmaps, h, w size of the image as it was read.
Source: method.md, row COCO pose.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hrnas.data import person_views
from hrnas.data.coco_keypoints import clipped_box, sigma_warning
from hrnas.data.decoding import read_image
from hrnas.data.description import DataDescription
from hrnas.data.opening import DataSet
from hrnas.data.person_views import image_to_input, inverted, moved
from hrnas.data.pictures import side_by_side
from hrnas.data.skeletons import draw_people
from hrnas.data.transforms import PHOTOMETRIC, AugmentOptions
from hrnas.errors import InputError, did_you_mean
from hrnas.metrics.oks import COUNTED_SCORE
from hrnas.structures import Person, Sample
from hrnas.tasks.heatmaps import STRIDE, Decoder, located, mirrored, targets_of
from hrnas.tasks.pose_score import PoseScore
from hrnas.tasks.task import EvaluationOptions, ImageTask, TargetOptions

Joints = NDArray[np.float64]

DRAWN_SCORE: Final = 0.3
"""A detector's boxes of a lower score are predicted and written, but not drawn."""


class Pose(ImageTask):
    """One person a sample. The joints are the description's.

    metric: "oks_ap" where the sigmas of the joints are known, else "pck"; both are reported.
    """

    head: Literal["dense"] = "dense"
    usual_input = (256, 192)
    own: Final = {
        "scale": (1 / 1.35, 1 / 0.65),
        "flip": 0.5,
        "rotation": 45.0,
        "half_body": 0.3,
        **PHOTOMETRIC,
        "photometric": 0.0,
        "sigma": 2.0,
        "flip_test": True,
        "decoder": "parabola",
    }

    def __init__(self, description: DataDescription, targets: TargetOptions, evaluation: EvaluationOptions) -> None:
        assert description.skeleton is not None, "a description of people has a skeleton"
        assert targets.sigma is not None
        self.skeleton = description.skeleton
        self.targets, self.evaluation = targets, evaluation
        self.metric = "oks_ap" if sigma_warning(self.skeleton) is None else "pck"
        decoders = get_args(Decoder)
        if evaluation.decoder not in decoders:
            name = str(evaluation.decoder)
            raise InputError(f"Unknown decoder '{name}'. {did_you_mean(name, decoders)}")
        self._decoder = cast(Decoder, evaluation.decoder)
        self._sigma = targets.sigma

    @property
    def num_outputs(self) -> int:
        return len(self.skeleton.names)

    def remarks(self, dataset: DataSet, input_size: tuple[int, int]) -> Sequence[str]:
        """Return that the sigmas are a guess, where they are."""
        warning = sigma_warning(self.skeleton)
        return () if warning is None else (warning,)

    def training_view(
        self, sample: Sample[Person], input_size: tuple[int, int], options: AugmentOptions, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return a random view, uint8 (H, W, 3), and the joints in it, float32 (K, 3): x, y, weight."""
        return person_views.training_view(sample, input_size, options, rng, self.skeleton)

    def evaluation_view(self, sample: Sample[Person], input_size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the padded box, uint8 (H, W, 3)."""
        return person_views.evaluation_view(sample, input_size)

    def check_input(self, input_size: tuple[int, int]) -> None:
        """Raise InputError for a size that the heatmaps' stride does not divide."""
        if input_size[0] % STRIDE or input_size[1] % STRIDE:
            raise InputError(
                f"input size is {input_size[0]}x{input_size[1]}; for pose height and width must be divisible by "
                f"{STRIDE}, the stride of the heatmaps. Give another with --input-size."
            )

    def loss_terms(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return the squared error of heatmaps (B, K, H', W') for joints float32 (B, K, 3) in input pixels.

        The mean over a joint's map, summed over the joints of weight 1.
        """
        goal = targets_of(targets, (outputs.shape[2], outputs.shape[3]), self._sigma)
        errors = (outputs.float() - goal).square().mean(dim=(2, 3))
        return {"heatmap": (errors * targets[..., 2]).sum()}

    def weight(self, targets: Tensor) -> Tensor:
        """Return the number of joints of weight 1."""
        return targets[..., 2].sum()

    def mirrored(self, outputs: Tensor) -> Tensor:
        """Return heatmaps (B, K, H', W') of mirror images as those of the images."""
        return mirrored(outputs, self.skeleton.flip_pairs)

    def make_score(self, dataset: DataSet, input_size: tuple[int, int]) -> PoseScore:
        return PoseScore(
            dataset,
            self.skeleton,
            metric=self.metric,
            joints_of=lambda outputs, people: self._joints_of(outputs, people, input_size),
            conditions={"flip test": "yes" if self.evaluation.flip_test else "no", "decoder": self._decoder},
        )

    def decode(self, outputs: Tensor, sample: Sample[Person], input_size: tuple[int, int]) -> Joints:
        """Return the joints, float64 (K, 3): x, y in the image's pixels and score, from heatmaps (K, H', W')."""
        joints: Joints = self._joints_of(outputs[None], [sample.truth], input_size)[0]
        return joints

    def unlabelled(self, file: Path, boxes: Sequence[tuple[float, float, float, float]] | None) -> list[Sample[Person]]:
        """Return a sample for each box in an image, or one with the whole image as its box.

        Raises InputError for an image that cannot be read, or a box without area or outside the image.
        """
        image, name = read_image(file), file.name
        height, width = image.shape[:2]
        given = [(0.0, 0.0, float(width), float(height))] if boxes is None else boxes
        people = [
            Person(
                box=clipped_box(f"Box {index + 1} of {name}", box, "the image", (height, width)),
                joints=np.zeros((self.num_outputs, 3), np.float32),
                area=None,
                image_id=0,
                annotation_id=None,
                score=1.0,
                index=index,
            )
            for index, box in enumerate(given)
        ]
        return [Sample(content=image, truth=person, name=name) for person in people]

    def draw(
        self, predictions: Sequence[Joints], samples: Sequence[Sample[Person]], input_size: tuple[int, int]
    ) -> Image.Image:
        """Return truth, where joints are labelled | prediction, both over the image, with the boxes.

        Boxes that a detector is hardly sure of are left out. In the truth hidden joints are hollow, in the prediction
        those of a score of at most 0.2.
        """
        image = samples[0].content
        shown = [place for place, sample in enumerate(samples) if sample.truth.score >= DRAWN_SCORE] or [0]
        predictions, samples = [predictions[place] for place in shown], [samples[place] for place in shown]
        boxes = [sample.truth.box for sample in samples]
        panels = []
        if any((sample.truth.joints[:, 2] > 0).any() for sample in samples):
            panels.append(draw_people(image, self.skeleton, [sample.truth.joints for sample in samples], boxes))
        drawn = [joints.copy() for joints in predictions]
        for joints in drawn:
            joints[:, 2] = np.where(joints[:, 2] > COUNTED_SCORE, 2, 1)
        panels.append(draw_people(image, self.skeleton, drawn, boxes))
        return side_by_side(panels)

    def save(self, folder: Path, name: str, predictions: Sequence[Joints], samples: Sequence[Sample[Person]]) -> Path:
        """Write NAME.json: the joints' names, and of each person the box, its score, and x, y, score of each joint."""
        people = [
            {
                "box": [round(part, 2) for part in sample.truth.box],
                "score": round(sample.truth.score, 4),
                "joints": [[round(x, 2), round(y, 2), round(score, 4)] for x, y, score in joints.tolist()],
            }
            for joints, sample in zip(predictions, samples, strict=True)
        ]
        file = folder / f"{name}.json"
        plain = {"image": name, "names": list(self.skeleton.names), "people": people}
        file.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
        return file

    def _joints_of(self, outputs: Tensor, people: Sequence[Person], input_size: tuple[int, int]) -> Joints:
        """Return the joints of people from heatmaps (B, K, H', W'), float64 (B, K, 3) in pixels of their images."""
        found = located(outputs, self._decoder, self._sigma).cpu().numpy()
        for joints, person in zip(found, people, strict=True):
            joints[:, :2] = moved(joints[:, :2], inverted(image_to_input(person.box, input_size)))
        return found
