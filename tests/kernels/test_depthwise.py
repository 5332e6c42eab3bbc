"""The CPU kernels against plain torch, over ragged widths, borders and strides."""

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from hrnas.kernels import compiling, depthwise
from kernels import reference

pytestmark = pytest.mark.skipif(compiling.problem() is not None, reason=f"no kernels: {compiling.problem()}")

LAYERS = [
    # (images, height, width), (size, channels) of every kernel, stride
    ((2, 12, 10), ((3, 4), (5, 4), (7, 4)), 1),
    ((2, 33, 17), ((3, 17), (5, 3), (7, 40)), 1),
    ((2, 35, 17), ((3, 17), (7, 40)), 2),
    ((1, 70, 9), ((3, 130), (5, 16)), 1),
    ((1, 2, 3), ((5, 70),), 2),
    ((3, 1, 1), ((3, 1), (5, 1), (7, 1)), 1),
    ((1, 1, 1), ((7, 8),), 2),
    ((2, 66, 5), ((1, 3), (9, 21), (11, 2)), 1),
    ((1, 9, 66), ((9, 5),), 2),
]
TOLERANCES = {torch.float64: 1e-11, torch.float32: 1e-5}


class Drawn:
    """Random maps and vectors of one layer."""

    def __init__(self, size: tuple[int, int, int], kernels: tuple[tuple[int, int], ...], stride: int) -> None:
        draw = torch.Generator().manual_seed(sum(size) + sum(map(sum, kernels)) + stride)
        count, height, width = size
        channels = sum(number for _, number in kernels)
        shape = (count, channels, height, width)
        out_shape = (count, channels, -(-height // stride), -(-width // stride))
        self.size, self.stride = size, stride
        self.x, self.d, self.gradient = (
            torch.randn(shape, generator=draw, dtype=torch.float64) + 1 for shape in (shape, out_shape, out_shape)
        )
        self.x_norm, self.d_norm = (torch.randn((4, channels), generator=draw, dtype=torch.float64) for _ in range(2))
        self.sums = torch.randn((2, channels), generator=draw, dtype=torch.float64)
        self.kernels = [
            (size, torch.randn(number, 1, size, size, generator=draw, dtype=torch.float64) / size)
            for size, number in kernels
        ]

    def to(self, dtype: torch.dtype) -> "Drawn":
        for name in ("x", "d", "gradient", "x_norm", "d_norm", "sums"):
            setattr(self, name, getattr(self, name).to(dtype))
        self.kernels = [(size, weight.to(dtype)) for size, weight in self.kernels]
        return self

    @property
    def layer(self) -> depthwise.Layer:
        return depthwise.Layer(*self.size, self.stride, self.kernels)

    def slices(self, x: Tensor) -> list[Tensor]:
        """Return a map as the kernels take it."""
        parts = x.permute(0, 2, 3, 1).split([len(weight) for _, weight in self.kernels], dim=-1)
        return [part.reshape(-1, part.shape[-1]).contiguous() for part in parts]

    def folded(self, norm: Tensor) -> tuple[Tensor, Tensor]:
        """Return scale and shift of a norm."""
        mean, rstd, weight, bias = norm
        return weight * rstd, bias - mean * weight * rstd

    def through(self, norm: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
        """Return c1, c0 of a batch norm's gradient, scale * g + c1 * x + c0."""
        (scale, _), (total, product) = self.folded(norm), self.sums
        c1 = -scale * norm[1] * product / pixels
        return c1, -scale * total / pixels - c1 * norm[0]


def assert_alike(found: Sequence[Tensor], expected: Sequence[Tensor], dtype: torch.dtype) -> None:
    """Compare tensors, relative to the largest value of each."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype
        assert one.shape == other.shape
        scale = float(other.abs().max().clamp_min(1e-6))
        torch.testing.assert_close(one.double(), other, rtol=0, atol=TOLERANCES[dtype] * scale)


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("given", LAYERS, ids=str)
def test_every_function_is_the_plain_one(
    given: tuple[tuple[int, int, int], tuple[tuple[int, int], ...], int], dtype: torch.dtype, is_training: bool
) -> None:
    ours = Drawn(*given).to(dtype)
    plain = copy.deepcopy(ours).to(torch.float64)  # the same numbers: what float32 rounds away is not the kernels'
    layer, slices, slices_of_x, slices_of_d = ours.layer, plain.slices, ours.slices(ours.x), ours.slices(ours.d)
    norm, d_norm = depthwise.Norm(*ours.x_norm), depthwise.Norm(*ours.d_norm)
    scale, shift = plain.folded(plain.x_norm)
    d_scale, d_shift = plain.folded(plain.d_norm)

    def moments(x: Tensor) -> list[Tensor]:
        mean, variance = reference.channel_moments(x)
        return [mean, variance, torch.rsqrt(variance + 1e-3)]

    of_x, of_d, sums = (torch.empty((number, ours.x.shape[1]), dtype=dtype) for number in (3, 3, 2))
    depthwise.moments(slices_of_x, 1e-3, of_x)
    assert_alike(of_x, moments(plain.x), dtype)
    expected = reference.depthwise(plain.x, scale, shift, plain.kernels, plain.stride)
    assert_alike(depthwise.depthwise(layer, slices_of_x, norm, 1e-3, of_d), slices(expected), dtype)
    assert_alike(of_d, moments(expected), dtype)
    assert_alike(depthwise.activate(slices_of_x, norm), slices(reference.activate(plain.x, scale, shift)), dtype)

    gradient = ours.slices(ours.gradient)
    active, *of_active = reference.activate_backward(plain.d, plain.gradient, d_scale, d_shift, *plain.d_norm[:2])
    assert_alike(depthwise.activate_backward(slices_of_d, gradient, d_norm, sums), slices(active), dtype)
    assert_alike(sums, of_active, dtype)
    count = plain.d.numel() // plain.d.shape[1]
    c1, c0 = plain.through(plain.d_norm, count) if is_training else (torch.zeros_like(scale), torch.zeros_like(scale))
    g, of_weights, *of_g = reference.depthwise_backward(
        plain.x, scale, shift, *plain.x_norm[:2], plain.kernels, plain.stride, plain.d, plain.gradient,
        d_scale, d_shift, c1, c0,
    )  # fmt: skip
    found, found_weights = depthwise.depthwise_backward(
        layer, slices_of_x, norm, slices_of_d, gradient, d_norm, ours.sums, sums, is_training=is_training
    )
    assert_alike(found, slices(g), dtype)
    assert_alike(found_weights, of_weights, dtype)
    assert_alike(sums, of_g, dtype)
    c1, c0 = plain.through(plain.d_norm, count) if is_training else (torch.zeros_like(scale), torch.zeros_like(scale))
    over = depthwise.norm_backward(gradient, slices_of_d, d_norm, ours.sums, is_training=is_training)
    assert over is gradient
    assert_alike(over, slices(reference.norm_backward(plain.gradient, plain.d, d_scale, c1, c0)), dtype)


def test_the_variance_of_a_far_off_channel_is_kept() -> None:
    x = torch.randn(2480, 19, generator=torch.Generator().manual_seed(0)) + 1000
    out = torch.empty(3, 19)
    depthwise.moments([x], 0.0, out)
    assert_alike(out[:2], [x.double().mean(0), x.double().var(0, correction=0)], torch.float32)


def test_what_is_not_a_number_shows() -> None:
    """A diverging run must not be hidden by a ReLU that makes zeros of NaN."""
    x, good, out = torch.ones(36, 20), torch.ones(36, 20), torch.empty(3, 20)
    x[14, 3] = torch.nan
    norm = depthwise.Norm(torch.zeros(20), torch.ones(20), torch.ones(20), torch.zeros(20))
    layer = depthwise.Layer(1, 6, 6, 1, [(3, torch.ones(20, 1, 3, 3))])
    assert depthwise.activate([x], norm)[0].isnan().sum() == 1
    assert depthwise.depthwise(layer, [x], norm, 1e-3, out)[0].isnan().sum() == 9
    assert out.isnan().sum() == 3
    sums = torch.zeros(2, 20)
    (g,), (of_weight,) = depthwise.depthwise_backward(
        layer, [good], norm, [good], [x], norm, sums, sums, is_training=False
    )
    assert g.isnan().sum() == 9
    assert of_weight.isnan().sum() == 9
    assert sums.isnan().sum() == 2


def test_any_number_of_threads_gives_the_same_bits() -> None:
    drawn = Drawn((3, 70, 41), ((3, 33), (5, 20), (7, 9)), 1).to(torch.float32)
    x, d, gradient = (drawn.slices(value) for value in (drawn.x, drawn.d, drawn.gradient))
    norm, d_norm = depthwise.Norm(*drawn.x_norm), depthwise.Norm(*drawn.d_norm)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            of_x, of_d, sums, more = (torch.empty(number, 62) for number in (3, 3, 2, 2))
            depthwise.moments(x, 1e-3, of_x)
            forward = depthwise.depthwise(drawn.layer, x, norm, 1e-3, of_d)
            active = depthwise.activate_backward(d, gradient, d_norm, sums)
            back, of_weights = depthwise.depthwise_backward(
                drawn.layer, x, norm, d, gradient, d_norm, sums, more, is_training=True
            )
            results.append([of_x, *forward, of_d, *active, sums, *back, *of_weights, more])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))
