"""The lie of the land: one street along a circular arc, its pavements, and a street that may cross it.

World frame: metres, right-handed, x ahead along the street at its start, y left, z up, the ground at z = 0. Headings
are radians counter-clockwise from x, seen from above. Street frame: metres along the centre line, metres left of it.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Street:
    """The street as numbers, in metres.

    radius: of the centre line's arc; positive bends left, negative right.
    half_width: from the centre line to the kerb. pavement_width: from the kerb outward.
    crossing: where along the street the crossing street's centre line lies; crossing_half_width: 0 for no crossing.
    centre_line, edge_lines, zebra: which markings are painted; a centre line is "none", "dashed" or "solid".
    """

    radius: float
    half_width: float
    pavement_width: float
    crossing: float
    crossing_half_width: float
    centre_line: str
    edge_lines: bool
    zebra: bool

    @property
    def crossing_reach(self) -> float:
        """Half the length of street that the crossing takes, its own pavements included."""
        return self.crossing_half_width + self.pavement_width if self.crossing_half_width else 0.0

    def to_world(self, along: float, left: float) -> tuple[float, float, float]:
        """Return x, y and the street's heading at street coordinates."""
        angle = along / self.radius
        reach = self.radius - left
        return reach * math.sin(angle), self.radius - reach * math.cos(angle), angle

    def to_street(self, x: F64, y: F64) -> tuple[F64, F64]:
        """Return the street coordinates of world points; the inverse of `to_world` for half a turn either way."""
        side = math.copysign(1.0, self.radius)
        along = self.radius * np.arctan2(side * x, side * (self.radius - y))
        return along, self.radius - side * np.hypot(x, self.radius - y)

    def surface(self, along: F64, left: F64) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Tell where the ground is road and where it is pavement; the rest is grass."""
        to_centre, to_crossing = np.abs(left), np.abs(along - self.crossing)
        road = (to_centre < self.half_width) | (to_crossing < self.crossing_half_width)
        paved = (to_centre < self.half_width + self.pavement_width) | (to_crossing < self.crossing_reach)
        return road, paved & ~road
