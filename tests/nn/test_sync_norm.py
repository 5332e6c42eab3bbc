"""Batch norm over two processes against torch's over the whole batch."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from engine.ranks import run_ranks
from hrnas.engine.distributed import Processes
from hrnas.nn.conv import EmptyNorm
from hrnas.nn.sync_norm import SyncNorm, synchronize_norms

SHARES = {"even": (3, 3), "uneven": (1, 5), "none and all": (0, 6)}


def norm_and_batch(momentum: float | None, dtype: torch.dtype) -> tuple[nn.BatchNorm2d, torch.Tensor, torch.Tensor]:
    """Return a norm with values of its own, x (6, 4, 5, 3) far from zero, and the gradient of its output."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4, momentum=momentum, eps=1e-3).to(dtype)
    for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        value.data.copy_(torch.rand(4) + 0.5)
    x = (torch.randn(6, 4, 5, 3) + 30 * torch.rand(6, 4, 1, 1)).to(dtype)
    return norm, x, torch.randn(6, 4, 5, 3).to(dtype)


def steps(norm: nn.Module, x: torch.Tensor, gradient: torch.Tensor) -> dict[str, Any]:
    """Run two training steps' forward and one backward, and evaluation after them."""
    norm(x * 1.5 + 2)
    x = x.clone().requires_grad_()
    out = norm(x)
    out.backward(gradient)
    buffers = {name: value.clone() for name, value in norm.named_buffers()}
    return {
        "out": out, "x": x.grad, "weight": norm.weight.grad, "bias": norm.bias.grad, **buffers,
        "evaluated": norm.eval()(x),
    }  # fmt: skip


def shared(processes: Processes, shares: tuple[int, int], momentum: float | None, dtype: torch.dtype) -> dict[str, Any]:
    norm, x, gradient = norm_and_batch(momentum, dtype)
    model = nn.Sequential(norm)
    synchronize_norms(model, processes.reduction)
    assert isinstance(model[0], SyncNorm)
    assert model[0].weight is norm.weight
    assert list(model.state_dict()) == [f"0.{name}" for name in norm.state_dict()]
    own = slice(0, shares[0]) if processes.is_zero else slice(shares[0], None)
    return steps(model[0], x[own], gradient[own])


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shares", SHARES.values(), ids=SHARES)
def test_two_processes_are_one_on_the_whole_batch(
    shares: tuple[int, int], momentum: float | None, dtype: torch.dtype
) -> None:
    norm, x, gradient = norm_and_batch(momentum, dtype)
    expected = steps(norm, x, gradient)
    first, second = run_ranks(2, shared, shares, momentum, dtype)
    tolerance = {"rtol": 2e-4, "atol": 2e-4} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-9}
    for name in ("out", "x", "evaluated"):
        found = np.concatenate([first[name], second[name]])
        np.testing.assert_allclose(found, expected[name].detach().numpy(), **tolerance, err_msg=name)
    for name in ("weight", "bias"):
        np.testing.assert_allclose(first[name] + second[name], expected[name].numpy(), **tolerance, err_msg=name)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert np.array_equal(first[name], second[name]), name
        np.testing.assert_allclose(first[name], expected[name].numpy(), **tolerance, err_msg=name)


def half_precision(processes: Processes) -> Any:
    norm, x, gradient = norm_and_batch(0.1, torch.float32)
    model = nn.Sequential(norm)
    synchronize_norms(model, processes.reduction)
    own = slice(processes.rank * 3, processes.rank * 3 + 3)
    x = x[own].bfloat16().requires_grad_()
    out = model(x)
    out.backward(gradient[own].bfloat16())
    assert out.dtype == x.grad.dtype == torch.bfloat16
    assert norm.weight.grad.dtype == norm.running_var.dtype == torch.float32
    return norm.running_var


class Waits(TorchDispatchMode):
    """Counts what a device would be waited for: tensors that are read as Python numbers."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default)
        return function(*args, **(kwargs or {}))


def count_waits(processes: Processes) -> int:
    norm, x, gradient = norm_and_batch(0.1, torch.float32)
    norm = SyncNorm.of(norm, processes.reduction)
    with Waits() as waits:
        norm(x.requires_grad_()).backward(gradient)
    return waits.count


def test_a_step_never_waits_for_the_device() -> None:
    assert run_ranks(2, count_waits) == [0, 0]


def test_half_precision_keeps_statistics_in_single_precision() -> None:
    norm, x, _ = norm_and_batch(0.1, torch.float32)
    norm(x.bfloat16().float())
    for found in run_ranks(2, half_precision):
        np.testing.assert_allclose(found, norm.running_var.numpy(), rtol=1e-4)


def test_the_norm_of_an_emptied_block_and_the_mode_stay() -> None:
    model = nn.Sequential(EmptyNorm(3, momentum=0.1, eps=1e-5), nn.BatchNorm2d(3)).eval()
    before = copy.deepcopy(model.state_dict())
    synchronize_norms(model, None)
    assert type(model[0]) is EmptyNorm
    assert type(model[1]) is SyncNorm
    assert not model[1].training
    assert model.state_dict().keys() == before.keys()
    x = torch.randn(2, 3, 4, 4)
    expected = nn.BatchNorm2d(3).eval()
    torch.testing.assert_close(model[1](x), expected(x))


def with_few(processes: Processes, counts: tuple[int, int], momentum: float | None) -> dict[str, Any]:
    """A step on `counts` maps of one place, of this process and the other, then one on maps with a variance."""
    norm, x, gradient = norm_and_batch(momentum, torch.float32)
    norm = SyncNorm.of(norm, processes.reduction)
    few = slice(0, counts[processes.rank])
    given = x[few, :, :1, :1].clone().requires_grad_()
    out = norm(given)
    out.backward(gradient[few, :, :1, :1])
    kept = {name: value.clone() for name, value in norm.named_buffers()}
    norm(x[3 * processes.rank :][:3])
    after = {f"{name} after": value for name, value in norm.named_buffers()}
    return {"out": out, "x": given.grad, "weight": norm.weight.grad, "bias": norm.bias.grad, **kept, **after}


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("counts", [(0, 0), (1, 0), (0, 1)])
def test_of_fewer_than_two_numbers_the_running_statistics_are_used_and_stay(
    counts: tuple[int, int], momentum: float | None
) -> None:
    norm, x, gradient = norm_and_batch(momentum, torch.float32)
    before = {name: value.clone() for name, value in norm.named_buffers()}
    norm.eval()
    given = x[: max(counts), :, :1, :1].clone().requires_grad_()
    expected = norm(given)
    expected.backward(gradient[: max(counts), :, :1, :1])
    norm.train()
    norm(x)
    found = run_ranks(2, with_few, counts, momentum)
    for rank, count in enumerate(counts):
        ours = found[rank]
        for name, value in before.items():
            assert np.array_equal(ours[name], value.numpy()), name
        for name, value in norm.named_buffers():
            np.testing.assert_allclose(ours[f"{name} after"], value.numpy(), rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(ours["out"], expected.detach().numpy()[:count], rtol=1e-6)
        np.testing.assert_allclose(ours["x"], given.grad.numpy()[:count], rtol=1e-6)
    for name, value in norm.named_parameters():
        np.testing.assert_allclose(sum(ours[name] for ours in found), value.grad.numpy(), rtol=1e-5, err_msg=name)
