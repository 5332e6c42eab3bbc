"""Predicted memory of a training step against what torch's allocator gives out."""

import gc
from random import Random

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.profiler import ProfilerActivity, profile

from architectures import random_architecture
from detections import random_boxes
from hrnas.arch.architecture import Architecture, DenseHead, Pillars
from hrnas.arch.presets import search_space
from hrnas.arch.space import SearchSpace
from hrnas.costing.analytic import cost
from hrnas.costing.memory import CLOUD, PER_PILLAR, Memory, training_memory
from hrnas.data.description import DataDescription
from hrnas.data.kitti_classes import CLASSES, COLORS
from hrnas.data.transforms import normalize
from hrnas.engine.averages import Averages
from hrnas.engine.optimization import OptimizerOptions, make_optimizer
from hrnas.engine.recomputation import recompute_blocks
from hrnas.engine.training import TrainState, train_step
from hrnas.kernels import compiling
from hrnas.models.network import Network
from hrnas.nn import compiled
from hrnas.searching.plan import smallest_network, uniform_network
from hrnas.tasks import make_task
from hrnas.tasks.anchors import AnchorGrid, assigned
from hrnas.tasks.task import Task
from searching.networks import TINY

WIDE = search_space("hr-small").supernet(11)
GATED = search_space("hr-small", activation="swish", squeeze_ratio=0.5)


CLOUDS = search_space("hr-small", stem_stride=2)


def for_clouds(size: tuple[int, int], channels: int = 64, space: SearchSpace = CLOUDS) -> Architecture:
    """Return the supernet for clouds on a grid of that many rows and columns."""
    pillars = Pillars(cell=0.32, rows=size[0], columns=size[1], channels=channels)
    return space.supernet(len(CLASSES), head="anchors", pillars=pillars)


def task_of(architecture: Architecture) -> Task:
    """Return a task whose loss the architecture's head is for."""
    assert architecture.head is not None
    if architecture.pillars is not None:
        names = tuple(known.name for known in CLASSES)
        return make_task(DataDescription(task="detection3d", names=names, colors=COLORS, classes=CLASSES))
    classes = architecture.head.outputs
    kind = "segmentation" if isinstance(architecture.head, DenseHead) else "classification"
    return make_task(DataDescription(task=kind, names=tuple(map(str, range(classes))), colors=((0, 0, 0),) * classes))


def made_batch(architecture: Architecture, size: tuple[int, int], batch: int) -> tuple[Tensor, Tensor]:
    """Return what a step takes: inputs and targets."""
    assert architecture.head is not None
    if architecture.pillars is not None:
        return made_clouds(architecture.pillars, batch), made_anchors(architecture.pillars, batch)
    classes = architecture.head.outputs
    images = torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8)
    images = images.contiguous(memory_format=torch.channels_last)
    targets = torch.randint(0, classes, (batch, *size), dtype=torch.uint8)
    return normalize(images), targets if isinstance(architecture.head, DenseHead) else targets[:, 0, 0].long()


def made_clouds(pillars: Pillars, batch: int) -> Tensor:
    """Return clouds of CLOUD points in as many pillars as they are assumed to be, or in all there are."""
    places = np.arange(CLOUD) % min(CLOUD // PER_PILLAR, pillars.rows * pillars.columns)
    points = np.zeros((batch, CLOUD, 4), np.float32)
    points[..., 0] = (places % pillars.columns + 0.5) * pillars.cell
    points[..., 1] = (places // pillars.columns + 0.5 - pillars.rows / 2) * pillars.cell
    return torch.from_numpy(points)


def made_anchors(pillars: Pillars, batch: int) -> Tensor:
    """Return the targets of scenes of three boxes."""
    grid, rng = AnchorGrid.of(CLASSES, (pillars.rows, pillars.columns), pillars.cell), np.random.default_rng(0)
    scenes = [torch.from_numpy(assigned(grid, random_boxes(rng, 3, grid, CLASSES))) for _ in range(batch)]
    return pad_sequence(scenes, batch_first=True, padding_value=-1)


def allocated(architecture: Architecture, size: tuple[int, int], batch: int, *, precision: str, recompute: bool) -> int:
    """Return the most bytes torch had given out at a time during two training steps, building included."""
    task = task_of(architecture)
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        model = Network(architecture).to(memory_format=torch.channels_last)
        if recompute:
            recompute_blocks(model)
        optimizer = make_optimizer(model, OptimizerOptions())
        state = TrainState(model=model, optimizer=optimizer, averages=Averages(model, batch), precision=precision)
        for _ in range(2):
            inputs, targets = made_batch(architecture, size, batch)
            train_step(state, inputs, targets, task, 1e-6)
    changes = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = highest = 0
    for change in sorted(changes, key=lambda change: change.start_ns()):
        now += change.nbytes()
        highest = max(highest, now)
    return highest


def assert_predicted(
    architecture: Architecture, size: tuple[int, int], batch: int, *, rel: float, precision: str, recompute: bool
) -> Memory:
    """Check that torch takes what is predicted, within a share of it; return the prediction."""
    predicted = training_memory(architecture, size, batch, precision=precision, recompute=recompute)
    taken = allocated(architecture, size, batch, precision=precision, recompute=recompute)
    assert predicted.allocated == pytest.approx(taken, rel=rel)
    return predicted


@pytest.mark.parametrize(
    ("architecture", "size", "batch", "precision", "recompute"),
    [
        (WIDE, (75, 102), 4, "float32", False),
        (WIDE, (75, 102), 4, "bfloat16", True),
        (uniform_network(WIDE, 0.25), (96, 128), 4, "float32", True),
        (uniform_network(WIDE, 0.25), (96, 128), 4, "bfloat16", False),
        (smallest_network(WIDE), (96, 128), 4, "float32", False),
        (search_space("hr-small", "residual").supernet(11), (32, 64), 2, "float32", False),
        (search_space("hr-small", "residual").supernet(11), (32, 64), 2, "bfloat16", True),
        (search_space("hr-small").supernet(150), (64, 64), 4, "float32", True),
        (GATED.supernet(11), (75, 102), 2, "bfloat16", False),
        (GATED.supernet(11, head="classes"), (96, 96), 4, "float32", False),
    ],
)
def test_the_prediction_is_what_torch_takes(
    architecture: Architecture,
    size: tuple[int, int],
    batch: int,
    precision: str,
    recompute: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiled, "supports", lambda x: False)
    assert_predicted(architecture, size, batch, rel=0.15, precision=precision, recompute=recompute)


@pytest.mark.parametrize(
    ("architecture", "size", "batch", "precision", "recompute"),
    [
        (for_clouds((64, 64)), (64, 64), 2, "float32", False),
        (uniform_network(for_clouds((32, 32), 32), 0.25), (32, 32), 4, "float32", True),  # the pillars have most of it
        (smallest_network(for_clouds((160, 160))), (160, 160), 2, "float32", False),  # the map
        (smallest_network(for_clouds((160, 160))), (160, 160), 2, "bfloat16", True),
        (smallest_network(for_clouds((320, 320), 64, TINY)), (320, 320), 1, "float32", False),  # and its gradient
        (smallest_network(for_clouds((320, 320), 16)), (320, 320), 1, "float32", True),  # the head
        (smallest_network(for_clouds((480, 480), 4, TINY)), (480, 480), 1, "float32", False),  # its loss
    ],
)
def test_the_prediction_for_clouds(
    architecture: Architecture,
    size: tuple[int, int],
    batch: int,
    precision: str,
    recompute: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiled, "supports", lambda x: False)
    predicted = assert_predicted(architecture, size, batch, rel=0.05, precision=precision, recompute=recompute)
    more = training_memory(architecture, size, batch, batch_size=3 * batch, precision=precision, recompute=recompute)
    clouds, params = 2 * batch * CLOUD * 16, cost(architecture, size).params
    assert clouds <= more.working - predicted.working <= clouds + 4 * params


@pytest.mark.skipif(compiling.problem() is not None, reason=f"no kernels: {compiling.problem()}")
@pytest.mark.parametrize(
    ("architecture", "size", "batch", "recompute"),
    [
        (WIDE, (75, 102), 4, False),
        (uniform_network(WIDE, 0.25), (96, 128), 4, True),
        (search_space("hr-small", "residual").supernet(11), (32, 64), 2, False),
        (search_space("hr-small").supernet(11, head="classes"), (75, 102), 4, False),
        (search_space("hr-small", squeeze_ratio=0.5).supernet(11), (75, 102), 2, False),
    ],
)
def test_the_prediction_with_the_kernels(
    architecture: Architecture, size: tuple[int, int], batch: int, recompute: bool
) -> None:
    predicted = training_memory(architecture, size, batch, recompute=recompute, kernels=True)
    assert predicted.allocated == pytest.approx(
        allocated(architecture, size, batch, precision="float32", recompute=recompute), rel=0.05
    )


def test_weights_moments_and_averages_are_there_always() -> None:
    params = cost(WIDE, (64, 64)).params
    assert training_memory(WIDE, (64, 64), 2).persistent == 16 * params
    assert training_memory(WIDE, (64, 64), 2, num_moments=0, num_averages=0).persistent == 4 * params
    # A micro-batch of several begins with the gradients of those before it, and the images of all of them are there.
    alone, of_four = (training_memory(WIDE, (64, 64), 2, batch_size=size).working for size in (2, 8))
    images = 6 * 64 * 64 * (3 + 12 + 1)
    assert images < of_four - alone <= images + 4 * params


def test_options_that_save_memory_do() -> None:
    plain = training_memory(WIDE, (96, 128), 8).allocated
    recomputed = training_memory(WIDE, (96, 128), 8, recompute=True).allocated
    halved = training_memory(WIDE, (96, 128), 8, precision="bfloat16").allocated
    both = training_memory(WIDE, (96, 128), 8, precision="bfloat16", recompute=True).allocated
    assert both < min(recomputed, halved) <= max(recomputed, halved) < plain


def test_what_the_c_library_keeps_shrinks_with_its_share_of_small_blocks() -> None:
    small, large = training_memory(WIDE, (96, 128), 8), training_memory(WIDE, (96, 128), 800)
    assert small.unused > 0.3 * small.working
    assert large.unused < 0.01 * large.working
    assert training_memory(WIDE, (96, 128), 8, device="cuda").unused == 0
    assert training_memory(WIDE, (96, 128), 8, device="cuda").allocated <= small.allocated


@pytest.mark.parametrize("seed", range(20))
def test_every_architecture_with_a_head_has_a_prediction_that_rises_with_the_batch(seed: int) -> None:
    random = Random(seed)
    while (architecture := random_architecture(random)).head is None:
        pass
    peaks = [training_memory(architecture, (37, 52), batch, recompute=seed % 2 == 0).working for batch in (1, 2, 5)]
    assert 0 < peaks[0] < peaks[1] < peaks[2]
