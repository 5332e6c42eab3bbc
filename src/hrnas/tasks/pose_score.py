"""The score of poses over a whole set: OKS AP and PCK from the joints of all its people.

N people of the set, B of a batch, K joints.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hrnas.data.coco_joints import COCO_SKELETON
from hrnas.data.coco_keypoints import sigma_warning
from hrnas.data.joint_names import Side, find_joint
from hrnas.metrics.oks import BOX_SHARE, NMS_LIMIT, oks_figures, oks_kept, person_scores
from hrnas.metrics.pck import NEAR, Pck, ReferenceLength, count_pck
from hrnas.structures import Person, Skeleton
from hrnas.tasks.task import scored_parts

_FACTS: Final = 8
"""Of a person that is scored: 1, image, annotation (-1: none), score of the box, and the box itself."""


class PoseScore:
    """Figures of a set whose people have been scored; those that have not are left out.

    dataset: gives its length, ground_truth, boxes and colors. metric: the figure that comes first.
    joints_of: joints float64 (B, K, 3), x, y in their images' pixels and score, from the network's outputs and people.
    conditions: what the figures hold under, in words, beside what the set and its joints say.
    """

    def __init__(
        self,
        dataset: Any,
        skeleton: Skeleton,
        *,
        metric: str,
        joints_of: Callable[[Tensor, Sequence[Person]], NDArray[np.float64]],
        conditions: dict[str, str],
    ) -> None:
        self.dataset, self.skeleton, self.metric, self.conditions = dataset, skeleton, metric, conditions
        self._joints_of = joints_of
        self._joints = torch.zeros(len(dataset), len(skeleton.names), 3, dtype=torch.float64)
        self._facts = torch.zeros(len(dataset), _FACTS, dtype=torch.float64)

    @property
    def sums(self) -> tuple[Tensor, ...]:
        return self._joints, self._facts

    def update(self, outputs: Tensor, truths: Sequence[Person]) -> None:
        """Add heatmaps (B, K, H', W') and people, one each."""
        found = self._joints_of(outputs, truths)
        for joints, person in zip(found, truths, strict=True):
            annotation = -1 if person.annotation_id is None else person.annotation_id
            facts = [1.0, person.image_id, annotation, person.score, *person.box]
            self._joints[person.index] = torch.from_numpy(joints)
            self._facts[person.index] = torch.tensor(facts, dtype=torch.float64)

    def result(self) -> dict[str, Any]:
        """Return oks_ap and its kin, and pck where people have labels; PCK by joint."""
        scored = self._facts[:, 0] > 0
        joints, facts = self._joints[scored].numpy(), self._facts[scored].numpy()
        truth = self.dataset.ground_truth
        labels = {annotation["id"]: annotation for annotation in truth["annotations"]}
        conditions = {"boxes": self.dataset.boxes, **self.conditions}

        figures = self._oks(truth, joints, facts, conditions)
        named = facts[:, 2] >= 0
        pck = Pck(right=np.zeros(joints.shape[1], np.int64), counted=np.zeros(joints.shape[1], np.int64), left_out=0)
        if named.any():
            reference = reference_length(self.skeleton.names)
            marked = np.array([labels[int(number)]["keypoints"] for number in facts[named, 2]]).reshape(
                -1, *joints.shape[1:]
            )
            pck = count_pck(joints[named], marked, facts[named, 4:], reference)
            figures["pck"] = pck.overall()
            left_out = f"; {pck.left_out} people without one are left out" if pck.left_out else ""
            conditions["pck"] = f"within {NEAR:g} of the {reference.words}{left_out}"
        first = {self.metric: figures.pop(self.metric)} if self.metric in figures else {}
        parts = {"parts": self._parts(pck)} if pck.counted.any() else {}
        return {**first, **figures, **parts, "conditions": conditions}

    def _oks(
        self,
        truth: dict[str, Any],
        joints: NDArray[np.float64],
        facts: NDArray[np.float64],
        conditions: dict[str, str],
    ) -> dict[str, float]:
        images, areas = facts[:, 1].astype(np.int64), facts[:, 6] * facts[:, 7]
        sigmas = self.skeleton.sigmas
        scores = person_scores(joints, facts[:, 3])
        if (facts[:, 2] < 0).any():
            kept = oks_kept(images, joints, scores, areas, sigmas)
            images, joints, scores = images[kept], joints[kept], scores[kept]
            conditions["boxes"] += f", the lower of two people of OKS above {NMS_LIMIT:g} dropped"
        is_coco = set(sigmas) == set(COCO_SKELETON.sigmas) and len(sigmas) == len(COCO_SKELETON.sigmas)
        guessed = f"{sigmas[0]:g} for all joints, a guess"
        conditions["sigmas"] = guessed if sigma_warning(self.skeleton) else "COCO's" if is_coco else "given"
        if any("area" not in annotation for annotation in truth["annotations"]):
            conditions["areas"] = f"{BOX_SHARE:g} of the box where none is labelled"
        return oks_figures(truth, sigmas, images.tolist(), joints, scores)

    def _parts(self, pck: Pck) -> dict[str, Any]:
        return scored_parts(
            "PCK by joint",
            value="PCK",
            share="share of labelled joints",
            names=self.skeleton.names,
            colors=self.dataset.colors,
            values=pck.by_joint(),
            shares=(pck.counted / pck.counted.sum()).tolist(),
        )


def reference_length(names: Sequence[str]) -> ReferenceLength:
    """Return how PCK measures people with these joints: torso, head to hips, or the box, by what the names allow."""

    def place(part: str, side: Side | None = None) -> tuple[int, ...]:
        found = find_joint(names, part, side)
        return () if found is None else (found,)

    left_hip, right_hip = place("hip", "left"), place("hip", "right")
    left_shoulder, right_shoulder = place("shoulder", "left"), place("shoulder", "right")
    if left_hip and right_hip and left_shoulder and right_shoulder:
        return ReferenceLength(
            words="torso, from left shoulder to right hip (right shoulder to left hip where one is not labelled)",
            ends=((left_shoulder, right_hip), (right_shoulder, left_hip)),
        )
    head = place("head_top") or place("head")
    if left_hip and right_hip and head:
        return ReferenceLength(
            words="distance from the head to the middle of the hips", ends=((head, left_hip + right_hip),)
        )
    return ReferenceLength(words="longer side of the box")
