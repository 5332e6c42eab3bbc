"""Toy City as a car with a lidar and a camera drives through it: one labelled frame, in KITTI's terms.

The car keeps to the right lane and looks along the street. The ground is level and so are lidar and camera. Labelled
are motor vehicles, pedestrians and cyclists (rider and bicycle together); the boxes are tight about their shapes.
"""

import math
from dataclasses import dataclass, replace
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hrnas.data.kitti import IMAGE_SIZE
from hrnas.data.kitti_files import NOT_AN_OBJECT, no_objects
from hrnas.data.kitti_frames import in_view, to_objects, uncut_boxes
from hrnas.data.toycity.bodies import extent
from hrnas.data.toycity.camera import make_sensor
from hrnas.data.toycity.lidar import HEIGHT, sweep
from hrnas.data.toycity.placing import LENS_HEIGHT, make_drive
from hrnas.data.toycity.render import render
from hrnas.data.toycity.scenes import VERSION
from hrnas.data.toycity.seen import hidden_share
from hrnas.data.toycity.shapes import Bodies
from hrnas.data.toycity.world import Thing, View, World
from hrnas.geometry.boxes import points_in_boxes, wrapped
from hrnas.structures import Boxes3D, Calibration, KittiObjects

TYPES: Final[dict[str, str]] = {
    **dict.fromkeys(("hatchback", "saloon", "suv"), "Car"), "van": "Van", **dict.fromkeys(("lorry", "bus"), "Truck"),
    **dict.fromkeys(("plain", "coat", "bag", "hat"), "Pedestrian"), "bicycle": "Cyclist",
}  # fmt: skip
"""What KITTI calls each kind of thing that it labels."""

_FOCAL: Final = 720.0  # pixels
_LENS: Final = (0.27, 0.06)  # metres ahead and left of the lidar
_BASELINE: Final = 0.06  # metres; the colour camera is that far left of the one whose frame KITTI uses
_RENDERED: Final = 3  # pixels of the image a side of each that is rendered: what takes most of a frame's time
_MARGIN: Final = 0.03  # radians that the lidar sees more than the camera at either side
_LEAST_SEEN: Final = 0.05  # of an outline, of something that is labelled
_OCCLUDED: Final = (0.1, 0.5)  # hidden shares from which on something is partly and largely occluded


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What a car records at a moment, and what is known of it.

    points: float32 (P, 4), as in KITTI; of the sector that the camera sees, not cut to its image. image: uint8
    (375, 1242, 3). objects: what is seen; of what nobody could find (nothing of it met by the lidar, or less than a
    twentieth of its outline in sight) a DontCare where a little of it can be seen, nothing where none.
    """

    points: NDArray[np.float32]
    image: NDArray[np.uint8]
    calibration: Calibration
    objects: KittiObjects


def draw_recording(split: str, number: int, seed: int) -> Recording:
    """Return the recording of frame `number` of a split of the city `seed`: a function of the three alone."""
    # A text as seed, as the scenes of the masks have it; these are other worlds.
    random = Random(f"toycity drive {VERSION} {seed} {split} {number}")
    world = make_drive(random, 2 * math.atan2(IMAGE_SIZE[1] / 2, _FOCAL))
    return make_recording(world, random)


def make_recording(world: World, random: Random) -> Recording:
    """Record a world from where its view is, a level one with the field of view of IMAGE_SIZE."""
    height, width = IMAGE_SIZE
    sensor = replace(make_sensor(random), noise=0.0)  # it would be blown up with the pixels
    picture = render(world, height // _RENDERED, width // _RENDERED, random, sensor)
    lidar = _lidar_place(world.view)
    generator = np.random.Generator(np.random.PCG64(random.getrandbits(64)))
    swept = sweep(world, picture.bodies, lidar, world.view.heading, world.view.field_of_view / 2 + _MARGIN, generator)
    calibration = make_calibration()
    return Recording(
        points=swept.points,
        image=np.asarray(Image.fromarray(picture.image).resize((width, height), Image.Resampling.BILINEAR)),
        calibration=calibration,
        objects=_label(world, picture.bodies, swept.points, calibration),
    )


def make_calibration() -> Calibration:
    """Return the calibration of all frames: as KITTI's, but level and with the axes of camera and lidar parallel.

    A pixel's middle is at whole numbers, as in KITTI.
    """
    height, width = IMAGE_SIZE
    ahead, left = _LENS
    return Calibration(
        p2=np.array(
            [
                [_FOCAL, 0, (width - 1) / 2, _FOCAL * _BASELINE],
                [0, _FOCAL, (height - 1) / 2, 0],
                [0, 0, 1, 0],
            ]
        ),
        r0_rect=np.eye(3),
        tr_velo_to_cam=np.array([[0.0, -1, 0, left - _BASELINE], [0, 0, -1, LENS_HEIGHT - HEIGHT], [1, 0, 0, -ahead]]),
    )


def _lidar_place(view: View) -> tuple[float, float]:
    cos, sin = math.cos(view.heading), math.sin(view.heading)
    ahead, left = _LENS
    return view.position[0] - cos * ahead + sin * left, view.position[1] - sin * ahead - cos * left


def lidar_box(thing: Thing, view: View) -> NDArray[np.float64]:
    """Return the tight box about a thing in the frame of the lidar that goes with a view, (7,) as in Boxes3D."""
    low, high = extent(thing)
    low[2] = 0.0  # it stands on the ground
    middle, size = (low + high) / 2, high - low
    cos, sin = math.cos(thing.heading), math.sin(thing.heading)
    lidar = _lidar_place(view)
    x = thing.position[0] + cos * middle[0] - sin * middle[1] - lidar[0]
    y = thing.position[1] + sin * middle[0] + cos * middle[1] - lidar[1]
    cos, sin = math.cos(view.heading), math.sin(view.heading)
    yaw = wrapped(thing.heading - view.heading)
    return np.array([cos * x + sin * y, cos * y - sin * x, middle[2] - HEIGHT, *size, yaw])


def _label(world: World, bodies: Bodies, points: NDArray[np.float32], calibration: Calibration) -> KittiObjects:
    """Return what is in the image: first what is labelled, in the world's order, then what is not to be cared for."""
    points = points[in_view(points, calibration, IMAGE_SIZE)]
    labelled, others = [], []
    for row, thing in enumerate(world.things):
        if (name := TYPES.get(thing.kind)) is None:
            continue
        box = lidar_box(thing, world.view)
        found = to_objects(
            Boxes3D(boxes=box[None], labels=np.zeros(1, np.int64), scores=np.ones(1)), (name,), calibration, IMAGE_SIZE
        )
        if not len(found):
            continue
        left, top, right, bottom = box_2d = found.boxes_2d[0]
        # Places in the picture count from its corner, KITTI's from the middle of the first pixel.
        hidden = hidden_share(world, bodies, row, (left + 0.5, top + 0.5, right + 0.5, bottom + 0.5), *IMAGE_SIZE)
        met = int(points_in_boxes(points, box[None]).sum())
        if met and hidden <= 1 - _LEAST_SEEN:
            truncated = max(0.0, 1 - _area(box_2d) / _area(uncut_boxes(found, calibration)[0]))
            occluded = sum(hidden >= share for share in _OCCLUDED)
            labelled.append(replace(found, truncated=np.array([truncated]), occluded=np.array([occluded])))
        elif met or hidden < 1:
            others.append(_not_cared_for(found))
    return _joined([*labelled, *others])


def _area(box: NDArray[np.float64]) -> float:
    """Return the area of a box in the image, (4,): left, top, right, bottom, in square pixels."""
    return float((box[2:] - box[:2]).prod())


def _not_cared_for(objects: KittiObjects) -> KittiObjects:
    """Return the objects with their boxes in the image alone, as KITTI writes them."""
    count = len(objects)
    return replace(
        objects,
        types=(NOT_AN_OBJECT,) * count,
        truncated=np.full(count, -1.0),
        occluded=np.full(count, -1),
        alphas=np.full(count, -10.0),
        sizes=np.full((count, 3), -1.0),
        locations=np.full((count, 3), -1000.0),
        rotations=np.full(count, -10.0),
    )


def _joined(parts: list[KittiObjects]) -> KittiObjects:
    """Return the objects of all parts, in numbers that are short to write: a tenth of a millimetre is enough."""
    parts = [no_objects(), *parts]

    def joined(name: str) -> NDArray[np.float64]:
        return np.round(np.concatenate([getattr(part, name) for part in parts]), 4)

    return KittiObjects(
        types=tuple(name for part in parts for name in part.types),
        truncated=joined("truncated"),
        occluded=joined("occluded").astype(np.int64),
        alphas=joined("alphas"),
        boxes_2d=joined("boxes_2d"),
        sizes=joined("sizes"),
        locations=joined("locations"),
        rotations=joined("rotations"),
        scores=joined("scores"),
    )
