"""The CPU kernels against plain torch, over ragged widths, borders and strides."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hrnas.kernels import compiling, cpu
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
    """Random maps and vectors of one layer, in channels_last memory."""

    def __init__(self, size: tuple[int, int, int], kernels: tuple[tuple[int, int], ...], stride: int) -> None:
        draw = torch.Generator().manual_seed(hash((size, kernels, stride)) % 2**31)
        count, height, width = size
        channels = sum(number for _, number in kernels)
        shape = (count, channels, height, width)
        out_shape = (count, channels, -(-height // stride), -(-width // stride))
        self.stride = stride
        self.x, self.d, self.gradient = (
            (torch.randn(shape, generator=draw, dtype=torch.float64) + 1).contiguous(memory_format=torch.channels_last)
            for shape in (shape, out_shape, out_shape)
        )
        self.vectors = [torch.randn(channels, generator=draw, dtype=torch.float64) for _ in range(8)]
        self.kernels = [
            (size, torch.randn(number, 1, size, size, generator=draw, dtype=torch.float64) / size)
            for size, number in kernels
        ]

    def to(self, dtype: torch.dtype) -> "Drawn":
        self.x, self.d, self.gradient = (tensor.to(dtype) for tensor in (self.x, self.d, self.gradient))
        self.vectors = [vector.to(dtype) for vector in self.vectors]
        self.kernels = [(size, weight.to(dtype)) for size, weight in self.kernels]
        return self


def assert_alike(found: object, expected: object, dtype: torch.dtype) -> None:
    """Compare tensors, or sequences of them, relative to the largest value of each."""
    if isinstance(found, Tensor):
        assert isinstance(expected, Tensor)
        assert found.dtype == dtype
        assert found.shape == expected.shape
        scale = float(expected.abs().max().clamp_min(1e-6))
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=TOLERANCES[dtype] * scale)
        return
    assert len(found) == len(expected)  # type: ignore[arg-type]
    for one, other in zip(found, expected, strict=True):  # type: ignore[call-overload]
        assert_alike(one, other, dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_every_function_is_the_plain_one(layer: tuple[object, ...], dtype: torch.dtype) -> None:
    plain, ours = Drawn(*layer), Drawn(*layer).to(dtype)  # type: ignore[arg-type]
    # The same numbers on both sides: what float32 rounds away is not the kernels'.
    plain.x, plain.d, plain.gradient = (tensor.double() for tensor in (ours.x, ours.d, ours.gradient))
    plain.vectors = [vector.double() for vector in ours.vectors]
    plain.kernels = [(size, weight.double()) for size, weight in ours.kernels]

    assert_alike(cpu.channel_moments(ours.x), reference.channel_moments(plain.x), dtype)
    expected = reference.depthwise(plain.x, *plain.vectors[:2], plain.kernels, plain.stride)
    found, *moments = cpu.depthwise(ours.x, *ours.vectors[:2], ours.kernels, ours.stride)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert_alike(found, expected, dtype)
    assert_alike(moments, reference.channel_moments(expected), dtype)
    assert_alike(cpu.activate(ours.x, *ours.vectors[:2]), reference.activate(plain.x, *plain.vectors[:2]), dtype)
    assert_alike(
        cpu.activate_backward(ours.d, ours.gradient, *ours.vectors[:4]),
        reference.activate_backward(plain.d, plain.gradient, *plain.vectors[:4]),
        dtype,
    )
    assert_alike(
        cpu.depthwise_backward(
            ours.x, *ours.vectors[:4], ours.kernels, ours.stride, ours.d, ours.gradient, *ours.vectors[4:]
        ),
        reference.depthwise_backward(
            plain.x, *plain.vectors[:4], plain.kernels, plain.stride, plain.d, plain.gradient, *plain.vectors[4:]
        ),
        dtype,
    )
    given = ours.gradient.clone()
    over = cpu.norm_backward(given, ours.d, *ours.vectors[:3])
    assert over.data_ptr() == given.data_ptr()
    assert_alike(over, reference.norm_backward(plain.gradient.clone(), plain.d, *plain.vectors[:3]), dtype)


def test_the_variance_of_a_far_off_channel_is_kept() -> None:
    x = (torch.randn(2, 19, 40, 31, generator=torch.Generator().manual_seed(0)) + 1000).contiguous(
        memory_format=torch.channels_last
    )
    assert_alike(cpu.channel_moments(x), reference.channel_moments(x.double()), torch.float32)


def test_what_is_not_a_number_shows() -> None:
    """A diverging run must not be hidden by a ReLU that makes zeros of NaN."""
    x = torch.ones(1, 20, 6, 6).contiguous(memory_format=torch.channels_last)
    x[0, 3, 2, 2], ones, zeros = torch.nan, torch.ones(20), torch.zeros(20)
    kernels = [(3, torch.ones(20, 1, 3, 3))]
    assert cpu.activate(x, ones, zeros).isnan().sum() == 1
    out, mean, variance = cpu.depthwise(x, ones, zeros, kernels, 1)
    assert out.isnan().sum() == 9
    assert mean.isnan().sum() == variance.isnan().sum() == 1
    good = torch.ones_like(x)
    bad = cpu.depthwise_backward(good, ones, zeros, zeros, ones, kernels, 1, good, x, ones, zeros, zeros, zeros)
    assert bad[0].isnan().sum() == 9
    assert bad[1][0].isnan().any()
    assert bad[2].isnan().sum() == 1


def test_any_number_of_threads_gives_the_same_bits() -> None:
    drawn = Drawn((3, 70, 41), ((3, 33), (5, 20), (7, 9)), 1).to(torch.float32)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            forward = cpu.depthwise(drawn.x, *drawn.vectors[:2], drawn.kernels, 1)
            back = cpu.depthwise_backward(
                drawn.x, *drawn.vectors[:4], drawn.kernels, 1, drawn.d, drawn.gradient, *drawn.vectors[4:]
            )
            sums = cpu.activate_backward(drawn.d, drawn.gradient, *drawn.vectors[:4])
            results.append([*forward, back[0], *back[1], *back[2:], *sums, *cpu.channel_moments(drawn.x)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


SUPPORT = (
    "import torch; from hrnas.kernels import compiling, cpu; print(cpu.supports(torch.ones(1)), compiling.problem())"
)


def support(tmp_path: Path, **environment: str) -> str:
    """Return what a new process with an empty cache finds."""
    known = {name: value for name, value in os.environ.items() if name not in ("CXX", "HRNAS_KERNELS")}
    known |= {"PYTHONPATH": os.pathsep.join(sys.path), "HRNAS_CACHE": str(tmp_path / "cache"), **environment}
    return subprocess.run(
        [sys.executable, "-c", SUPPORT], env=known, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_without_a_compiler_torch_does_it(tmp_path: Path) -> None:
    assert support(tmp_path, CXX="no-such-compiler") == (
        "False no C++ compiler: 'no-such-compiler' is not there; install g++ or set CXX"
    )
    assert support(tmp_path, CXX="false").startswith("False 'false' failed")
    assert support(tmp_path, HRNAS_KERNELS="off") == "False switched off by HRNAS_KERNELS"
    (tmp_path / "file").write_text("where a folder should be")
    assert support(tmp_path, HRNAS_CACHE=str(tmp_path / "file")).startswith("False ")
