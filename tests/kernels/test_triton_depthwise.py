"""The Triton kernels against the plain reference in float64; without a GPU they run in Triton's interpreter."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from hrnas.arch.architecture import Block
from hrnas.arch.presets import search_space
from hrnas.kernels import compiling
from hrnas.nn import compiled
from hrnas.nn.hidden import applies
from hrnas.nn.search_block import SearchBlock
from kernels import reference
from searching.networks import randomize

INTERPRETED = not torch.cuda.is_available()
DEVICE = "cpu" if INTERPRETED else "cuda"
with pytest.MonkeyPatch.context() as patch:
    if INTERPRETED:
        patch.setenv("TRITON_INTERPRET", "1")  # read where a kernel is defined, triton's own too, and where one runs
    pytest.importorskip("triton", reason="Triton is not installed; it comes with torch's builds for GPUs")
    from hrnas.kernels import triton_depthwise

VECTORS = ("scale", "shift", "mean", "rstd", "d_scale", "d_shift", "c1", "c0")
# Kernel size -> channels, and (N, H, W): ragged slices of one block of channels and of two, slices that are missing, a
# size beyond 7; maps smaller than the kernel, odd, wider than a run of columns, of more rows than a tile.
BLOCKS = [
    ({3: 1}, (1, 1, 1)),
    ({3: 40, 5: 1}, (1, 2, 3)),
    ({5: 3}, (1, 5, 3)),
    ({3: 17, 5: 3, 7: 1}, (1, 5, 2)),
    ({7: 17}, (1, 4, 2)),
    ({3: 3, 7: 1}, (3, 3, 2)),
    ({9: 2}, (1, 2, 2)),
]
blocks = pytest.mark.parametrize(("widths", "size"), BLOCKS, ids=str)
strides = pytest.mark.parametrize("stride", [1, 2])
channel_counts = pytest.mark.parametrize("channels", [1, 3, 17, 40])


@pytest.fixture(autouse=True)
def _same_numbers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if INTERPRETED:
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def _short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of 2 columns in the interpreter, which takes its time for each."""
    if INTERPRETED:
        monkeypatch.setattr(triton_depthwise, "_columns", lambda _: 2)


short_runs = pytest.mark.usefixtures("_short_runs")


def normal_map(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, device=DEVICE).to(dtype, memory_format=torch.channels_last)


def vectors(channels: int) -> dict[str, Tensor]:
    return {name: torch.randn(channels, device=DEVICE) for name in VECTORS}


def normal_kernels(widths: dict[int, int]) -> list[tuple[int, Tensor]]:
    return [(size, torch.randn(channels, 1, size, size, device=DEVICE)) for size, channels in widths.items()]


def double(value: object) -> object:
    """Return the value with every tensor in it as a float64 copy."""
    if isinstance(value, Tensor):
        return value.double()
    return [(size, weight.double()) for size, weight in value] if isinstance(value, list) else value


def assert_as_reference(name: str, *arguments: object, tolerance: float = 1e-5) -> None:
    """Compare function `name` on the arguments with the reference; maps must come back as those that went in."""
    expected = getattr(reference, name)(*map(double, arguments))
    got = getattr(triton_depthwise, name)(*arguments)
    for found, want in zip(flat(got), flat(expected), strict=True):
        if found.dim() == 4 and found.shape[1] > 1:
            assert found.dtype == arguments[0].dtype
            assert found.is_contiguous(memory_format=torch.channels_last)
        atol = tolerance * max(1.0, float(want.nan_to_num().abs().max()))
        torch.testing.assert_close(found.double(), want, rtol=tolerance, atol=atol, equal_nan=True)


def flat(result: object) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else [tensor for part in result for tensor in flat(part)]


def backward_arguments(
    widths: dict[int, int], size: tuple[int, int, int], stride: int, dtype: torch.dtype = torch.float32
) -> list[object]:
    images, height, width = size
    channels = sum(widths.values())
    v = vectors(channels)
    out = (images, channels, -(-height // stride), -(-width // stride))
    return [
        *(normal_map(images, channels, height, width, dtype=dtype), v["scale"], v["shift"], v["mean"], v["rstd"]),
        *(normal_kernels(widths), stride, normal_map(*out, dtype=dtype), normal_map(*out, dtype=dtype)),
        *(v["d_scale"], v["d_shift"], v["c1"], v["c0"]),
    ]


@channel_counts
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 3, 5), (3, 7, 9)])
def test_moments(channels: int, size: tuple[int, int, int]) -> None:
    assert_as_reference("channel_moments", normal_map(size[0], channels, *size[1:]))


def test_moments_far_from_zero_do_not_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum of squares of these would leave no right digit of the variance."""
    monkeypatch.setattr(triton_depthwise, "PROGRAMS", 80)
    x = 3000 + normal_map(5, 3, 21, 31)
    expected = reference.channel_moments(x.double())
    got = triton_depthwise.channel_moments(x)
    torch.testing.assert_close(got[0].double(), expected[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(got[1].double(), expected[1], rtol=1e-4, atol=0)


@channel_counts
def test_activate_and_norm_backward(channels: int) -> None:
    x, gradient, v = normal_map(2, channels, 5, 7), normal_map(2, channels, 5, 7), vectors(channels)
    assert_as_reference("activate", x, v["scale"], v["shift"])
    assert_as_reference("activate_backward", x, gradient, *(v[name] for name in ("scale", "shift", "mean", "rstd")))
    assert_as_reference("norm_backward", gradient.clone(), x, v["scale"], v["c1"], v["c0"])
    over = triton_depthwise.norm_backward(gradient, x, v["scale"], v["c1"], v["c0"])
    assert over.data_ptr() == gradient.data_ptr()


@blocks
@strides
@short_runs
def test_depthwise(widths: dict[int, int], size: tuple[int, int, int], stride: int) -> None:
    channels = sum(widths.values())
    v = vectors(channels)
    x = normal_map(size[0], channels, *size[1:])
    assert_as_reference("depthwise", x, v["scale"], v["shift"], normal_kernels(widths), stride)


@blocks
@strides
@short_runs
def test_depthwise_backward(widths: dict[int, int], size: tuple[int, int, int], stride: int) -> None:
    assert_as_reference("depthwise_backward", *backward_arguments(widths, size, stride))


@pytest.mark.parametrize("width", [8, 17])
def test_runs_of_full_length(width: int) -> None:
    arguments = backward_arguments({3: 3}, (1, 3, width), 1)
    assert_as_reference("depthwise", *arguments[:3], *arguments[5:7])
    assert_as_reference("depthwise_backward", *arguments)


@strides
@short_runs
def test_programs_that_go_through_several_tiles(monkeypatch: pytest.MonkeyPatch, stride: int) -> None:
    monkeypatch.setattr(triton_depthwise, "PROGRAMS", 3)
    arguments = backward_arguments({3: 2}, (2, 9, 3), stride)
    x, *folded = arguments[:5]
    assert_as_reference("depthwise_backward", *arguments)
    assert_as_reference("activate_backward", x, normal_map(*x.shape), *folded)
    assert_as_reference("channel_moments", x)


@short_runs
def test_bfloat16_maps_are_added_up_in_float32() -> None:
    arguments = backward_arguments({3: 3, 5: 17}, (2, 3, 2), 1, torch.bfloat16)
    x, scale, shift, mean, rstd, kernels, stride, d, gradient, *_ = arguments
    half = 2**-8  # half a unit in the last place of bfloat16
    assert_as_reference("channel_moments", x)
    assert_as_reference("activate", x, scale, shift, tolerance=half)
    assert_as_reference("depthwise", x, scale, shift, kernels, stride, tolerance=half)
    assert_as_reference("norm_backward", x.clone(), x, scale, shift, mean, tolerance=half)
    assert_as_reference("depthwise_backward", *arguments, tolerance=4 * half)
    activated, *sums = triton_depthwise.activate_backward(d, gradient, scale, shift, mean, rstd)
    _, *expected = reference.activate_backward(*map(double, (d, gradient, scale, shift, mean, rstd)))
    assert activated.dtype == torch.bfloat16
    for found, want in zip(sums, expected, strict=True):
        torch.testing.assert_close(found.double(), want, rtol=1e-5, atol=1e-5)


@short_runs
def test_what_is_not_a_number_passes() -> None:
    arguments = backward_arguments({3: 2, 5: 1}, (1, 4, 3), 1)
    x, scale, shift, mean, rstd, kernels, stride, d, gradient, *_ = arguments
    x[0, 0, 1, 1] = float("nan")
    scale[1] = float("nan")
    d[0, 2, 3, 2] = float("nan")
    out = triton_depthwise.depthwise(x, scale, shift, kernels, stride)
    assert torch.isnan(out[0]).sum(dim=(1, 2)).tolist() == [9, 12, 0]
    assert torch.isnan(triton_depthwise.channel_moments(x)[1]).tolist() == [True, False, False]
    assert_as_reference("activate", x, scale, shift)
    assert_as_reference("depthwise", x, scale, shift, kernels, stride)
    assert_as_reference("activate_backward", x, gradient, scale, shift, mean, rstd)
    assert_as_reference("norm_backward", gradient.clone(), x, scale, mean, rstd)
    assert_as_reference("depthwise_backward", *arguments)


def test_a_map_in_another_layout_is_refused() -> None:
    x = torch.randn(2, 3, 4, 5, device=DEVICE)
    with pytest.raises(AssertionError, match="not channels-last"):
        triton_depthwise.channel_moments(x)


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_block_by_these_kernels_is_torchs(stride: int, is_training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The autograd function around them, as a network calls it."""
    torch.manual_seed(0)
    settings = search_space("hr-small").supernet(None)
    block = Block(in_channels=4, out_channels=4, stride=stride, kernels=((3, 5), (7, 3)))
    model = SearchBlock(block, settings).to(DEVICE, memory_format=torch.channels_last).train(is_training)
    randomize(model.cpu(), 0)
    model.to(DEVICE)
    plain = copy.deepcopy(model).double()
    x = normal_map(2, 4, 5, 4)
    direction = torch.randn(2, 4, 5 // stride + 5 % stride, 4 // stride, device=DEVICE)
    results = []
    for network, images, switch in ((model, x, "triton"), (plain, x.double(), "off")):
        monkeypatch.setenv(compiling.SWITCH, switch)
        monkeypatch.setattr(compiled, "supports", lambda x: False)
        images = images.clone().requires_grad_()
        assert applies(images.detach(), (network.expand_norm, network.depthwise_norm)) == (switch == "triton")
        output = network(images)
        output.backward(direction.to(output))
        found = {"output": output.detach(), "x": images.grad, **dict(network.named_buffers())}
        results.append(found | {f"{name}.grad": value.grad for name, value in network.named_parameters()})
    for name, value in results[1].items():
        scale = float(value.abs().max().clamp_min(1e-3))
        assert float((results[0][name].double() - value.double()).abs().max()) <= 2e-5 * scale, name
