"""The classes of KITTI's object benchmark, and those of own sets in its layout.

Sources: PointPillars (CVPR 2019), section 4.1, the anchors' sizes; the development kit's evaluation, the overlaps and
the neighbouring classes. The lidar is 1.73 m above the ground.
"""

from collections.abc import Sequence
from typing import Final

from hrnas.data.kitti_files import NOT_AN_OBJECT
from hrnas.data.pictures import RGB, default_palette
from hrnas.structures import BoxClass

GROUND: Final = -1.73
"""z of the ground in the lidar's frame, in metres."""
USUAL_OVERLAP: Final = 0.5
"""Intersection over union from which on a box of a class that KITTI does not score counts as found."""


def _standing(
    name: str, size: tuple[float, float, float], overlap: float, neighbours: tuple[str, ...] = ()
) -> BoxClass:
    """Return a class whose objects stand on the ground."""
    return BoxClass(name=name, size=size, z=GROUND + size[2] / 2, overlap=overlap, neighbours=neighbours)


CLASSES: Final = (
    _standing("Car", (3.9, 1.6, 1.56), 0.7, ("Van",)),
    _standing("Pedestrian", (0.8, 0.6, 1.73), 0.5, ("Person_sitting",)),
    _standing("Cyclist", (1.76, 0.6, 1.73), 0.5),
)
"""Those the benchmark scores."""

COLORS: Final[tuple[RGB, ...]] = ((64, 128, 255), (255, 96, 64), (64, 200, 96))
"""Of the classes, in their order."""

TYPES: Final = (
    *(known.name for known in CLASSES),
    *("Van", "Person_sitting", "Truck", "Tram", "Misc"),
    NOT_AN_OBJECT,
)
"""All types of KITTI's label files."""


def spelled(types: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Return types of a label file as KITTI or, before that, a set's names spell them; the kit compares without case.

    Others stay as they are.
    """
    known = {name.lower(): name for name in (*TYPES, *names)}
    return tuple(known.get(name.lower(), name) for name in types)


def colors_of(names: Sequence[str]) -> tuple[RGB, ...]:
    """Return a colour for each class, for pictures: those of the benchmark's classes, distinct ones for other sets."""
    known = {known.name: color for known, color in zip(CLASSES, COLORS, strict=True)}
    return tuple(known[name] for name in names) if set(names) <= set(known) else default_palette(len(names))
