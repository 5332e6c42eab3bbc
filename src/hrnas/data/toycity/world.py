"""The world as data: what stands where, under which light, and where the camera is. Frame and units: see street.py."""

from dataclasses import dataclass
from typing import Final

from hrnas.data.toycity.figure import Pose
from hrnas.data.toycity.street import Street

Colour = tuple[float, float, float]
"""Linear red, green and blue, 0..1."""

NAMES: Final = (
    "road", "pavement", "ground", "building", "sky", "tree", "pole", "car", "person", "cyclist",
)  # fmt: skip
"""The classes, in the order of their indices. `ground` is grass and earth, `tree` all else that grows, `pole` lamps and
signs too, `car` vans, lorries and buses too, `building` garden walls too, `cyclist` rider and bicycle."""


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One object of the world.

    category: one of NAMES. kind: the shape within the category. position: x and y of the middle of its footprint, which
    stands on the ground. heading: of its length. size: length, width and height in metres.
    colours: what they paint depends on the category. seed: of the details of its shape and texture.
    pose: of a person or a cyclist.
    """

    category: str
    kind: str
    position: tuple[float, float]
    heading: float
    size: tuple[float, float, float]
    colours: tuple[Colour, ...]
    seed: int
    pose: Pose | None = None


@dataclass(frozen=True, kw_only=True)
class Light:
    """Sun, sky and air. Colours are linear.

    sun: unit vector toward the sun. sun_colour, sky_colour: light from the sun and from the sky around.
    zenith, horizon: colours of the clear sky. clouds: share of the sky they cover.
    haze: metres after which 1/e of the light is left.
    """

    sun: tuple[float, float, float]
    sun_colour: Colour
    sky_colour: Colour
    zenith: Colour
    horizon: Colour
    clouds: float
    haze: float


@dataclass(frozen=True, kw_only=True)
class View:
    """The camera: position in metres; heading, pitch (up), roll (clockwise) and horizontal field of view in radians."""

    position: tuple[float, float, float]
    heading: float
    pitch: float
    roll: float
    field_of_view: float


@dataclass(frozen=True, kw_only=True)
class World:
    """All of it. `grass` and `asphalt` tint the ground; seed is of its texture."""

    street: Street
    things: tuple[Thing, ...]
    light: Light
    view: View
    grass: Colour
    asphalt: Colour
    seed: int
