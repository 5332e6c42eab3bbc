"""The human figure: a pose as data, and the joints it gives.

Own frame: metres, x ahead, y to the figure's left, z up, the origin on the ground below the hips.
"""

import math
from dataclasses import dataclass
from random import Random
from typing import Final

Point = tuple[float, float, float]

# Lengths as shares of the figure's height.
THIGH: Final = 0.245
SHIN: Final = 0.246
TORSO: Final = 0.29
UPPER_ARM: Final = 0.17
FOREARM: Final = 0.155
HALF_SHOULDERS: Final = 0.115
HALF_HIPS: Final = 0.055
ANKLE: Final = 0.04
_FACE: Final[dict[str, Point]] = {
    "nose": (0.05, 0.0, -0.014),
    "left_eye": (0.044, 0.019, 0.004), "right_eye": (0.044, -0.019, 0.004),
    "left_ear": (-0.005, 0.043, -0.006), "right_ear": (-0.005, -0.043, -0.006),
}  # fmt: skip
"""From the middle of the head; a little below its skin, so that a ray toward one of them meets the head."""
SADDLE_HEIGHT: Final = 0.93
"""Metres from the ground to the hips of somebody on a bicycle."""
_STANDING_HIP: Final = ANKLE + THIGH + SHIN


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Where hips, feet and hands are; knees and elbows follow from the lengths of the limbs.

    height: metres, standing upright. hip_height: metres above the ground.
    lean: radians the trunk leans ahead. ankles, wrists: left then right, metres in the figure's own frame.
    """

    height: float
    hip_height: float
    lean: float
    ankles: tuple[Point, Point]
    wrists: tuple[Point, Point]


def walking(random: Random, height: float) -> Pose:
    """A pose on foot: anything from standing still to a fast walk, hands swinging or held up."""
    stride = random.choice((0.0, 0.08, 0.16, 0.2)) * height
    phase = random.uniform(0, 2 * math.pi)
    lean = random.uniform(-0.03, 0.12)
    ankles, wrists = [], []
    for side, turn in ((1, 0.0), (-1, math.pi)):
        swing = math.sin(phase + turn)
        lift = max(0.0, math.cos(phase + turn)) * stride * 0.5
        ankles.append((stride * swing, side * (HALF_HIPS + 0.01) * height, ANKLE * height + lift))
        if random.random() < 0.25:  # a hand at the phone, at the ear, or waving
            hand = (random.uniform(0.1, 0.25), side * random.uniform(0.05, 0.25), random.uniform(0.6, 0.95))
        else:
            hand = (0.03 - 0.8 * stride / height * swing, side * random.uniform(0.14, 0.19), random.uniform(0.47, 0.54))
        wrists.append((hand[0] * height, hand[1] * height, hand[2] * height))
    # The hips sink until the longer reach of the two legs is met.
    hip = min(_STANDING_HIP * height, *(_hip_over(ankle, height) for ankle in ankles))
    return Pose(height=height, hip_height=hip, lean=lean, ankles=(ankles[0], ankles[1]), wrists=(wrists[0], wrists[1]))


def cycling(random: Random, height: float) -> Pose:
    """A pose on a bicycle whose saddle is above the origin: hands on the bar, feet on the pedals."""
    crank = random.uniform(0, 2 * math.pi)
    ankles = []
    for side, turn in ((1, 0.0), (-1, math.pi)):
        ankles.append((0.2 + 0.17 * math.cos(crank + turn), side * 0.1, 0.38 + 0.17 * math.sin(crank + turn)))
    return Pose(
        height=height,
        hip_height=SADDLE_HEIGHT,
        lean=random.uniform(0.3, 0.75),
        ankles=(ankles[0], ankles[1]),
        wrists=((0.62, 0.2, 1.02), (0.62, -0.2, 1.02)),
    )


def joints(pose: Pose) -> dict[str, Point]:
    """Return the joints by their COCO names, and `head`, the middle of the head, in the figure's own frame."""
    h = pose.height
    ahead, up = math.sin(pose.lean), math.cos(pose.lean)
    found: dict[str, Point] = {"head": ((TORSO + 0.115) * h * ahead, 0.0, pose.hip_height + (TORSO + 0.115) * h * up)}
    x, y, z = found["head"]
    found |= {name: (x + front * h, y + left * h, z + above * h) for name, (front, left, above) in _FACE.items()}
    for i, (name, side) in enumerate((("left", 1), ("right", -1))):
        hip = (0.0, side * HALF_HIPS * h, pose.hip_height)
        shoulder = (TORSO * h * ahead, side * HALF_SHOULDERS * h, pose.hip_height + TORSO * h * up)
        knee, ankle = _bend(hip, pose.ankles[i], THIGH * h, SHIN * h, (1.0, 0.0, 0.0))
        elbow, wrist = _bend(shoulder, pose.wrists[i], UPPER_ARM * h, FOREARM * h, (-0.6, side * 0.5, -0.6))
        found |= {f"{name}_hip": hip, f"{name}_knee": knee, f"{name}_ankle": ankle}
        found |= {f"{name}_shoulder": shoulder, f"{name}_elbow": elbow, f"{name}_wrist": wrist}
    return found


def _hip_over(ankle: Point, height: float) -> float:
    """Return the highest hip from which a leg with a slightly bent knee reaches this ankle."""
    leg = 0.99 * (THIGH + SHIN) * height
    return ankle[2] + math.sqrt(leg**2 - ankle[0] ** 2)


def _bend(root: Point, target: Point, upper: float, lower: float, toward: Point) -> tuple[Point, Point]:
    """Place the middle and the end joint of a two-part limb that reaches for a target and bends toward a direction.

    A target out of reach is drawn in along the line to it.
    """
    line = tuple(t - r for t, r in zip(target, root, strict=True))
    reach = math.sqrt(sum(v * v for v in line))
    unit = tuple(v / reach for v in line)
    reach = min(max(reach, abs(upper - lower) + 1e-3), 0.999 * (upper + lower))
    along = (reach**2 + upper**2 - lower**2) / (2 * reach)
    aside = math.sqrt(max(upper**2 - along**2, 0.0))
    slope = sum(u * v for u, v in zip(unit, toward, strict=True))
    bend = tuple(v - slope * u for u, v in zip(unit, toward, strict=True))
    size = math.sqrt(sum(v * v for v in bend)) or 1.0
    middle = tuple(r + along * u + aside * b / size for r, u, b in zip(root, unit, bend, strict=True))
    end = tuple(r + reach * u for r, u in zip(root, unit, strict=True))
    return (middle[0], middle[1], middle[2]), (end[0], end[1], end[2])
