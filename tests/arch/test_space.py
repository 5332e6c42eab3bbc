"""Search spaces: the supernets of the presets, and what a space refuses."""

from collections import Counter
from dataclasses import replace

import pytest

from hrnas.arch.architecture import StemConv
from hrnas.arch.presets import HR, SPACES, search_space
from hrnas.arch.space import SearchSpace, StageSpace
from hrnas.errors import InputError


def test_hr_has_the_blocks_of_the_paper() -> None:
    blocks = dict(HR.supernet(19).blocks())
    assert len(blocks) == 61
    assert Counter(block.is_residual for block in blocks.values()) == {True: 44, False: 17}
    assert all(block.tokens == 64 for block in blocks.values())
    for name, block in blocks.items():
        assert block.kernels == tuple((size, 4 * block.in_channels) for size in (3, 5, 7)), name
    assert (blocks["head.block"].in_channels, blocks["head.block"].out_channels) == (270, 90)


def test_hr_has_the_stages_of_the_paper() -> None:
    architecture = HR.supernet(19)
    assert [conv.out_channels for conv in architecture.stem] == [24, 24]
    stages = [
        ([len(blocks) for blocks in stage.branches], [(path.source, path.target) for path in stage.paths])
        for stage in architecture.stages
    ]
    three = [(0, 0), (1, 0), (0, 1), (1, 1), (2, 1), (1, 2), (2, 2)]
    assert stages == [
        ([1], [(0, 0)]),
        ([2, 2], [(0, 0)]),
        ([2, 2, 3], [(0, 0), (1, 0), (0, 1), (1, 1)]),
        ([2, 2, 3, 4], three),
        ([2, 2, 3, 4], [*three[:-1], (2, 2), (3, 2), (2, 3), (3, 3)]),
    ]
    assert [len(stage.grow) for stage in architecture.stages] == [0, 1, 1, 1, 0]


@pytest.mark.parametrize(("transformers", "expected"), [("none", 0), ("residual", 44), ("all", 61)])
def test_where_transformers_are(transformers: str, expected: int) -> None:
    blocks = [block for _, block in search_space("hr", transformers).supernet(19).blocks()]
    assert sum(block.tokens > 0 for block in blocks) == expected
    if transformers == "residual":
        assert all((block.tokens > 0) == block.is_residual for block in blocks)


def test_a_supernet_without_outputs_has_no_head() -> None:
    assert search_space("hr").supernet(None).head is None
    assert len(list(search_space("hr").supernet(None).blocks())) == 60
    head = search_space("hr").supernet(7).head
    assert head is not None
    assert head.outputs == 7


def test_a_supernet_carries_the_settings_of_its_space() -> None:
    space = replace(
        search_space("hr-small", "all"),
        name="mine",
        kernel_sizes=(5, 3),
        expand_ratio=2,
        head_expand_ratio=3,
        tokens=6,
        token_size=4,
        attention_heads=2,
        dropout=0.2,
        norm_momentum=0.3,
        norm_eps=0.4,
    )
    made = space.supernet(3, in_channels=1)
    assert (made.name, made.in_channels, made.token_size, made.attention_heads) == ("mine", 1, 4, 2)
    assert (made.dropout, made.norm_momentum, made.norm_eps) == (0.2, 0.3, 0.4)
    blocks = dict(made.blocks())
    assert blocks["stages.0.branches.0.0"].kernels == ((3, 32), (5, 32))
    assert blocks["head.block"].kernels == ((3, 540), (5, 540))
    assert {block.tokens for block in blocks.values()} == {6}


def test_presets_by_name() -> None:
    assert sorted(SPACES) == ["hr", "hr-small"]
    assert search_space("hr") is HR
    assert search_space("hr").transformers == "all"
    assert search_space("hr-small").transformers == "none"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hr_small", "Unknown search space 'hr_small'. Did you mean 'hr-small'? Known: hr, hr-small."),
        ("resnet", "Unknown search space 'resnet'. Known: hr, hr-small."),
    ],
)
def test_an_unknown_space_suggests(name: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        search_space(name)
    assert str(caught.value) == message


def test_unknown_transformers_suggest() -> None:
    with pytest.raises(InputError) as caught:
        search_space("hr", "residuals")
    assert str(caught.value) == (
        "Unknown transformers 'residuals'. Did you mean 'residual'? Known: all, none, residual."
    )


ONE_STAGE = (StageSpace(blocks=(1,), channels=(4,)),)
STEM = (StemConv(out_channels=4),)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"expand_ratio": 0}, "Space 'tiny': expand ratios, head_channels and tokens must be at least 1."),
        ({"head_expand_ratio": 0}, "Space 'tiny': expand ratios, head_channels and tokens must be at least 1."),
        ({"head_channels": 0}, "Space 'tiny': expand ratios, head_channels and tokens must be at least 1."),
        ({"tokens": 0}, "Space 'tiny': expand ratios, head_channels and tokens must be at least 1."),
        ({"stem": ()}, "Space 'tiny' has an empty stem; give it at least one convolution."),
        ({"stages": ()}, "Space 'tiny' has stages of [] branches; their number must never fall."),
        (
            {"stages": (StageSpace(blocks=(1, 1), channels=(4, 8)), *ONE_STAGE)},
            "Space 'tiny' has stages of [2, 1] branches; their number must never fall.",
        ),
    ],
)
def test_a_space_refuses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        SearchSpace(**{"name": "tiny", "stem": STEM, "stages": ONE_STAGE, "head_channels": 4, **fields})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("blocks", "channels", "message"),
    [
        ((1, 1), (4,), "a stage has 2 block counts and 1 channel counts; give one of each for every branch."),
        ((), (), "a stage has 0 block counts and 0 channel counts; give one of each for every branch."),
        ((-1,), (4,), "a stage has blocks (-1,), channels (4,); none may be negative."),
        ((1,), (0,), "a stage has blocks (1,), channels (0,); none may be negative."),
    ],
)
def test_a_stage_of_a_space_refuses(blocks: tuple[int, ...], channels: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError) as caught:
        StageSpace(blocks=blocks, channels=channels)
    assert str(caught.value) == message
