"""Fields of data.yaml about the joints of a pose set: names, flip_pairs, skeleton, sigmas.

All of them may be left out: the keypoint file of the training split then says what it knows (`read_skeleton`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrnas.data.coco_keypoints import read_skeleton
from hrnas.data.fields import Fields
from hrnas.errors import InputError, did_you_mean
from hrnas.structures import Skeleton

KEYS = ("names", "flip_pairs", "skeleton", "sigmas")


@dataclass(frozen=True, kw_only=True)
class GivenJoints:
    """What data.yaml says about the joints; pairs are of names. None: the keypoint file's.

    names: of all joints, in the file's order. flip_pairs: joints that change places in a mirror image.
    bones: joints that a drawing joins. sigmas: by joint.
    """

    names: tuple[str, ...] | None = None
    flip_pairs: tuple[tuple[str, str], ...] | None = None
    bones: tuple[tuple[str, str], ...] | None = None
    sigmas: Mapping[str, float] | tuple[float, ...] | None = None

    @classmethod
    def of(cls, fields: Fields) -> "GivenJoints":
        """Read the fields; whether the joints exist is for `completed` to see."""
        return cls(
            names=_joint_names(fields),
            flip_pairs=_pairs(fields, "flip_pairs"),
            bones=_pairs(fields, "skeleton"),
            sigmas=_sigmas(fields),
        )

    def completed(self, file: Path, where: str) -> Skeleton:
        """Return the skeleton of a keypoint file with what was given in the place of the file's.

        Raises InputError for a file that cannot be used, and for a joint it does not have.
        """
        known = read_skeleton(file, flip_pairs=None if self.flip_pairs is None else ()).names
        if self.names is not None and self.names != known:
            raise InputError(
                f"{where}: 'names' has {len(self.names)} joints, {', '.join(self.names)}; {file} has {len(known)}, "
                f"{', '.join(known)}. Leave 'names' out, or mend it."
            )

        sigmas = self.sigmas
        if isinstance(sigmas, Mapping):
            for name in sigmas:
                _place(where, "sigmas", name, known)
            if missing := [name for name in known if name not in sigmas]:
                raise InputError(f"{where}: 'sigmas' has no '{missing[0]}'; one for every joint is needed. Add it.")
            sigmas = tuple(sigmas[name] for name in known)
        if sigmas is not None and len(sigmas) != len(known):
            raise InputError(
                f"{where}: 'sigmas' has {len(sigmas)} numbers; {file} has {len(known)} joints. Give one for each."
            )
        return read_skeleton(
            file,
            flip_pairs=_places(where, "flip_pairs", self.flip_pairs, known),
            bones=_places(where, "skeleton", self.bones, known),
            sigmas=sigmas,
        )


def whole_skeleton(fields: Fields) -> Skeleton | None:
    """Return the skeleton that the fields give in full, as a run's config.yaml does; None where one is left out."""
    if any(fields.get(key) is None for key in KEYS):
        return None
    given = GivenJoints.of(fields)
    known = given.names or ()
    sigmas = given.sigmas
    if isinstance(sigmas, Mapping):
        sigmas = tuple(sigmas.get(name, 0.0) for name in known)
    if sigmas is None or len(sigmas) != len(known) or min(sigmas) <= 0:
        raise fields.wrong("sigmas", fields["sigmas"], "a positive number for every joint of names")
    return Skeleton(
        names=known,
        flip_pairs=_places(fields.where, "flip_pairs", given.flip_pairs, known) or (),
        bones=_places(fields.where, "skeleton", given.bones, known) or (),
        sigmas=sigmas,
    )


def skeleton_fields(skeleton: Skeleton) -> dict[str, Any]:
    """Return plain values from which `whole_skeleton` makes the same skeleton."""
    names = skeleton.names
    return {
        "names": list(names),
        "flip_pairs": [[names[first], names[second]] for first, second in skeleton.flip_pairs],
        "skeleton": [[names[first], names[second]] for first, second in skeleton.bones],
        "sigmas": list(skeleton.sigmas),
    }


def _joint_names(fields: Fields) -> tuple[str, ...] | None:
    names = fields.get("names")
    if names is None:
        return None
    if not isinstance(names, list) or not names:
        raise fields.wrong("names", names, "a list of joint names")
    return tuple(fields.text_value(f"names[{place}]", name) for place, name in enumerate(names))


def _place(where: str, field: str, name: str, known: tuple[str, ...]) -> int:
    if name not in known:
        raise InputError(f"{where}: '{field}' has the unknown joint '{name}'. {did_you_mean(name, known)}")
    return known.index(name)


def _places(
    where: str, field: str, pairs: tuple[tuple[str, str], ...] | None, known: tuple[str, ...]
) -> tuple[tuple[int, int], ...] | None:
    if pairs is None:
        return None
    return tuple((_place(where, field, first, known), _place(where, field, second, known)) for first, second in pairs)


def _pairs(fields: Fields, key: str) -> tuple[tuple[str, str], ...] | None:
    value = fields.get(key)
    if value is None:
        return None
    need = "a list of pairs of joint names, such as [[left_hip, right_hip]]"
    if not isinstance(value, list):
        raise fields.wrong(key, value, need)
    pairs = []
    for place, pair in enumerate(value):
        if not isinstance(pair, list) or len(pair) != 2 or pair[0] == pair[1]:
            raise fields.wrong(f"{key}[{place}]", pair, "a pair of two joint names")
        first, second = (fields.text_value(f"{key}[{place}]", name) for name in pair)
        pairs.append((first, second))
    return tuple(pairs)


def _sigmas(fields: Fields) -> Mapping[str, float] | tuple[float, ...] | None:
    value = fields.get("sigmas")
    if value is None:
        return None
    values = list(value.values()) if isinstance(value, Mapping) else value
    if not isinstance(values, list) or not all(
        isinstance(number, int | float) and not isinstance(number, bool) and number > 0 for number in values
    ):
        raise fields.wrong("sigmas", value, "a list of positive numbers, one a joint, or a mapping of joint to number")
    return (
        {str(name): float(number) for name, number in value.items()}
        if isinstance(value, Mapping)
        else tuple(map(float, values))
    )
