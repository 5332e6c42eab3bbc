"""What the names of joints say: which are left and right of each other, and which belong to which part of a body."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Side = Literal["left", "right"]

_SIDES: Final[dict[str, Side]] = {"left": "left", "right": "right", "l": "left", "r": "right"}
_OTHER: Final[dict[Side, Side]] = {"left": "right", "right": "left"}
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+")
_LOWER_BODY: Final = ("hip", "thigh", "leg", "knee", "shin", "calf", "ankle", "foot", "heel", "toe")


@dataclass(frozen=True)
class JointName:
    """A joint's name taken apart: part is the name in small letters without the side, words joined by "_".

    is_said: the side is a word of its own, and not merely written into another word.
    """

    part: str
    side: Side | None = None
    is_said: bool = False


def parse_names(names: Sequence[str]) -> tuple[JointName, ...]:
    """Take names apart, such as left_hip, Left Hip, LHip, hip.r, lhip.

    A side written into a word, as in lhip, counts only where the set also has the other side's joint.
    """
    possible = [list(_readings(name)) for name in names]
    known = {(reading.part, reading.side) for readings in possible for reading in readings}
    chosen = []
    for readings in possible:
        paired = [reading for reading in readings if reading.side and (reading.part, _OTHER[reading.side]) in known]
        said = [reading for reading in readings if reading.is_said]
        chosen.append([*paired, *said, readings[-1]][0])
    return tuple(chosen)


def flip_pairs_of(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Return the joints (left, right) that change places in a mirror image, each joint at most once."""
    places = {(joint.part, joint.side): place for place, joint in enumerate(parse_names(names))}
    return tuple(
        (place, places[part, "right"])
        for (part, side), place in places.items()
        if side == "left" and (part, "right") in places
    )


def without_partner(names: Sequence[str]) -> str | None:
    """Return a name that says left or right while no joint is its other side; None where there is none."""
    paired = {place for pair in flip_pairs_of(names) for place in pair}
    for place, joint in enumerate(parse_names(names)):
        if joint.is_said and place not in paired:
            return names[place]
    return None


def find_joint(names: Sequence[str], part: str, side: Side | None = None) -> int | None:
    """Return the joint of this part of the body and side; None where no name says so."""
    for place, joint in enumerate(parse_names(names)):
        if joint.part == part and joint.side == side:
            return place
    return None


def lower_body(names: Sequence[str]) -> tuple[int, ...] | None:
    """Return the joints from the hips down; None where the names do not tell upper from lower."""
    lower = tuple(place for place, name in enumerate(names) if any(word in name.lower() for word in _LOWER_BODY))
    return lower if 0 < len(lower) < len(names) else None


def _readings(name: str) -> Iterator[JointName]:
    """Yield the ways to read one name, the likeliest first; the last one is always without a side."""
    words = [word.lower() for word in _WORD.findall(name)] or [name.lower()]
    sides = [word for word in words if word in _SIDES]
    if len(sides) == 1 and len(words) > 1:
        rest = [word for word in words if word not in _SIDES]
        yield JointName("_".join(rest), _SIDES[sides[0]], is_said=True)
    for text, side in _SIDES.items():
        if words[0].startswith(text) and words[0] != text:
            yield JointName("_".join([words[0][len(text) :], *words[1:]]), side)
        if words[-1].endswith(text) and words[-1] != text:
            yield JointName("_".join([*words[:-1], words[-1][: -len(text)]]), side)
    yield JointName("_".join(words))
