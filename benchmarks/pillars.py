"""What comes before and after the network of 3D detection: pillars of a cloud, suppression of doubles, the PillarNet.

    taskset -c 0 python benchmarks/pillars.py --out runs/pillars               # about 4 minutes on a quiet core

All on one thread. Pillars: every whole cloud of KITTI's layout under --data, beside a loop over its points.
Suppression: 500 boxes around 25 cars, as neighbouring places of a map give them, and around one car, beside a loop over
pairs that clips polygons. The results are compared too. PillarNet: forward and backward pass over a batch of four
clouds cut to the camera's view, beside other ways to compute the same.

All ways take turns, round after round, in one process; medians of the rounds, and of the ratios within a round.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from hrnas.cli import prepare_process

prepare_process()  # before torch loads

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from cells import machine, markdown_table  # noqa: E402
from hrnas.arch.architecture import Pillars  # noqa: E402
from hrnas.arch.presets import search_space  # noqa: E402
from hrnas.geometry.boxes import bev_corners  # noqa: E402
from hrnas.geometry.suppression import suppressed  # noqa: E402
from hrnas.nn.pillars import Pillarized, PillarNet, features, pillarize  # noqa: E402

DATA = Path(__file__).parents[2] / "shared" / "data" / "kitti_mini"
KITTI = Pillars()
WHOLE = 100_000
"""Points from which on a cloud is a whole sweep, not one cut to the camera's view."""
BATCH = 4

Call = Callable[[], object]
Point = tuple[float, float]
Times = dict[str, list[float]]


def plain_pillars(cloud: list[list[float]]) -> dict[tuple[int, int], list[list[float]]]:
    """Return the points of every pillar by row and column, one point after the other."""
    side, inverse = KITTI.rows * KITTI.cell / 2, 1 / KITTI.cell
    found: dict[tuple[int, int], list[list[float]]] = {}
    for point in cloud:
        x, y, z, _ = point
        column, row = math.floor(x * inverse), math.floor((y + side) * inverse)
        if 0 <= column < KITTI.columns and 0 <= row < KITTI.rows and KITTI.bottom <= z < KITTI.top:
            if (row, column) not in found and len(found) == KITTI.pillars:
                continue
            points = found.setdefault((row, column), [])
            if len(points) < KITTI.points:
                points.append(point)
    return found


def clipped(polygon: list[Point], begin: Point, end: Point) -> list[Point]:
    """Return what of a polygon lies left of the line from begin to end."""

    def left(point: Point) -> float:
        return (end[0] - begin[0]) * (point[1] - begin[1]) - (end[1] - begin[1]) * (point[0] - begin[0])

    kept: list[Point] = []
    for one, other in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        here, there = left(one), left(other)
        if here >= 0:
            kept.append(one)
        if (here >= 0) != (there >= 0):
            share = here / (here - there)
            kept.append((one[0] + share * (other[0] - one[0]), one[1] + share * (other[1] - one[1])))
    return kept


def plain_share(one: list[Point], other: list[Point], areas: float) -> float:
    """Return the intersection over union of two outlines whose areas sum up to `areas`."""
    polygon = one
    for begin, end in zip(other, other[1:] + other[:1], strict=True):
        polygon = clipped(polygon, begin, end)
    corners = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    shared = sum(a[0] * b[1] - a[1] * b[0] for a, b in corners) / 2
    return shared / (areas - shared)


def plain_suppressed(boxes: np.ndarray, scores: list[float], overlap: float) -> list[int]:
    """Return what stays, one pair after the other; pairs too far apart for any overlap are not clipped."""
    outlines = [[(x, y) for x, y in corners] for corners in bev_corners(boxes).tolist()]
    rows = boxes.tolist()
    kept: list[int] = []
    for index in sorted(range(len(rows)), key=lambda index: -scores[index]):
        x, y, _, length, width, *_ = rows[index]
        for better in kept:
            other_x, other_y, _, other_length, other_width, *_ = rows[better]
            if (
                math.hypot(x - other_x, y - other_y)
                > (math.hypot(length, width) + math.hypot(other_length, other_width)) / 2
            ):
                continue
            areas = length * width + other_length * other_width
            if plain_share(outlines[index], outlines[better], areas) > overlap:
                break
        else:
            kept.append(index)
    return kept


def detections(objects: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes (count, 7) and scores around cars, the nearer the better."""
    rng = np.random.default_rng(0)
    cars = np.column_stack([rng.uniform(0, 69, objects), rng.uniform(-39, 39, objects), rng.uniform(-3, 3, objects)])
    which = np.arange(count) % objects
    errors = rng.normal(0, (0.5, 0.4, 0.1), (count, 3))
    sizes = (3.9, 1.6, 1.56) * rng.normal(1, 0.05, (count, 3))
    x, y, yaw = (cars[which] + errors).T
    boxes = np.column_stack([x, y, np.full(count, -1.0), sizes, yaw])
    return boxes, np.exp(-np.abs(errors).sum(axis=1)) * rng.uniform(0.7, 1, count)


class OneLayout(PillarNet):
    """The linear layer as torch has it; else the same."""

    def _pooled(self, found: Pillarized) -> Tensor:
        x = self._normalized(self.linear(features(found, self.pillars))[:, :, None, None]).flatten(1)
        return F.relu(torch.segment_reduce(x, "max", lengths=found.counts, unsafe=True))


class Scattered(PillarNet):
    """The maximum by scatter_reduce; else the same."""

    def _pooled(self, found: Pillarized) -> Tensor:
        x = features(found, self.pillars) @ self.linear.weight.t().contiguous()
        x = self._normalized(x[:, :, None, None]).flatten(1)
        pillar = found.pillar[:, None].expand_as(x)
        return F.relu(
            x.new_zeros(len(found.counts), x.shape[1]).scatter_reduce(0, pillar, x, "amax", include_self=False)
        )


class Slots(PillarNet):
    """As the paper has it: 32 slots for every pillar, zeros in the empty ones, which the batch norm counts too."""

    def _pooled(self, found: Pillarized) -> Tensor:
        described = features(found, self.pillars)
        first = found.counts.cumsum(0) - found.counts
        slot = torch.arange(len(described)) - first[found.pillar]
        slots = described.new_zeros(len(first), self.pillars.points, described.shape[1])
        slots[found.pillar, slot] = described
        x = self._normalized(self.linear(slots.flatten(0, 1))[:, :, None, None])
        return F.relu(x.view(len(first), self.pillars.points, -1).amax(dim=1))


WAYS: Mapping[str, type[PillarNet]] = {
    "PillarNet": PillarNet,
    "nn.Linear's layout of the weight": OneLayout,
    "scatter_reduce": Scattered,
    "32 slots a pillar": Slots,
}


def taking_turns(calls: Mapping[str, Call], rounds: int) -> Times:
    """Return milliseconds of every round by name; nobody is always first, and round 0 is not counted."""
    times: Times = {name: [] for name in calls}
    names = list(calls)
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started = time.perf_counter()
            calls[name]()
            if turn:
                times[name].append(1000 * (time.perf_counter() - started))
    return times


def quartiles(values: list[float], digits: int) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def beside_a_loop(name: str, times: Times) -> list[str]:
    ours, plain = times["ours"], times["loop"]
    ratios = [theirs / own for own, theirs in zip(ours, plain, strict=True)]
    return [name, quartiles(ours, 1), f"{min(ours):.1f}", quartiles(plain, 0), quartiles(ratios, 0)]


def measured_pillars(clouds: Mapping[str, Tensor], rounds: int) -> list[list[str]]:
    rows = []
    for name, cloud in clouds.items():
        listed = cloud.tolist()
        found, plain = pillarize(cloud[None], KITTI, KITTI.pillars), plain_pillars(listed)
        assert [tuple(place) for place in found.places[1:].T.tolist()] == sorted(plain)
        assert found.points.tolist() == [point for place in sorted(plain) for point in plain[place]]
        calls: dict[str, Call] = {
            "ours": lambda cloud=cloud: pillarize(cloud[None], KITTI, KITTI.pillars),
            "loop": lambda listed=listed: plain_pillars(listed),
        }
        what = f"{name}: {len(cloud):,} points, {len(found.points):,} in {len(found.counts):,} pillars"
        rows.append(beside_a_loop(what, taking_turns(calls, rounds)))
        print(rows[-1], flush=True)
    return rows


def measured_suppression(rounds: int) -> list[list[str]]:
    rows = []
    around, heap = detections(25, 500), detections(1, 500)
    for name, boxes, scores, overlap in (
        ("500 boxes around 25 cars, limit 0.01", *around, 0.01),
        ("500 boxes around 25 cars, limit 0.5", *around, 0.5),
        ("500 boxes around 1 car, limit 0.9", *heap, 0.9),  # the worst case: nearly all stay, and all overlap
    ):
        given = torch.from_numpy(boxes).float(), torch.from_numpy(scores).float()
        found, plain = suppressed(*given, overlap, 500).tolist(), plain_suppressed(boxes, scores.tolist(), overlap)
        assert found == plain
        calls: dict[str, Call] = {
            "ours": lambda given=given, overlap=overlap: suppressed(*given, overlap, 500),
            "loop": lambda boxes=boxes, scores=scores.tolist(), overlap=overlap: plain_suppressed(
                boxes, scores, overlap
            ),
        }
        rows.append(beside_a_loop(f"{name}: {len(found)} stay", taking_turns(calls, rounds)))
        print(rows[-1], flush=True)
    return rows


def measured_nets(batch: Tensor, rounds: int) -> list[list[str]]:
    """Return a row for every way: forward, backward, and what of the forward pass all share."""
    settings = search_space("hr-small", "none").supernet(1)
    gradient = torch.randn(len(batch), KITTI.rows, KITTI.columns, KITTI.channels).permute(0, 3, 1, 2)
    forward: dict[str, list[float]] = {name: [] for name in WAYS}
    backward: dict[str, list[float]] = {name: [] for name in WAYS}
    parts: Times = {"pillarize": [], "the empty map": []}
    nets: dict[str, PillarNet] = {}
    for name, kind in WAYS.items():
        torch.manual_seed(0)
        nets[name] = kind(KITTI, settings)
    for turn in range(rounds + 1):
        for name, net in nets.items():
            started = time.perf_counter()
            drawn = net(batch)
            between = time.perf_counter()
            drawn.backward(gradient)
            ended = time.perf_counter()
            del drawn
            if turn:
                forward[name].append(1000 * (between - started))
                backward[name].append(1000 * (ended - between))
            net.zero_grad(set_to_none=True)
        for part, call in (
            ("pillarize", lambda: pillarize(batch, KITTI, KITTI.train_pillars)),
            ("the empty map", lambda: torch.zeros(gradient.shape)),
        ):
            started = time.perf_counter()
            call()
            if turn:
                parts[part].append(1000 * (time.perf_counter() - started))
    rows = [[name, quartiles(forward[name], 0), quartiles(backward[name], 0)] for name in WAYS]
    return rows + [[f"of these: {part}", quartiles(times, 0), "–"] for part, times in parts.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="a folder of KITTI's layout")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    files = sorted(arguments.data.glob("training/velodyne/*.bin"))
    if not files:
        parser.error(
            f"No clouds under {arguments.data / 'training' / 'velodyne'}. Give --data, a folder of KITTI's layout."
        )
    torch.set_num_threads(1)
    # Places are whole millimetres, and many on a pillar's border, where the loop, in Python's double precision, would
    # differ; moved a little, none is (those on borders: tests/nn/test_pillars.py).
    read = {file.stem: torch.from_numpy(np.fromfile(file, np.float32).reshape(-1, 4)) + 0.0003 for file in files}
    clouds = {name: cloud for name, cloud in read.items() if len(cloud) >= WHOLE}
    views = [cloud[cloud[:, 1].abs() < 0.85 * cloud[:, 0]] for cloud in list(clouds.values())[:BATCH]]
    batch = torch.nn.utils.rnn.pad_sequence(views, batch_first=True, padding_value=math.inf)
    found = pillarize(batch, KITTI, KITTI.train_pillars)

    beside = ["ms", "least", "loop, ms", "ratio"]
    sections = [
        machine({"NumPy": np.__version__}),
        markdown_table(["pillars", *beside], measured_pillars(clouds, arguments.rounds)),
        markdown_table(["suppression", *beside], measured_suppression(arguments.rounds)),
        f"{BATCH} clouds cut to the view: {len(found.points):,} points in {len(found.counts):,} pillars.",
        markdown_table(["way", "forward, ms", "backward, ms"], measured_nets(batch, arguments.rounds)),
    ]
    text = "\n\n".join(sections)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
