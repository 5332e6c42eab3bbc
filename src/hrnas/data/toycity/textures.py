"""The colour of every surface, before light: what each material looks like at a point of the world. n points."""

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hrnas.data.toycity.shapes import Bodies, Material
from hrnas.data.toycity.world import World

F32 = NDArray[np.float32]

_TILE: Final = 512  # texels a side; a power of two, so that a mask wraps


@cache
def _noise() -> tuple[F32, F32]:
    """Two square tiles of noise, mean 0, about -1..1, that repeat without a seam: fine grain, and soft clouds."""
    generator = np.random.Generator(np.random.PCG64(7))
    soft = np.zeros((_TILE, _TILE), np.float32)
    at = np.arange(_TILE, dtype=np.float32)
    for cells in (4, 8, 16, 32, 64, 128):
        lattice = generator.uniform(-1, 1, (cells, cells)).astype(np.float32)
        low = (at * cells / _TILE).astype(np.int64)
        part = at * cells / _TILE - low
        part = part * part * (3 - 2 * part)
        high = (low + 1) % cells
        rows = lattice[low] * (1 - part[:, None]) + lattice[high] * part[:, None]
        soft += (rows[:, low] * (1 - part) + rows[:, high] * part) * np.float32(4 / cells) ** np.float32(0.85)
    grain = generator.uniform(-1, 1, (_TILE, _TILE)).astype(np.float32)
    return grain, soft / np.abs(soft).max()


def _look_up(tile: F32, u: NDArray[np.floating], v: NDArray[np.floating]) -> F32:
    row, column = np.floor(u).astype(np.int32) & (_TILE - 1), np.floor(v).astype(np.int32) & (_TILE - 1)
    found: F32 = tile.take(row * _TILE + column)
    return found


def grain(u: NDArray[np.floating], v: NDArray[np.floating]) -> F32:
    """Noise without any likeness between neighbours, one value a unit square, -1..1."""
    return _look_up(_noise()[0], u, v)


def clouds(u: NDArray[np.floating], v: NDArray[np.floating]) -> F32:
    """Soft noise with features from 4 to 128 units, about -1..1."""
    return _look_up(_noise()[1], u, v)


def _grain_3d(point: F32, scale: float) -> F32:
    """Noise with one value in each cube of space of 1 / scale metres, for points (n, 3)."""
    x, y, z = np.floor(point * np.float32(scale)).T
    return grain(x + 37 * z, y + 59 * z)


def surface(
    world: World, bodies: Bodies, solid: NDArray[np.int64], point: F32, normal: F32, distance: F32
) -> tuple[F32, F32, NDArray[np.uint8]]:
    """Look up what the rays hit.

    solid: (n,) rows of the table. point, normal: (n, 3). distance: (n,), over which fine detail fades.
    Returns the colour (n, 3), the gloss (n,) 0..1 and the class (n,).
    """
    colour = bodies.colour[solid]
    gloss = np.zeros(len(solid), np.float32)
    category = bodies.category[solid]
    material = bodies.material[solid]
    # Along and up the surface: across a wall the horizontal tangent, on a level surface the world's own axes.
    shift = bodies.shift[solid]
    level = np.abs(normal[:, 2]) > 0.8
    tangent = np.maximum(np.hypot(normal[:, 0], normal[:, 1]), 1e-6)
    u = np.where(level, point[:, 0], (point[:, 1] * normal[:, 0] - point[:, 0] * normal[:, 1]) / tangent) + shift
    v = np.where(level, point[:, 1], point[:, 2])
    fade = np.minimum(1, 12 / distance)

    def pick(kind: Material) -> NDArray[np.int64]:
        return np.flatnonzero(material == kind)

    at = pick(Material.GROUND)
    colour[at], category[at] = _ground(world, point[at], distance[at])

    at = pick(Material.PLAIN)
    rough = bodies.detail[solid[at], 0] * (
        grain(u[at] * 12, v[at] * 12) * fade[at] + 0.6 * clouds(u[at] * 30, v[at] * 30)
    )
    colour[at] *= 1 + np.float32(0.6) * rough[:, None]

    at = pick(Material.FACADE)
    colour[at], gloss[at] = _facade(bodies, solid[at], u[at], v[at], fade[at], level[at])

    at = pick(Material.FOLIAGE)
    fine = _grain_3d(point[at], 10) * fade[at]
    coarse = _grain_3d(point[at], 4) * np.sqrt(fade[at])
    broad = clouds((point[at, 0] + 0.7 * point[at, 2]) * 24 + shift[at], (point[at, 1] - 0.6 * point[at, 2]) * 24)
    leaf = 0.45 * fine + 0.4 * coarse + 0.35 * broad
    # Gaps between the leaves show the dark inside of the crown.
    leaf = np.where(coarse + 0.6 * fine > 0.75, np.float32(-1), leaf)
    colour[at] *= np.maximum(0.25, 1 + leaf)[:, None]

    at = pick(Material.PAINT)
    gloss[at] = 0.22
    colour[at] *= np.where(point[at, 2] < 0.42, np.float32(0.3), np.float32(1))[:, None]  # the sill

    at = pick(Material.CABIN)
    roof = normal[at, 2] > 0.85
    pillar = (u[at] % 1.15) < 0.13
    colour[at] = np.where((roof | pillar)[:, None], bodies.second[solid[at]], colour[at])
    gloss[at] = np.where(roof | pillar, np.float32(0.2), np.float32(0.55))

    at = pick(Material.CLOTH)
    stripe = ((v[at] * 9) % 1 < 0.45) & (bodies.detail[solid[at], 0] > 0.7)
    colour[at] = np.where(stripe[:, None], bodies.second[solid[at]], colour[at])
    colour[at] *= (1 + 0.25 * grain(u[at] * 14, v[at] * 14))[:, None]

    at = pick(Material.SPOKES)
    # The hub's height is the wheel's radius, so the height alone tells little: the rim is where the face turns away.
    rim = (point[at, 2] < 0.12) | (np.abs(normal[at, 2]) > 0.25)
    colour[at] = np.where(
        rim[:, None], np.float32(0.03), colour[at] * (0.75 + 0.5 * grain(u[at] * 9, v[at] * 9))[:, None]
    )
    return colour, gloss, category


def _ground(world: World, point: F32, distance: F32) -> tuple[F32, NDArray[np.uint8]]:
    """Asphalt with its markings, paving slabs with a kerb, grass: colours (n, 3) and classes (n,)."""
    street = world.street
    x, y = point[:, 0].astype(np.float64), point[:, 1].astype(np.float64)
    along64, left64 = street.to_street(x, y)
    road, pavement = street.surface(along64, left64)
    category = np.where(road, 0, np.where(pavement, 1, 2)).astype(np.uint8)
    along, left = (along64 + world.seed % 97).astype(np.float32), left64.astype(np.float32)
    across = np.abs(left)
    u, v = point[:, 0], point[:, 1]
    fade = np.minimum(1, 9 / distance)
    fine, rough = grain(u * 24, v * 24) * fade, clouds(u * 16 + 50, v * 16)

    # Asphalt: coarse blotches, darker repairs, worn wheel tracks, then paint over it.
    asphalt = np.array(world.asphalt, np.float32) * (1 + 0.12 * fine + 0.3 * rough)[:, None]
    patch = grain(along * 0.22, left * 0.5 + 31) > 0.82
    asphalt *= np.where(patch, np.float32(0.68), np.float32(1))[:, None]
    asphalt *= (1 - 0.16 * np.cos(left * np.float32(2 * np.pi / 1.8)))[:, None]
    to_crossing = np.abs(along64 - street.crossing)
    clear = to_crossing > street.crossing_reach
    paint = np.zeros(len(point), bool)
    if street.centre_line != "none":
        paint |= (across < 0.09) & ((along % 6 < 3) | (street.centre_line == "solid"))
    if street.edge_lines:
        paint |= np.abs(across - street.half_width + 0.35) < 0.07
    paint &= clear
    if street.zebra and street.crossing_half_width:
        band = (to_crossing > street.crossing_reach) & (to_crossing < street.crossing_reach + 2.6)
        paint = np.where(band, left % 1.0 < 0.5, paint)
    worn = np.float32(0.55) + 0.2 * fine + 0.3 * rough
    asphalt = np.where(paint[:, None], worn[:, None], asphalt)

    # Pavement: a tint of its own near the road's, slabs with dark joints, a pale kerb stone.
    slab = np.float32(0.5 + world.seed % 5 / 8)
    tint = np.array(
        ((0.34, 0.33, 0.31), (0.42, 0.4, 0.36), (0.24, 0.24, 0.25), (0.4, 0.31, 0.26))[world.seed % 4], np.float32
    )
    stone = (1 + 0.16 * grain(along / slab, left / slab) + 0.18 * fine + 0.25 * rough)[:, None] * tint
    joint = (along % slab < 0.05) | (left % slab < 0.05)
    stone *= (1 - 0.35 * joint * fade)[:, None]
    kerb = across < street.half_width + 0.16
    stone = np.where(kerb[:, None], tint * (1.15 + 0.2 * fine)[:, None], stone)

    blades = 0.4 * fine + 0.35 * grain(u * 5, v * 5) * fade + 0.5 * rough
    grass = np.array(world.grass, np.float32) * np.maximum(0.2, 1 + blades)[:, None]
    earth = clouds(u * 9, v * 9 + 200) > 0.3
    grass = np.where(earth[:, None], grass * np.array([1.35, 1.0, 0.9], np.float32), grass)
    return np.where(road[:, None], asphalt, np.where(pavement[:, None], stone, grass)), category


def _facade(
    bodies: Bodies, solid: NDArray[np.int64], u: F32, v: F32, fade: F32, level: NDArray[np.bool_]
) -> tuple[F32, F32]:
    """Walls with rows of windows, and a shop on the ground floor of some: colours (n, 3) and gloss (n,)."""
    wall, glass = bodies.colour[solid], bodies.second[solid]
    bay, floor, shop = bodies.detail[solid].T
    brick = grain(u * 4, v * 12) * fade
    streak = clouds(u * 14, v * 5)
    base = wall * (1 + 0.2 * brick + 0.3 * streak)[:, None]
    cell_u, cell_v = np.floor(u / bay), np.floor(v / floor)
    in_u, in_v = u / bay - cell_u, v / floor - cell_v
    ground = cell_v < 1
    window = (np.abs(in_u - 0.5) < 0.27) & (np.abs(in_v - 0.55) < 0.26)
    frame = (np.abs(in_u - 0.5) < 0.31) & (np.abs(in_v - 0.55) < 0.3) & ~window
    # Each window is its own: curtains, blinds, a lit room, a dark one; some bays are blind.
    own = grain(cell_u * 7 + 3, cell_v * 13 + 5)
    pane = glass * (1 + 0.7 * own)[:, None]
    pane = np.where((own > 0.75)[:, None], np.array([0.6, 0.5, 0.32], np.float32), pane)
    pane = np.where((own < -0.8)[:, None], np.array([0.45, 0.44, 0.42], np.float32), pane)
    pane *= np.where(np.abs(in_u - 0.5) < 0.02, np.float32(1.8), np.float32(1))[:, None]
    blind = grain(cell_u * 3 + 11, cell_v * 0) > 0.8
    window &= ~blind
    front = (shop > 0.5) & ground
    window = np.where(front, (in_v < 0.72) & (in_v > 0.12) & (in_u > 0.06), window)
    sign = front & (in_v > 0.76) & (in_v < 0.95)
    letters = grain(u * 5, cell_v * 0 + np.floor(v * 6)) > 0.2
    board = np.stack([0.4 + 0.35 * grain(np.floor(u / 9), v * 0 + k) for k in range(3)], axis=1)
    board = np.where(letters[:, None], board, board * 0.35)
    door = ground & ~front & (own > 0.35) & (np.abs(in_u - 0.5) < 0.2) & (in_v < 0.72)
    colour = np.where(frame[:, None] & ~front[:, None], np.minimum(1, base * 1.35), base)
    colour = np.where(window[:, None], pane, colour)
    colour = np.where(sign[:, None], board, colour)
    colour = np.where(door[:, None], wall[:, ::-1] * 0.5, colour)
    colour = np.where(level[:, None], wall * 0.5, colour)
    gloss = np.where(window & ~door & ~level, np.float32(0.3), np.float32(0))
    return colour.astype(np.float32), gloss
