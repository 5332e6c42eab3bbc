"""From a world to a picture: rays, surfaces, sun and shadow, sky and haze. H height, W width, n pixels of a kind."""

from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hrnas.data.toycity import textures
from hrnas.data.toycity.bodies import make_bodies
from hrnas.data.toycity.camera import Sensor, develop, make_sensor, pixel_rays, tile_order
from hrnas.data.toycity.raycast import cast, normals
from hrnas.data.toycity.shapes import Bodies
from hrnas.data.toycity.world import NAMES, Light, World

F32 = NDArray[np.float32]

_SKY: Final = NAMES.index("sky")
_LIFT: Final = 0.02  # metres off the surface, so that a shadow ray does not meet the surface it leaves
_SHADOW_RANGE: Final = 70.0  # metres from the camera; farther off a shadow is less than the haze


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What the camera sees, and what each pixel shows.

    image: uint8 (H, W, 3), RGB. mask: uint8 (H, W), indices of NAMES.
    solid: int64 (H, W), rows of `bodies`, -1 for the sky.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    solid: NDArray[np.int64]
    bodies: Bodies


def render(world: World, height: int, width: int, random: Random, sensor: Sensor | None = None) -> Picture:
    """Take a picture of the world; sensor: the camera's, drawn from `random` when not given."""
    bodies = make_bodies(world)
    order = tile_order(height, width)
    rays = pixel_rays(world.view, height, width).reshape(-1, 3)[order]
    hits = cast(bodies.solids, np.array(world.view.position), rays)

    mask = np.full(len(rays), _SKY, np.uint8)
    light = np.empty((len(rays), 3), np.float32)
    directions = rays.astype(np.float32)
    missed = np.flatnonzero(hits.solid < 0)
    light[missed] = _sky(world, directions[missed])

    seen = np.flatnonzero(hits.solid >= 0)
    solid, distance = hits.solid[seen], hits.distance[seen]
    toward = directions[seen]
    point = np.array(world.view.position, np.float32) + distance[:, None] * toward
    normal = normals(bodies.solids, solid, point)
    colour, gloss, mask[seen] = textures.surface(world, bodies, solid, point, normal, distance)

    sun = np.array(world.light.sun, np.float32)
    slope = np.maximum(normal @ sun, 0)
    lit = np.flatnonzero((slope > 0) & (distance < _SHADOW_RANGE))
    # Sorted by place, so that the rays of a packet start near each other.
    lit = lit[np.argsort(_place(point[lit]))]
    start = point[lit] + _LIFT * normal[lit]
    shaded = cast(bodies.solids, start, np.broadcast_to(sun, start.shape)).solid >= 0
    slope[lit[shaded]] = 0

    # Less sky is seen by what faces down and by what stands low.
    open_sky = (0.62 + 0.38 * normal[:, 2]) * np.minimum(1, 0.7 + 0.3 * point[:, 2] + 0.3 * np.maximum(normal[:, 2], 0))
    incoming = slope[:, None] * np.array(world.light.sun_colour, np.float32)
    incoming += open_sky[:, None] * np.array(world.light.sky_colour, np.float32)
    outgoing = colour * incoming

    glossy = np.flatnonzero(gloss > 0)
    facing = (toward[glossy] * normal[glossy]).sum(axis=1)
    mirrored = toward[glossy] - 2 * facing[:, None] * normal[glossy]
    share = gloss[glossy] * (0.35 + 0.65 * (1 - np.abs(facing)) ** 2)
    above = mirrored[:, 2] > 0
    reflected = np.where(above[:, None], _sky(world, mirrored), np.array(world.light.sky_colour, np.float32) * 0.3)
    outgoing[glossy] = (1 - share[:, None]) * outgoing[glossy] + share[:, None] * reflected

    clear = np.exp(-distance / np.float32(world.light.haze))[:, None]
    light[seen] = clear * outgoing + (1 - clear) * np.array(world.light.horizon, np.float32)

    place = np.argsort(order)
    generator = np.random.Generator(np.random.PCG64(random.getrandbits(64)))
    return Picture(
        image=develop(light[place].reshape(height, width, 3), sensor or make_sensor(random), generator),
        mask=mask[place].reshape(height, width),
        solid=hits.solid[place].reshape(height, width),
        bodies=bodies,
    )


def _place(point: F32) -> NDArray[np.int64]:
    """Number the ground's cells of 0.25 m, (n,), so that near numbers are near places: x and y give bits in turn."""
    place = np.zeros(len(point), np.int64)
    for axis in (0, 1):
        cell = np.clip((point[:, axis] + 512) * 4, 0, 65535).astype(np.int64)
        for step, keep in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
            cell = (cell | (cell << step)) & keep
        place |= cell << axis
    return place


def _sky(world: World, direction: F32) -> F32:
    """Light (n, 3) from the sky: a gradient, clouds on a plane far above, a glow about the sun."""
    light: Light = world.light
    up = np.maximum(direction[:, 2], 0)
    high = np.sqrt(up)[:, None]
    sky: F32 = (1 - high) * np.array(light.horizon, np.float32) + high * np.array(light.zenith, np.float32)
    glow = np.maximum(direction @ np.array(light.sun, np.float32), 0)
    sky += ((0.25 * glow**8 + 0.6 * glow**90) * (1 - light.clouds))[:, None] * np.array(light.sun_colour, np.float32)
    scale = 60 / (up + 0.12)
    cloud = textures.clouds(direction[:, 0] * scale + world.seed % 509, direction[:, 1] * scale + world.seed % 251)
    cover = np.clip((cloud + 2 * np.float32(light.clouds) - 1) * 2.2 + 0.2, 0, 1) * np.minimum(1, up * 8)
    white = np.array(light.horizon, np.float32) * (1.05 - 0.35 * np.clip(cloud + light.clouds - 0.4, 0, 1))[:, None]
    sky += cover[:, None] * (white - sky)
    return sky
