"""The glyph of a search block, with its tooltip.

It has one bar a kernel size, outlined at the supernet's width and filled by the channels that survive, and one for
tokens where the network has transformers. A filled corner is squeeze-excitation. A block of which only the skip is left
is a bare wire.
"""

from collections.abc import Mapping
from typing import Final

from markupsafe import Markup

from hrnas.arch.budget import format_count
from hrnas.reporting import svg
from hrnas.reporting.blocks import BlockState

BAR_WIDTH: Final = 34.0
BAR_HEIGHT: Final = 5.0
BAR_GAP: Final = 2.0
PADDING: Final = 4.0
BOX_WIDTH: Final = BAR_WIDTH + 2 * PADDING
ROUNDING: Final = 3.0
CORNER: Final = 6.5
"""Side of the corner that marks squeeze-excitation; the first bar stays clear of it."""


def box_height(widest: Mapping[int, int], tokens: int) -> float:
    """Return the height of a glyph with these bars."""
    bars = len(widest) * (BAR_HEIGHT + BAR_GAP) - BAR_GAP
    return 2 * PADDING + max(bars, 0.0) + (BAR_HEIGHT + BAR_GAP + 1 if tokens else 0)


def glyph(state: BlockState, x: float, y: float) -> Markup:
    """Return the glyph of a block, centred at (x, y), with a tooltip of its numbers."""
    left, height = x - BOX_WIDTH / 2, box_height(state.widest, state.tokens_widest)
    top = y - height / 2
    title = svg.element("title", tooltip(state))
    if state.is_empty:
        # An invisible area, so that the bare wire has a tooltip too.
        ghost = svg.rectangle(left, top, BOX_WIDTH, height, "ghost", radius=ROUNDING)
        # A wire passes level; into a new branch it comes from above; in a head of classes it goes down.
        n, role = svg.number, state.place.role
        enter = f"M{n(left)} {n(y)}" if role not in ("grow", "down") else f"M{n(x)} {n(top)}V{n(y)}"
        leave = f"V{n(top + height)}" if role == "down" else f"H{n(left + BOX_WIDTH)}"
        return svg.element("g", title, ghost, svg.path(enter + leave, "skip"), class_="block emptied")
    parts = [title, svg.rectangle(left, top, BOX_WIDTH, height, "box", radius=ROUNDING)]
    if state.block.squeeze:
        right, n = left + BOX_WIDTH, svg.number
        turn = f"H{n(right - ROUNDING)}Q{n(right)} {n(top)} {n(right)} {n(top + ROUNDING)}"
        parts.append(svg.path(f"M{n(right - CORNER)} {n(top)}{turn}V{n(top + CORNER)}Z", "squeeze"))
    at = top + PADDING
    for rank, (size, widest) in enumerate(state.widest.items()):
        parts.append(_bar(left + PADDING, at, state.widths[size], widest, f"k{min(rank, 2)}"))
        at += BAR_HEIGHT + BAR_GAP
    if state.tokens_widest:
        parts.append(_bar(left + PADDING, at + 1, state.block.tokens, state.tokens_widest, "tokens"))
    return svg.element("g", *parts, class_="block")


def tooltip(state: BlockState) -> str:
    """Return the numbers of a block: name, where it is, channels left by kernel size, squeeze, tokens, MACs."""
    block = state.block
    lines = [state.name, f"{state.title}: {block.in_channels} → {block.out_channels} channels, stride {block.stride}"]
    lines += [f"{size}×{size}: {state.widths[size]}/{widest}" for size, widest in state.widest.items()]
    if block.squeeze:
        lines.append(f"squeeze-excitation: {block.squeeze} channels")
    if state.tokens_widest:
        lines.append(f"tokens: {block.tokens}/{state.tokens_widest}")
    if state.is_empty:
        lines.append("emptied: a plain skip" if block.is_residual else "emptied: the 1×1 skip is left")
    lines.append(f"{format_count(state.cost.macs)} MACs")
    return "\n".join(lines)


def _bar(x: float, y: float, left_over: int, widest: int, class_: str) -> Markup:
    """One outlined bar; a path with anything left shows at least a sliver."""
    parts = [svg.rectangle(x, y, BAR_WIDTH, BAR_HEIGHT, "full")] if widest else []
    if left_over:
        width = BAR_WIDTH * min(left_over / max(widest, 1), 1.0)
        parts.append(svg.rectangle(x, y, max(width, 1.2), BAR_HEIGHT, f"left {class_}"))
    return Markup().join(parts)
