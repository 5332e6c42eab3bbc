"""The search spaces that come with hrnas, by name."""

from dataclasses import replace
from typing import Any, Final

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
    class_channels=(36, 72, 144, 320),
    transformers="all",
)
"""The paper's space: 61 search blocks, or 67 with a head of classes, 64 tokens in each."""

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
    class_channels=(16, 32, 64, 128),
    class_features=256,
    expand_ratio=2,
    head_expand_ratio=1,
)
"""The paper's layout, narrower, one stage shorter and without transformers: for CPU work and demonstrations."""

SPACES: Final[dict[str, SearchSpace]] = {space.name: space for space in (HR, HR_SMALL)}


def search_space(
    name: str,
    transformers: str | None = None,
    *,
    head_channels: int | None = None,
    activation: str | None = None,
    squeeze_ratio: float | None = None,
    norm_momentum: float | None = None,
    norm_eps: float | None = None,
    stem_stride: int | None = None,
) -> SearchSpace:
    """Return the space of that name; what is not None takes the place of the space's own (`SearchSpace`).

    stem_stride: of the whole stem, the stride of branch 0: its first convolutions have stride 2, the others 1.
    Raises InputError for an unknown name or a value the space refuses.
    """
    if name not in SPACES:
        raise InputError(f"Unknown search space '{name}'. {did_you_mean(name, SPACES)}")
    given = {
        "transformers": transformers,
        "head_channels": head_channels,
        "activation": activation,
        "squeeze_ratio": squeeze_ratio,
        "norm_momentum": norm_momentum,
        "norm_eps": norm_eps,
    }
    changed: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    if stem_stride is not None:
        changed["stem"] = _strided(SPACES[name].stem, stem_stride)
    return replace(SPACES[name], **changed) if changed else SPACES[name]


def _strided(stem: tuple[StemConv, ...], stride: int) -> tuple[StemConv, ...]:
    possible = [2**halvings for halvings in range(len(stem) + 1)]
    if stride not in possible:
        raise InputError(f"stem_stride is {stride}; a stem of {len(stem)} convolutions has one of {possible}.")
    halvings = possible.index(stride)
    return tuple(replace(conv, stride=2 if place < halvings else 1) for place, conv in enumerate(stem))
