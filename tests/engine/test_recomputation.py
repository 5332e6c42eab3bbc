"""Recomputed search blocks: the numbers of the plain step, before and after a cut."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from hrnas.engine.averages import Averages
from hrnas.engine.optimization import OptimizerOptions, make_optimizer
from hrnas.engine.recomputation import recompute_blocks
from hrnas.engine.training import TrainState, train_step
from hrnas.kernels import compiling
from hrnas.models.network import Network
from hrnas.nn.conv import EmptyNorm
from hrnas.nn.recalibration import recalibrate
from hrnas.searching.cut import apply_plan
from hrnas.searching.plan import make_plan
from hrnas.searching.units import unit_groups
from searching.networks import SIZE, TINY, randomize, synthetic, tiny_network

SPACE = replace(TINY, transformers="all", tokens=3, token_size=4, dropout=0.4)


def new_state(*, is_recomputed: bool, precision: str = "float32") -> TrainState:
    model = tiny_network(0, space=SPACE)
    randomize(model, 1)
    if is_recomputed:
        recompute_blocks(model)
    averages = Averages(model, 8)
    return TrainState(
        model=model, optimizer=make_optimizer(model, OptimizerOptions()), averages=averages, precision=precision
    )


class Distance:
    """The mean squared distance."""

    def loss_terms(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"distance": nn.functional.mse_loss(outputs, targets, reduction="sum")}

    def weight(self, targets: Tensor) -> Tensor:
        return torch.tensor(targets.numel())


def cut(state: TrainState) -> None:
    """Take all kernel paths of the first block and every second unit of the others; the first keeps an EmptyNorm."""
    architecture = state.model.architecture
    groups = unit_groups(architecture, SIZE)
    kept = torch.arange(sum(group.count for group in groups)) % 2 == 0
    kept[: sum(group.count for group in groups if group.block == groups[0].block)] = False
    plan = make_plan(architecture, SIZE, kept, "budget")
    apply_plan(plan, state.model, state.optimizer, state.averages.tensors)


def three_steps(state: TrainState) -> list[float]:
    """Return the losses of a step, a cut, and two more."""
    torch.manual_seed(7)
    losses = [train_step(state, *synthetic(0), Distance(), 0.01)]
    cut(state)
    assert any(isinstance(module, EmptyNorm) for module in state.model.modules())
    return losses + [train_step(state, *synthetic(step), Distance(), 0.01) for step in (1, 2)]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_numbers_are_those_of_the_plain_steps(precision: str) -> None:
    """Losses, weights, running statistics, counts of batches, moments and averages, bit for bit, over a cut."""
    plain = new_state(is_recomputed=False, precision=precision)
    recomputed = new_state(is_recomputed=True, precision=precision)
    assert three_steps(recomputed) == three_steps(plain)
    values = recomputed.model.state_dict()
    assert values.keys() == plain.model.state_dict().keys()
    for name, value in plain.model.state_dict().items():
        assert torch.equal(values[name], value), name
        if name.endswith("num_batches_tracked"):
            assert int(value) == 3
    for name, value in plain.averages.tensors.items():
        assert torch.equal(recomputed.averages.tensors[name], value), name
    for parameter, other in zip(plain.model.parameters(), recomputed.model.parameters(), strict=True):
        for entry, value in plain.optimizer.state[parameter].items():
            assert torch.equal(recomputed.optimizer.state[other][entry], value)


def test_the_random_numbers_after_a_step_are_those_of_the_plain_step() -> None:
    drawn = []
    for is_recomputed in (False, True):
        state = new_state(is_recomputed=is_recomputed)
        torch.manual_seed(3)
        train_step(state, *synthetic(0), Distance(), 0.01)
        drawn.append(torch.rand(4))
    assert torch.equal(*drawn)


def kept_bytes(model: Network) -> int:
    """Return the bytes of the tensors a forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    alive = []  # or a freed address would be counted for two
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: alive.append(tensor) or pack(tensor), lambda x: x):
        model(synthetic(0)[0])
    return sum(kept.values())


def test_less_is_kept_for_the_backward_pass() -> None:
    plain, recomputed = new_state(is_recomputed=False).model, new_state(is_recomputed=True).model
    assert kept_bytes(recomputed.train()) < 0.5 * kept_bytes(plain.train())
    assert kept_bytes(recomputed.eval()) == kept_bytes(plain.eval())


def test_evaluation_and_recalibration_are_plain() -> None:
    plain, recomputed = new_state(is_recomputed=False).model, new_state(is_recomputed=True).model
    for model in (plain, recomputed):
        recalibrate(model, [synthetic(step)[0] for step in (0, 1)])
        model.eval()
    images = synthetic(2)[0]
    assert torch.equal(recomputed(images), plain(images))
    for name, value in plain.state_dict().items():
        assert torch.equal(recomputed.state_dict()[name], value), name


def test_an_error_in_the_recomputation_leaves_the_statistics() -> None:
    """An error within the backward pass leaves no norm with statistics that are not its own."""
    model = new_state(is_recomputed=True).model.train()
    out = model(synthetic(0)[0]).sum()
    buffers = dict(model.named_buffers())
    before = {name: buffer.clone() for name, buffer in buffers.items()}
    model.head.block.project = None
    with pytest.raises(AttributeError if compiling.problem() is None else TypeError):
        out.backward()
    assert all(buffer is buffers[name] for name, buffer in model.named_buffers())
    assert all(torch.equal(buffer, before[name]) for name, buffer in buffers.items())
