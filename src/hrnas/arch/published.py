"""The searched ImageNet network that was published with HR-NAS (2021): its hidden channels; no weights were.

Facts read off its block list; widths and strides are those of the space `hr` with a head of classes.
"""

from dataclasses import replace
from typing import Final

from hrnas.arch.architecture import Architecture
from hrnas.arch.presets import HR
from hrnas.arch.space import SearchSpace

PUBLISHED: Final[dict[str, SearchSpace]] = {
    space.name: space
    for space in (
        replace(HR, name="hrnas-imagenet", transformers="none"),
        replace(HR, name="hrnas-imagenet-se", transformers="none", squeeze_ratio=0.5, activation="swish"),
    )
}
"""The space each published network lies in, by the network's name: plain; with squeeze-excitation and Swish."""

CLASSES: Final = 1000
"""Outputs of the published networks: the classes of ImageNet."""

# fmt: off
_CHANNELS: Final = (
    (32, 12, 1), (28, 7, 5), (28, 8, 1), (31, 29, 30), (11, 4, 0), (1, 0, 0), (14, 19, 17), (18, 12, 7), (8, 1, 0),
    (3, 0, 1), (15, 17, 17), (24, 19, 8), (62, 82, 86), (0, 0, 0), (0, 0, 0), (14, 15, 6), (14, 8, 3), (39, 42, 58),
    (53, 21, 30), (66, 49, 52), (1, 0, 0), (1, 0, 1), (3, 6, 2), (8, 2, 2), (20, 9, 19), (62, 65, 42), (71, 52, 45),
    (180, 142, 158), (0, 0, 0), (0, 0, 0), (2, 1, 3), (1, 4, 1), (36, 26, 17), (21, 22, 7), (20, 16, 15),
    (66, 48, 124), (74, 61, 136), (76, 48, 123), (128, 59, 128), (0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 0, 1), (8, 3, 5),
    (17, 23, 20), (39, 9, 9), (92, 33, 105), (145, 142, 153), (147, 75, 82), (0, 0, 0), (0, 0, 0), (0, 1, 3),
    (1, 0, 1), (27, 13, 15), (18, 6, 22), (22, 10, 19), (158, 83, 98), (178, 110, 124), (175, 122, 158),
    (127, 96, 143), (0, 0, 0), (0, 2, 7), (25, 40, 20), (45, 44, 170), (0, 0, 0), (3, 14, 11), (29, 22, 108),
)
# fmt: on
"""Hidden channels of kernels 3, 5 and 7 of every block, in the order of `Architecture.blocks()`; 0: no such path."""


def published_network(name: str, outputs: int = CLASSES, in_channels: int = 3) -> Architecture:
    """Return the published network of that name, a key of PUBLISHED, for so many classes."""
    supernet = PUBLISHED[name].supernet(outputs, in_channels, head="classes")
    changed = {}
    for (block_name, block), channels in zip(supernet.blocks(), _CHANNELS, strict=True):
        kernels = tuple((size, width) for size, width in zip((3, 5, 7), channels, strict=True) if width)
        changed[block_name] = block.with_kernels(kernels)
    return supernet.with_blocks(changed)
