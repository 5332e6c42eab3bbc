"""Pictures of scenes: a point cloud from above, boxes in the camera's image. Pillow and numpy only.

Found boxes are drawn in their class's colour; true ones dashed in white, over a field of that colour. The front of a
box is marked: from above by a line that leads ahead from its middle, in the image by a filled face.

P points, M boxes, H height, W width of a picture in pixels.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hrnas.arch.architecture import Pillars
from hrnas.data.kitti import IMAGE_SIZE
from hrnas.data.kitti_frames import NEAREST, edges_in_image, to_camera, to_image
from hrnas.data.pictures import RGB
from hrnas.geometry.boxes import EDGES, bev_corners, corners
from hrnas.structures import Boxes3D, Calibration

Array = NDArray[np.float64]
Picture = NDArray[np.uint8]

GROUND: Final[RGB] = (16, 20, 28)
"""Where there is neither a point nor an image."""
_WHITE: Final[RGB] = (255, 255, 255)
_QUIET: Final[RGB] = (128, 142, 164)
"""Rings, their distances and the lidar itself."""
_HEIGHTS: Final = (-2.4, -1.6, -0.9, 0.0, 1.2, 3.0)
"""Metres above the lidar that have the colours below; what is between them is mixed."""
_HEIGHT_COLORS: Final = np.array(
    [(50, 62, 98), (66, 92, 148), (70, 160, 190), (150, 214, 170), (250, 220, 130), (255, 170, 120)], float
)
_BEHIND: Final = 3.0
"""Metres behind the lidar that are seen from above."""
_RING: Final = 10
"""Metres from ring to ring around the lidar; every second one has its distance beside it."""

_FACES: Final = ((0, 4, 7, 3), (1, 5, 4, 0), (2, 6, 5, 1), (3, 7, 6, 2), (4, 5, 6, 7), (3, 2, 1, 0))
"""Places in geometry.boxes.corners around each face, counter-clockwise from outside; the front first."""


def bird_view(
    cloud: NDArray[np.float32],
    truth: Boxes3D | None,
    found: Boxes3D | None,
    colors: Sequence[RGB],
    *,
    names: Sequence[str] = (),
    reach: tuple[float, float] = Pillars().reach,
    height: int = 1000,
) -> Picture:
    """Return a cloud (P, 4) and boxes seen from above, uint8 (height, W, 3); ahead is up.

    colors: of the classes. names: theirs, in a legend and beside found boxes; without them there is neither. reach:
    metres that are shown ahead and to either side. Points have the colour of their height.
    """
    ahead, aside = reach
    zoom = height / (ahead + _BEHIND)  # pixels of a metre
    width = max(1, round(2 * aside * zoom))

    def seen(points: Array) -> Array:
        """Return column, row of points (..., 2): x, y."""
        return np.stack([width / 2 - points[..., 1] * zoom, (ahead - points[..., 0]) * zoom], axis=-1)

    picture = _with_points(_plain((height, width)), seen(cloud[:, :2].astype(np.float64)), cloud[:, 2])
    canvas = _Canvas(picture, thick=max(1.0, height / 550))
    lidar = seen(np.zeros(2))
    turns = np.linspace(0, 2 * np.pi, 181)
    for metres in range(_RING, int(np.hypot(ahead, aside)), _RING):
        canvas.line(lidar + metres * zoom * np.stack([np.sin(turns), np.cos(turns)], axis=1), (*_QUIET, 60))
    canvas.area(lidar + zoom * np.array([(-0.9, 0.9), (0, -1.3), (0.9, 0.9)]), (*_QUIET, 255))
    if names:
        canvas.legend(
            names, colors, [kind for kind, boxes in (("found", found), ("truth", truth)) if boxes is not None]
        )
    for boxes, is_truth in ((found, False), (truth, True)):
        if boxes is None:
            continue
        outlines = seen(bev_corners(boxes.boxes))
        for outline, label, score in zip(outlines, boxes.labels, boxes.scores, strict=True):
            middle, front = outline.mean(axis=0), (outline[0] + outline[3]) / 2
            canvas.area(outline, (*colors[label], 110 if is_truth else 60))
            canvas.side(np.concatenate([outline, outline[:1]]), colors[label], is_truth=is_truth)
            canvas.side(np.stack([middle, 1.6 * front - 0.6 * middle]), colors[label], is_truth=is_truth)
            if names and not is_truth:
                canvas.caption(outline, _caption(names[label], score), _lighter(colors[label]))
    for metres in range(2 * _RING, int(ahead), 2 * _RING):
        canvas.caption(np.array([[width / 2, lidar[1] - metres * zoom]]), f"{metres} m", _QUIET)
    return canvas.finished()


def camera_view(
    image: Picture | None,
    truth: Boxes3D | None,
    found: Boxes3D | None,
    calibration: Calibration,
    colors: Sequence[RGB],
    *,
    names: Sequence[str] = (),
    image_size: tuple[int, int] = IMAGE_SIZE,
    cloud: NDArray[np.float32] | None = None,
) -> Picture:
    """Return the camera's image (H, W, 3) with the edges of boxes in it; those on a box's far side are faint.

    image: None for a plain ground of image_size (H, W) and, where a cloud (P, 4) is given, its points in the colour of
    their height. colors: of the classes. names: theirs, written above found boxes; without them nothing is. Of a box
    that reaches behind the camera the part ahead of it is drawn.
    """
    if image is None:
        image = _plain(image_size)
        if cloud is not None:
            places = to_image(cloud, calibration)
            ahead = places[:, 2] > NEAREST
            image = _with_points(image, places[ahead, :2], cloud[ahead, 2])
    canvas = _Canvas(image, thick=max(1.5, min(image.shape[:2]) / 190))
    solids = [
        (solid, int(label), float(score), is_truth)
        for boxes, is_truth in ((found, False), (truth, True))
        if boxes is not None
        for solid, label, score in zip(_solids(boxes, calibration), boxes.labels, boxes.scores, strict=True)
    ]
    # Farthest first, so that what is near lies over it; the sort keeps the true box over the one found in its place.
    for solid, label, score, is_truth in sorted(solids, key=lambda box: -round(float(box[0][:, 2].mean()))):
        front = solid[list(_FACES[0])]
        around = edges_in_image(np.stack([front, np.roll(front, -1, axis=0)], axis=1), calibration)
        canvas.area(_there(around), (*colors[label], 40 if is_truth else 80))
        visible = [face for face in _FACES if _faces_camera(solid[list(face)], calibration)]
        lines = edges_in_image(solid[np.array(EDGES)], calibration)  # (12, 2, 2)
        for place in sorted(range(len(EDGES)), key=lambda place: _is_of(EDGES[place], visible)):
            opacity = 255 if _is_of(EDGES[place], visible) else 90
            canvas.side(_there(lines[place]), colors[label], is_truth=is_truth, opacity=opacity)
        if names and not is_truth:
            canvas.caption(_there(lines), _caption(names[label], score), _lighter(colors[label]))
    return canvas.finished()


class _Canvas:
    """A picture (H, W, 3) to draw on with smooth edges. Points are (K, 2): column, row, from the upper left corner.

    thick: of a box's sides, in pixels.
    """

    def __init__(self, picture: Picture, thick: float) -> None:
        self._size = np.array(picture.shape[1::-1])
        self._thick = thick
        # Pillow's lines have no smooth edges: they are drawn on a larger picture, within some ten megabytes of it.
        self._finer = max(1, min(3, int((7e6 / float(self._size.prod())) ** 0.5)))
        self._large = Image.fromarray(picture.repeat(self._finer, axis=0).repeat(self._finer, axis=1))
        self._draw = ImageDraw.Draw(self._large, "RGBA")  # which blends colours with what is there
        self._tall = max(11, round(float(self._size.min()) / 70))
        self._font = ImageFont.load_default(size=self._tall)
        self._captions: list[tuple[Array, str, RGB]] = []
        self._texts: list[tuple[float, float, str, RGB]] = []

    def area(self, outline: Array, color: tuple[int, int, int, int]) -> None:
        """Fill a polygon."""
        if len(outline) > 2:
            self._draw.polygon(self._larger(outline), fill=color)

    def line(self, points: Array, color: tuple[int, int, int, int], thick: float = 1.0) -> None:
        """Draw a line from point to point."""
        if len(points) > 1:
            width = max(1, round(thick * self._finer))
            self._draw.line(self._larger(points), fill=color, width=width, joint="curve")

    def side(self, points: Array, color: RGB, *, is_truth: bool, opacity: int = 255) -> None:
        """Draw sides of a box from point to point, as found or true ones are drawn."""
        if is_truth:
            for dash in _dashes(points, 2.5 * self._thick):
                self.line(dash, (*_WHITE, opacity), 0.6 * self._thick)
        else:
            self.line(points, (*_lighter(color), opacity), self._thick)

    def caption(self, outline: Array, text: str, color: RGB) -> None:
        """Have a text written beside what an outline surrounds, in the end and where there is room then."""
        if len(outline) and ((outline.max(axis=0) > 0) & (outline.min(axis=0) < self._size)).all():
            self._captions.append(
                (np.stack([outline.min(axis=0), outline.max(axis=0)]).clip(0, self._size), text, color)
            )

    def legend(self, names: Sequence[str], colors: Sequence[RGB], kinds: Sequence[str]) -> None:
        """Explain colours and lines in the lower left corner; kinds: of boxes that there are, "found" and "truth"."""
        tall = self._tall
        row, wide = 1.6 * tall, 2.2 * tall
        x, y = row / 2, self._size[1] - row * (len(names) + len(kinds)) - row / 4
        for text, color in [*zip(names, colors, strict=True), *((kind, _WHITE) for kind in kinds)]:
            box = np.array([(x, y), (x + wide, y), (x + wide, y + tall), (x, y + tall), (x, y)])
            self.area(box, (*color, 60))
            self.side(box, color, is_truth=text == "truth")
            self._texts.append((x + wide + tall / 2, y + tall / 2, text, _lighter(color)))
            y += row

    def finished(self) -> Picture:
        """Return the picture with all that was drawn."""
        picture = self._large.resize(tuple(self._size.tolist()), Image.Resampling.BOX)
        draw = ImageDraw.Draw(picture)
        for x, y, text, color in [*self._texts, *self._placed()]:
            draw.text((x, y), text, fill=color, font=self._font, anchor="lm", stroke_width=2, stroke_fill=GROUND)
        return np.array(picture)

    def _placed(self) -> Iterator[tuple[float, float, str, RGB]]:
        """Yield the captions that find room: on no other caption, and if that can be on no box."""
        taken: list[Array] = []
        boxes = [box for box, _, _ in self._captions]
        for (low, high), text, color in self._captions:
            size = np.array([self._font.getlength(text), self._tall])
            middle = (low + high - size) / 2
            corners = [
                np.array([high[0] + 4, middle[1]]),
                np.array([low[0] - 4 - size[0], middle[1]]),
                np.array([middle[0], low[1] - 4 - size[1]]),
                np.array([middle[0], high[1] + 4]),
            ]
            places = [place for corner in corners if _is_within(place := np.stack([corner, corner + size]), self._size)]
            free = [place for place in places if not any(_meet(place, other) for other in taken)]
            clear = [place for place in free if not any(_meet(place, box) for box in boxes)]
            for place in [*clear, *free][:1]:
                taken.append(place)
                yield float(place[0, 0]), float(place[:, 1].mean()), text, color

    def _larger(self, points: Array) -> list[tuple[float, float]]:
        return [(float(column), float(row)) for column, row in points * self._finer]


def _is_within(place: Array, size: Array) -> bool:
    return bool((place >= 0).all() and (place <= size).all())


def _meet(place: Array, other: Array) -> bool:
    """Return whether two rectangles (2, 2), lowest and highest column and row, have a part in common."""
    return bool((place[0] < other[1]).all() and (other[0] < place[1]).all())


def _caption(name: str, score: float) -> str:
    """Return what is written beside a found box."""
    return name if score == 1 else f"{name} {score:.2f}"


def _lighter(color: RGB) -> RGB:
    """Return a colour that stands out from a dark ground."""
    red, green, blue = (round(part + 0.25 * (255 - part)) for part in color)
    return red, green, blue


def _plain(size: tuple[int, int]) -> Picture:
    """Return a picture of size (H, W) with nothing in it."""
    return np.full((*size, 3), GROUND, np.uint8)


def _with_points(picture: Picture, places: Array, heights: NDArray[np.float32]) -> Picture:
    """Return a picture (H, W, 3) with points (P, 2): column, row, as soft dots in the colours of their heights (P,)."""
    height, width = picture.shape[:2]
    inside = ((places > 0) & (places < (width, height))).all(axis=1)
    places, heights = places[inside], heights[inside]
    colors = np.stack([np.interp(heights, _HEIGHTS, part) for part in _HEIGHT_COLORS.T], axis=1)  # (P, 3)
    base = np.floor(places).astype(np.int64)
    # A dot spreads over 3x3 pixels, by a Gaussian around its place; the grid has a margin for it.
    steps = np.array([[(across, down)] for down in (-1, 0, 1) for across in (-1, 0, 1)])  # (9, 1, 2)
    weights = np.exp(-((base + 0.5 + steps - places) ** 2).sum(axis=2) / (2 * 0.55**2))  # (9, P)
    flat = ((base + 1 + steps) * (1, width + 2)).sum(axis=2).ravel()
    sums = np.stack(
        [
            np.bincount(flat, (weights * part).ravel(), (height + 2) * (width + 2))
            for part in (np.ones(len(base)), *colors.T)
        ],
        axis=1,
    ).reshape(height + 2, width + 2, 4)[1:-1, 1:-1]
    opacity = 1 - np.exp(-2.2 * sums[..., :1])
    mixed: Array = picture * (1 - opacity) + sums[..., 1:] / np.maximum(sums[..., :1], 1e-9) * opacity
    return (mixed + 0.5).astype(np.uint8)


def _dashes(points: Array, length: float) -> Iterator[Array]:
    """Yield the dashes (2, 2) of a line from point to point, each side begun and ended by one."""
    for start, end in pairwise(points):
        count = 2 * max(1, round(float(np.hypot(*(end - start))) / length / 2)) + 1  # dashes and gaps
        stops = start + np.linspace(0, 1, count + 1)[:, None] * (end - start)
        for place in range(0, count, 2):
            yield stops[place : place + 2]


def _solids(boxes: Boxes3D, calibration: Calibration) -> Array:
    """Return the corners of boxes in the camera's frame, (M, 8, 3)."""
    return to_camera(corners(boxes.boxes).reshape(-1, 3), calibration).reshape(-1, 8, 3)


def _there(edges: Array) -> Array:
    """Return column, row (K, 2) of the ends of those edges (..., 2, 2) that are not nan, in their order."""
    ends = edges.reshape(-1, 2)
    return ends[~np.isnan(ends[:, 0])]


def _faces_camera(face: Array, calibration: Calibration) -> bool:
    """Return whether the outside of a face (4, 3), counter-clockwise from there, is turned to the camera."""
    camera = -np.linalg.solve(calibration.p2[:, :3], calibration.p2[:, 3])
    outward = np.cross(face[1] - face[0], face[2] - face[0])
    return bool(outward @ (camera - face[0]) > 0)


def _is_of(edge: tuple[int, int], faces: Sequence[tuple[int, ...]]) -> bool:
    """Return whether an edge is one of a face's."""
    return any(set(edge) <= set(face) for face in faces)
