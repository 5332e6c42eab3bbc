"""How many operations a step of a search calls: on a GPU, where each is a launch, that is what a step costs."""

from collections import Counter
from collections.abc import Callable
from typing import Any, Self

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hrnas.arch.presets import search_space
from hrnas.engine.averages import Averages
from hrnas.engine.optimization import OptimizerOptions, make_optimizer
from hrnas.engine.training import TrainState, train_step
from hrnas.kernels import calling, compiling
from hrnas.models.network import Network
from hrnas.searching.control import ShrinkOptions
from hrnas.searching.shrinker import Shrinker
from hrnas.tasks.segmentation import Segmentation

SIZE = (32, 32)
ALLOCATIONS = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"}


class Launches(TorchDispatchMode):
    """Counts the operations called while it is active, by name, those of the compiled kernels too.

    All that reach a device: not views (an output that aliases an input unwritten), not allocations. An operation on a
    list of tensors counts once, however many kernels it is made of.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self._find = calling._function

    def __enter__(self) -> Self:
        calling._function = self._compiled
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        calling._function = self._find
        super().__exit__(*error)

    def _compiled(self, name: str, dtype: torch.dtype) -> Callable[..., None]:
        self.counts[f"compiled {name}"] += 1
        return self._find(name, dtype)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[1]
        is_view = any(out.alias_info is not None and not out.alias_info.is_write for out in func._schema.returns)
        if not is_view and name not in ALLOCATIONS and name not in ("_unsafe_view", "detach"):
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def search(transformers: str) -> tuple[TrainState, Shrinker, Segmentation]:
    torch.manual_seed(0)
    task = Segmentation(names=("a", "b", "c"), colors=((0, 0, 0), (1, 1, 1), (2, 2, 2)))
    model = Network(search_space("hr", transformers).supernet(3)).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, OptimizerOptions())
    state = TrainState(model=model, optimizer=optimizer, averages=Averages(model, 2))
    shrinker = Shrinker(
        model,
        optimizer,
        input_size=SIZE,
        budget="50%",
        steps=1000,
        options=ShrinkOptions(start=0.001, end=0.9),
        averages=state.averages.tensors,
    )
    return state, shrinker, task


@pytest.mark.parametrize(("transformers", "most", "most_without"), [("none", 3_500, 4_000), ("all", 5_500, 10_000)])
def test_a_step_of_the_largest_space(transformers: str, most: int, most_without: int) -> None:
    """Forward, loss, backward, optimizer, averages and penalty; then what the bookkeeping is of that, and a fade."""
    state, shrinker, task = search(transformers)
    images = torch.randn(2, 3, *SIZE).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(0, 3, (2, *SIZE), dtype=torch.uint8)
    for _ in range(2):
        train_step(state, images, targets, task, 0.01)
        shrinker.step()
    assert shrinker.weight > 0
    with Launches() as step:
        train_step(state, images, targets, task, 0.01)
        shrinker.step()
    assert step.counts.total() <= (most if compiling.problem() is None else most_without)
    state.model.train()
    with Launches() as passes:
        sum(task.loss_terms(state.model(images), targets).values()).backward()
    bookkeeping = step.counts.total() - passes.counts.total()
    assert 0 < bookkeeping <= 60

    for _ in range(2):  # as a fade begins
        shrinker._retirement.retire(torch.arange(shrinker.num_units) % 3 == 0, shrinker.steps_done + 20)
        with Launches() as fade:
            shrinker.step()
    assert fade.counts.total() <= 80  # this one also sets the weight anew
