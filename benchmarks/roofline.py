"""The floors of a training step: what its arithmetic and what its memory traffic must take at least.

Arithmetic: three times the forward MACs (the backward pass makes a gradient of the input and one of the weights for
each), two floating-point operations a MAC. Traffic: every map an operator reads or writes, once a pass over it, counted
in two ways. "By operator": each convolution, batch norm (two passes over its input), ReLU and sum reads and writes
maps in memory, as plain torch operators must. "Fused": batch norm and ReLU happen where the convolutions beside them
read and write, the moments are taken on the way, activations are computed again in the backward pass; what is left are
the maps that a convolution puts out and their gradients. Weights, moments and averages are in both; the small maps
inside transformers are in neither.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from hrnas.arch.architecture import Architecture
from hrnas.costing.analytic import PlacedBlock, Size, cost, halved, place_blocks

_FLOAT = 4


@dataclass(frozen=True, kw_only=True)
class Floors:
    """Floating-point operations of a step, and bytes it moves."""

    operations: int
    bytes_by_operator: int
    bytes_fused: int


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a machine reaches: floating-point operations and bytes a second."""

    operations: float
    bandwidth: float


def floors(architecture: Architecture, input_size: Size, batch_size: int, precision: str = "float32") -> Floors:
    """Return the floors of a step of a network with a dense head under a cross-entropy at the input's size."""
    price = cost(architecture, input_size)
    maps = [_stem(architecture, input_size)]
    maps += [_block(placed) for placed in place_blocks(architecture, input_size)]
    maps += [_fusions(architecture, input_size), _head(architecture, input_size)]
    by_operator, fused = (sum(column) for column in zip(*maps, strict=True))
    number = _FLOAT if precision == "float32" else 2
    # Weights: read twice, gradient written, read for its norm; AdamW reads 4, writes 3; the average reads 2, writes 1.
    # Fused, the average is moved where the weights are written.
    return Floors(
        operations=3 * 2 * price.macs * batch_size,
        bytes_by_operator=number * batch_size * by_operator + 14 * _FLOAT * price.params,
        bytes_fused=number * batch_size * fused + 12 * _FLOAT * price.params,
    )


def measure_machine(device: str, precision: str = "float32") -> Machine:
    """Return the best of ten products of 2048x2048 matrices (8192 on a GPU) and of ten copies of 256 MiB."""
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    side = 2048 if device == "cpu" else 8192
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    product = torch.empty_like(one)
    source = torch.ones(64 << 20, device=device)
    target = torch.ones_like(source)
    return Machine(
        operations=2 * side**3 / _least_seconds(lambda: torch.mm(one, other, out=product), device),
        bandwidth=2 * _FLOAT * source.numel() / _least_seconds(lambda: target.copy_(source), device),
    )


def _least_seconds(call: Callable[[], object], device: str) -> float:
    seconds = []
    for _ in range(11):
        if device != "cpu":
            torch.cuda.synchronize()
        started = time.perf_counter()
        call()
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def _stem(architecture: Architecture, input_size: Size) -> tuple[int, int]:
    """Return numbers moved for one image: by operator, fused."""
    size, channels = input_size, architecture.in_channels
    by_operator = fused = 0
    for index, conv in enumerate(architecture.stem):
        before = channels * _area(size)
        size, channels = halved(size, conv.stride), conv.out_channels
        after = channels * _area(size)
        of_input = index > 0  # the image needs no gradient
        # Convolution, norm 3, ReLU 2; backward ReLU 3, norm 5, gradients of the weights and of the input.
        by_operator += before + after + 5 * after + 8 * after + (1 + of_input) * (before + after)
        # Written, read by what follows; backward two passes over gradient and map, gradient of the input written.
        fused += before + 2 * after + 4 * after + (1 + of_input) * before
    return by_operator, fused


def _block(placed: PlacedBlock) -> tuple[int, int]:
    block = placed.block
    area_in, area_out = _area(placed.size_in), _area(placed.size_out)
    x, y = block.in_channels * area_in, block.out_channels * area_out
    e, d = block.hidden_channels * area_in, block.hidden_channels * area_out
    by_operator = fused = 0
    if not block.is_residual:  # the skip convolution: forward, gradients of input and weights, the sum of two gradients
        by_operator += 3 * (x + y) + 3 * x
        fused += 2 * x + y
    elif block.kernels:
        by_operator += 3 * x  # the sum of the skip's gradient and the paths'
        fused += x
    if block.kernels:
        # Forward: expand x + e, norm 3e, ReLU 2e, depthwise e + d, norm 3d, ReLU 2d, project d + y, norm 3y, sum 3y.
        by_operator += x + 7 * e + 7 * d + 7 * y
        # Backward: norm 5y, project 2(y + d), ReLU 3d, norm 5d, depthwise 2(d + e), ReLU 3e, norm 5e, expand 2(e + x).
        by_operator += 2 * x + 12 * e + 12 * d + 7 * y
        # Forward: expand x + e, depthwise e + d, project d + y, norm and sum x + 2y.
        fused += 2 * x + 2 * e + 2 * d + 3 * y
        # Backward: the norm's sums 2y; project 2y + d and d written; depthwise 2d + e and e written; expand 2e + x, x.
        fused += 2 * x + 4 * e + 4 * d + 4 * y
    return by_operator, fused


def _fusions(architecture: Architecture, input_size: Size) -> tuple[int, int]:
    """The sums of the fusion modules with their ReLUs, upsampling, and the sums of gradients where a branch forks."""
    placed = {place.name: place for place in place_blocks(architecture, input_size)}
    by_operator = fused = 0
    for index, stage in enumerate(architecture.stages):
        readers: dict[int, int] = {}
        targets: dict[int, int] = {}
        for position, path in enumerate(stage.paths):
            place = placed[f"stages.{index}.fusion.paths.{position}"]
            small = path.block.out_channels * _area(place.size_out)
            out = 4 * small if path.source > path.target else small
            if path.source > path.target:
                by_operator += 2 * (small + out)  # upsampled, and its gradient summed
            if path.target in targets:
                by_operator += 3 * out
            else:
                by_operator += 5 * out  # the ReLU, there and back
                fused += 3 * out
            fused += small
            targets[path.target] = out
            if path.source in readers:
                by_operator += 3 * path.block.in_channels * _area(place.size_in)
            readers[path.source] = 1
    return by_operator, fused


def _head(architecture: Architecture, input_size: Size) -> tuple[int, int]:
    """Concatenation there and back, the 1x1 convolution, the loss at the input's size."""
    head = architecture.head
    assert head is not None, "a backbone has no loss of its own"
    size = next(place.size_in for place in place_blocks(architecture, input_size) if place.name == "head.block")
    joined, y = head.block.in_channels * _area(size), head.block.out_channels * _area(size)
    logits, large = head.outputs * _area(size), head.outputs * _area(input_size)
    by_operator = 4 * joined + 3 * (y + logits) + 8 * large
    return by_operator, 4 * joined + 2 * y + 2 * logits


def _area(size: Size) -> int:
    return size[0] * size[1]
