"""How many operations a step of a search calls: on a GPU, where each is a launch, that is what a step costs."""

import pytest
import torch

from hrnas.arch.presets import search_space
from hrnas.data.description import DataDescription
from hrnas.engine.averages import Averages
from hrnas.engine.optimization import OptimizerOptions, make_optimizer
from hrnas.engine.training import TrainState, train_step
from hrnas.kernels import compiling
from hrnas.models.network import Network
from hrnas.searching.control import ShrinkOptions
from hrnas.searching.shrinker import Shrinker
from hrnas.tasks import make_task
from hrnas.tasks.task import Task
from launches import Launches

SIZE = (32, 32)


def search(transformers: str) -> tuple[TrainState, Shrinker, Task]:
    torch.manual_seed(0)
    task = make_task(
        DataDescription(task="segmentation", names=("a", "b", "c"), colors=((0, 0, 0), (1, 1, 1), (2, 2, 2)))
    )
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
