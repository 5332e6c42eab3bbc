"""Images a second that loading gives, against what a search step takes: the loader must not be the limit.

    python benchmarks/loading.py --camvid FOLDER --out runs/loading            # about 8 minutes on two quiet cores

Decode and augmentation of training batches, read as fast as they come: in the main process (0 workers) and by 1 and 2
workers, with files decoded each time (--cache 0) and with all of them in the cache. Toy City is in memory anyhow. All
ways take turns, round after round; medians and spread. Beside it the appetite: images a second that a step of the
whole supernet takes on all of torch's threads, loading nothing; the networks it shrinks to take more. How long the
steps of a real search wait for data is in benchmarks/profile_search.py.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

from hrnas.cli import prepare_process

SIZES = {"64x96": (64, 96), "180x240": (180, 240)}
PLACES = {"Toy City": ("64x96", "180x240"), "CamVid": ("180x240",)}
SPACES = ("hr-small", "hr")
BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", type=Path, help="CamVid's folder; left out without it")
    parser.add_argument("--batches", type=int, default=40, help="batches of 8 a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="steps of each supernet, one more before them")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    prepare_process()
    from cells import machine, markdown_table

    loads, wants = [], []
    appetites: dict[tuple[str, str], float] = {}
    for size in SIZES:
        for space in SPACES:
            appetites[size, space] = appetite(space, SIZES[size], given.steps)
            wants.append([size, space, f"{appetites[size, space]:.1f}"])
            print(f"{space} at {size}: {wants[-1][-1]} images/s", flush=True)
    for data, sizes in PLACES.items():
        if data == "CamVid" and given.camvid is None:
            print("CamVid: left out, --camvid is not given")
            continue
        for size in sizes:
            rates = loading(data, given.camvid, SIZES[size], given.batches, given.rounds)
            for (kind, workers), values in rates.items():
                middle = statistics.median(values)
                over = [f"{middle / appetites[size, space]:.0f}" for space in SPACES]
                loads.append(
                    [data, size, kind, workers, f"{middle:.0f}", f"{min(values):.0f} to {max(values):.0f}", *over]
                )
            print(f"{data} at {size} is measured", flush=True)
    times = [f"times the appetite of {space}" for space in SPACES]
    text = "\n\n".join(
        [
            machine(),
            f"`python benchmarks/loading.py {' '.join(sys.argv[1:])}`",
            markdown_table(["data", "input", "files are", "workers", "images/s", "spread", *times], loads),
            f"Appetite of a step of the supernet, batch {BATCH}:",
            markdown_table(["input", "space", "images/s"], wants),
        ]
    )
    (given.out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)


def loading(
    data: str, camvid: Path | None, input_size: tuple[int, int], num_batches: int, rounds: int
) -> dict[tuple[str, int], list[float]]:
    """Return images a second of every round, by how files are read and the number of workers."""
    from hrnas.data.cache import CachedSet, SampleMemory
    from hrnas.data.data_yaml import parse_description
    from hrnas.data.opening import DataSet, open_split

    sources: dict[str, DataSet]
    if data == "Toy City":
        plain = {"dataset": "toycity", "size": list(input_size), "length": {"train": 64}}
        sources = {"in memory": open_split(parse_description(plain, where="data", folder=Path.cwd()), "train")}
    else:
        plain = {"dataset": "camvid", "path": str(camvid)}
        files = open_split(parse_description(plain, where="data", folder=Path.cwd()), "train")
        cached = CachedSet(files, SampleMemory(2**30))
        for index in range(len(cached)):
            cached.read(index)
        sources = {"decoded": files, "cached": cached}
    rates: dict[tuple[str, int], list[float]] = {(kind, workers): [] for kind in sources for workers in (0, 1, 2)}
    for _ in range(rounds):
        for kind, workers in rates:
            rates[kind, workers].append(rate(sources[kind], input_size, workers, num_batches))
    return rates


def rate(dataset: object, input_size: tuple[int, int], workers: int, num_batches: int) -> float:
    """Return images a second, from the first batch on; what the workers had ready by then is not counted."""
    from hrnas.data.loading import PREFETCHED, train_batches
    from hrnas.data.transforms import AugmentOptions

    ahead = PREFETCHED * workers
    batches = train_batches(
        dataset,  # type: ignore[arg-type]
        batch_size=BATCH,
        input_size=input_size,
        seed=0,
        first_step=0,
        num_steps=1 + ahead + num_batches,
        options=AugmentOptions(),
        workers=workers,
    )
    for _ in range(1 + ahead):
        next(batches)
    started = time.perf_counter()
    count = sum(len(batch.inputs) for batch in batches)
    return count / (time.perf_counter() - started)


def appetite(space: str, input_size: tuple[int, int], steps: int) -> float:
    """Return the images a second that steps of a supernet take, from their median."""
    import torch

    from hrnas.arch.presets import search_space
    from hrnas.data.description import DataDescription
    from hrnas.engine.averages import Averages
    from hrnas.engine.optimization import OptimizerOptions, make_optimizer
    from hrnas.engine.training import TrainState, train_step
    from hrnas.models.network import Network
    from hrnas.tasks import make_task

    task = make_task(DataDescription(task="segmentation", names=tuple(map(str, range(11))), colors=((0, 0, 0),) * 11))
    model = Network(search_space(space, None).supernet(task.num_outputs)).to(memory_format=torch.channels_last)
    state = TrainState(
        model=model, optimizer=make_optimizer(model, OptimizerOptions()), averages=Averages(model, BATCH)
    )
    images = torch.randn(BATCH, 3, *input_size).contiguous(memory_format=torch.channels_last)
    targets = torch.zeros(BATCH, *input_size, dtype=torch.uint8)
    times = []
    for _ in range(1 + steps):
        started = time.perf_counter()
        train_step(state, images, targets, task, 1e-6)
        times.append(time.perf_counter() - started)
    return BATCH / statistics.median(times[1:])


if __name__ == "__main__":
    main()
