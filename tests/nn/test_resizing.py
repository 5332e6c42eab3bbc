"""Compiled resizing against torch's."""

import pytest
import torch
import torch.nn.functional as F

from hrnas.kernels import compiling, resizing
from hrnas.nn.resizing import resize_to

pytestmark = pytest.mark.skipif(compiling.problem() is not None, reason=f"no kernels: {compiling.problem()}")

SIZES = [
    ((8, 8), (45, 60)),
    ((45, 60), (8, 8)),
    ((7, 1), (1, 9)),
    ((33, 20), (32, 21)),
    ((2, 3), (2, 7)),
    ((1, 1), (5, 4)),
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("channels", [1, 5, 16, 37])
@pytest.mark.parametrize(("size", "out_size"), SIZES)
def test_it_is_torchs(size: tuple[int, int], out_size: tuple[int, int], channels: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, channels, *size, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    plain = x.detach().double().contiguous().requires_grad_()
    found = resize_to(x, out_size)
    assert type(found.grad_fn).__name__ == "_ResizeBackward"
    expected = F.interpolate(plain, size=out_size, mode="bilinear", align_corners=False)
    direction = torch.randn_like(expected)
    found.backward(direction.to(dtype))
    expected.backward(direction)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    found, expected = found.detach(), expected.detach()
    assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())
    assert float((x.grad - plain.grad).abs().max()) <= tolerance * float(plain.grad.abs().max())


def test_any_number_of_threads_gives_the_same_bits() -> None:
    x, gradient = torch.randn(3, 13, 9, 21), torch.randn(3, 40, 31, 21)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append((resizing.resize(x, (40, 31)), resizing.resize_backward(gradient, (13, 9))))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


def test_nan_is_not_hidden() -> None:
    x = torch.zeros(1, 6, 6, 3)
    x[0, 2, 2, 1] = torch.nan
    assert resizing.resize(x, (9, 9)).isnan().any()
    assert resizing.resize_backward(x, (4, 9)).isnan().any()
