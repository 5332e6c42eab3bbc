"""Reading one image or one mask file with Pillow, and turning the file's label values into class indices.

H height, W width in pixels.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from hrnas.errors import InputError
from hrnas.structures import IGNORED

Values = NDArray[np.integer[Any]] | NDArray[np.bool_]
"""What a mask file holds: label values of 1, 8, 16 or 32 bits."""

IMAGE_ENDINGS: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})

UNKNOWN: Final = 254
"""What a value that no class covers becomes; it never leaves this package's error reports and pictures."""

_TABLE_SIZE: Final = 65_536
_MASK_MODES: Final = frozenset({"P", "L", "1", "I", "I;16", "I;16L", "I;16B", "I;16N"})
_WIDE_MODES: Final = frozenset({"F", "I", "I;16", "I;16L", "I;16B", "I;16N"})
_BROKEN: Final = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


@contextmanager
def _decoding(file: Path, what: str) -> Iterator[None]:
    """Turn what Pillow raises for a bad file into one line that names it."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{what} {file} does not exist. Restore it, or take it out of its split.") from error
    except PermissionError as error:
        raise InputError(f"{what} {file} may not be read (permission denied). Change its permissions.") from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"{what} {file} is not a picture Pillow can read, or its beginning is corrupt. Replace it, or take it out"
            " of its split."
        ) from error
    except _BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{what} {file} is corrupt or truncated ({reason}). Replace it, or take it out of its split."
        ) from error


def picture_size(file: Path, what: str) -> tuple[int, int]:
    """Return (H, W) from a file's header alone. Raises InputError naming the file; `what` is "Image" or "Mask"."""
    with _decoding(file, what), Image.open(file) as picture:
        return picture.height, picture.width


def read_image(file: Path) -> NDArray[np.uint8]:
    """Return an image file as RGB, uint8 (H, W, 3), in the file's own orientation (EXIF rotation is not applied).

    Raises InputError naming the file when it is broken or has more than 8 bits per channel.
    """
    with _decoding(file, "Image"), Image.open(file) as picture:
        if picture.mode in _WIDE_MODES:
            raise InputError(
                f"Image {file} has more than 8 bits per channel (Pillow mode {picture.mode}); it must have 8."
                " Convert it, choosing how its values map to 0..255."
            )
        if "transparency" in picture.info:
            # Straight to RGB, Pillow would warn about a palette with transparency.
            return np.array(picture.convert("RGBA").convert("RGB"))
        return np.array(picture.convert("RGB"))


def read_values(file: Path) -> Values:
    """Return the label values a mask file holds, (H, W); palette masks as indices and never as colours.

    Raises InputError naming the file when it is broken or is a colour picture.
    """
    with _decoding(file, "Mask"), Image.open(file) as picture:
        if picture.mode not in _MASK_MODES:
            raise InputError(
                f"Mask {file} is a picture of mode {picture.mode}; it must hold one label value per pixel (palette or"
                " grey). Convert its colours to class indices and store it as a PNG of mode P or L."
            )
        return np.array(picture)


@dataclass(frozen=True)
class LabelTable:
    """What each label value of a file means: `table[value]` is a class index, IGNORED or UNKNOWN."""

    table: NDArray[np.uint8]

    @classmethod
    def build(
        cls, num_classes: int, ignore: tuple[int, ...], label_map: Mapping[int, int | None] | None
    ) -> "LabelTable":
        """Make the table of a data description (see `DataDescription`)."""
        table = np.full(_TABLE_SIZE, UNKNOWN, np.uint8)
        if label_map is None:
            table[:num_classes] = np.arange(num_classes)
        else:
            for value, target in label_map.items():
                table[value] = IGNORED if target is None else target
        table[list(ignore)] = IGNORED
        return cls(table)

    def apply(self, values: Values) -> NDArray[np.uint8]:
        """Return class indices uint8 (H, W) for file values (H, W); UNKNOWN where no class covers the value."""
        if values.dtype.itemsize > 2:  # 32-bit files may hold what no table has a place for
            inside = (values >= 0) & (values < _TABLE_SIZE)
            return np.where(inside, self.table.take(np.where(inside, values, 0)), np.uint8(UNKNOWN))
        return self.table.take(values)

    def unknown(self, values: Values, mask: NDArray[np.uint8]) -> dict[int, int]:
        """Return how many pixels hold each value that `apply` found UNKNOWN, by value."""
        seen, counts = np.unique(values[mask == UNKNOWN], return_counts=True)
        return {int(value): int(count) for value, count in zip(seen, counts, strict=True)}


def read_mask(file: Path, labels: LabelTable) -> NDArray[np.uint8]:
    """Return a mask file as class indices uint8 (H, W), IGNORED where void.

    Raises InputError naming the file when it is broken, is a colour picture or holds values no class covers.
    """
    values = read_values(file)
    mask = labels.apply(values)
    if (mask == UNKNOWN).any():
        unknown = labels.unknown(values, mask)
        raise InputError(f"Mask {file} holds {describe_unknown(unknown)}. {UNKNOWN_REMEDY}")
    return mask


UNKNOWN_REMEDY: Final = "Add their classes to names, list them in ignore, or map them in label_map."


def describe_unknown(pixels_by_value: Mapping[int, int], most: int = 8) -> str:
    """Return "label values no class covers: 12 (3 pixels), 40 (1 pixel)", the `most` frequent ones."""
    ranked = sorted(pixels_by_value.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{value} ({count} pixel{'s' * (count != 1)})" for value, count in ranked[:most]]
    if len(ranked) > most:
        shown.append(f"and {len(ranked) - most} more values")
    return f"label values no class covers: {', '.join(shown)}"
