"""Pillars against a plain computation of them, one point after the other."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from devices import DEVICES
from engine.ranks import run_ranks
from hrnas.arch.architecture import Pillars
from hrnas.arch.presets import search_space
from hrnas.engine.distributed import Processes
from hrnas.nn.pillars import PillarNet, features, pillarize
from hrnas.nn.recalibration import recalibrate
from hrnas.nn.sync_norm import synchronize_norms

SHARED = Path(__file__).parents[3] / "shared" / "data"
SMALL = Pillars(
    cell=0.5, rows=8, columns=6, bottom=-2, top=1, points=3, train_pillars=7, pillars=13, channels=5
)  # x 0..3, y -2..2
SETTINGS = search_space("hr-small", "none").supernet(2)


def net(pillars: Pillars = SMALL) -> PillarNet:
    """Return a PillarNet in double precision whose norm has values of its own."""
    torch.manual_seed(0)
    made = PillarNet(pillars, SETTINGS).double()
    for value in (made.norm.weight, made.norm.bias, made.norm.running_mean, made.norm.running_var):
        value.data.copy_(torch.rand(len(value)) + 0.2)
    made.norm.weight.data[0] *= -1  # the maximum is then where the linear layer gives the least
    return made


def clouds(seed: int = 0, count: int = 3, length: int = 60) -> Tensor:
    """Return clouds that reach beyond the range on all sides, crowded at the lower left."""
    rng = np.random.default_rng(seed)
    xyz = np.stack([rng.uniform(-0.5, 3.5, (count, length)), rng.uniform(-2.5, 2.5, (count, length))], axis=2)
    xyz[:, ::3] = rng.uniform((0, -2), (0.5, -1.5), xyz[:, ::3].shape)
    heights, reflectance = rng.uniform(-2.5, 1.5, (count, length, 1)), rng.random((count, length, 1))
    return torch.from_numpy(np.concatenate([xyz, heights, reflectance], axis=2))


Found = dict[tuple[int, int, int], list[list[float]]]


def plain_pillars(points: Tensor, pillars: Pillars, most: int) -> Found:
    """Return the points of every pillar by cloud, row and column."""
    found: Found = {}
    for cloud, rows in enumerate(points.tolist()):
        begun: Found = {}
        for x, y, z, reflectance in rows:
            if not all(map(math.isfinite, (x, y, z, reflectance))):
                continue
            inverse, side = 1 / pillars.cell, pillars.rows * pillars.cell / 2
            column, row = math.floor(x * inverse), math.floor((y + side) * inverse)
            if not (0 <= column < pillars.columns and 0 <= row < pillars.rows and pillars.bottom <= z < pillars.top):
                continue
            place = (cloud, row, column)
            if place not in begun and len(begun) == most:
                continue
            if len(begun.setdefault(place, [])) < pillars.points:
                begun[place].append([x, y, z, reflectance])
        found |= begun
    return found


def plain_features(found: Found, pillars: Pillars) -> dict[tuple[int, int, int], Tensor]:
    described = {}
    for (cloud, row, column), rows in found.items():
        mean = [sum(axis) / len(rows) for axis in list(zip(*rows, strict=True))[:3]]
        middle = [(column + 0.5) * pillars.cell, (row + 0.5) * pillars.cell - pillars.rows * pillars.cell / 2]
        described[cloud, row, column] = torch.tensor(
            [
                [x, y, z, reflectance, x - mean[0], y - mean[1], z - mean[2], x - middle[0], y - middle[1]]
                for x, y, z, reflectance in rows
            ],
            dtype=torch.float64,
        )
    return described


def plain_map(points: Tensor, pillars: Pillars, model: PillarNet, most: int) -> Tensor:
    """Return what the model should give, with gradients for its parameters; its running statistics move on."""
    described = plain_features(plain_pillars(points, pillars, most), pillars)
    linear = {place: rows @ model.linear.weight.T for place, rows in described.items()}
    norm = nn.BatchNorm1d(pillars.channels, eps=model.norm.eps, momentum=model.norm.momentum).double()
    norm._parameters.update(model.norm._parameters)
    norm._buffers.update(model.norm._buffers)
    normalized = norm.train(model.norm.training)(torch.cat(list(linear.values())))
    drawn = torch.zeros(len(points), pillars.channels, pillars.rows, pillars.columns, dtype=torch.float64)
    for (cloud, row, column), x in zip(linear, normalized.split([len(x) for x in linear.values()]), strict=True):
        drawn[cloud, :, row, column] = x.relu().amax(dim=0)
    return drawn


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("most", [1, 4, 13, 100])
def test_pillars_are_those_found_point_by_point(most: int, device: str) -> None:
    points = clouds()
    expected = plain_pillars(points, SMALL, most)
    found = pillarize(points.to(device), SMALL, most)
    places = [tuple(place) for place in found.places.T.tolist()]
    assert places == sorted(expected)
    assert found.counts.tolist() == [len(expected[place]) for place in places]
    assert found.points.tolist() == [row for place in places for row in expected[place]]
    assert found.pillar.tolist() == [index for index, place in enumerate(places) for _ in expected[place]]
    assert found.counts.max() == SMALL.points
    described = plain_features(expected, SMALL)
    wanted = torch.cat([described[place] for place in places])
    torch.testing.assert_close(features(found, SMALL).cpu(), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_points_on_borders_are_in_the_same_pillar_on_every_device(device: str) -> None:
    """Where a border is depends on how the arithmetic rounds; KITTI's points are whole millimetres and lie on many."""
    pillars = Pillars()
    x = (np.arange(432) * 0.16).astype(np.float32)
    y = ((np.arange(432) - 216) * 0.16).astype(np.float32)
    points = torch.from_numpy(np.stack([x, y, np.zeros(432, np.float32), np.zeros(432, np.float32)], axis=1))
    found = pillarize(points.to(device)[None], pillars, 1000)
    inverse, side = np.float32(1 / 0.16), np.float32(39.68)
    places = np.stack([np.floor((y + side) * inverse), np.floor(x * inverse)], axis=1).astype(int)
    assert found.places[1:].T.tolist() == sorted(places.tolist())
    assert (np.floor((y + side) / np.float32(0.16)) != places[:, 0]).any(), "other ways to compute it differ"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("training", [True, False])
def test_the_map_is_that_of_plain_pillars(training: bool, device: str) -> None:
    points, twin = clouds(), net().train(training)
    model = copy.deepcopy(twin).to(device)
    expected = plain_map(points, SMALL, twin, SMALL.train_pillars if training else SMALL.pillars)
    found = model(points.to(device)).cpu()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert ((found != 0).any(dim=1).sum(dim=(1, 2)) <= (SMALL.train_pillars if training else SMALL.pillars)).all()
    direction = torch.randn_like(expected)
    (expected * direction).sum().backward()
    (found * direction).sum().backward()
    for (name, parameter), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert parameter.grad.abs().min() > 0, name
        torch.testing.assert_close(parameter.grad.cpu(), other.grad, rtol=0, atol=1e-10, msg=name)
    for (name, buffer), other in zip(model.named_buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(buffer.cpu(), other, rtol=0, atol=1e-12, msg=name)
    assert model.norm.num_batches_tracked == int(training)


@pytest.mark.parametrize("training", [True, False])
def test_padding_changes_nothing(training: bool) -> None:
    points, model = clouds(), net().train(training)
    expected = copy.deepcopy(model)(points)
    padded = torch.full((3, 200, 4), math.inf, dtype=points.dtype)
    padded[:, 30:150:2] = points
    padded[1, :30] = math.nan
    padded[2, :20, :3] = 0.5  # in the range, but for its reflectance
    padded[2, :10, 3] = math.nan
    padded[0, :30, 0] = -math.inf
    padded[0, 20:30] = torch.tensor([math.nan, 0, 0, 0])
    assert torch.equal(model(padded), expected)


def test_a_cloud_has_the_map_it_has_alone() -> None:
    points, model = clouds(), net().eval()
    alone = torch.cat([model(cloud[None]) for cloud in points])
    torch.testing.assert_close(model(points), alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lower_borders_are_inside_and_upper_ones_outside(dtype: torch.dtype) -> None:
    def places(*rows: tuple[Any, Any, Any], pillars: Pillars = Pillars()) -> list[list[int]]:
        xyz = torch.tensor([rows], dtype=dtype)
        return pillarize(torch.nn.functional.pad(xyz, (0, 1)), pillars, 100).places.T.tolist()

    def below(number: float) -> float:
        return torch.nextafter(torch.tensor(number, dtype=dtype), torch.tensor(-100, dtype=dtype)).item()

    assert places((0.0, -39.68, -3.0)) == [[0, 0, 0]]
    assert places((below(69.12), below(39.68), below(1.0))) == [[0, 495, 431]]
    assert places((below(8.0), 0, 0), pillars=Pillars(rows=2, columns=50)) == [[0, 1, 49]]  # 49.999996 is 50 in float32
    for outside in (
        (69.12, 0, 0), (0, 39.68, 0), (0, 0, 1.0), (below(0.0), 0, 0), (0, below(-39.68), 0), (0, 0, below(-3.0)),
    ):  # fmt: skip
        assert places(outside) == [], outside
    assert places((0.17, 0.0, 0), (0.15, -0.01, 0)) == [[0, 247, 0], [0, 248, 1]]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("count", [0, 1])
def test_clouds_of_no_point_and_of_one(count: int, training: bool) -> None:
    model = net().train(training)
    before = copy.deepcopy(dict(model.named_buffers()))
    points = torch.full((2, 5, 4), math.inf, dtype=torch.float64)
    points[1, :count] = torch.tensor([1.2, 0.3, 0, 0.5], dtype=torch.float64)
    found = model(points)
    torch.testing.assert_close(found, net().eval()(points), rtol=0, atol=1e-12)
    assert found.shape == (2, 5, 8, 6)
    assert (found != 0).any() == (count > 0)
    found.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]), name
    assert model(points[:, :0]).shape == (2, 5, 8, 6)


def test_the_map_is_channels_last_and_float32_whatever_the_precision() -> None:
    model, points = net().float(), clouds().float()
    expected = model.eval()(points)
    assert expected.is_contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(points)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_recalibration_takes_the_pillars_of_evaluation() -> None:
    model, points = net().eval(), clouds()
    recalibrate(model, [points])
    rows = torch.cat(list(plain_features(plain_pillars(points, SMALL, SMALL.pillars), SMALL).values()))
    variance, mean = torch.var_mean(rows @ model.linear.weight.T, dim=0)
    torch.testing.assert_close(model.norm.running_mean, mean.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(model.norm.running_var, variance.detach(), rtol=0, atol=1e-12)


def test_a_grid_too_large_for_short_keys() -> None:
    wide = Pillars(cell=0.01, rows=60_000, columns=60_000, bottom=-2, top=1)
    points = torch.tensor([[[599.995, 299.995, 0, 0], [0.005, -299.995, 0, 0], [599.995, 299.995, 0.5, 0]]])
    found = pillarize(points.double(), wide, 10)
    assert found.places.T.tolist() == [[0, 0, 0], [0, 59_999, 59_999]]
    assert found.counts.tolist() == [1, 2]


def half_of_a_step(processes: Processes, share: int) -> dict[str, Any]:
    model = net().train()
    synchronize_norms(model, processes.reduction)
    own = slice(0, share) if processes.is_zero else slice(share, None)
    points = clouds()[own] if share else torch.where(torch.tensor(processes.is_zero), math.inf, clouds())
    model(points).square().sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()} | dict(model.norm.named_buffers())


@pytest.mark.parametrize("share", [1, 0], ids=["a cloud and two", "no points and all"])
def test_two_processes_are_one_on_all_clouds(share: int) -> None:
    model = net().train()
    model(clouds()).square().sum().backward()
    first, second = run_ranks(2, half_of_a_step, share)
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(first[name] + second[name], parameter.grad.numpy(), rtol=0, atol=1e-9, err_msg=name)
    for name in ("running_mean", "running_var"):
        for found in (first, second):
            np.testing.assert_allclose(found[name], model.norm.get_buffer(name).numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_a_real_cloud(device: str) -> None:
    file = SHARED / "kitti_mini" / "training" / "velodyne" / "000008.bin"
    if not file.is_file():
        pytest.skip(f"the real set is not at {file.parent}")
    points = torch.from_numpy(np.fromfile(file, np.float32).reshape(1, -1, 4))
    found = pillarize(points.to(device), Pillars(), 40_000)
    low, high = torch.tensor([0, -39.68, -3]), torch.tensor([69.12, 39.68, 1])
    inside = points[0][((points[0, :, :3] >= low) & (points[0, :, :3] < high)).all(dim=1)]
    x, y = inside[:, :2].numpy().T
    inverse = np.float32(1 / 0.16)
    cells = np.floor((y + np.float32(39.68)) * inverse) * 432 + np.floor(x * inverse)
    keys, counts = np.unique(cells, return_counts=True)
    assert (found.places[1] * 432 + found.places[2]).tolist() == keys.tolist()
    assert found.counts.tolist() == np.minimum(counts, 32).tolist()
    assert counts.max() > 32
    some = pillarize(points.to(device), Pillars(), 1000)
    assert some.places.shape == (3, 1000)
