"""The search spaces that come with hrnas, by name."""

from dataclasses import replace
from typing import Final

from hrnas.arch.architecture import StemConv
from hrnas.arch.space import SearchSpace, StageSpace
from hrnas.errors import InputError, did_you_mean

HR: Final = SearchSpace(
    name="hr",
    stem=(StemConv(out_channels=24), StemConv(out_channels=24)),
    stages=(
        StageSpace(blocks=(1,), channels=(24,)),
        StageSpace(blocks=(2, 2), channels=(18, 36)),
        StageSpace(blocks=(2, 2, 3), channels=(18, 36, 72)),
        StageSpace(blocks=(2, 2, 3, 4), channels=(18, 36, 72, 144)),
        StageSpace(blocks=(2, 2, 3, 4), channels=(18, 36, 72, 144)),
    ),
    head_channels=90,
    transformers="all",
)
"""The paper's space: 61 search blocks, 64 tokens in each."""

HR_SMALL: Final = SearchSpace(
    name="hr-small",
    stem=(StemConv(out_channels=16), StemConv(out_channels=16)),
    stages=(
        StageSpace(blocks=(1,), channels=(16,)),
        StageSpace(blocks=(1, 1), channels=(12, 24)),
        StageSpace(blocks=(1, 1, 2), channels=(12, 24, 48)),
        StageSpace(blocks=(1, 1, 2, 2), channels=(12, 24, 48, 96)),
    ),
    head_channels=48,
    expand_ratio=2,
    head_expand_ratio=1,
)
"""The paper's layout, narrower, one stage shorter and without transformers: for CPU work and demonstrations."""

SPACES: Final[dict[str, SearchSpace]] = {space.name: space for space in (HR, HR_SMALL)}


def search_space(name: str, transformers: str | None = None) -> SearchSpace:
    """Return the space of that name; `transformers` overrides where it has them. Raises InputError if unknown."""
    if name not in SPACES:
        raise InputError(f"Unknown search space '{name}'. {did_you_mean(name, SPACES)}")
    space = SPACES[name]
    return space if transformers is None else replace(space, transformers=transformers)
