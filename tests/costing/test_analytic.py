"""The formula of the cost against the independent count, against a case worked by hand, and under cuts."""

from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from architectures import architectures, sizes
from hrnas.arch.architecture import Architecture, Block, ClassHead, DenseHead, FusionPath, Pillars, Stage, StemConv
from hrnas.arch.presets import SPACES, search_space
from hrnas.costing.analytic import (
    Cost,
    PlacedBlock,
    block_cost,
    channel_macs,
    cost,
    halved,
    pillar_cost,
    place_blocks,
    transformer_macs,
    transformer_params,
)
from hrnas.costing.counted import count
from hrnas.models.network import build_model

Size = tuple[int, int]


def counted(architecture: Architecture, size: Size) -> Cost:
    with torch.device("meta"):
        model = build_model(architecture).eval()
    return count(model, size, architecture.in_channels)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(architecture=architectures(), size=sizes())
def test_formula_equals_count_and_blocks_are_placed_at_the_size_they_see(
    architecture: Architecture, size: Size
) -> None:
    with torch.device("meta"):
        model = build_model(architecture).eval()
    seen: list[tuple[str, Size, Size]] = []
    for name, _ in architecture.blocks():

        def remember(_: object, inputs: tuple[torch.Tensor], output: torch.Tensor, name: str = name) -> None:
            seen.append((name, tuple(inputs[0].shape[2:]), tuple(output.shape[2:])))

        model.get_submodule(name).register_forward_hook(remember)
    independent = count(model, size, architecture.in_channels)
    formula = cost(architecture, size)
    assert (formula.macs, formula.params) == (independent.macs, independent.params)

    placed = list(place_blocks(architecture, size))
    assert [(block.name, block.block) for block in placed] == list(architecture.blocks())
    assert seen == [(block.name, block.size_in, block.size_out) for block in placed]


@pytest.mark.parametrize(("outputs", "head"), [(11, "dense"), (11, "classes"), (11, "anchors"), (None, "dense")])
@pytest.mark.parametrize("name", sorted(SPACES))
def test_formula_equals_count_for_presets(name: str, outputs: int | None, head: str) -> None:
    squeeze_ratio = 0.5 if head == "classes" else None
    architecture = search_space(name, "none", squeeze_ratio=squeeze_ratio).supernet(outputs, head=head)
    formula, independent = cost(architecture, (45, 61)), counted(architecture, (45, 61))
    assert (formula.macs, formula.params) == (independent.macs, independent.params)


@pytest.mark.parametrize(("name", "transformers"), [("hr", "none"), ("hr", "all"), ("hr-small", "none")])
def test_formula_equals_count_for_the_network_of_3d_detection(name: str, transformers: str) -> None:
    """Its two-dimensional part on the paper's map; the pillars before it are counted apart."""
    space = search_space(name, transformers, stem_stride=2)
    architecture = space.supernet(3, head="anchors", pillars=Pillars())
    assert [feature.stride for feature in architecture.features] == [2, 4, 8, 16]
    flat = replace(architecture, pillars=None)
    formula, independent = cost(architecture, (496, 432)), counted(flat, (496, 432))
    assert (formula.macs, formula.params) == (independent.macs, independent.params)
    with torch.device("meta"):
        whole = build_model(architecture)
    assert sum(value.numel() for value in whole.parameters()) == formula.params + pillar_cost(Pillars()).params


def test_pillars_by_hand() -> None:
    """Nine numbers a point through a linear layer without bias; scale and shift of a norm."""
    assert pillar_cost(Pillars(channels=4)) == Cost(macs=9 * 4, params=9 * 4 + 2 * 4)


def test_tiny_network_by_hand() -> None:
    residual = Block(in_channels=2, out_channels=2, kernels=((3, 5),), tokens=3)
    changing = Block(in_channels=2, out_channels=4, stride=2, kernels=((3, 1), (7, 2)))
    head = DenseHead(block=Block(in_channels=6, out_channels=3, shift=True), outputs=5)
    architecture = Architecture(
        name="by hand",
        stem=(StemConv(out_channels=2),),
        stages=(Stage(paths=(FusionPath(source=0, target=0, block=residual),), grow=(changing,), branches=((), ())),),
        head=head,
        in_channels=1,
        token_size=2,
    )
    # 7x9 pixels -> the stem gives 4x5 = 20 positions -> the new branch has 2x3 = 6.
    stem_macs = 20 * (9 * 1 * 2)
    # One hidden channel: 2 to expand, 9 depthwise, 2 to project, at each of 20 positions; there are 5.
    residual_macs = 5 * 20 * (2 + 9 + 2)
    # 3 tokens of width 4: the projectors 4*3*(2+2+2), 12*3*4*4 in linears, 4*3*3*4 in the two attentions.
    transformer = 4 * 3 * (2 + 2 + 2) + 12 * 3 * 16 + 4 * 9 * 4
    # Expand at 20 positions, the rest at 6; the skip has groups = gcd(2, 4) = 2, so 2*4/2 weights.
    changing_macs = 1 * (20 * 2 + 6 * (9 + 4)) + 2 * (20 * 2 + 6 * (49 + 4)) + 6 * 4
    # The head's block is empty: its skip of 6 to 3 channels with 3 groups, and the output convolution.
    head_macs = 20 * (6 * 3 // 3) + 20 * (3 * 5)
    assert (stem_macs, residual_macs, transformer, changing_macs, head_macs) == (360, 1300, 792, 858, 420)

    stem_params = 9 * 2 + 2 * 2
    # Weights, then scale and shift of the two hidden norms and of the shared one.
    residual_params = 5 * (2 + 9 + 2) + 2 * 2 * 5 + 2 * 2
    # Both projectors and their norms; per layer qkv and out 4*16, feed-forward 2*16, two LayerNorms; 3 queries.
    transformer_weights = 3 * 4 + 2 * 3 + 3 * 2 + 2 * 2 + 2 * (4 * 16 + 2 * 16 + 2 * 8) + 3 * 4
    changing_params = (1 * (2 + 9 + 4) + 2 * (2 + 49 + 4)) + 2 * 2 * 3 + 2 * 4 + 4
    # Of the empty block: the skip, and the constant it keeps; then the output convolution with its bias.
    head_params = 6 * 3 // 3 + 3 + (3 * 5 + 5)
    assert (stem_params, residual_params, transformer_weights, changing_params, head_params) == (22, 89, 264, 149, 29)

    assert transformer_macs(2, 2, 3, 4) == transformer
    assert transformer_params(2, 2, 3, 4) == transformer_weights
    total = cost(architecture, (7, 9))
    assert total.macs == 360 + 1300 + 792 + 858 + 420
    assert total.params == 22 + 89 + 264 + 149 + 29
    independent = counted(architecture, (7, 9))
    assert (independent.macs, independent.params) == (total.macs, total.params)


def test_head_of_classes_with_squeeze_excitation_by_hand() -> None:
    squeezed = Block(in_channels=2, out_channels=3, kernels=((3, 4), (5, 1)), squeeze=2)
    head = ClassHead(
        widen=(squeezed, Block(in_channels=4, out_channels=5)),
        down=(Block(in_channels=3, out_channels=5, stride=2),),
        features=6,
        outputs=7,
    )
    grown = Block(in_channels=2, out_channels=4, stride=2)
    same = FusionPath(source=0, target=0, block=Block(in_channels=2, out_channels=2))
    architecture = Architecture(
        name="by hand",
        stem=(StemConv(out_channels=2),),
        stages=(Stage(paths=(same,), grow=(grown,), branches=((), ())),),
        head=head,
        activation="swish",
    )
    # 7x9 pixels -> 4x5 = 20 positions -> the branch below has 2x3 = 6; skips: 2*4/2, 2*3, 4*5, 3*5 weights.
    backbone_macs = 20 * 9 * 3 * 2 + 6 * (2 * 4 // 2)
    squeezed_macs = 20 * (4 * (2 + 9 + 3) + (2 + 25 + 3)) + 20 * 2 * 3 + 5 * 2 + 2 * 5
    head_macs = squeezed_macs + 6 * 4 * 5 + 6 * 3 * 5 + 6 * 5 * 6 + 6 * 7
    backbone_params = 9 * 3 * 2 + 2 * 2 + 2 * 4 // 2
    squeezed_params = 4 * (2 + 9 + 3) + (2 + 25 + 3) + 2 * 2 * 5 + 2 * 3 + 2 * 3 + (5 * 2 + 2) + (2 * 5 + 5)
    head_params = squeezed_params + 4 * 5 + 3 * 5 + (5 * 6 + 2 * 6) + (6 * 7 + 7)
    for found in (cost(architecture, (7, 9)), counted(architecture, (7, 9))):
        assert (found.macs, found.params) == (backbone_macs + head_macs, backbone_params + head_params)


def test_transformer_figures_of_the_method() -> None:
    macs = [transformer_macs(channels, channels, 64, 64) for channels in (18, 36, 72, 144)]
    assert [round(value / 1e6, 2) for value in macs] == [4.35, 4.50, 4.79, 5.38]
    # What a transformer costs in parameters whatever its number of tokens.
    assert transformer_params(18, 18, 0, 64) - 2 * 18 == 49_664


@settings(max_examples=60, deadline=None, derandomize=True)
@given(architecture=architectures(), size=sizes(), data=st.data())
def test_cutting_a_channel_saves_its_macs(architecture: Architecture, size: Size, data: st.DataObject) -> None:
    filled = [placed for placed in place_blocks(architecture, size) if placed.block.kernels]
    assume(filled)
    placed = data.draw(st.sampled_from(filled))
    kernel_size, channels = data.draw(st.sampled_from(placed.block.kernels))
    left = {**dict(placed.block.kernels), kernel_size: channels - 1}
    kernels = tuple((size, channels) for size, channels in left.items() if channels)
    cut = architecture.with_blocks({placed.name: placed.block.with_kernels(kernels)})

    before, after = cost(architecture, size), cost(cut, size)
    assert before.macs - after.macs == channel_macs(placed, kernel_size)
    assert channel_macs(placed, kernel_size) > 0
    assert after.params < before.params


@settings(max_examples=60, deadline=None, derandomize=True)
@given(architecture=architectures(), size=sizes(), data=st.data())
def test_cutting_a_token_saves(architecture: Architecture, size: Size, data: st.DataObject) -> None:
    with_tokens = [(name, block) for name, block in architecture.blocks() if block.tokens]
    assume(with_tokens)
    name, block = data.draw(st.sampled_from(with_tokens))
    cut = architecture.with_blocks({name: replace(block, tokens=block.tokens - 1)})
    before, after = cost(architecture, size), cost(cut, size)
    assert after.macs < before.macs
    assert after.params < before.params


def test_an_empty_residual_block_costs_nothing_but_its_shift() -> None:
    block = Block(in_channels=6, out_channels=6)
    for shift, params in ((False, 0), (True, 6)):
        placed = PlacedBlock(name="", block=replace(block, shift=shift), size_in=(5, 7))
        found = block_cost(placed, token_size=8)
        assert (found.macs, found.params) == (0, params)


def test_halved_rounds_up() -> None:
    assert [halved((odd, even), 2) for odd, even in ((1, 2), (7, 8), (45, 60))] == [(1, 1), (4, 4), (23, 30)]
    assert halved((7, 8), 1) == (7, 8)


def test_costs_add() -> None:
    total = Cost(macs=1, params=2) + Cost(macs=10, params=20)
    assert total == Cost(macs=11, params=22)
