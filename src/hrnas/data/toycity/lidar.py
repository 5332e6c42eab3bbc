"""The lidar: 64 beams that turn about the vertical, each ray cast into the world; what comes back, and how bright.

Its frame: metres, x ahead, y left, z up. B beams, A azimuths, n rays, P points.
Elevations and the step between azimuths are the HDL-64E's at 10 turns a second, which KITTI was recorded with.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hrnas.data.kitti_classes import GROUND
from hrnas.data.toycity import textures
from hrnas.data.toycity.camera import tile_order
from hrnas.data.toycity.raycast import cast, normals
from hrnas.data.toycity.shapes import Bodies, Material
from hrnas.data.toycity.world import NAMES, World

F32 = NDArray[np.float32]

HEIGHT: Final = -GROUND
"""Of the lidar above the ground, in metres: KITTI's."""
ELEVATIONS: Final = np.radians(np.concatenate([np.linspace(2.0, -8.33, 32), np.linspace(-8.83, -24.8, 32)]))
"""Of the beams in radians, the highest first: an upper block, and a lower one with wider gaps."""
STEP: Final = math.radians(0.1728)
"""Between two azimuths, in radians."""
RANGE: Final = 80.0
"""Metres from which on nothing comes back."""

_NOISE: Final = 0.02  # metres, standard deviation of a range
_LEAF_DEPTH: Final = 0.08  # metres; how deep into leaves a ray goes, about
_LOST: Final = 0.015  # share of rays that are lost whatever they meet
_FAINT: Final = 2.2e-5  # reflectance over squared metres of which half comes back

# Near infrared is not light: all that grows and most cloth are bright in it. Gain and offset on a colour's brightness.
_INFRARED: Final[dict[str, tuple[float, float]]] = {
    "road": (0.9, 0.02), "pavement": (0.85, 0.06), "ground": (0.6, 0.25), "building": (0.75, 0.06), "sky": (0, 0),
    "tree": (0.6, 0.32), "pole": (1.0, 0.15), "car": (0.75, 0.05), "person": (0.5, 0.25), "cyclist": (0.5, 0.22),
}  # fmt: skip
_GAINS, _OFFSETS = np.array([_INFRARED[name] for name in NAMES], np.float32).T
_LAMP: Final = 0.95  # of what throws light back to where it comes from


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What came back.

    points: float32 (P, 4): x, y, z in the lidar's frame, reflectance 0..1. Beam by beam, the highest first, each from
    left to right.
    thing: int64 (P,), row of World.things that was met, -1 for the ground.
    """

    points: F32
    thing: NDArray[np.int64]


def sweep(
    world: World, bodies: Bodies, position: tuple[float, float], heading: float, half_width: float,
    generator: np.random.Generator,
) -> Sweep:  # fmt: skip
    """Turn the lidar over a sector of the world.

    position: x and y of the lidar in the world; it is HEIGHT above the ground. heading: of its x axis.
    half_width: of the sector, to both sides of the heading, in radians. generator: of noise and of what is lost.
    """
    azimuths = np.arange(half_width, -half_width, -STEP)  # (A,)
    cos = np.cos(ELEVATIONS)[:, None]
    own = np.stack(
        np.broadcast_arrays(cos * np.cos(azimuths), cos * np.sin(azimuths), np.sin(ELEVATIONS)[:, None]), axis=-1
    ).reshape(-1, 3)  # (B * A, 3)
    turn = np.array([[math.cos(heading), math.sin(heading), 0], [-math.sin(heading), math.cos(heading), 0], [0, 0, 1]])
    eye = np.array([*position, HEIGHT])
    # Neighbours together, which the caster needs to be fast.
    order = tile_order(len(ELEVATIONS), len(azimuths))
    hits = cast(bodies.solids, eye, own[order] @ turn)
    place = np.argsort(order)
    distance, solid = hits.distance[place], hits.solid[place]

    met = np.flatnonzero((solid >= 0) & (distance < RANGE))
    distance, solid, own = distance[met], solid[met], own[met].astype(np.float32)
    toward = own @ turn.astype(np.float32)
    point = eye.astype(np.float32) + distance[:, None] * toward
    normal = normals(bodies.solids, solid, point)
    facing = np.abs((toward * normal).sum(axis=1))
    reflectance, diffuse = _surface(world, bodies, solid, point, normal, distance)

    # What comes back fades with the distance and on a grazed surface; a rough one still returns a little of it.
    strength = reflectance * diffuse * (0.2 + 0.8 * facing) / distance**2
    kept = generator.random(len(met)) < (1 - _LOST) * strength**2 / (strength**2 + _FAINT**2)
    noise = _NOISE * generator.standard_normal(len(met))
    noise += np.where(bodies.material[solid] == Material.FOLIAGE, generator.exponential(_LEAF_DEPTH, len(met)), 0)
    points = np.empty((len(met), 4), np.float32)
    points[:, :3] = own * (distance + noise)[:, None]
    shown = reflectance * (0.6 + 0.4 * facing) * (1 + 0.08 * generator.standard_normal(len(met)))
    points[:, 3] = np.round(np.clip(shown, 0, 0.99), 2)  # the sensor gives hundredths
    return Sweep(points=points[kept], thing=bodies.thing[solid[kept]])


def _surface(
    world: World, bodies: Bodies, solid: NDArray[np.int64], point: F32, normal: F32, distance: F32
) -> tuple[F32, F32]:
    """Return the reflectance (n,) 0..1 of what the rays hit, and the share (n,) that gloss does not mirror away."""
    colour, gloss, category = textures.surface(world, bodies, solid, point, normal, distance)
    bright = colour @ np.array([0.5, 0.3, 0.2], np.float32)  # red lies nearest to the laser's 0.9 micrometres
    reflectance = _GAINS[category] * bright + _OFFSETS[category]
    lamp = (category == NAMES.index("car")) & (bodies.material[solid] == Material.PLAIN) & (colour[:, 0] > 0.3)
    # Paint on the road holds beads of glass; no spot of the asphalt itself is that bright.
    marking = (category == NAMES.index("road")) & (bright > 1.7 * np.mean(world.asphalt))
    reflectance[lamp] = _LAMP
    reflectance[marking] += 0.25
    return np.minimum(reflectance, 1), (1 - gloss) ** 2
