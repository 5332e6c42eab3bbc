"""Search spaces: the supernets of the presets, and what a space refuses."""

from collections import Counter
from dataclasses import replace

import pytest

from hrnas.arch.architecture import AnchorHead, ClassHead, Pillars, StemConv
from hrnas.arch.presets import HR, HR_SMALL, SPACES, search_space
from hrnas.arch.space import SearchSpace, StageSpace
from hrnas.costing.analytic import cost
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


def test_hr_with_a_head_of_classes_has_the_blocks_of_the_paper() -> None:
    architecture = search_space("hr").supernet(1000, head="classes")
    blocks = dict(architecture.blocks())
    assert len(blocks) == 67
    heads = [(name, block.in_channels, block.out_channels, block.stride) for name, block in blocks.items()][60:]
    assert heads == [
        ("head.widen.0", 18, 36, 1),
        ("head.widen.1", 36, 72, 1),
        ("head.widen.2", 72, 144, 1),
        ("head.widen.3", 144, 320, 1),
        ("head.down.0", 36, 72, 2),
        ("head.down.1", 72, 144, 2),
        ("head.down.2", 144, 320, 2),
    ]
    assert all(block.kernels == tuple((size, 4 * block.in_channels) for size in (3, 5, 7)) for block in blocks.values())
    head = architecture.head
    assert isinstance(head, ClassHead)
    assert (head.features, head.outputs, head.dropout) == (1600, 1000, 0.2)


def test_the_small_head_of_classes_costs_little() -> None:
    architecture = search_space("hr-small").supernet(10, head="classes")
    backbone = cost(replace(architecture, head=None), (64, 64))
    assert cost(architecture, (64, 64)).macs < 1.2 * backbone.macs


def test_squeeze_excitation_has_a_share_of_the_input_and_at_least_one() -> None:
    architecture = search_space("hr-small", squeeze_ratio=0.3).supernet(3, in_channels=1, head="classes")
    assert {(block.in_channels, block.squeeze) for _, block in architecture.blocks()} == {
        *((12, 4), (16, 5), (24, 7), (32, 10), (48, 14), (64, 19), (96, 29)),
    }
    least = search_space("hr-small", squeeze_ratio=0.01).supernet(3)
    assert {block.squeeze for _, block in least.blocks()} == {1, 2}


def test_what_is_given_takes_the_place_of_the_spaces_own() -> None:
    given = {"head_channels": 7, "activation": "swish", "squeeze_ratio": 0.25, "norm_momentum": 0.1, "norm_eps": 1e-5}
    for name, value in given.items():
        assert search_space("hr-small", **{name: value}) == replace(HR_SMALL, **{name: value})
    assert search_space("hr", "none", **given) == replace(HR, transformers="none", **given)
    made = search_space("hr-small", **given).supernet(3)
    assert (made.activation, made.norm_momentum, made.norm_eps) == ("swish", 0.1, 1e-5)
    assert made.head is not None
    assert made.head.block.out_channels == 7
    with pytest.raises(InputError, match=r"Unknown activation 'x'\. Known: relu, swish\."):
        search_space("hr", activation="x").supernet(3)


def test_a_head_the_space_does_not_have_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"Unknown head 'denze'\. Did you mean 'dense'\? Known: anchors, classes, dense\."
    ):
        HR.supernet(3, head="denze")
    for space, got, needed in ((replace(HR, class_channels=()), 0, 4), (replace(HR, stages=HR.stages[:2]), 4, 2)):
        assert space.supernet(3).head is not None
        words = f"Space 'hr' has {got} class_channels; a head of classes needs one for each of its {needed} branches"
        with pytest.raises(InputError, match=words):
            space.supernet(3, head="classes")


def test_the_head_of_anchors_and_the_stride_of_the_stem() -> None:
    for stride, strides in ((4, [2, 2]), (2, [2, 1]), (1, [1, 1])):
        architecture = search_space("hr-small", stem_stride=stride).supernet(3, head="anchors", pillars=Pillars())
        assert [conv.stride for conv in architecture.stem] == strides
        assert architecture.features[0].stride == stride
    assert architecture.in_channels == 64
    assert architecture.head == AnchorHead(outputs=3)
    assert architecture.head.channels == 6 * (3 + 7 + 2)
    with pytest.raises(InputError, match=r"stem_stride is 3; a stem of 2 convolutions has one of \[1, 2, 4\]"):
        search_space("hr", stem_stride=3)


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
        ({"squeeze_ratio": -0.5}, "Space 'tiny': squeeze_ratio is -0.5; it must be 0 or a positive number."),
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
