"""Peak memory of a training step, predicted from an Architecture (docs/memory.md).

What autograd keeps is added up part by part: stem convolution, search block, sum of a fusion, head, loss. Then the
backward pass is walked from the last part to the first: each needs scratch, frees what was kept for it, and leaves the
gradients of its parameters. The peak is the highest point of that walk. What the process holds without a network, its
libraries above all, is not in it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from hrnas.arch.architecture import AnchorHead, Architecture, Block, ClassHead, DenseHead, Pillars
from hrnas.costing.analytic import (
    NORM_PARAMS,
    PlacedBlock,
    Size,
    block_cost,
    cost,
    halved,
    place_blocks,
)
from hrnas.kernels.slicing import EXPANDED_AGAIN, bundles

_FLOAT: Final = 4
"""Bytes of a float32 number."""

_LABEL: Final = 8
"""Bytes of a label as the loss takes it."""

MAPPED: Final = 32 << 20
"""Blocks of this many bytes come from the system and go back to it; the C library keeps smaller ones (hrnas.cli)."""

_UNUSED: Final = {False: 0.33, True: 1.1}
"""Measured: what the C library holds unused, as a share of smaller blocks in use; without, with recomputation."""
_UNUSED_WITH_KERNELS: Final = {False: 0.2, True: 0.6}
"""The same with the CPU kernels, whose blocks are smaller and more alike."""

CLOUD: Final = 20_000
"""Assumed of every set: points of a cloud, all of them in pillars. docs/memory.md has what sets have."""
PER_PILLAR: Final = 4
"""Assumed of every set: points of a pillar, in the mean."""
_POINT: Final = 4
"""Numbers of a point."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of a training step.

    persistent: weights, moments of the optimizer and averages: there before, in and after every step.
    working: images, activations, gradients and scratch at the step's highest point.
    unused: freed, but kept by the C library in pieces that fit nothing.
    """

    persistent: int
    working: int
    unused: int

    @property
    def allocated(self) -> int:
        """Bytes torch has taken at the highest point."""
        return self.persistent + self.working

    @property
    def peak(self) -> int:
        """Bytes the process has taken for the step, after some steps."""
        return self.persistent + self.working + self.unused


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A part of the network; bytes over all images that go through it at a time, and the number of its parameters.

    kept: held for the backward pass. inner: the same, but a search block can compute it again from its input.
    small: what of inner is in blocks below MAPPED.
    scratch: needed beside them while the part goes backward, gradients of maps included. native: oneDNN's share of it.
    """

    kept: int = 0
    inner: int = 0
    small: int = 0
    scratch: int = 0
    native: int = 0
    params: int = 0


@dataclass(frozen=True, kw_only=True)
class _Terms:
    """What decides how many bytes a number takes.

    number: bytes of a number of a map. images: that go through the network at a time. device: cpu or another.
    kernels: the CPU kernels are there; a transformer's layers are theirs. hidden_kernels: so are the hidden channels of
    a block without squeeze-excitation. activated: maps kept of what a batch norm and an activation put out: a ReLU
    works in place, a Swish does not.
    """

    number: int
    images: int
    device: str
    kernels: bool
    hidden_kernels: bool
    activated: int

    def bytes(self, numbers: int) -> int:
        """Return the bytes of so many numbers of one image's maps, over all images."""
        return numbers * self.number * self.images


def training_memory(
    architecture: Architecture,
    input_size: Size,
    micro_batch: int,
    *,
    batch_size: int | None = None,
    precision: str = "float32",
    recompute: bool = False,
    device: str = "cpu",
    kernels: bool = False,
    num_moments: int = 2,
    num_averages: int = 1,
) -> Memory:
    """Predict the memory of a training step with a cross-entropy: at the input's size by a dense head, else of classes.

    By a head of anchors it is the focal loss; the clouds have CLOUD points each, in pillars of PER_PILLAR.

    micro_batch: images that go through the network at a time. batch_size: images of the whole step where they are more.
    precision: float32 or bfloat16. recompute: search blocks keep their inputs only. device: its type; what is not cpu
    has neither oneDNN's scratch nor the C library's unused pieces, and is not measured. kernels: the CPU kernels are
    there; they work in float32.
    num_moments: numbers the optimizer holds a parameter, two in AdamW, Adam and RMSprop; num_averages: averages of it.
    """
    number = {"float32": _FLOAT, "bfloat16": 2}[precision]
    has_kernels = kernels and device == "cpu" and number == _FLOAT
    has_relu = architecture.activation == "relu"
    terms = _Terms(
        number=number,
        images=micro_batch,
        device=device,
        kernels=has_kernels,
        hidden_kernels=has_kernels and has_relu,
        activated=1 if has_relu else 2,
    )
    parts = [*_parts(architecture, input_size, terms), _loss(architecture, input_size, micro_batch)]
    params = sum(part.params for part in parts)
    assert params == cost(architecture, input_size).params
    # The batch as it was read and normalised, and labels; in bfloat16 a copy of the images, and one of the weights.
    copies = terms.number if terms.number < _FLOAT else 0
    pixels = _area(input_size)
    labels = pixels if isinstance(architecture.head, DenseHead) else _LABEL
    if architecture.pillars is None:
        held = (batch_size or micro_batch) * (pixels * architecture.in_channels * (1 + _FLOAT) + labels)
        held += micro_batch * pixels * architecture.in_channels * copies
    else:
        held = (batch_size or micro_batch) * CLOUD * _POINT * _FLOAT
    held += params * copies
    if isinstance(architecture.head, AnchorHead):
        held += _anchor_outputs(architecture, input_size, micro_batch)  # the step has them until it ends
    held += sum(part.kept + (0 if recompute else part.inner) for part in parts)
    is_first = batch_size in (None, micro_batch)  # else the gradients of micro-batches before are there from the start
    gradients = 0 if is_first else params * _FLOAT
    highest = native = 0
    for part in reversed(parts):
        gradients += part.params * _FLOAT if is_first else 0
        point = held + gradients + part.scratch + (part.inner if recompute else 0)
        highest, native = max((highest, native), (point, part.native))
        held -= part.kept + (0 if recompute else part.inner)
    small = sum(part.small for part in parts) / max(1, sum(part.inner for part in parts))
    unused = _UNUSED_WITH_KERNELS if has_kernels and has_relu else _UNUSED
    return Memory(
        persistent=params * _FLOAT * (1 + num_moments + num_averages),
        working=highest,
        unused=int(unused[recompute] * small * (highest - native)) if device == "cpu" else 0,
    )


def _parts(architecture: Architecture, input_size: Size, terms: _Terms) -> Iterator[_Part]:
    """Yield the parts of the network in the order of the forward pass."""
    size, channels = input_size, architecture.in_channels
    drawn = 0  # the map of pillars, which unlike an image is not there before and has a gradient
    if architecture.pillars is not None:
        yield _pillars(architecture.pillars, input_size, terms)
        drawn = terms.bytes(channels * _area(size))
    for conv in architecture.stem:
        size = halved(size, conv.stride)
        out = terms.bytes(_area(size) * conv.out_channels)
        # What the convolution puts out, for the batch norm, and what the activation does, for itself and what follows.
        params = (9 * channels + NORM_PARAMS) * conv.out_channels
        yield _Part(kept=(1 + terms.activated) * out + drawn, scratch=2 * out + drawn, params=params)
        channels, drawn = conv.out_channels, 0
    blocks = place_blocks(architecture, input_size)
    for index, stage in enumerate(architecture.stages):
        is_last = index == len(architecture.stages) - 1
        paths = list(islice(blocks, len(stage.paths)))
        grown = list(islice(blocks, len(stage.grow)))
        # The ReLU of each sum is kept, of a Swish also the sum; what the paths put out is not.
        maps = {path.target: _output(block, terms) for path, block in zip(stage.paths, paths, strict=True)}
        fused = sum(maps.values())
        pending = 2 * (fused + sum(_output(block, terms) for block in grown))
        for block in paths:
            yield _block(block, architecture, terms, pending=pending)
        yield _Part(kept=terms.activated * fused, scratch=pending)
        for block in grown:
            yield _block(block, architecture, terms, pending=pending, is_kept=True)
        for branch in stage.branches:
            for position, block in enumerate(islice(blocks, len(branch))):
                # What the last stage puts out is not kept for a head that makes a copy, resized.
                is_copied = is_last and position == len(branch) - 1 and not isinstance(architecture.head, ClassHead)
                is_kept = not is_copied
                yield _block(block, architecture, terms, pending=pending, is_kept=is_kept)
    head = architecture.head
    if isinstance(head, ClassHead):
        yield from _class_head(head, list(blocks), architecture, terms)
    elif isinstance(head, AnchorHead):
        width = sum(feature.channels for feature in architecture.features)
        joined, out = terms.bytes(width * _area(size)), terms.bytes(head.channels * _area(size))
        # Of the outputs a gradient and its copy in the convolution's layout.
        yield _Part(kept=joined, scratch=joined + 2 * out, params=(width + 1) * head.channels)
    elif head is not None:
        (block,) = blocks
        joined = terms.bytes(block.block.in_channels * _area(size))
        yield _Part(kept=joined, scratch=joined)
        yield _block(block, architecture, terms, is_kept=True)
        logits = terms.bytes(head.outputs * _area(size))
        params = (block.block.out_channels + 1) * head.outputs
        yield _Part(scratch=2 * logits + _output(block, terms), params=params)


def _pillars(pillars: Pillars, input_size: Size, terms: _Terms) -> _Part:
    """Return the pillar net, in float32 whatever the network's: features, what its layer and norm put out, maxima.

    Its parameters are not the two-dimensional part's and few.
    """
    area = _area(input_size)
    found = min(CLOUD // PER_PILLAR, pillars.train_pillars, area)
    point, maxima, drawn = (pillars.channels * count * _FLOAT * terms.images for count in (CLOUD, found, area))
    features = pillars.FEATURES * CLOUD * _FLOAT * terms.images
    # The highest of two points: the gradient of the map, of which that of the maxima is taken; then, the maxima and
    # what they are the maxima of freed, those on both sides of the norm and a copy.
    return _Part(kept=features + 2 * point + 2 * maxima, scratch=max(drawn + maxima, 2 * point - 2 * maxima))


def _class_head(
    head: ClassHead, blocks: Sequence[PlacedBlock], architecture: Architecture, terms: _Terms
) -> Iterator[_Part]:
    """Yield the parts of a head of classes; blocks: its own, widening ones first."""
    widened, down = blocks[: len(head.widen)], blocks[len(head.widen) :]
    pending = sum(_output(block, terms) for block in widened)
    for position, block in enumerate(widened):
        yield _block(block, architecture, terms, pending=pending, is_kept=position == 0)
    for block in down:
        yield _block(block, architecture, terms, pending=pending)
        yield _Part(kept=_output(block, terms), scratch=2 * _output(block, terms))  # the sum with the branch below
    size, width = (down or widened)[-1].size_out, head.widen[-1].out_channels
    out = terms.bytes(head.features * _area(size))
    params = (width + NORM_PARAMS) * head.features
    yield _Part(kept=(1 + terms.activated) * out, scratch=2 * out, params=params)
    average = terms.bytes(head.features)
    kept = 2 * average if head.dropout else average
    yield _Part(kept=kept, scratch=2 * average, params=(head.features + 1) * head.outputs)


def _block(
    placed: PlacedBlock, architecture: Architecture, terms: _Terms, *, pending: int = 0, is_kept: bool = False
) -> _Part:
    """Return a search block as a part. pending: gradients of other maps meanwhile. is_kept: so is what it puts out."""
    block, out = placed.block, _output(placed, terms)
    area_in, area_out = _area(placed.size_in), _area(placed.size_out)
    hidden_in, hidden_out = terms.bytes(block.hidden_channels * area_in), terms.bytes(block.hidden_channels * area_out)
    # What the expansion, the depthwise convolutions and the projection put out, for the norm behind each; without the
    # kernels also what the first two norms and activations put out, with them not always what the expansion does.
    has_kernels = terms.hidden_kernels and not block.squeeze
    is_again = has_kernels and block.in_channels <= EXPANDED_AGAIN
    hidden = [hidden_out] if is_again else [hidden_in, hidden_out]
    inner = (1 if has_kernels else 1 + terms.activated) * sum(hidden) + (out if block.kernels else 0)
    inner += hidden_out if block.squeeze else 0  # times its gates, for the projection
    # The highest of three points: the gradients around the second ReLU; then, with what came after it freed, a kernel
    # path's copies of its slices, its gradient and its scratch; then the paths' gradients, apart and joined.
    points = [(2 * hidden_out, 0), (2 * (hidden_in - hidden_out), 0)]
    if has_kernels:
        # Of two: a bundle's second ReLU's output and its gradient; that gradient and the first one's; in both what the
        # expansion puts out, if again.
        bytes_in, bytes_out = terms.bytes(area_in), terms.bytes(area_out)
        widths = tuple(channels for _, channels in block.kernels)
        widest = max((bundle[-1].last - bundle[0].first for bundle in bundles(widths, bytes_in)), default=0)
        again = widest * bytes_in if is_again else 0
        points = [(again + widest * 2 * bytes_out, 0), (again + widest * (bytes_in + bytes_out), 0)]
    for size, channels in () if has_kernels else block.kernels:
        copies = terms.bytes(channels * (2 * area_in + area_out))
        own = _depthwise_scratch(size, channels, area_in + area_out, terms)
        points.append((copies - hidden_out + own, own))
    scratch, native = max(points)
    # With the kernels these are slices, each smaller than MAPPED.
    small = sum(hidden) if has_kernels else sum((1 + terms.activated) * maps for maps in hidden if maps < MAPPED)
    if block.tokens:
        tokens = _transformer(block, architecture, terms)
        inner, small = inner + tokens, small + tokens
    return _Part(
        kept=out if is_kept else 0,
        inner=inner,
        small=small,
        scratch=scratch + 2 * out + pending,
        native=native,
        params=block_cost(placed, architecture.token_size).params,
    )


def _depthwise_scratch(kernel_size: int, channels: int, areas: int, terms: _Terms) -> int:
    """Return the bytes in which oneDNN makes the gradient of depthwise weights.

    It knows 3x3; larger kernels it treats as grouped, each channel padded to a block of 16 x 16; in bfloat16 it holds
    the maps of an image, 16 channels for one, and a second copy of the weights.
    """
    if terms.device != "cpu" or kernel_size <= 3:
        return 0
    weights, block = channels * kernel_size**2, 16
    if terms.number == _FLOAT:
        return weights * block**2 * _FLOAT
    return weights * block**2 * (_FLOAT + terms.number) + channels * block * areas * terms.number


def _transformer(block: Block, architecture: Architecture, terms: _Terms) -> int:
    """Return the bytes a lightweight transformer keeps: small maps at both ends, multiples of N*D and N*N between.

    The multiples are what torch's saved tensors add up to; in bfloat16 some of them are float32.
    """
    width, tokens = architecture.token_size**2, block.tokens
    per_number, per_pair = (24, 4) if terms.kernels else (32, 6) if terms.number == _FLOAT else (36, 12)
    pairs = per_pair * architecture.attention_heads * tokens**2
    ends = (block.in_channels + 2 + block.out_channels) * width
    return terms.bytes(ends + per_number * tokens * width + pairs)


def _loss(architecture: Architecture, input_size: Size, images: int) -> _Part:
    """Return the cross-entropy, of a dense head on logits resized to the input; in float32 whatever the network's.

    Of a head of anchors the focal loss.
    """
    assert architecture.head is not None, "a backbone has no loss of its own"
    if isinstance(architecture.head, AnchorHead):
        outputs = _anchor_outputs(architecture, input_size, images)
        scores = outputs * architecture.head.outputs * architecture.head.anchors // architecture.head.channels
        # Logits of the background, probabilities, their squares, logarithms; then gradients of three of them, and of
        # what else the head puts out.
        return _Part(kept=4 * scores, scratch=3 * scores + outputs - scores)
    area = _area(input_size) if isinstance(architecture.head, DenseHead) else 1
    logits = architecture.head.outputs * area * _FLOAT * images
    labels = area * _LABEL * images
    # Log-probabilities and labels; then the gradients on both sides of the logarithm.
    return _Part(kept=logits + labels, scratch=2 * logits)


def _anchor_outputs(architecture: Architecture, input_size: Size, images: int) -> int:
    """Return the bytes a head of anchors puts out, as the loss takes them: in float32."""
    assert isinstance(architecture.head, AnchorHead)
    places = math.prod(halved(input_size, architecture.features[0].stride))
    return architecture.head.channels * places * _FLOAT * images


def _output(placed: PlacedBlock, terms: _Terms) -> int:
    """Return the bytes of the map a block puts out."""
    return terms.bytes(placed.block.out_channels * _area(placed.size_out))


def _area(size: Size) -> int:
    return size[0] * size[1]
