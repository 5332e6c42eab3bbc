"""Average precision and recall by object keypoint similarity (OKS), as COCO defines them, by faster-coco-eval.

N predicted people, K joints. Source: cocodataset.org, keypoint evaluation; NMS and scores of people as usual for
top-down pose (Papandreou et al., CVPR 2017, sections 3.3 and 3.4; Sun et al., CVPR 2019).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster  # type: ignore[import-untyped]
from numpy.typing import NDArray

Array = NDArray[np.float64]

BOX_SHARE: Final = 0.53
"""Area of a person as a share of its box, where a label has no area; used by CrowdPose and AI Challenger."""
NMS_LIMIT: Final = 0.9
"""OKS of two predictions from which on the one of the lower score goes."""
COUNTED_SCORE: Final = 0.2
"""Joints of a higher score count for the score of their person."""

_FIGURES: Final = {
    "oks_ap": "AP_all",
    "oks_ap_50": "AP_50",
    "oks_ap_75": "AP_75",
    "oks_ap_medium": "AP_medium",
    "oks_ap_large": "AP_large",
    "oks_ar": "AR_all",
}


def oks_figures(
    ground_truth: Mapping[str, Any], sigmas: Sequence[float], image_ids: Sequence[int], joints: Array, scores: Array
) -> dict[str, float]:
    """Return oks_ap, oks_ap_50, oks_ap_75, oks_ap_medium, oks_ap_large, oks_ar; nan where no label is of that kind.

    ground_truth: COCO's JSON, with id, image_id, category_id, bbox, iscrowd, keypoints and num_keypoints of every
    annotation, and its area where it has one. image_ids: N; joints: (N, K, 3), of which x, y count; scores: (N,).
    """
    if len(joints) == 0:
        return dict.fromkeys(_FIGURES, float("nan"))
    # Numbers from 1 on: the evaluation takes a match with annotation 0 for none.
    labels = [
        {"area": BOX_SHARE * annotation["bbox"][2] * annotation["bbox"][3], **annotation, "id": number}
        for number, annotation in enumerate(ground_truth["annotations"], 1)
    ]
    category = ground_truth["categories"][0]["id"]
    truth = COCO({**ground_truth, "annotations": labels})
    found = truth.loadRes(
        [
            {"image_id": int(image), "category_id": category, "keypoints": person.ravel().tolist(), "score": score}
            for image, person, score in zip(image_ids, joints, scores.tolist(), strict=True)
        ]
    )
    evaluation = COCOeval_faster(truth, found, "keypoints", kpt_oks_sigmas=np.array(sigmas))
    evaluation.run()
    stats = evaluation.stats_as_dict
    return {name: stats[key] if stats[key] >= 0 else float("nan") for name, key in _FIGURES.items()}


def person_scores(joints: Array, box_scores: Array) -> Array:
    """Return the score of each person (N,): the box's times the mean of the joints' scores above COUNTED_SCORE."""
    counted = joints[:, :, 2] > COUNTED_SCORE
    sums = np.where(counted, joints[:, :, 2], 0).sum(axis=1)
    scores: Array = box_scores * sums / np.maximum(1, counted.sum(axis=1))
    return scores


def oks_kept(
    image_ids: NDArray[np.int64], joints: Array, scores: Array, areas: Array, sigmas: Sequence[float]
) -> NDArray[np.int64]:
    """Return which predictions stay (their indices, in order) after NMS by OKS within each image.

    areas: (N,), of the boxes; a pair is compared at the mean of theirs.
    """
    variances = (2 * np.array(sigmas)) ** 2
    kept: list[int] = []
    for image in np.unique(image_ids):
        waiting = np.flatnonzero(image_ids == image)
        waiting = waiting[np.argsort(-scores[waiting], kind="stable")]
        while len(waiting):
            best, waiting = waiting[0], waiting[1:]
            kept.append(int(best))
            squares = ((joints[waiting, :, :2] - joints[best, :, :2]) ** 2).sum(axis=2)
            sizes = (areas[waiting] + areas[best]) / 2
            oks = np.exp(-squares / variances / sizes[:, None] / 2).mean(axis=1)
            waiting = waiting[oks <= NMS_LIMIT]
    return np.array(sorted(kept), np.int64)
