"""What an architecture says about itself."""

from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from architectures import architectures
from hrnas.arch.architecture import Architecture, Block, Feature
from hrnas.arch.description import BlockRow, describe
from hrnas.arch.presets import search_space


@pytest.mark.parametrize(
    ("in_channels", "out_channels", "stride", "is_residual", "groups"),
    [(6, 6, 1, True, 6), (6, 9, 1, False, 3), (6, 6, 2, False, 6), (18, 36, 2, False, 18), (5, 7, 1, False, 1)],
)
def test_skip(in_channels: int, out_channels: int, stride: int, is_residual: bool, groups: int) -> None:
    block = Block(in_channels=in_channels, out_channels=out_channels, stride=stride)
    assert (block.is_residual, block.skip_groups) == (is_residual, groups)


def test_hidden_channels_are_those_of_all_kernels() -> None:
    assert Block(in_channels=1, out_channels=1, kernels=((3, 5), (7, 2))).hidden_channels == 7
    assert Block(in_channels=1, out_channels=1).hidden_channels == 0


def test_features_follow_the_last_block_of_each_branch() -> None:
    architecture = search_space("hr-small").supernet(None)
    wider = Block(in_channels=96, out_channels=100)
    last = max(name for name, _ in architecture.blocks() if name.startswith("stages.3.branches.3."))
    assert architecture.with_blocks({last: wider}).features == (
        Feature(channels=12, stride=4),
        Feature(channels=24, stride=8),
        Feature(channels=48, stride=16),
        Feature(channels=100, stride=32),
    )


@pytest.mark.parametrize(("strides", "expected"), [((2, 2), 4), ((2, 1), 2), ((1, 1), 1), ((2,), 2)])
def test_strides_of_features_follow_the_stem(strides: tuple[int, ...], expected: int) -> None:
    architecture = search_space("hr-small").supernet(None)
    stem = tuple(replace(architecture.stem[-1], stride=stride) for stride in strides)
    features = replace(architecture, stem=stem).features
    assert [feature.stride for feature in features] == [expected, 2 * expected, 4 * expected, 8 * expected]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(architecture=architectures(), data=st.data())
def test_with_blocks_changes_the_named_block_only(architecture: Architecture, data: st.DataObject) -> None:
    blocks = dict(architecture.blocks())
    name = data.draw(st.sampled_from(sorted(blocks)))
    new = replace(blocks[name], tokens=blocks[name].tokens + 1)
    changed = architecture.with_blocks({name: new})
    assert dict(changed.blocks()) == {**blocks, name: new}
    assert [name for name, _ in changed.blocks()] == [name for name, _ in architecture.blocks()]
    assert changed.with_blocks({name: blocks[name]}) == architecture
    assert architecture.with_blocks({}) == architecture


def test_with_blocks_reaches_every_block_of_a_head_of_classes() -> None:
    architecture = search_space("hr-small").supernet(4, head="classes")
    changed = {name: replace(block, tokens=3) for name, block in architecture.blocks() if name.startswith("head.")}
    assert len(changed) == 7
    assert dict(architecture.with_blocks(changed).blocks()) == {**dict(architecture.blocks()), **changed}


def test_with_blocks_refuses_a_name_that_is_not_there() -> None:
    architecture = search_space("hr-small").supernet(4)
    with pytest.raises(AssertionError, match=r"no such blocks: \['head.blok'\]"):
        architecture.with_blocks({"head.blok": Block(in_channels=1, out_channels=1)})


def test_an_architecture_cannot_be_changed_and_is_hashable() -> None:
    architecture = search_space("hr-small").supernet(4)
    with pytest.raises(FrozenInstanceError):
        architecture.name = "other"  # type: ignore[misc]
    assert {architecture: 1}[search_space("hr-small").supernet(4)] == 1


def test_description_has_a_row_for_every_block() -> None:
    architecture = search_space("hr", "residual").supernet(19)
    cut = Block(in_channels=18, out_channels=18, kernels=((5, 7),), tokens=3)
    empty = Block(in_channels=36, out_channels=36, shift=True)
    architecture = architecture.with_blocks({"stages.1.branches.0.1": cut, "stages.1.branches.1.0": empty})
    rows = {row.name: row for row in describe(architecture)}
    assert list(rows) == [name for name, _ in architecture.blocks()]
    assert [rows[name] for name in ("stages.0.fusion.paths.0", "stages.1.fusion.grow.0", "head.block")] == [
        BlockRow(
            name="stages.0.fusion.paths.0",
            in_channels=24,
            out_channels=24,
            stride=1,
            widths={3: 96, 5: 96, 7: 96},
            tokens=64,
            squeeze=0,
        ),
        BlockRow(
            name="stages.1.fusion.grow.0",
            in_channels=18,
            out_channels=36,
            stride=2,
            widths={3: 72, 5: 72, 7: 72},
            tokens=0,
            squeeze=0,
        ),
        BlockRow(
            name="head.block",
            in_channels=270,
            out_channels=90,
            stride=1,
            widths={3: 1080, 5: 1080, 7: 1080},
            tokens=0,
            squeeze=0,
        ),
    ]
    assert (rows["stages.1.branches.0.1"].widths, rows["stages.1.branches.0.1"].tokens) == ({3: 0, 5: 7, 7: 0}, 3)
    assert (rows["stages.1.branches.1.0"].widths, rows["stages.1.branches.1.0"].tokens) == ({3: 0, 5: 0, 7: 0}, 0)
