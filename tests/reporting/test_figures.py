import math
import re
from dataclasses import replace
from itertools import product
from pathlib import Path
from xml.etree import ElementTree

import pytest

from hrnas.arch.architecture import AnchorHead, ClassHead
from hrnas.arch.budget import format_count
from hrnas.arch.presets import HR, search_space
from hrnas.arch.space import HEADS
from hrnas.costing.analytic import cost, transformer_macs
from hrnas.reporting.blocks import block_states, macs_by_place, transformers_by_place
from hrnas.reporting.control import changes_figure, control_figure
from hrnas.reporting.curves import loss_curve, metric_curve
from hrnas.reporting.figures import draw_figures
from hrnas.reporting.glyphs import BAR_WIDTH
from hrnas.reporting.labels import box_of, first_free
from hrnas.reporting.network import draw_network
from hrnas.reporting.networks import budget_networks
from hrnas.reporting.pareto import pareto_figure
from hrnas.reporting.record import EvaluationPoint, RunRecord, TrainPoint
from hrnas.reporting.run_directory import read_run
from hrnas.reporting.svg import element
from hrnas.reporting.tables import block_table
from reporting.run_directories import write_family

SVG = "{http://www.w3.org/2000/svg}"
SIZE = (180, 240)


def parsed(drawing: str | None) -> ElementTree.Element:
    """Read a drawing as XML; every coordinate in it must be finite."""
    assert drawing is not None
    assert "nan" not in drawing
    assert "inf" not in drawing
    return ElementTree.fromstring(drawing)


def texts(root: ElementTree.Element) -> list[str]:
    return ["".join(node.itertext()) for node in root.iter(f"{SVG}text")]


def titles(root: ElementTree.Element) -> dict[str, list[str]]:
    """The tooltips of blocks: name -> its other lines."""
    lines = [(node.text or "").split("\n") for node in root.iter(f"{SVG}title")]
    return {name: rest for name, *rest in lines if name.startswith(("stages.", "head."))}


def with_classes(root: ElementTree.Element, *classes: str) -> list[ElementTree.Element]:
    return [node for node in root.iter() if set(classes) <= set(node.get("class", "").split())]


def with_losses(record: RunRecord, losses: list[float]) -> RunRecord:
    points = [
        TrainPoint(step=step, loss=loss, learning_rate=0.1, macs=5, seconds=1.0) for step, loss in enumerate(losses)
    ]
    return replace(record, train=tuple(points), steps=len(losses))


def test_text_and_attributes_are_escaped() -> None:
    node = ElementTree.fromstring(element("text", '<script>"&', class_='a"b<', text_anchor=None))
    assert (node.text, node.attrib) == ('<script>"&', {"class": 'a"b<'})


@pytest.mark.parametrize("name", ["loss", "metric", "control", "network", "macs_by_stage", "macs_by_branch"])
def test_every_figure_of_a_search_is_well_formed(search_record: RunRecord, name: str) -> None:
    figure = getattr(draw_figures(search_record, block_table(search_record)), name)
    assert parsed(figure).get("aria-label")


def test_a_training_has_no_figure_of_shrinking(train_run: Path) -> None:
    record = read_run(train_run)
    figures = draw_figures(record, block_table(record))
    assert figures.control is None
    assert len(with_classes(parsed(figures.macs_by_stage), "full")) == 0
    parsed(figures.loss)


def test_the_control_figure_shows_budget_plan_weight_and_every_cut(search_record: RunRecord) -> None:
    root = parsed(control_figure(search_record))
    found = texts(root)
    assert {"MACs of the network", "planned", "cut", "Weight of the penalty"} <= set(found)
    assert search_record.target is not None
    assert f"budget {format_count(search_record.target.macs or 0)}" in found
    cuts = [node for node in with_classes(root, "curve", "cut") if node.find(f"{SVG}title") is not None]
    assert len(cuts) == 2 * len(search_record.cuts)  # in both panels
    assert len([node for node in cuts if "final" in node.get("class", "")]) == 2


def test_an_older_search_is_drawn_with_what_it_has(search_record: RunRecord) -> None:
    found = texts(parsed(control_figure(search_record)))
    assert "final shape" in found
    assert not {"Gain on the weight", "Parameters of the network"} & set(found)
    assert changes_figure(search_record) is None


def test_weight_gain_plan_and_every_budget_are_drawn(family_record: RunRecord) -> None:
    root = parsed(control_figure(family_record))
    found = texts(root)
    assert {"MACs of the network", "Weight of the penalty", "Gain on the weight", "final shape"} <= set(found)
    assert "Parameters of the network" not in found
    assert [f"budget {target.name}" in found for target in family_record.targets] == [True, True, True]
    assert len(with_classes(root, "curve", "budget")) == 3
    words = [node.findtext(f"{SVG}title") for node in with_classes(root, "mark")]
    names = [target.name for target in family_record.targets]
    assert words == [
        f"step {step}: the network of {name} is set aside" for step, name in zip((300, 500, 700), names, strict=True)
    ]


def test_budgeted_parameters_have_a_panel_with_their_own_plan_and_lines(tmp_path: Path) -> None:
    record = read_run(write_family(tmp_path / "run", by_params=True))
    root = parsed(control_figure(record))
    assert "Parameters of the network" in texts(root)
    assert len(with_classes(root, "curve", "budget")) == 6
    assert len(with_classes(root, "mark")) == 6
    assert len(with_classes(root, "curve", "plan")) == 4  # two curves, two entries of keys
    for target in record.targets:
        assert any(format_count(target.params or 0) in text for text in texts(root) if text.startswith("budget"))


def test_a_weight_of_zero_is_a_gap_on_an_axis_without_zero(search_record: RunRecord) -> None:
    weights = [0.0, 1e-6, 1e-4, 0.0, 1e-5, 1e-3, 0.0]
    points = [
        TrainPoint(step=step, loss=1.0, learning_rate=0.1, macs=5, seconds=1.0, penalty_weight=weight)
        for step, weight in enumerate(weights)
    ]
    record = replace(search_record, train=tuple(points), cuts=(), start=None, steps=6)
    (_, first, second) = with_classes(parsed(control_figure(record)), "curve", "main")[1:]
    heights = [[float(pair.split()[1]) for pair in re.split("[ML]", node.get("d", ""))[1:]] for node in (first, second)]
    assert [len(piece) for piece in heights] == [2, 2]
    # A hundredfold is the same way up wherever it is.
    assert heights[0][0] - heights[0][1] == pytest.approx(heights[1][0] - heights[1][1], abs=0.02)
    silent = replace(record, train=tuple(replace(point, penalty_weight=0.0) for point in points))
    assert "Weight of the penalty" not in texts(parsed(control_figure(silent)))


def test_the_change_of_each_cut_is_a_stem_of_its_height(family_record: RunRecord) -> None:
    root = parsed(changes_figure(family_record))
    stems = with_classes(root, "stem")
    assert len(stems) == len(family_record.cuts)
    assert len(with_classes(root, "stem", "final")) == 3
    heights = [float(node.get("y1", 0)) - float(node.get("y2", 0)) for node in stems]
    changes = [cut.output_change or 0.0 for cut in family_record.cuts]
    unit = max(heights) / max(changes)
    assert heights == pytest.approx([unit * change for change in changes], abs=0.02)


@pytest.mark.parametrize("cost", ["macs", "params"])
def test_each_network_is_a_point_hollow_before_it_is_finished(family_record: RunRecord, cost: str) -> None:
    networks = budget_networks(family_record)
    root = parsed(pareto_figure(networks, "miou", cost, cost))
    finished, hollow = with_classes(root, "point"), with_classes(root, "mark")
    assert [(node.findtext(f"{SVG}title") or "").split(":")[0] for node in finished] == [
        networks[0].target.text,
        networks[2].target.text,
    ]
    assert [(node.findtext(f"{SVG}title") or "").split(":")[0] for node in hollow] == [networks[1].target.text]
    places = [(float(node.get("cx", 0)), float(node.get("cy", 0))) for node in (finished[0], hollow[0], finished[1])]
    for (x, y), network in zip(places, networks, strict=True):
        for (other_x, other_y), other in zip(places, networks, strict=True):
            assert (x < other_x) == (getattr(network.cost, cost) < getattr(other.cost, cost))
            assert (y > other_y) == ((network.score or 0) < (other.score or 0))
    assert {network.target.name for network in networks} <= set(texts(root))


def test_without_a_score_there_is_no_picture_of_networks(family_record: RunRecord) -> None:
    silent = [replace(network, score=None) for network in budget_networks(family_record)]
    assert pareto_figure(silent, "miou", "macs", "MACs") is None
    assert pareto_figure([], "miou", "macs", "MACs") is None


def test_names_of_networks_close_together_do_not_cover_each_other(family_record: RunRecord) -> None:
    first = budget_networks(family_record)[0]
    assert first.cost is not None
    close = [
        replace(first, cost=replace(first.cost, macs=first.cost.macs + 1000 * index), score=0.5) for index in range(4)
    ]
    root = parsed(pareto_figure(close, "miou", "macs", "MACs"))
    labels = [node for node in root.iter(f"{SVG}text") if node.text == first.target.name]
    boxes = [
        box_of(first.target.name, float(node.get("x", 0)), float(node.get("y", 0)), node.get("text-anchor", "start"))
        for node in labels
    ]
    assert len(boxes) == 4
    for index, box in enumerate(boxes):
        assert first_free([box], boxes[:index], (0, 0, 470, 300)) == 0


def test_names_of_close_budgets_do_not_cover_each_other(family_record: RunRecord) -> None:
    assert family_record.result is not None
    texts_of = ("macs=110M", "macs=105M", "macs=100M", "macs=95M")
    result = replace(family_record.result, budgets=texts_of, budget_macs=95_000_000)
    root = parsed(control_figure(replace(family_record, result=result)))
    labels = [node for node in root.iter(f"{SVG}text") if (node.text or "").startswith("budget")]
    boxes = [box_of(node.text or "", float(node.get("x", 0)), float(node.get("y", 0))) for node in labels]
    assert len(boxes) == 4
    for index, box in enumerate(boxes):
        assert first_free([box], boxes[:index], (0, 0, 470, 600)) == 0


def test_a_network_without_transformers_has_none_in_the_bars(search_record: RunRecord) -> None:
    figures = draw_figures(search_record, block_table(search_record))
    assert not with_classes(parsed(figures.macs_by_stage), "tokens")


def test_transformers_are_part_of_where_the_macs_are(family_record: RunRecord) -> None:
    architecture = family_record.architecture
    assert architecture is not None
    states = block_states(architecture, family_record.supernet, SIZE)
    stages, branches = transformers_by_place(states)
    width = architecture.token_size**2
    expected = sum(
        transformer_macs(block.in_channels, block.out_channels, block.tokens, width)
        for _, block in architecture.blocks()
        if block.tokens
    )
    assert sum(stages.values()) == sum(branches.values()) == expected > 0
    figures = draw_figures(family_record, block_table(family_record))
    assert len(with_classes(parsed(figures.macs_by_stage), "left", "tokens")) == len(stages)


def test_thousands_of_points_stay_small_and_keep_the_spike(search_record: RunRecord) -> None:
    losses = [1 + math.sin(step) / 10 for step in range(20_000)]
    drawing = loss_curve(with_losses(search_record, losses))
    assert len(drawing or "") < 60_000
    losses[12_345] = 400.0
    spiked = with_losses(search_record, losses)
    faint = with_classes(parsed(loss_curve(spiked)), "faint")[0].get("d", "")
    heights = [float(pair.split()[1]) for pair in re.split("[ML]", faint)[1:]]
    assert max(heights) - min(heights) > 100  # the lone spike spans the plot


@pytest.mark.parametrize(
    "losses",
    [
        [1.0],
        [math.nan, 1.0],
        [1.0, math.nan, 2.0],
        [0.0, 0.0],
        [1e-9, 1e9],
        [-1.0, 2.0],
        [math.inf, 1.0, -math.inf],
        [5.0] * 100,
    ],
)
def test_awkward_losses_are_drawn(search_record: RunRecord, losses: list[float]) -> None:
    root = parsed(loss_curve(with_losses(search_record, losses)))
    assert with_classes(root, "curve", "main")


def test_a_gap_breaks_the_curve_and_a_lone_point_is_a_dot(search_record: RunRecord) -> None:
    root = parsed(loss_curve(with_losses(search_record, [1.0, 2.0, math.nan, 1.5])))
    assert [node.tag.removeprefix(SVG) for node in with_classes(root, "curve", "main")] == ["path", "circle"]


def test_nothing_to_draw_gives_no_figure(search_record: RunRecord) -> None:
    empty = replace(search_record, train=(), evaluations=())
    assert loss_curve(empty) is None
    assert loss_curve(with_losses(search_record, [math.nan])) is None
    assert metric_curve(empty) is None
    assert control_figure(empty) is None


def test_the_best_evaluation_is_marked(search_record: RunRecord) -> None:
    points = [
        EvaluationPoint(step=step, split="validation", metric="pck", figures={"pck": pck}, macs=1, seconds=1.0)
        for step, pck in [(100, 0.2), (200, 0.31234), (300, math.nan), (400, 0.3)]
    ]
    found = texts(parsed(metric_curve(replace(search_record, evaluations=tuple(points)))))
    assert "best 0.312" in found
    record = replace(search_record, scores={}, evaluations=tuple(points))
    assert "Validation pck" in texts(parsed(metric_curve(record)))


def test_a_search_before_its_first_cut_is_drawn(search_record: RunRecord) -> None:
    early = replace(search_record, cuts=(), train=search_record.train[:1], result=None)
    assert "cut" not in texts(parsed(control_figure(early)))


def test_the_drawing_shows_every_block_of_the_paper_space() -> None:
    architecture = HR.supernet(19)
    root = parsed(draw_network(architecture, block_states(architecture, architecture, SIZE), SIZE))
    glyphs = with_classes(root, "block")
    assert len(glyphs) == len(titles(root)) == 61
    assert not with_classes(root, "emptied")
    assert len(with_classes(root, "left", "tokens")) == 61
    # 61 blocks of three kernel paths, all full.
    bars = [node for size in range(3) for node in with_classes(root, "left", f"k{size}")]
    assert len(bars) == 3 * 61
    assert {float(node.get("width", 0)) for node in bars} == {BAR_WIDTH}


def test_the_drawing_shows_what_survives_of_a_hand_made_network() -> None:
    supernet = search_space("hr-small", "all").supernet(11)
    blocks = dict(supernet.blocks())
    thin, bare, only_tokens = "stages.3.branches.2.1", "stages.2.fusion.paths.1", "stages.1.branches.0.0"
    changed = {
        thin: replace(blocks[thin], kernels=((3, 24), (7, 96)), tokens=16),
        bare: replace(blocks[bare], kernels=(), tokens=0, shift=True),
        only_tokens: replace(blocks[only_tokens], kernels=(), tokens=5),
    }
    found = supernet.with_blocks(changed)
    root = parsed(draw_network(found, block_states(found, supernet, SIZE), SIZE))
    shown = titles(root)
    assert shown[thin][1:-1] == ["3×3: 24/96", "5×5: 0/96", "7×7: 96/96", "tokens: 16/64"]
    assert shown[bare][1:6] == ["3×3: 0/48", "5×5: 0/48", "7×7: 0/48", "tokens: 0/64", "emptied: the 1×1 skip is left"]
    assert len(with_classes(root, "block")) == 30
    (emptied,) = with_classes(root, "emptied")
    assert (emptied.findtext(f"{SVG}title") or "").startswith(bare)
    (glyph,) = [node for node in with_classes(root, "block") if (node.findtext(f"{SVG}title") or "").startswith(thin)]
    filled = {node.get("class"): float(node.get("width", 0)) for node in with_classes(glyph, "left")}
    assert filled == {"left k0": BAR_WIDTH / 4, "left k2": BAR_WIDTH, "left tokens": BAR_WIDTH / 4}
    assert len(with_classes(glyph, "full")) == 4


def test_no_two_glyphs_overlap_and_none_leaves_the_drawing() -> None:
    for space, head in product(("hr", "hr-small"), HEADS):
        architecture = search_space(space).supernet(1000, head=head)
        root = parsed(draw_network(architecture, block_states(architecture, architecture, SIZE), SIZE))
        _, _, width, height = map(float, root.get("viewBox", "").split())
        boxes = [
            tuple(float(node.get(key, 0)) for key in ("x", "y", "width", "height"))
            for node in with_classes(root, "box")
        ]
        for index, (x, y, wide, high) in enumerate(boxes):
            assert x >= 0
            assert y >= 0
            assert x + wide <= width
            assert y + high <= height
            for other in boxes[:index]:
                apart = abs(x - other[0]) >= wide or abs(y - other[1]) >= high
                assert apart, (x, y, other)


def test_a_network_without_head_and_one_of_a_single_branch_are_drawn() -> None:
    backbone = HR.supernet(None)
    parsed(draw_network(backbone, block_states(backbone, None, SIZE), SIZE))
    for head in HEADS:
        one = replace(HR, stages=HR.stages[:1], class_channels=(36,)).supernet(3, head=head)
        parsed(draw_network(one, block_states(one, None, SIZE), SIZE))


@pytest.mark.parametrize(("space", "num_blocks"), [("hr-small", 36), ("hr", 67)])
def test_the_drawing_shows_every_block_of_a_head_of_classes(space: str, num_blocks: int) -> None:
    architecture = search_space(space).supernet(10, head="classes")
    states = block_states(architecture, architecture, SIZE)
    assert [state.name for state in states] == [name for name, _ in architecture.blocks()]
    root = parsed(draw_network(architecture, states, SIZE))
    assert len(with_classes(root, "block")) == num_blocks
    shown = titles(root)
    assert set(shown) == {state.name for state in states}
    words = {name: lines[0].split(":")[0] for name, lines in shown.items() if name.startswith("head.")}
    widens = {f"head.widen.{index}": f"head, widens branch {index + 1}" for index in range(4)}
    assert words == widens | {f"head.down.{index}": f"head, carries branch {index + 1} down" for index in range(3)}
    assert isinstance(architecture.head, ClassHead)
    wide, features = architecture.head.widen[-1].out_channels, architecture.head.features
    layers = [
        node for node in root.iter(f"{SVG}g") if node.get("class") is None and node.find(f"{SVG}title") is not None
    ]
    starts = [re.findall(r'(?: x="|d="M)([\d.]+)', ElementTree.tostring(node, "unicode"))[-1] for node in layers]
    notes = [node.findtext(f"{SVG}title") for _, node in sorted(zip(map(float, starts), layers, strict=True))]
    assert notes[1:] == [
        f"1×1 conv: {wide} → {features} features",
        "global average",
        f"dropout 0.2, linear: {features} → 10 outputs",
    ]
    assert "10 outputs" in texts(root)


def test_a_head_of_classes_carries_each_sum_straight_down_into_the_next() -> None:
    architecture = search_space("hr-small").supernet(10, head="classes")
    root = parsed(draw_network(architecture, block_states(architecture, None, SIZE), SIZE))
    middles = {}
    for node in with_classes(root, "block"):
        (box,) = with_classes(node, "box")
        x, y, wide, high = (float(box.get(key, 0)) for key in ("x", "y", "width", "height"))
        middles[(node.findtext(f"{SVG}title") or "").split("\n")[0]] = (x + wide / 2, y + high / 2)
    column = middles["head.down.0"][0]
    rows = [middles[f"head.widen.{index}"][1] for index in range(4)]
    assert rows == [middles[f"stages.3.branches.{index}.0"][1] for index in range(4)]
    sums = [node for node in with_classes(root, "sum") if float(node.get("cx", 0)) == column]
    assert [float(node.get("cy", 0)) for node in sums] == rows[1:]
    wires = [tuple(map(float, re.findall(r"[-\d.]+", node.get("d", "")))) for node in with_classes(root, "wire")]
    for index in range(3):
        assert (column, rows[index], rows[index + 1]) in wires
        assert middles[f"head.down.{index}"] == (column, pytest.approx((rows[index] + rows[index + 1]) / 2))


@pytest.mark.parametrize("head", HEADS)
def test_a_block_with_squeeze_excitation_is_marked_and_says_so(head: str) -> None:
    supernet = search_space("hr-small", squeeze_ratio=0.5).supernet(10, head=head)
    blocks = dict(supernet.blocks())
    bare = "stages.3.branches.2.1"
    found = supernet.with_blocks({bare: blocks[bare].with_kernels((), shift=True)})
    root = parsed(draw_network(found, block_states(found, supernet, SIZE), SIZE))
    assert len(with_classes(root, "squeeze")) == len(blocks) - 1
    for name, lines in titles(root).items():
        told = [line for line in lines if line.startswith("squeeze-excitation")]
        assert told == ([] if name == bare else [f"squeeze-excitation: {blocks[name].squeeze} channels"])
    plain = search_space("hr-small").supernet(10, head=head)
    assert not with_classes(parsed(draw_network(plain, block_states(plain, None, SIZE), SIZE)), "squeeze")


def test_without_a_supernet_a_bar_is_full_at_the_widest_path_per_channel() -> None:
    supernet = search_space("hr-small").supernet(11)
    name = "stages.2.fusion.paths.1"  # 24 to 12 channels
    block = dict(supernet.blocks())[name]
    network = supernet.with_blocks({name: replace(block, kernels=((3, 12),))})
    state = next(state for state in block_states(network, None, SIZE) if state.name == name)
    assert state.widest == {3: 48, 5: 48, 7: 48}
    assert state.widths == {3: 12, 5: 0, 7: 0}


@pytest.mark.parametrize(("space", "head"), list(product(["hr", "hr-small"], HEADS)))
def test_macs_by_stage_and_by_branch_add_up_to_the_whole(space: str, head: str) -> None:
    architecture = search_space(space, squeeze_ratio=0.5).supernet(19, head=head)
    stages, branches = macs_by_place(architecture, SIZE)
    assert sum(stages.values()) == sum(branches.values()) == cost(architecture, SIZE).macs
    assert stages["stem"] == branches["stem"] > 0
    # The stem by hand: two 3x3 convolutions of stride 2.
    widths = [conv.out_channels for conv in architecture.stem]
    assert stages["stem"] == 90 * 120 * 9 * 3 * widths[0] + 45 * 60 * 9 * widths[0] * widths[1]
    # The head by hand: its blocks, then a convolution on the map of branch 1, or one on branch 4's and a linear layer.
    blocks = sum(state.cost.macs for state in block_states(architecture, None, SIZE) if state.name.startswith("head."))
    if isinstance(architecture.head, ClassHead):
        plain = 6 * 8 * architecture.head.widen[3].out_channels * architecture.head.features
        plain += architecture.head.features * 19
    elif isinstance(architecture.head, AnchorHead):
        # Two anchors a class, of each its scores, 7 numbers of a box and 2 of a direction.
        plain = 45 * 60 * sum(feature.channels for feature in architecture.features) * 38 * (19 + 7 + 2)
    else:
        assert architecture.head is not None
        plain = 45 * 60 * architecture.head.block.out_channels * 19
    assert stages["head"] == branches["head"] == blocks + plain
