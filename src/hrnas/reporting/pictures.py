"""Prediction pictures as data URIs of bounded size."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from PIL import Image

from hrnas.reporting.record import Picture

MAX_PICTURES: Final = 12
MAX_WIDTH: Final = 1080
"""Pixels across the panels of a picture; wider ones are made smaller."""
MAX_BYTES: Final = 160_000
"""Of one picture's file; a larger one is made smaller until it fits."""

NARROW: Final = 1.6
"""Width over height below which a picture is narrow: one panel, or two that are upright."""


@dataclass(frozen=True, kw_only=True)
class EmbeddedPicture:
    """A picture for the page. uri: a data URI; None when the file is no picture."""

    name: str
    uri: str | None
    width: int
    height: int

    @property
    def is_narrow(self) -> bool:
        """True for a picture that needs no more than a quarter of the page's width."""
        return self.width < NARROW * self.height


def embed(pictures: Sequence[Picture]) -> dict[str, list[EmbeddedPicture]]:
    """Return at most MAX_PICTURES pictures by split, each split its share, spread evenly over its files."""
    by_split = {split: list(group) for split, group in groupby(pictures, key=lambda picture: picture.split)}
    chosen: dict[str, list[EmbeddedPicture]] = {}
    room = MAX_PICTURES
    # Splits with few pictures go first, so that what they leave is shared among the others.
    for index, split in enumerate(sorted(by_split, key=lambda name: (len(by_split[name]), name))):
        group = by_split[split]
        count = min(len(group), room // (len(by_split) - index))
        room -= count
        chosen[split] = [_embed(group[place * len(group) // count]) for place in range(count)]
    return {split: chosen[split] for split in by_split if chosen[split]}


def _embed(picture: Picture) -> EmbeddedPicture:
    try:
        content = picture.path.read_bytes()
        with Image.open(io.BytesIO(content)) as opened:
            image = opened.convert("RGB")
    except (OSError, SyntaxError, ValueError):
        # A killed `predict` may leave half a file: the page says so in its place.
        return EmbeddedPicture(name=picture.name, uri=None, width=0, height=0)
    kind = "png"
    if len(content) > MAX_BYTES or image.width > MAX_WIDTH:
        kind, (content, image) = "jpeg", _shrink(image)
    uri = f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
    return EmbeddedPicture(name=picture.name, uri=uri, width=image.width, height=image.height)


def _shrink(image: Image.Image) -> tuple[bytes, Image.Image]:
    width = min(image.width, MAX_WIDTH)
    while True:
        small = image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=88, optimize=True)
        if buffer.tell() <= MAX_BYTES or width <= 64:
            return buffer.getvalue(), small
        width = width * 3 // 4
