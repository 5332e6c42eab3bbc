"""The one ray caster of Toy City: any rays against a table of convex solids, nearest hit first.

Camera, shadows and lidar use the same function. Lengths are metres, directions are unit vectors.
N rays, P solids, T packets of `PACKET` consecutive rays, K packet-solid pairs that may meet.

Every ray of a packet is tested against the solids whose bounding sphere touches the cone around that packet. The cone
is conservative, so the order of the rays changes the speed and not the result: give neighbours together.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

PACKET: Final = 64
_CHUNK: Final = 384  # pairs worked on at once, so that what is between two steps stays in the processor's cache
_NOTHING: Final = np.uint64(0xFFFFFFFFFFFFFFFF)
_TINY: Final = np.float32(1e-12)


@dataclass(frozen=True, kw_only=True)
class Hits:
    """Where each ray first enters a solid. A ray that starts inside a solid does not see that solid.

    distance: float32 (N,), inf where nothing is hit.
    solid: int64 (N,), row of the table of solids, -1 where nothing is hit.
    """

    distance: F32
    solid: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Solids:
    """The table: first the hexahedra, then the capsules, then the ellipsoids.

    planes: float32 (Ph, 6, 4), outward unit normal n and offset d of each face; inside is n.x <= d.
    capsule_centre, capsule_frame, capsule_size: float32 (Pc, 3), (Pc, 3, 3) rows are the local axes with the axis of
        the capsule last, (Pc, 2) half the length of the axis and the radius. Equal ends make a sphere.
    ellipsoid_centre, ellipsoid_frame: float32 (Pe, 3), (Pe, 3, 3) the map from the world to the unit sphere.
    bounds: float64 (P, 4), centre and radius of each bounding sphere.
    """

    planes: F32
    capsule_centre: F32
    capsule_frame: F32
    capsule_size: F32
    ellipsoid_centre: F32
    ellipsoid_frame: F32
    bounds: F64

    def __len__(self) -> int:
        return len(self.bounds)


def make_solids(hexahedra: F64, capsules: F64, ellipsoids: F64) -> Solids:
    """Build the table.

    hexahedra: (Ph, 8, 3) corners: the bottom face counter-clockwise seen from above, then the top face over it.
    capsules: (Pc, 7) one end, other end, radius.
    ellipsoids: (Pe, 8) centre, three radii, heading about z and roll about the first axis (radians).
    """
    hexahedra, capsules, ellipsoids = hexahedra.reshape(-1, 8, 3), capsules.reshape(-1, 7), ellipsoids.reshape(-1, 8)

    # The diagonals of a face give its normal even when two of its corners meet. (Ph, 6, 3)
    faces = np.array([[0, 3, 2, 1], [4, 5, 6, 7], [0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [3, 0, 4, 7]])
    corner = hexahedra[:, faces]  # (Ph, 6, 4, 3)
    normal = np.cross(corner[:, :, 2] - corner[:, :, 0], corner[:, :, 3] - corner[:, :, 1])
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    # Offset by the outermost corner: a face that is not quite flat still leaves a convex solid.
    offset = np.einsum("pfk,pfck->pfc", normal, corner).max(axis=-1)
    middle = hexahedra.mean(axis=1)
    hex_bounds = np.concatenate(
        [middle, np.linalg.norm(hexahedra - middle[:, None], axis=-1).max(axis=1, keepdims=True)], axis=1
    )

    end_a, end_b, radius = capsules[:, :3], capsules[:, 3:6], capsules[:, 6:]
    length = np.linalg.norm(end_b - end_a, axis=1, keepdims=True)
    up = np.array([0.0, 0.0, 1.0])
    axis = np.where(length > 0, (end_b - end_a) / np.maximum(length, 1e-12), up)
    side = np.where(np.abs(axis[:, 2:]) < 0.9, up, np.array([1.0, 0.0, 0.0]))
    first = np.cross(side, axis)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    capsule_frame = np.stack([first, np.cross(axis, first), axis], axis=1)
    capsule_centre = (end_a + end_b) / 2

    cos, sin = np.cos(ellipsoids[:, 6]), np.sin(ellipsoids[:, 6])
    cos_roll, sin_roll = np.cos(ellipsoids[:, 7]), np.sin(ellipsoids[:, 7])
    zero = np.zeros_like(cos)
    axes = np.stack(
        [
            np.stack([cos, sin, zero], axis=1),
            np.stack([-sin * cos_roll, cos * cos_roll, sin_roll], axis=1),
            np.stack([sin * sin_roll, -cos * sin_roll, cos_roll], axis=1),
        ],
        axis=1,
    )
    radii = ellipsoids[:, 3:6]
    bounds = np.concatenate(
        [
            hex_bounds,
            np.concatenate([capsule_centre, length / 2 + radius], axis=1),
            np.concatenate([ellipsoids[:, :3], radii.max(axis=1, keepdims=True)], axis=1),
        ]
    )
    return Solids(
        planes=np.concatenate([normal, offset[:, :, None]], axis=-1).astype(np.float32),
        capsule_centre=capsule_centre.astype(np.float32),
        capsule_frame=capsule_frame.astype(np.float32),
        capsule_size=np.concatenate([length / 2, radius], axis=1).astype(np.float32),
        ellipsoid_centre=ellipsoids[:, :3].astype(np.float32),
        ellipsoid_frame=(axes / radii[:, :, None]).astype(np.float32),
        bounds=bounds,
    )


def part_of(solids: Solids, rows: NDArray[np.bool_]) -> Solids:
    """Return the table of the solids where `rows`, bool (P,), is true."""
    num_hex, num_cap = len(solids.planes), len(solids.capsule_centre)
    hexahedra, capsules, ellipsoids = np.split(rows, [num_hex, num_hex + num_cap])
    return Solids(
        planes=solids.planes[hexahedra],
        capsule_centre=solids.capsule_centre[capsules],
        capsule_frame=solids.capsule_frame[capsules],
        capsule_size=solids.capsule_size[capsules],
        ellipsoid_centre=solids.ellipsoid_centre[ellipsoids],
        ellipsoid_frame=solids.ellipsoid_frame[ellipsoids],
        bounds=solids.bounds[rows],
    )


def cast(solids: Solids, origins: NDArray[np.floating], directions: NDArray[np.floating]) -> Hits:
    """Find what each ray hits first.

    origins: (N, 3), or (3,) where all rays start at one point. directions: (N, 3), unit vectors.
    """
    num_rays = len(directions)
    num_packets = -(-num_rays // PACKET)
    # The last packet is filled up with copies of the last ray. (T, 3, PACKET): the rays lie along the fast axis.
    fill = np.minimum(np.arange(num_packets * PACKET), num_rays - 1).reshape(num_packets, PACKET)
    direction = np.asarray(directions, np.float32)
    origin = np.broadcast_to(np.asarray(origins, np.float32), direction.shape)
    packet_d = np.ascontiguousarray(direction[fill].transpose(0, 2, 1))
    packet_o = np.ascontiguousarray(origin[fill].transpose(0, 2, 1))

    near = _touched(solids.bounds, packet_o, packet_d)  # (T, P)
    num_hex, num_cap = len(solids.planes), len(solids.capsule_centre)
    best = np.full((num_packets, PACKET), _NOTHING)
    groups = ((0, num_hex, _hexahedra), (num_hex, num_hex + num_cap, _capsules), (num_hex + num_cap, None, _ellipsoids))
    for start, stop, distance_to in groups:
        pairs = np.stack(np.nonzero(near[:, start:stop]))
        for at in range(0, pairs.shape[1], _CHUNK):
            packet, row = pairs[:, at : at + _CHUNK]
            # A positive float and its bits sort alike: one integer minimum finds the distance and its solid together.
            key = distance_to(solids, row, packet_o[packet], packet_d[packet]).view(np.uint32).astype(np.uint64)
            key <<= np.uint64(32)
            key |= (row + start).astype(np.uint64)[:, None]
            first = np.flatnonzero(np.diff(packet, prepend=-1))
            seen = packet[first]
            best[seen] = np.minimum(best[seen], np.minimum.reduceat(key, first, axis=0))

    key = best.reshape(-1)[:num_rays]
    distance = (key >> np.uint64(32)).astype(np.uint32).view(np.float32)
    found = distance < np.inf  # the key of nothing reads as nan
    return Hits(
        distance=np.where(found, distance, np.float32(np.inf)),
        solid=np.where(found, (key & np.uint64(0xFFFFFFFF)).astype(np.int64), -1),
    )


def _touched(bounds: F64, origin: F32, direction: F32) -> NDArray[np.bool_]:
    """Tell which bounding spheres (P, 4) touch the cone around each packet (T, 3, PACKET): bool (T, P).

    Never too few; some that only come near may be among them.
    """
    axis = direction.mean(axis=2)
    axis /= np.maximum(np.linalg.norm(axis, axis=1, keepdims=True), _TINY)
    cos = np.clip((axis[:, None, :] @ direction).min(axis=2) - np.float32(1e-6), -1, 1)  # (T, 1)
    sin = np.sqrt(1 - cos**2)
    # Every ray lies in the cone about the packet's middle, widened by how far the rays start from that cone's axis and,
    # for the cone's slope, along it.
    apex = (origin.min(axis=2) + origin.max(axis=2)) / 2
    start = origin - apex[:, :, None]
    ahead = (axis[:, None, :] @ start)[:, 0]  # (T, PACKET)
    length = np.abs(ahead).max(axis=1, keepdims=True)
    width = np.sqrt(np.maximum((start**2).sum(axis=1) - ahead**2, 0).max(axis=1, keepdims=True))

    # float32 halves the time of what follows. Its error grows with the distances, so they count from a near point and
    # widen the cones: by half a pixel of a camera ten times as sharp as ours.
    middle = apex.sum(axis=0) / max(len(apex), 1)
    centre, apex = (bounds[:, :3] - middle).astype(np.float32), apex - middle
    far, away = (centre**2).sum(axis=1), (apex**2).sum(axis=1)[:, None]
    slack = np.float32(6e-4)
    reach = (bounds[:, 3].astype(np.float32) + slack * np.sqrt(far)) + (
        width + length * sin + slack * np.sqrt(away) + np.float32(0.01)
    )
    along = axis @ centre.T
    along -= (axis * apex).sum(axis=1)[:, None]
    aside = apex @ (-2 * centre.T)
    aside += away
    aside += far
    aside -= along**2
    np.sqrt(np.maximum(aside, 0, out=aside), out=aside)
    aside *= cos
    aside -= along * sin
    aside -= reach
    reach += along
    touched: NDArray[np.bool_] = (aside <= 0) & (reach >= -length)
    touched |= cos < 0.1
    return touched


def _hexahedra(solids: Solids, row: NDArray[np.int64], origin: F32, direction: F32) -> F32:
    """Distance (K, PACKET) to the last plane entered, unless a plane was left before; inf for a miss."""
    planes = solids.planes[row]  # (K, 6, 4)
    speed = planes[:, :, :3] @ direction  # (K, 6, PACKET)
    gap = planes[:, :, 3:] - planes[:, :, :3] @ origin
    np.copyto(speed, _TINY, where=np.abs(speed) < _TINY)
    crossing = gap / speed
    entering = speed < 0
    enter = np.where(entering, crossing, np.float32(-np.inf)).max(axis=1)
    leave = np.where(entering, np.float32(np.inf), crossing).min(axis=1)
    return np.where((enter <= leave) & (enter > 0), enter, np.float32(np.inf))


def _capsules(solids: Solids, row: NDArray[np.int64], origin: F32, direction: F32) -> F32:
    """Distance (K, PACKET) to the cylinder, or to the ball at the end past which the ray meets the cylinder."""
    frame = solids.capsule_frame[row]
    dx, dy, dz = np.moveaxis(frame @ direction, 1, 0)
    ox, oy, oz = np.moveaxis(frame @ (origin - solids.capsule_centre[row][:, :, None]), 1, 0)
    half, radius = solids.capsule_size[row][:, :1], solids.capsule_size[row][:, 1:]
    # From the point of closest approach: subtracting squares of long distances would lose the radius in float32.
    square = np.maximum(dx * dx + dy * dy, _TINY)
    closest = -(ox * dx + oy * dy) / square
    qx, qy = ox + closest * dx, oy + closest * dy
    depth = radius * radius - qx * qx - qy * qy
    hit = depth >= 0
    body = closest - np.sqrt(np.maximum(depth, 0) / square)
    height = oz + body * dz
    end = np.clip(height, -half, half)
    oz = oz - end
    closest = -(ox * dx + oy * dy + oz * dz)
    qx, qy, qz = ox + closest * dx, oy + closest * dy, oz + closest * dz
    depth = radius * radius - qx * qx - qy * qy - qz * qz
    on_body = end == height
    distance = np.where(on_body, body, closest - np.sqrt(np.maximum(depth, 0)))
    return np.where(hit & (on_body | (depth >= 0)) & (distance > 0), distance, np.float32(np.inf))


def _ellipsoids(solids: Solids, row: NDArray[np.int64], origin: F32, direction: F32) -> F32:
    """Distance (K, PACKET), by the unit sphere the ellipsoid is mapped to."""
    frame = solids.ellipsoid_frame[row]
    dx, dy, dz = np.moveaxis(frame @ direction, 1, 0)
    ox, oy, oz = np.moveaxis(frame @ (origin - solids.ellipsoid_centre[row][:, :, None]), 1, 0)
    square = dx * dx + dy * dy + dz * dz
    closest = -(ox * dx + oy * dy + oz * dz) / square
    qx, qy, qz = ox + closest * dx, oy + closest * dy, oz + closest * dz
    depth = 1 - qx * qx - qy * qy - qz * qz
    distance = closest - np.sqrt(np.maximum(depth, 0) / square)
    return np.where((depth >= 0) & (distance > 0), distance, np.float32(np.inf))


def normals(solids: Solids, solid: NDArray[np.int64], point: F32) -> F32:
    """Return the outward unit normals (N, 3) at points (N, 3) that lie on the solids (N,)."""
    normal = np.zeros_like(point)
    num_hex, num_cap = len(solids.planes), len(solids.capsule_centre)

    ray = np.flatnonzero((solid >= 0) & (solid < num_hex))
    planes = solids.planes[solid[ray]]  # (n, 6, 4)
    outside = (planes[:, :, :3] @ point[ray][:, :, None])[:, :, 0] - planes[:, :, 3]
    normal[ray] = planes[np.arange(len(ray)), outside.argmax(axis=1), :3]

    ray = np.flatnonzero((solid >= num_hex) & (solid < num_hex + num_cap))
    row = solid[ray] - num_hex
    frame = solids.capsule_frame[row]
    local = (frame @ (point[ray] - solids.capsule_centre[row])[:, :, None])[:, :, 0]
    half, radius = solids.capsule_size[row][:, 0], solids.capsule_size[row][:, 1:]
    local[:, 2] -= np.clip(local[:, 2], -half, half)
    normal[ray] = (local[:, None, :] @ frame)[:, 0] / radius

    ray = np.flatnonzero(solid >= num_hex + num_cap)
    row = solid[ray] - num_hex - num_cap
    frame = solids.ellipsoid_frame[row]
    local = frame @ (point[ray] - solids.ellipsoid_centre[row])[:, :, None]
    gradient = (frame.transpose(0, 2, 1) @ local)[:, :, 0]
    normal[ray] = gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
    return normal
