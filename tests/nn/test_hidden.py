"""The hidden channels by the kernels against torch's operators: outputs, gradients, statistics; and when which runs."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from hrnas.arch.architecture import Block
from hrnas.arch.presets import search_space
from hrnas.engine.recomputation import recompute_blocks
from hrnas.kernels import compiling
from hrnas.nn import compiled, hidden
from hrnas.nn.recalibration import recalibrate
from hrnas.nn.search_block import SearchBlock
from hrnas.nn.sync_norm import SyncNorm
from searching.networks import TINY, outputs_of, randomize, synthetic, tiny_network

needs_kernels = pytest.mark.skipif(compiling.problem() is not None, reason=f"no kernels: {compiling.problem()}")
SETTINGS = search_space("hr-small").supernet(None)
BLOCKS = [
    Block(in_channels=16, out_channels=16, kernels=((3, 5), (5, 7), (7, 17))),
    Block(in_channels=16, out_channels=24, stride=2, kernels=((3, 40), (7, 3))),
    Block(in_channels=18, out_channels=18, kernels=((5, 66),)),
]


@contextmanager
def kernels(monkeypatch: pytest.MonkeyPatch, *, on: bool) -> Iterator[list[Tensor]]:
    """Let the kernels run, or not; give what they mapped."""
    seen: list[Tensor] = []
    plain = hidden._HiddenPaths.apply

    def apply(x: Tensor, *rest: object) -> Tensor:
        seen.append(x)
        return plain(x, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(hidden._HiddenPaths, "apply", apply)
        if not on:
            patch.setattr(compiled, "supports", lambda x: False)
        yield seen
    assert bool(seen) == on


def assert_alike(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = float(value.abs().max().clamp_min(1e-3))
        difference = float((found[name].double() - value.double()).abs().max())
        assert difference <= tolerance * scale, f"{name}: {difference} of {scale}"


def step(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return outputs, gradients and statistics of one forward and backward pass."""
    x = x.clone().requires_grad_()
    output = model(x)
    output.backward(torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(output))
    assert x.grad is not None
    found = {"output": output.detach(), "x": x.grad, **{name: value.clone() for name, value in model.named_buffers()}}
    return found | {f"{name}.grad": p.grad for name, p in model.named_parameters() if p.grad is not None}


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: str(block.kernels))
def test_the_kernels_do_what_torch_does(
    block: Block, is_training: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = SearchBlock(block, SETTINGS)
    randomize(model, 0)
    model = model.to(dtype, memory_format=torch.channels_last).train(is_training)
    other = copy.deepcopy(model).double()
    x = torch.randn(3, block.in_channels, 35, 22).to(dtype)
    with kernels(monkeypatch, on=True):
        found = step(model, x)
    with kernels(monkeypatch, on=False):
        expected = step(other, x.double())
    # Float32 against exact: torch's own operators are as far.
    assert_alike(found, expected, 1e-10 if dtype == torch.float64 else 1e-5)


@needs_kernels
@pytest.mark.parametrize("way", [recompute_blocks, lambda model: model.head.requires_grad_(False)])
def test_recomputed_and_frozen_blocks(way: Callable[[nn.Module], object], monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_network(0)
    randomize(model, 0)
    model = model.double().train()
    way(model)
    other = copy.deepcopy(model)
    if way is recompute_blocks:
        recompute_blocks(other)  # the copy's blocks would work on those of the first
    images = synthetic(0)[0].double()
    with kernels(monkeypatch, on=True):
        found = step(model, images)
    with kernels(monkeypatch, on=False):
        expected = step(other, images)
    assert_alike(found, expected, 1e-10)


@needs_kernels
def test_recalibration_and_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms in training within a network in evaluation, with a cumulative average, and nothing kept for a gradient."""
    model = tiny_network(1).double()
    randomize(model, 1)
    other = copy.deepcopy(model)
    batches = [synthetic(number)[0].double() for number in range(3)]
    with kernels(monkeypatch, on=True):
        recalibrate(model, batches)
        found = {"output": outputs_of(model.eval(), batches[0])[0], **dict(model.named_buffers())}
    with kernels(monkeypatch, on=False):
        recalibrate(other, batches)
        expected = {"output": outputs_of(other.eval(), batches[0])[0], **dict(other.named_buffers())}
    assert_alike(found, expected, 1e-10)
    assert float(model.head.block.depthwise_norm.num_batches_tracked) == 3


@needs_kernels
def test_what_the_kernels_leave_to_torch() -> None:
    norms = nn.BatchNorm2d(4), nn.BatchNorm2d(6)
    x = torch.ones(1, 3, 4, 4)
    assert hidden.applies(x, norms)
    assert not hidden.applies(x.to("meta"), norms)
    assert not hidden.applies(x.bfloat16(), norms)
    assert not hidden.applies(x.double(), norms)
    assert not hidden.applies(x, (norms[0], SyncNorm(6)))
    assert not hidden.applies(x, (norms[0], nn.BatchNorm2d(6).eval()))
    with torch.autocast("cpu", torch.bfloat16):
        assert not hidden.applies(x, norms)


def test_a_traced_network_has_torchs_operators() -> None:
    model = tiny_network(0, space=TINY).eval()
    images = synthetic(0)[0]
    program = torch.export.export(model, (images,))
    names = [str(node.target) for node in program.graph.nodes]
    assert sum("conv2d" in name for name in names) == sum(isinstance(part, nn.Conv2d) for part in model.modules())
    torch.testing.assert_close(program.module()(images), model(images), rtol=1e-4, atol=1e-5)


@needs_kernels
def test_gradients_lie_in_memory_as_their_parameters_do() -> None:
    for memory_format in (torch.channels_last, torch.contiguous_format):
        model = SearchBlock(BLOCKS[0], SETTINGS).to(memory_format=memory_format)
        model(torch.randn(2, 16, 6, 6)).sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            assert parameter.grad.stride() == parameter.stride(), name


@needs_kernels
def test_nothing_is_kept_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = SearchBlock(BLOCKS[0], SETTINGS), torch.randn(2, 16, 6, 6)
    seen = []
    activate = hidden.depthwise.activate

    def watched(*given: object, in_place: bool) -> object:
        seen.append(in_place)
        return activate(*given, in_place=in_place)

    monkeypatch.setattr(hidden.depthwise, "activate", watched)
    model(x)
    with torch.no_grad():
        model(x)
    assert seen == [False, True]


@needs_kernels
def test_a_backward_pass_within_autocast_and_one_of_second_order() -> None:
    model, x = SearchBlock(BLOCKS[0], SETTINGS), torch.randn(2, 16, 6, 6)
    gradients = []
    for within in (False, True):
        model.zero_grad()
        loss = model(x).square().sum()
        with torch.autocast("cpu", torch.bfloat16, enabled=within):
            loss.backward()
        gradients.append({name: value.grad for name, value in model.named_parameters()})
    assert_alike(gradients[1], gradients[0], 1e-5)
    (gradient,) = torch.autograd.grad(model(x).square().sum(), model.project.weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@needs_kernels
def test_an_empty_batch_is_torchs() -> None:
    model = SearchBlock(BLOCKS[0], SETTINGS).eval()
    assert model(torch.randn(0, 16, 6, 6)).shape == (0, 16, 6, 6)
