"""The network drawn: branches as rows, highest resolution on top; stages as columns; every search block a glyph."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from markupsafe import Markup

from hrnas.arch.architecture import Architecture
from hrnas.costing.analytic import Size
from hrnas.reporting import svg
from hrnas.reporting.blocks import BlockState
from hrnas.reporting.glyphs import BOX_WIDTH, box_height, glyph
from hrnas.reporting.head_drawing import DEPTH, draw_head, head_middle, head_width

LABELS: Final = 62.0
"""Room on the left for the names of the rows."""
STEM_WIDTH: Final = 62.0
LINKS: Final = 32.0
"""Room for the links between branches."""
SUM: Final = 27.0
"""Room for the sum of a branch's fusion paths."""
PITCH: Final = BOX_WIDTH + 7.0
HEADER: Final = 30.0
SLOT_GAP: Final = 6.0
ROW_GAP: Final = 26.0


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """Where rows and columns stand. A row has a slot above its wire where a path comes from the branch above, ..."""

    box_height: float
    rows: tuple[float, ...]
    stages: tuple[float, ...]
    blocks: tuple[float, ...]
    head: float
    width: float
    height: float

    def slot(self, branch: int, source: int) -> float:
        """Middle of the glyph of the path from `source` into `branch`."""
        return self.rows[branch] + (source - branch) * (self.box_height + SLOT_GAP)


def draw_network(architecture: Architecture, states: Sequence[BlockState], input_size: Size) -> Markup:
    """Return the drawing; `states` are the architecture's, of `block_states`."""
    grid = _grid(architecture, states)
    parts = [_bands(architecture, grid), _row_labels(architecture, states, grid)]
    wires, glyphs = [_stem(architecture, grid, input_size)], []
    for state in states:
        x, y = _middle(state, grid)
        wires.append(_wires(state, grid, architecture))
        glyphs.append(glyph(state, x, y))
    if architecture.head is not None:
        wires.append(draw_head(architecture.head, architecture.features, grid.head, grid.rows, grid.box_height))
    parts += [*wires, *glyphs]
    label = (
        f"The network: {len(states)} search blocks in {len(architecture.stages)} stages and {len(grid.rows)} branches"
    )
    return svg.drawing(grid.width, grid.height, *parts, label=label, class_="network")


def _grid(architecture: Architecture, states: Sequence[BlockState]) -> _Grid:
    glyph_height = max(box_height(state.widest, state.tokens_widest) for state in states)
    rows = []
    y = HEADER + ROW_GAP / 2
    for branch in range(max(len(stage.branches) for stage in architecture.stages)):
        into = {state.place.source - branch for state in states if _is_path(state) and state.place.branch == branch}
        # A new branch's first path may be the grow block, which stands on the wire itself.
        y += (glyph_height + SLOT_GAP) * (-1 in into) + glyph_height / 2
        rows.append(y)
        y += glyph_height / 2 + (glyph_height + SLOT_GAP) * (1 in into) + ROW_GAP
    x = LABELS + STEM_WIDTH
    stages, blocks = [], []
    for stage in architecture.stages:
        stages.append(x)
        x += LINKS + BOX_WIDTH + (SUM / 2 + BOX_WIDTH / 2 + 4 if stage.grow else SUM)
        blocks.append(x)
        x += PITCH * max((len(branch) for branch in stage.branches), default=0) + 6
    return _Grid(
        box_height=glyph_height,
        rows=tuple(rows),
        stages=tuple(stages),
        blocks=tuple(blocks),
        head=x,
        width=x + (16.0 if architecture.head is None else head_width(architecture.head)),
        height=max(y - ROW_GAP / 2, rows[-1] + DEPTH),
    )


def _is_path(state: BlockState) -> bool:
    return state.place.role == "fusion"


def _sum_x(stage_x: float) -> float:
    return stage_x + LINKS + BOX_WIDTH + SUM / 2


def _middle(state: BlockState, grid: _Grid) -> tuple[float, float]:
    place = state.place
    if place.in_head:
        return head_middle(place, grid.head, grid.rows)
    x = grid.stages[place.stage]
    if place.role == "parallel":
        return grid.blocks[place.stage] + PITCH * place.position + PITCH / 2, grid.rows[place.branch]
    if place.role == "grow":
        return _sum_x(x), grid.rows[place.branch]
    return x + LINKS + BOX_WIDTH / 2, grid.slot(place.branch, place.source)


def _swing(x1: float, y1: float, x2: float, y2: float) -> str:
    """A link that leaves and arrives level."""
    n, middle = svg.number, (x1 + x2) / 2
    if abs(y1 - y2) < 0.01:
        return f"M{n(x1)} {n(y1)}H{n(x2)}"
    return f"M{n(x1)} {n(y1)}C{n(middle)} {n(y1)} {n(middle)} {n(y2)} {n(x2)} {n(y2)}"


def _wires(state: BlockState, grid: _Grid, architecture: Architecture) -> Markup:
    """The links into and out of a block's glyph."""
    place, (x, y), half = state.place, _middle(state, grid), BOX_WIDTH / 2
    if place.in_head:
        return Markup()
    stage_x = grid.stages[place.stage]
    row = grid.rows[place.branch]
    if place.role == "parallel":
        last = place.position + 1 == len(architecture.stages[place.stage].branches[place.branch])
        end = _stage_end(place.stage, grid) if last else x + PITCH / 2
        return svg.path(_swing(x - PITCH / 2, y, x - half, y) + _swing(x + half, y, end, y), "wire")
    if place.role == "grow":
        # Straight down from the sum of the branch above: no path of this stage is in its way; the glyph covers it.
        down = f"M{svg.number(x)} {svg.number(grid.rows[place.source])}V{svg.number(y)}"
        return svg.path(down + _swing(x, y, grid.blocks[place.stage], y), "wire")
    source = grid.rows[place.source]
    several = sum(path.target == place.branch for path in architecture.stages[place.stage].paths) > 1
    end = _sum_x(stage_x)
    parts = [svg.path(_swing(stage_x, source, x - half, y) + _swing(x + half, y, end, row), "wire")]
    if place.source == place.branch:
        parts.append(svg.path(_swing(end, row, grid.blocks[place.stage], row), "wire"))
    if several:
        parts.append(svg.circle(end, row, 3.2, "sum"))
    return Markup().join(parts)


def _stage_end(stage: int, grid: _Grid) -> float:
    return grid.stages[stage + 1] if stage + 1 < len(grid.stages) else grid.head


def _bands(architecture: Architecture, grid: _Grid) -> Markup:
    """A faint band and a name for every stage."""
    edges = [*grid.stages, grid.head]
    parts = [svg.text(LABELS + STEM_WIDTH / 2 - 5, 16, "stem", "column", "middle")]
    for index, (left, right) in enumerate(pairwise(edges)):
        parts.append(svg.rectangle(left + 1, HEADER - 6, right - left - 2, grid.height - HEADER + 6, "band", radius=5))
        parts.append(svg.text((left + right) / 2, 16, f"stage {index + 1}", "column", "middle"))
    return Markup().join(parts)


def _row_labels(architecture: Architecture, states: Sequence[BlockState], grid: _Grid) -> Markup:
    parts = []
    for branch, y in enumerate(grid.rows):
        height, width = next(s.size_out for s in states if s.place.branch == branch and not s.place.in_head)
        stride = architecture.features[0].stride * 2**branch
        parts.append(svg.text(0, y - 2, f"1/{stride}", "row"))
        parts.append(svg.text(0, y + 11, f"{height}×{width}", "tick"))
    return Markup().join(parts)


def _stem(architecture: Architecture, grid: _Grid, input_size: Size) -> Markup:
    """The stem's convolutions as plain boxes, with the image that comes in."""
    y, left = grid.rows[0], LABELS
    words = " then ".join(f"3×3 conv, {conv.out_channels} channels, stride {conv.stride}" for conv in architecture.stem)
    pitch = (STEM_WIDTH - 14) / len(architecture.stem)
    if architecture.pillars is not None:
        words = f"pillars of {architecture.pillars.cell:g} m, {architecture.in_channels} channels, then {words}"
    title = svg.element("title", f"stem: {words}\ninput {input_size[0]}×{input_size[1]}")
    boxes = [
        svg.rectangle(left + index * pitch, y - 12, pitch - 5, 24, "plain", radius=3)
        for index in range(len(architecture.stem))
    ]
    wire = svg.path(_swing(left, y, grid.stages[0], y), "wire")
    return svg.element("g", title, wire, *boxes)
