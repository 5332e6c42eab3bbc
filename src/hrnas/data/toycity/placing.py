"""Draw a world: a street, then what stands along it, from near to far and each in a place of its own."""

import math
from random import Random
from typing import Final

from hrnas.data.toycity.figure import Pose, cycling, walking
from hrnas.data.toycity.street import Street
from hrnas.data.toycity.world import Colour, Light, Thing, View, World

_BRICKS: Final[tuple[Colour, ...]] = (
    (0.45, 0.2, 0.14), (0.55, 0.33, 0.2), (0.62, 0.5, 0.36), (0.7, 0.64, 0.5), (0.5, 0.5, 0.5), (0.3, 0.29, 0.28),
    (0.75, 0.74, 0.7), (0.55, 0.6, 0.62), (0.6, 0.42, 0.4), (0.4, 0.47, 0.4), (0.78, 0.6, 0.35), (0.3, 0.2, 0.15),
)  # fmt: skip
_ROOFS: Final[tuple[Colour, ...]] = ((0.35, 0.14, 0.1), (0.2, 0.2, 0.22), (0.3, 0.22, 0.17), (0.28, 0.32, 0.3))
_PAINTS: Final[tuple[Colour, ...]] = (
    (0.75, 0.75, 0.76), (0.5, 0.51, 0.53), (0.28, 0.29, 0.3), (0.05, 0.05, 0.06), (0.36, 0.36, 0.37),
    (0.45, 0.06, 0.06), (0.08, 0.13, 0.35), (0.12, 0.28, 0.16), (0.35, 0.25, 0.16),
    (0.65, 0.55, 0.2), (0.3, 0.4, 0.45), (0.6, 0.6, 0.55),
)  # fmt: skip
_CLOTHS: Final[tuple[Colour, ...]] = (
    (0.06, 0.06, 0.08), (0.1, 0.12, 0.22), (0.2, 0.2, 0.21), (0.4, 0.4, 0.4), (0.7, 0.69, 0.66), (0.5, 0.08, 0.08),
    (0.15, 0.3, 0.15), (0.3, 0.21, 0.14), (0.6, 0.5, 0.15), (0.15, 0.35, 0.55), (0.55, 0.25, 0.4), (0.5, 0.42, 0.33),
)  # fmt: skip
_SKINS: Final[tuple[Colour, ...]] = ((0.72, 0.5, 0.4), (0.6, 0.4, 0.28), (0.4, 0.25, 0.16), (0.2, 0.12, 0.08))
_HAIRS: Final[tuple[Colour, ...]] = ((0.03, 0.02, 0.02), (0.16, 0.09, 0.05), (0.45, 0.32, 0.16), (0.5, 0.5, 0.5))
_LEAVES: Final[tuple[Colour, ...]] = (
    (0.1, 0.2, 0.05), (0.16, 0.24, 0.07), (0.07, 0.15, 0.07), (0.22, 0.25, 0.08), (0.12, 0.17, 0.08), (0.09, 0.19, 0.1),
    (0.34, 0.2, 0.06), (0.2, 0.12, 0.06),
)  # fmt: skip
_METALS: Final[tuple[Colour, ...]] = ((0.3, 0.31, 0.32), (0.12, 0.13, 0.13), (0.1, 0.2, 0.15), (0.45, 0.45, 0.45))
_SIGNS: Final[tuple[Colour, ...]] = ((0.55, 0.06, 0.06), (0.06, 0.15, 0.5), (0.75, 0.75, 0.75), (0.65, 0.5, 0.08))

CAR_SIZES: Final[dict[str, tuple[float, float, float]]] = {
    "hatchback": (3.9, 1.72, 1.48),
    "saloon": (4.6, 1.82, 1.44),
    "suv": (4.6, 1.9, 1.72),
    "van": (5.4, 2.0, 2.35),
    "lorry": (7.5, 2.3, 3.2),
    "bus": (10.0, 2.5, 3.1),
}
"""Length, width and height in metres of each kind of motor vehicle, before it is varied."""


LENS_HEIGHT: Final = 1.65
"""Of a drive's camera, metres above the road."""


def make_world(random: Random) -> World:
    """Build a street scene; the same state of `random` gives the same world."""
    street = _street(random)
    view, camera_left = _view(random, street)
    builder = _Placing(random, street, camera_left)
    builder.fill()
    return _lit(random, builder, view)


def make_drive(random: Random, field_of_view: float) -> World:
    """Build a busy street scene as a car in it sees it, its level camera over the right lane.

    field_of_view: horizontal, in radians.
    """
    street = _street(random)
    camera_left = -random.uniform(0.3, 0.45) * street.half_width
    x, y, heading = street.to_world(0.0, camera_left)
    view = View(
        position=(x, y, LENS_HEIGHT), heading=heading + random.gauss(0.0, 0.03), pitch=0.0, roll=0.0,
        field_of_view=field_of_view,
    )  # fmt: skip
    cars = ("hatchback", "saloon", "suv")
    builder = _Placing(random, street, camera_left, kinds=(*CAR_SIZES, *cars, *cars), rounds=2, spread=2.2)
    builder.fill()
    return _lit(random, builder, view)


def _lit(random: Random, builder: "_Placing", view: View) -> World:
    """Return the world of what was placed, under a light and on a ground of its own."""
    grey = random.uniform(0.1, 0.3)
    warm = random.uniform(-0.015, 0.02)
    return World(
        street=builder.street,
        things=tuple(builder.things),
        light=_light(random),
        view=view,
        grass=_vary(random, random.choice(((0.13, 0.2, 0.06), (0.22, 0.23, 0.1), (0.28, 0.23, 0.14))), 0.25),
        asphalt=(grey + warm, grey, grey - warm),
        seed=random.getrandbits(30),
    )


def _vary(random: Random, colour: Colour, by: float) -> Colour:
    """Change a colour's brightness and, half as much, its hue."""
    bright = 1 + random.uniform(-by, by)
    red, green, blue = (min(1.0, max(0.01, c * bright * (1 + random.uniform(-by, by) / 2))) for c in colour)
    return red, green, blue


def _street(random: Random) -> Street:
    bend = random.choice((0.0, 1.0, 1.0))
    return Street(
        radius=random.choice((-1, 1)) * (random.uniform(90, 350) if bend else 1e5),
        half_width=random.uniform(3.2, 6.0),
        pavement_width=random.uniform(1.6, 4.2),
        crossing=random.uniform(14, 45),
        crossing_half_width=random.choice((0.0, random.uniform(3.0, 5.0))),
        centre_line=random.choice(("none", "dashed", "dashed", "solid")),
        edge_lines=random.random() < 0.35,
        zebra=random.random() < 0.6,
    )


def _view(random: Random, street: Street) -> tuple[View, float]:
    """Stand on the road or on a pavement and look along the street, sometimes well aside."""
    if random.random() < 0.7:
        left = random.uniform(-0.8, 0.5) * street.half_width
    else:
        left = random.choice((-1, 1)) * (street.half_width + random.uniform(0.15, 0.55) * street.pavement_width)
    x, y, heading = street.to_world(0.0, left)
    view = View(
        position=(x, y, random.uniform(1.15, 2.1)),
        # Seen from the side of the street, most of the street lies to the other side.
        heading=heading + random.gauss(-left / 25, 0.2),
        pitch=random.gauss(0.02, 0.045),
        roll=random.gauss(0.0, 0.015),
        field_of_view=math.radians(random.uniform(50, 78)),
    )
    return view, left


def _light(random: Random) -> Light:
    haze = random.choice((80.0, 200.0, 350.0, 350.0, 700.0, 700.0))
    bearing = random.uniform(0, 2 * math.pi)
    if random.random() < 0.35:  # overcast: what sun there is comes from near the zenith and casts weak shadows
        height, grey = math.radians(80), random.uniform(0.55, 0.95)
        colours = {"sun_colour": (0.32, 0.32, 0.32), "sky_colour": (0.62, 0.64, 0.66)}
        colours |= {
            "zenith": (0.55 * grey, 0.58 * grey, 0.62 * grey),
            "horizon": (0.85 * grey, 0.86 * grey, 0.87 * grey),
        }
        clouds = random.uniform(0.75, 1.0)
    else:
        height = math.radians(random.uniform(14, 62))
        warm = 1 - math.sin(height)
        colours = {"sun_colour": (1.35, 1.32 - 0.36 * warm, 1.24 - 0.75 * warm), "sky_colour": (0.21, 0.25, 0.32)}
        deep = random.uniform(0.6, 1.1)
        colours |= {
            "zenith": (0.14 * deep, 0.32 * deep, 0.74 * deep),
            "horizon": (0.6 + 0.22 * warm, 0.72 - 0.04 * warm, 0.86 - 0.3 * warm),
        }
        clouds = random.uniform(0.0, 0.65)
    sun = (math.cos(height) * math.cos(bearing), math.cos(height) * math.sin(bearing), math.sin(height))
    return Light(sun=sun, clouds=clouds, haze=haze, **colours)


class _Placing:
    """Things one after the other, none in another's place nor on the camera.

    kinds: of vehicles. rounds: how often vehicles and people come. spread: stretches how far off people are.
    """

    def __init__(
        self, random: Random, street: Street, camera_left: float, *, kinds: tuple[str, ...] = tuple(CAR_SIZES),
        rounds: int = 1, spread: float = 1.0,
    ) -> None:  # fmt: skip
        self.random = random
        self.street = street
        self.kinds = kinds
        self.rounds = rounds
        self.spread = spread
        self.things: list[Thing] = []
        # Taken discs in street coordinates: along, left, radius. The first keeps the camera's view open.
        self.taken: list[tuple[float, float, float]] = [(0.0, camera_left, 1.6)]
        # Built-up rectangles in street coordinates: from and to along, then from and to left.
        self.built: list[tuple[float, float, float, float]] = []
        self.edge = street.half_width + street.pavement_width

    def fill(self) -> None:
        self.buildings()
        for _ in range(self.rounds):
            self.vehicles()
        self.posts_and_trees()
        for _ in range(self.rounds):
            self.people()

    def free(self, along: float, left: float, radius: float) -> bool:
        return all(math.hypot(along - a, left - b) > radius + r for a, b, r in self.taken)

    def in_crossing(self, along: float, reach: float) -> bool:
        return abs(along - self.street.crossing) < self.street.crossing_reach + reach

    def add(
        self, category: str, kind: str, along: float, left: float, turn: float, size: tuple[float, float, float],
        colours: tuple[Colour, ...], pose: Pose | None = None, radius: float | None = None,
    ) -> None:  # fmt: skip
        """Put a thing down; `turn` is its heading against the street's. A radius keeps others away from it."""
        x, y, heading = self.street.to_world(along, left)
        self.things.append(
            Thing(
                category=category, kind=kind, position=(x, y), heading=heading + turn, size=size, colours=colours,
                seed=self.random.getrandbits(30), pose=pose,
            )
        )  # fmt: skip
        if radius is not None:
            self.taken.append((along, left, radius))

    def buildings(self) -> None:
        """Two rows of houses with gaps, garden walls and hedges before some of them, and a skyline behind."""
        random = self.random
        town = random.random()  # 0 a village, 1 a city
        for side in (-1, 1):
            setback = 0.0 if random.random() < 0.35 else random.uniform(1.0, 11.0) * (1.3 - town)
            density = random.uniform(0.25, 1.0) if town < 0.5 else random.uniform(0.7, 1.0)
            along = random.uniform(-12, -4)
            palette = random.sample(_BRICKS, 4)
            while along < 95:
                length = random.uniform(7, 13 + 9 * town)
                middle = along + length / 2
                if random.random() < density and not self.in_crossing(middle, length / 2 + 0.5):
                    self._house(
                        middle, side, setback + random.choice((0.0, 0.0, random.uniform(0, 2))), length, town, palette
                    )
                if setback > 1.5 and not self.in_crossing(middle, length / 2):
                    self._garden_edge(middle, side, length)
                along += length + (0.02 if random.random() < town else random.uniform(1.0, 7.0))
        for _ in range(random.randint(3, 9)):
            along, left = random.uniform(105, 220), random.uniform(-110, 110)
            size = (random.uniform(10, 40), random.uniform(10, 25), random.uniform(7, 16 + 34 * town))
            colours = (_vary(random, random.choice(_BRICKS), 0.15), (0.1, 0.12, 0.14), random.choice(_ROOFS))
            self.add("building", "flat", along, left, random.uniform(-0.5, 0.5), size, colours)

    def _house(
        self, along: float, side: int, setback: float, length: float, town: float, palette: list[Colour]
    ) -> None:
        random = self.random
        gable = random.random() > 0.25 + 0.6 * town
        height = random.uniform(4.5, 8.5) if gable else random.uniform(5, 9 + 16 * town)
        depth = random.uniform(7, 10)
        wall = _vary(random, random.choice(palette), 0.2)
        glass = _vary(random, random.choice(((0.06, 0.08, 0.1), (0.14, 0.17, 0.2), (0.3, 0.34, 0.38))), 0.3)
        colours = (wall, glass, _vary(random, random.choice(_ROOFS), 0.2))
        kind = "gable" if gable else "shop" if setback < 0.5 and random.random() < 0.5 else "flat"
        turn = math.pi / 2 * (1 + side)  # the front faces the street
        left = side * (self.edge + setback + depth / 2)
        # Chords of the arc: on the inner side of a bend the houses stand nearer to each other.
        length *= min(1.0, (self.street.radius - left) / self.street.radius)
        self.add("building", kind, along, left, turn, (length, depth, height), colours)
        self.built.append((along - length / 2, along + length / 2, left - depth / 2, left + depth / 2))

    def _garden_edge(self, along: float, side: int, length: float) -> None:
        random = self.random
        kind = random.choice(("wall", "hedge", "open", "open"))
        left = side * (self.edge + 0.4)
        if kind == "wall":
            colours = (_vary(random, random.choice(_BRICKS), 0.2),)
            self.add("building", kind, along, left, 0.0, (length * 0.9, 0.25, random.uniform(0.5, 1.7)), colours)
        elif kind == "hedge":
            colours = (_vary(random, random.choice(_LEAVES[:4]), 0.2),)
            self.add("tree", kind, along, left, 0.0, (length * 0.9, 0.8, random.uniform(0.7, 1.8)), colours)

    def vehicles(self) -> None:
        """Rows of parked cars, cars that drive, and cars on the crossing street."""
        random, street = self.random, self.street
        for side in (-1, 1):
            if random.random() < 0.65:
                filled = random.uniform(0.25, 0.95)
                along = random.uniform(1, 8)
                half_parked = random.random() < 0.25  # two wheels on the pavement
                while along < 75:
                    if random.random() < filled and not self.in_crossing(along, 4.0):
                        left = side * (street.half_width - 1.05 + 0.8 * half_parked)
                        turn = random.choice((0.0, math.pi)) + random.gauss(0, 0.03)
                        self._vehicle(along, left, turn, random.choice((*self.kinds, "hatchback", "suv")))
                    along += random.uniform(5.6, 8.0)
            for _ in range(random.choice((0, 1, 1, 2))):
                turn = 0.0 if side < 0 else math.pi
                self._vehicle(
                    random.uniform(5, 60), side * 0.42 * street.half_width, turn, random.choice((*self.kinds, "saloon"))
                )
        if street.crossing_half_width:
            for _ in range(random.randint(0, 3)):
                side = random.choice((-1, 1))
                along = street.crossing + side * street.crossing_half_width / 2
                left = random.uniform(-16, 16)
                self._vehicle(along, left, side * math.pi / 2, random.choice((*self.kinds, "hatchback", "saloon")))

    def _vehicle(self, along: float, left: float, turn: float, kind: str) -> None:
        random = self.random
        length, width, height = (v * random.uniform(0.94, 1.07) for v in CAR_SIZES[kind])
        # A row of discs that overlap covers its rectangle up to the corners.
        steps = math.ceil((length - width) / (0.6 * width))
        reaches = [(i / steps - 0.5) * (length - width) for i in range(steps + 1)]
        discs = [(along + reach * math.cos(turn), left + reach * math.sin(turn)) for reach in reaches]
        if not all(self.free(a, b, 0.6 * width) for a, b in discs):
            return
        # None right before the lens, where it would be all there is to see.
        if abs(left - self.taken[0][1]) < 2.2 and along - length / 2 < 5:
            return
        colours = (_vary(random, random.choice(_PAINTS), 0.15), _vary(random, random.choice(_PAINTS), 0.15))
        self.add("car", kind, along, left, turn, (length, width, height), colours)
        self.taken += [(a, b, 0.58 * width) for a, b in discs]

    def posts_and_trees(self) -> None:
        """Lamps in a row, signs, traffic lights and bollards at the kerb, trees at the kerb and in the gardens."""
        random, street = self.random, self.street
        metal = _vary(random, random.choice(_METALS), 0.2)
        kerb = street.half_width + 0.35
        lamp = random.choice(("lamp", "lamp", "mast"))
        for side in random.choice(((-1,), (1,), (-1, 1))):
            height = random.uniform(5, 8.5)
            along, step = random.uniform(3, 14), random.uniform(12, 22)
            while along < 80:
                self._post(lamp, along, side * kerb, side, height, metal)
                along += step
        for _ in range(random.randint(2, 7)):
            side = random.choice((-1, 1))
            self._post("sign", random.uniform(3.5, 45), side * kerb, side, random.uniform(2.1, 3.1), metal)
        if street.crossing_half_width and random.random() < 0.7:
            for side in (-1, 1):
                near = street.crossing - street.crossing_reach
                self._post("signal", near, side * kerb, side, random.uniform(2.8, 3.8), metal)
        if random.random() < 0.35:
            side, start = random.choice((-1, 1)), random.uniform(2.5, 15)
            for i in range(random.randint(3, 8)):
                self._post("bollard", start + 1.6 * i, side * kerb, side, 0.95, metal)
        leaves = random.choice(_LEAVES)
        for side in (-1, 1):
            if random.random() < 0.55:
                along, step = random.uniform(4, 16), random.uniform(6, 14)
                while along < 85:
                    self._tree(along, side * (kerb + 0.3), leaves, avenue=True)
                    along += step * random.uniform(0.8, 1.2)
        for _ in range(random.randint(3, 10)):
            left = random.choice((-1, 1)) * (self.edge + random.uniform(1.2, 14))
            self._tree(random.uniform(5, 60), left, random.choice(_LEAVES), avenue=False)
        for _ in range(random.randint(3, 10)):  # woods in the distance
            self._tree(random.uniform(90, 150), random.uniform(-60, 60), random.choice(_LEAVES), avenue=False)

    def _post(self, kind: str, along: float, left: float, side: int, height: float, metal: Colour) -> None:
        random = self.random
        if self.in_crossing(along, -0.1) or not self.free(along, left, 0.25):
            return
        colours = (metal, _vary(random, random.choice(_SIGNS), 0.2))
        # Its length points across the street, so that a lamp hangs over the road.
        self.add("pole", kind, along, left, -side * math.pi / 2, (0.2, 0.2, height), colours, radius=0.25)

    def _tree(self, along: float, left: float, leaves: Colour, *, avenue: bool) -> None:
        random = self.random
        kind = "round" if avenue else random.choice(("round", "round", "conifer", "bush"))
        height = random.uniform(1.0, 2.4) if kind == "bush" else random.uniform(4.5, 10)
        width = height * (random.uniform(0.9, 1.4) if kind == "bush" else random.uniform(0.5, 0.8))
        trunk = 0.4 if kind != "bush" else width / 2
        if self.in_crossing(along, trunk) or not self.free(along, left, trunk):
            return
        if any(a - 0.6 < along < b + 0.6 and c - 0.6 < left < d + 0.6 for a, b, c, d in self.built):
            return
        # A crown must not hang before the lens.
        if math.hypot(along, left - self.taken[0][1]) < width / 2 + 1.0:
            return
        bark = _vary(random, (0.2, 0.14, 0.09), 0.3)
        self.add(
            "tree",
            kind,
            along,
            left,
            random.uniform(0, 6),
            (width, width, height),
            (_vary(random, leaves, 0.2), bark),
            radius=trunk,
        )

    def people(self) -> None:
        """People on the pavements, alone and in groups, some on the road; cyclists along the kerb."""
        random, street = self.random, self.street
        for _ in range(random.choice((0, 1, 2, 2, 3, 4))):
            side = random.choice((-1, 1))
            along = self.spread * (3.6 + random.expovariate(1 / 9))
            turn = random.choice((0.0, math.pi)) if random.random() < 0.8 else random.uniform(0, 2 * math.pi)
            left = side * random.uniform(0.1, 0.9) * street.half_width
            self._figure("cyclist", along, left, turn + random.gauss(0, 0.08))
        for _ in range(random.randint(3, 8)):
            along = self.spread * (2.8 + random.expovariate(1 / 10))
            if random.random() < 0.72:
                left = random.choice((-1, 1)) * (street.half_width + random.uniform(0.3, 1.0) * street.pavement_width)
                turn = random.choice((0.0, math.pi)) + random.gauss(0, 0.3)
            else:
                left = random.uniform(-1, 1) * street.half_width
                turn = random.choice((-1, 1)) * math.pi / 2 + random.gauss(0, 0.5)
            for _ in range(random.choice((1, 1, 1, 2, 3))):
                aside = min(max(left + random.gauss(0, 0.5), 0.3 - self.edge), self.edge - 0.3)
                self._figure("person", along + random.gauss(0, 0.5), aside, turn)

    def _figure(self, category: str, along: float, left: float, turn: float) -> None:
        random = self.random
        height = (
            random.uniform(1.1, 1.45) if category == "person" and random.random() < 0.15 else random.gauss(1.72, 0.08)
        )
        radius = 0.75 if category == "cyclist" else 0.3
        if not self.free(along, left, radius):
            return
        top, legs = (_vary(random, random.choice(_CLOTHS), 0.25) for _ in range(2))
        colours = (top, legs, random.choice(_SKINS), random.choice(_HAIRS), _vary(random, random.choice(_CLOTHS), 0.3))
        if category == "cyclist":
            pose, size, kind = cycling(random, height), (1.75, 0.55, 0.95 + 0.47 * height), "bicycle"
        else:
            pose, size = walking(random, height), (0.5, 0.5, height)
            kind = random.choice(("plain", "plain", "coat", "bag", "hat"))
        self.add(category, kind, along, left, turn, size, colours, pose, radius)
