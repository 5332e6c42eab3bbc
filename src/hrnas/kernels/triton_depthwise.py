"""Mixed depthwise, batch norm and ReLU on a GPU: the hidden path of a search block in few launches and few passes.

The functions take channels-last maps (N, C, H, W) of float32 or bfloat16 and per-channel float32 vectors (C,); they add
up in float32. kernels: (size, weight (c, 1, size, size)) of up to three slices of the channels, in order, padded by
size // 2. Sums are partial ones in a fixed order, added by torch: the same input gives the same bits.

Needs Triton, which comes with torch's builds for GPUs; TRITON_INTERPRET=1, set before the import, runs it on a CPU.

Not yet measured on a GPU. What can be counted without one: depthwise reads a map and writes one; depthwise_backward
reads six and writes two, as the gradient of d is formed once, for both kernels behind it. Compiled for sm_90, a value
of the depthwise takes about 75, 150 and 240 instructions at 3x3, 5x5 and 7x7 (bfloat16; 9, 25 and 49 are products), so
issue is likely to limit the convolutions, memory the rest. One mix of 3, 5 and 7, a stride, a dtype and runs of 8 or 16
columns compile once, about half a minute together, kept by Triton on disk; other widths and image sizes do not.
"""

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from hrnas.kernels import triton_kernels

Kernels = Sequence[tuple[int, Tensor]]

CHANNELS = 32
"""Channels of a program: 128 bytes of float32, a line of memory. A warp's 32 threads have one each."""
ROWS = 8
"""Rows of a tile of the depthwise and of its input gradient, a warp each."""
WEIGHT_ROWS = 4
"""Rows of a tile of the weight gradient, a warp each."""
KERNEL_ROWS = 2
"""Rows of a kernel a program has the weight gradient of: of 7x7, 14 sums a thread. More read less, compile longer."""
PIXELS = 32
"""Pixels of a tile where nothing is convolved: 8 values a thread of 128."""
PROGRAMS = 4096
"""Programs a launch with sums aims at, a few rounds of a large GPU; more would leave more partial sums to add."""
ALIGNMENT = 8
"""Channels read at once where nothing is convolved, 16 bytes of bfloat16, if C is a multiple of it."""


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of every channel of x, (C,) float32 each."""
    pixels, channels = _matrix(x)
    steps, chunks = _chunks(triton.cdiv(pixels, PIXELS), triton.cdiv(channels, CHANNELS))
    partial = x.new_empty((chunks, 2, channels), dtype=torch.float32)
    out = x.new_empty((2, channels), dtype=torch.float32)
    blocks = triton.cdiv(channels, CHANNELS)
    with torch.cuda.device_of(x):
        triton_kernels.moments[(chunks * blocks,)](
            x, partial, pixels, channels, steps, ALIGN=_alignment(channels), BC=CHANNELS, BP=PIXELS
        )
        triton_kernels.merge_moments[(blocks,)](partial, out, pixels, channels, steps, chunks, BC=CHANNELS, BP=PIXELS)
    return out[0], out[1]


def depthwise(x: Tensor, scale: Tensor, shift: Tensor, kernels: Kernels, stride: int) -> Tensor:
    """Convolve relu(x * scale + shift), (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride))."""
    _matrix(x)
    sizes, widths, weights = _slots(x, kernels)
    images, channels, height, width = x.shape
    out_height, out_width = triton.cdiv(height, stride), triton.cdiv(width, stride)
    out = _empty(x, (images, channels, out_height, out_width))
    rows, columns = images * out_height, _columns(out_width)
    tiles = triton.cdiv(rows, ROWS) * triton.cdiv(out_width, columns)
    blocks = sum(triton.cdiv(width, CHANNELS) for width in widths)
    with torch.cuda.device_of(x):
        triton_kernels.depthwise[(tiles * blocks,)](
            x, scale, shift, *weights, out, *widths, rows, height, width, out_height, out_width,
            *sizes, S=stride, BC=CHANNELS, LANES=ROWS, TW=columns, num_warps=ROWS,
        )  # fmt: skip
    return out


def activate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return relu(x * scale + shift); what is not a number stays so."""
    pixels, channels = _matrix(x)
    out = _empty(x, x.shape)
    with torch.cuda.device_of(x):
        triton_kernels.activate[(triton.cdiv(pixels, PIXELS) * triton.cdiv(channels, CHANNELS),)](
            x, scale, shift, out, pixels, channels, ALIGN=_alignment(channels), BC=CHANNELS, BP=PIXELS
        )
    return out


def activate_backward(
    x: Tensor, gradient: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return relu(x * scale + shift) and two sums over each channel, (C,), of its masked gradient g.

    The sums are of g and of g * (x - mean) * rstd.
    """
    pixels, channels = _matrix(x, gradient)
    out = _empty(x, x.shape)
    blocks = triton.cdiv(channels, CHANNELS)
    steps, chunks = _chunks(triton.cdiv(pixels, PIXELS), blocks)
    partial = x.new_empty((chunks, 2, channels), dtype=torch.float32)
    with torch.cuda.device_of(x):
        triton_kernels.activate_backward[(chunks * blocks,)](
            x, gradient, scale, shift, mean, rstd, out, partial, pixels, channels, steps,
            ALIGN=_alignment(channels), BC=CHANNELS, BP=PIXELS,
        )  # fmt: skip
    sums = partial.sum(dim=0)
    return out, sums[0], sums[1]


def depthwise_backward(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    mean: Tensor,
    rstd: Tensor,
    kernels: Kernels,
    stride: int,
    d: Tensor,
    gradient: Tensor,
    d_scale: Tensor,
    d_shift: Tensor,
    c1: Tensor,
    c0: Tensor,
) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
    """Go back from the gradient of relu(d * d_scale + d_shift), where d = depthwise(x, ...).

    Returns the masked gradient g of x * scale + shift, the gradients of the weights, and the sums over each channel of
    g and of g * (x - mean) * rstd. c1 and c0 carry what the batch norm of d adds to its gradient: c1 * d + c0.
    """
    _matrix(x)
    _matrix(d, gradient)
    sizes, widths, weights = _slots(x, kernels)
    blocks = [triton.cdiv(channels, CHANNELS) for channels in widths]
    images, channels, height, width = x.shape
    out_height, out_width = d.shape[2:]
    assert d.shape == (images, channels, triton.cdiv(height, stride), triton.cdiv(width, stride))

    gd = _norm_backward(_empty(d, d.shape), gradient, d, d_scale, d_shift, c1, c0, masked=True)
    taps = [weight.numel() for _, weight in kernels]
    rows, columns = images * out_height, _columns(out_width)
    tiles = triton.cdiv(rows, WEIGHT_ROWS) * triton.cdiv(out_width, columns)
    programs = sum(count * triton.cdiv(size, KERNEL_ROWS) for count, size in zip(blocks, sizes, strict=True))
    steps, chunks = _chunks(tiles, programs)
    partial = x.new_empty((chunks, sum(taps)), dtype=torch.float32)
    with torch.cuda.device_of(x):
        triton_kernels.depthwise_weights[(chunks * programs,)](
            x, scale, shift, gd, partial, *widths, sum(taps),
            rows, height, width, out_height, out_width, steps,
            *sizes, S=stride, KERNEL_ROWS=KERNEL_ROWS, BC=CHANNELS, LANES=WEIGHT_ROWS, TW=columns,
            num_warps=WEIGHT_ROWS,
        )  # fmt: skip
    weight_gradients = [
        part.view(weight.shape).to(weight.dtype)
        for part, (_, weight) in zip(partial.sum(dim=0).split(taps), kernels, strict=True)
    ]

    g = _empty(x, x.shape)
    rows, columns = images * triton.cdiv(height, stride), _columns(width)
    tiles = stride * triton.cdiv(rows, ROWS) * triton.cdiv(width, columns)
    steps, chunks = _chunks(tiles, sum(blocks))
    partial = x.new_empty((chunks, 2, channels), dtype=torch.float32)
    with torch.cuda.device_of(x):
        triton_kernels.depthwise_input[(chunks * sum(blocks),)](
            x, scale, shift, mean, rstd, *weights, gd, g, partial, *widths,
            rows, height, width, out_height, out_width, steps,
            *sizes, S=stride, BC=CHANNELS, LANES=ROWS, TW=columns, num_warps=ROWS,
        )  # fmt: skip
    sums = partial.sum(dim=0)
    return g, weight_gradients, sums[0], sums[1]


def norm_backward(g: Tensor, x: Tensor, scale: Tensor, c1: Tensor, c0: Tensor) -> Tensor:
    """Return scale * g + c1 * x + c0, written over g."""
    return _norm_backward(g, g, x, scale, scale, c1, c0, masked=False)


def _norm_backward(
    out: Tensor, gradient: Tensor, x: Tensor, scale: Tensor, shift: Tensor, c1: Tensor, c0: Tensor, *, masked: bool
) -> Tensor:
    """Write scale * gradient + c1 * x + c0 to `out`; if masked, gradient is that of relu(x * scale + shift)."""
    pixels, channels = _matrix(x, gradient, out)
    with torch.cuda.device_of(x):
        triton_kernels.norm_backward[(triton.cdiv(pixels, PIXELS) * triton.cdiv(channels, CHANNELS),)](
            gradient, x, scale, shift, c1, c0, out, pixels, channels,
            MASKED=masked, ALIGN=_alignment(channels), BC=CHANNELS, BP=PIXELS,
        )  # fmt: skip
    return out


def _matrix(*maps: Tensor) -> tuple[int, int]:
    """Return pixels and channels of maps of one shape; they must be what the kernels read."""
    images, channels, height, width = maps[0].shape
    for found in maps:
        assert found.shape == maps[0].shape, f"maps of {tuple(found.shape)} and {tuple(maps[0].shape)}"
        assert found.dtype in (torch.float32, torch.bfloat16), f"a map of {found.dtype}"
        assert found.is_contiguous(memory_format=torch.channels_last), "a map that is not channels-last"
    pixels = images * height * width
    assert 0 < pixels < 2**30
    return pixels, channels


def _empty(like: Tensor, shape: Sequence[int]) -> Tensor:
    return torch.empty(tuple(shape), dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _slots(x: Tensor, kernels: Kernels) -> tuple[list[int], list[int], list[Tensor]]:
    """Return sizes, channels and weights of three slices; those not in `kernels` have no channels."""
    assert sum(len(weight) for _, weight in kernels) == x.shape[1]
    for size, weight in kernels:
        assert weight.shape[1:] == (1, size, size), f"a weight {tuple(weight.shape)} of size {size}"
        assert weight.is_contiguous()
    found = dict(kernels)
    assert list(found) == sorted(found), f"kernel sizes {list(found)} do not ascend"
    if set(found) <= {3, 5, 7}:
        sizes = [3, 5, 7]  # even where one has no channels: a block that loses a kernel size needs no other code
    else:
        assert len(found) <= 3, f"kernel sizes {list(found)}: at most three"
        sizes = [*found, *[size for size in (1, 3, 5) if size not in found]][:3]
    some = kernels[0][1]  # never read
    weights = [found.get(size, some) for size in sizes]
    return sizes, [len(found[size]) if size in found else 0 for size in sizes], weights


def _columns(width: int) -> int:
    """Return the columns of a run: of 16, a row of a 7x7 reads 22 values for 112 products. Even, for stride 2."""
    return 16 if width > 8 else 8


def _chunks(tiles: int, blocks: int) -> tuple[int, int]:
    """Return the tiles of a chunk, and the chunks."""
    steps = triton.cdiv(tiles * blocks, PROGRAMS)
    return steps, triton.cdiv(tiles, steps)


def _alignment(channels: int) -> int:
    return ALIGNMENT if channels % ALIGNMENT == 0 else 1
