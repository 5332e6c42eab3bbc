"""A size in pixels as users write it."""

import re
from typing import NamedTuple


class InputSize(NamedTuple):
    """Height and width in pixels, of the network's input for one; written 180x240."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"

    @classmethod
    def parse(cls, text: object) -> "InputSize":
        """Return the size written as HEIGHTxWIDTH. Raises ValueError otherwise."""
        match = re.fullmatch(r"(\d+)x(\d+)", str(text).strip())
        if match is None or min(int(match[1]), int(match[2])) < 1:
            raise ValueError(f"input size is '{text}'; write HEIGHTxWIDTH, as 180x240 (of clouds: rows and columns)")
        return cls(int(match[1]), int(match[2]))
