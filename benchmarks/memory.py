"""The predicted peak memory of a training step against the measured one, on a CPU.

    python benchmarks/memory.py                          # the whole table, about an hour
    python benchmarks/memory.py --only hr-small          # rows whose text holds this

Two measurements. "allocated": all that torch's allocator gave out and had not got back at the highest point of the
second step, from its own record; beside it `Memory.allocated`. "resident": how far the peak of the process's resident
memory rises in six steps over what it held before the network was made; beside it `Memory.peak`, which has what the C
library keeps in pieces. Each is measured in a process of its own, set up as hrnas sets itself up.
"""

import argparse
import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CLASSES = 11
LARGEST = 5 * 2**30
"""Rows predicted to take more are left out: the machine is shared."""


def rows() -> list[dict[str, Any]]:
    """Return the settings of the table."""
    settings = [
        ("hr-small none 1", (96, 128), 16), ("hr-small none 1", (180, 240), 8), ("hr-small none 1", (256, 256), 2),
        ("hr-small none 0.25", (180, 240), 16), ("hr-small none 0.25", (128, 128), 4),
        ("hr-small all 1", (128, 128), 8), ("hr none 1", (96, 128), 4), ("hr none 0.3", (256, 256), 2),
        ("hr all 1", (96, 128), 2), ("hr all 1", (128, 128), 6), ("hr all 0.3", (180, 240), 4),
    ]  # fmt: skip
    table = []
    for network, size, batch in settings:
        space, transformers, share = network.split()
        row = {"space": space, "transformers": transformers, "share": float(share)}
        table.append(row | {"input_size": size, "batch": batch})
    modes = [("float32", False), ("float32", True), ("bfloat16", False), ("bfloat16", True)]
    return [row | {"precision": precision, "recompute": recompute} for row in table for precision, recompute in modes]


def architecture_of(row: dict[str, Any]) -> Any:
    from hrnas.arch.presets import search_space
    from hrnas.searching.plan import uniform_network

    supernet = search_space(row["space"], row["transformers"]).supernet(CLASSES)
    return supernet if row["share"] == 1 else uniform_network(supernet, row["share"])


def predicted(row: dict[str, Any]) -> Any:
    from hrnas.costing.memory import training_memory
    from hrnas.kernels import compiling

    return training_memory(
        architecture_of(row),
        tuple(row["input_size"]),
        row["batch"],
        precision=row["precision"],
        recompute=row["recompute"],
        kernels=compiling.problem() is None,
    )


def measure(row: dict[str, Any], kind: str) -> int:
    """Return the bytes of one measurement; runs in a process of its own."""
    from hrnas.cli import prepare_process

    prepare_process()
    import torch
    from torch.profiler import ProfilerActivity, profile

    from hrnas.data.description import DataDescription
    from hrnas.data.transforms import normalize
    from hrnas.engine.averages import Averages
    from hrnas.engine.optimization import OptimizerOptions, make_optimizer
    from hrnas.engine.recomputation import recompute_blocks
    from hrnas.engine.training import TrainState, train_step
    from hrnas.models.network import Network
    from hrnas.tasks import make_task

    task = make_task(
        DataDescription(task="segmentation", names=tuple(map(str, range(CLASSES))), colors=((0, 0, 0),) * CLASSES)
    )

    def steps(architecture: Any, size: tuple[int, int], batch: int, count: int) -> None:
        model = Network(architecture).to(memory_format=torch.channels_last)
        if row["recompute"]:
            recompute_blocks(model)
        state = TrainState(
            model=model,
            optimizer=make_optimizer(model, OptimizerOptions()),
            averages=Averages(model, batch),
            precision=row["precision"],
        )
        for _ in range(count):
            images = torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8)
            images = images.contiguous(memory_format=torch.channels_last)
            targets = torch.randint(0, CLASSES, (batch, *size), dtype=torch.uint8)
            train_step(state, normalize(images), targets, task, 1e-6)

    architecture, size, batch = architecture_of(row), tuple(row["input_size"]), row["batch"]
    # What torch loads when it is first used belongs to the process, not to the network.
    steps(architecture_of({"space": "hr-small", "transformers": "all", "share": 0.05}), (32, 32), 2, 1)
    if kind == "resident":
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # or the network would first fill what is free
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _resident("VmRSS")
        steps(architecture, size, batch, 6)
        return _resident("VmHWM") - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        steps(architecture, size, batch, 2)
    changes = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    allocated = highest = 0
    for event in sorted(changes, key=lambda event: event.start_ns()):
        allocated += event.nbytes()
        highest = max(highest, allocated)
    return highest


def _resident(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {name}")


def _measured(row: dict[str, Any], kind: str) -> int:
    command = [sys.executable, __file__, "--measure", json.dumps([row, kind])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="measure only rows whose text holds this")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(measure(*json.loads(arguments.measure)))
        return
    print(f"threads {os.environ.get('OMP_NUM_THREADS', 'all')}; MiB; ratio = predicted / measured")
    print(
        "| network | input | batch | precision | recompute "
        "| predicted | allocated | ratio | predicted | resident | ratio |"
    )
    print("|---" * 11 + "|")
    ratios: dict[str, list[float]] = {"allocated": [], "resident": []}
    for row in rows():
        height, width = row["input_size"]
        network = f"{row['space']} {row['transformers']} {row['share']:g}"
        words = [network, f"{height}x{width}", row["batch"], row["precision"], "yes" if row["recompute"] else "no"]
        expected = predicted(row)
        if arguments.only not in " ".join(map(str, words)) or expected.peak > LARGEST:
            continue
        for kind, guess in (("allocated", expected.allocated), ("resident", expected.peak)):
            value = _measured(row, kind)
            ratios[kind].append(guess / value)
            words += [f"{guess / 2**20:.0f}", f"{value / 2**20:.0f}", f"{guess / value:.2f}"]
        print(f"| {' | '.join(map(str, words))} |", flush=True)
    for kind, found in ratios.items():
        within = sum(0.8 <= ratio <= 1.2 for ratio in found)
        print(f"{kind}: {within} of {len(found)} within 20 %; ratio from {min(found):.2f} to {max(found):.2f}")


if __name__ == "__main__":
    main()
