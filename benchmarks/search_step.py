"""A step of the search against the textbook's: time, peak memory, launches, and how far from the hardware's floors.

    python benchmarks/search_step.py --space hr --input-size 256x256 --roofline --out runs/step-none.json
    python benchmarks/search_step.py --space hr --input-size 256x256 --transformers all --out runs/step-all.json
    python benchmarks/search_step.py --networks runs/camvid --batch-size 2 --out runs/step-networks.json

Variants (benchmarks/step_variants.py): a0 textbook blocks and plain bookkeeping, a the same blocks with fused
bookkeeping, b ours. A step is forward pass, loss, penalty, backward pass, optimizer, averages.

Time: the variants take turns in one process, nobody always first, and a ratio is taken within a round: median and
quartiles over the rounds; on a CPU the same of the processors' time, which other jobs on the machine disturb less.
Memory: each variant in a process of its own; on a CPU by how far the peak of its resident memory rises, in four steps,
above what it held once the variant was built (weights, averages) and above what it held before; on CUDA torch's own
figures. Launches: on a CPU the calls of operators below autograd, in a step after the first, without those that only
make a view or take memory (a foreach or fused call is one), plus the calls of our own compiled kernels; on CUDA kernel
launches, as the profiler sees them.

--networks: the networks that a search passed through, nearest to the given shares of its supernet's MACs, all in one
process and turn by turn; writes a picture beside the figures.
"""

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from hrnas.cli import prepare_process

WITHOUT: Final = "--without-settings"
if WITHOUT not in sys.argv:
    prepare_process()  # before torch loads

import torch  # noqa: E402
from torch.profiler import ProfilerActivity, profile  # noqa: E402

from cells import machine, markdown_table  # noqa: E402
from hrnas.arch.architecture import Architecture  # noqa: E402
from hrnas.arch.file import from_data  # noqa: E402
from hrnas.costing.analytic import cost  # noqa: E402
from hrnas.reporting.plain_files import read_json_lines, read_yaml  # noqa: E402
from launches import Launches  # noqa: E402
from roofline import floors, measure_machine  # noqa: E402
from step_picture import draw_steps  # noqa: E402
from step_variants import VARIANTS, Setting, Variant, named_setting  # noqa: E402

REFERENCE: Final = "a"
CUDA_LAUNCHES: Final = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
Times = dict[str, list[float]]


def seconds(call: Callable[[], object], device: str) -> tuple[float, float]:
    """Return how long a call takes, and how much of the processors' time."""
    if device != "cpu":
        torch.cuda.synchronize()
    started, used = time.perf_counter(), time.process_time()
    call()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - started, time.process_time() - used


def measure_times(variants: Mapping[str, Variant], device: str, rounds: int) -> tuple[Times, Times]:
    """Return the seconds of a step of every variant, one a round, and those of the processors."""
    names = list(variants)
    for name in names:  # compiles, allocates; the penalty begins
        for _ in range(2):
            variants[name].step()
    times: Times = {name: [] for name in names}
    used: Times = {name: [] for name in names}
    for turn in range(rounds):
        print(f"round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            for figures, value in zip((times, used), seconds(variants[name].step, device), strict=True):
                figures[name].append(value)
    return times, used


def count_launches(variant: Variant, device: str) -> dict[str, int]:
    """Return how often each operator, or on CUDA each way of launching, is called in the second step."""
    variant.step()
    if device == "cpu":
        with Launches() as launches:
            variant.step()
        return launches.counts
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as record:
        variant.step()
        torch.cuda.synchronize()
    found: dict[str, int] = {}
    for event in record.profiler.kineto_results.events():
        if event.name() in CUDA_LAUNCHES or event.name().startswith("cudaGraphLaunch"):
            found[event.name()] = found.get(event.name(), 0) + 1
    return found


def measure_memory(name: str, values: dict[str, Any]) -> dict[str, int]:
    """Return the bytes a variant takes; runs in a process of its own.

    built: for weights and averages; working: what four steps take beyond them, at their highest; total: both.
    """
    tiny = values | {"space": "hr-small", "transformers": "all", "input_size": [32, 32], "batch_size": 2}
    VARIANTS[name](named_setting(tiny)).step()  # what torch loads when it is first used belongs to the process
    if values["device"] != "cpu":
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        variant = VARIANTS[name](named_setting(values))
        built = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        for _ in range(4):
            variant.step()
        peak = torch.cuda.max_memory_allocated()
    else:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # or the network would first fill what is free
        before = _resident("VmRSS")
        variant = VARIANTS[name](named_setting(values))
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        built = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        for _ in range(4):
            variant.step()
        peak = _resident("VmHWM")
    return {"built": built - before, "working": peak - built, "total": peak - before}


def _resident(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {name}")


def output_difference(variants: Mapping[str, Variant], setting: Setting) -> float:
    """Return how far the variants' outputs in evaluation mode are apart, relative to the largest value."""
    images, _ = setting.batch()
    outputs = []
    with torch.no_grad(), setting.autocast():
        for variant in variants.values():
            outputs.append(variant.model.eval()(images).double())
            variant.model.train()
    return max(float((other - outputs[0]).abs().max() / outputs[0].abs().max()) for other in outputs)


def ratios(times: Times, name: str, reference: str) -> list[float]:
    """Return the lower quartile, the median and the upper quartile of time over reference's time, round by round."""
    found = [one / other for one, other in zip(times[name], times[reference], strict=True)]
    return statistics.quantiles(found, n=4, method="inclusive") if len(found) > 1 else found * 3


def passed_networks(run: Path, shares: Sequence[float]) -> list[Architecture]:
    """Return the supernet of a run, then the networks it passed through that are nearest to shares of its MACs."""
    lines = read_json_lines(run / "architectures.jsonl")
    found = [lines[0]]
    macs = [line.integer("macs") for line in lines]
    for share in shares:
        nearest = min(range(len(lines)), key=lambda index: abs(macs[index] - share * macs[0]))
        if lines[nearest] not in found:
            found.append(lines[nearest])
    return [from_data(line.mapping("architecture").values, line.source) for line in found]


def write_record(out: Path | None, record: dict[str, Any]) -> None:
    """Write what has been measured so far; nothing without a file to write to."""
    if out:
        out.write_text(json.dumps({"machine": where(), **record}, indent=1) + "\n", encoding="utf-8")


def where() -> str:
    """Return date, hardware, versions and whose settings in a line."""
    return machine({"settings": "torch's" if WITHOUT in sys.argv else "hrnas's"})


def compare(arguments: argparse.Namespace, values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Measure the variants on a supernet; return the figures and the tables of them."""
    setting, device = named_setting(values), arguments.device
    record: dict[str, Any] = {"setting": values, "macs": cost(setting.architecture, setting.input_size).macs}
    rows: dict[str, list[str]] = {name: [name] for name in arguments.variants}
    headers = ["variant"]
    reference = REFERENCE if REFERENCE in arguments.variants else arguments.variants[0]
    if "times" in arguments.measure:
        built = {name: VARIANTS[name](setting) for name in arguments.variants}
        record["output_difference"] = output_difference(built, setting)
        times, used = measure_times(built, device, arguments.rounds)
        record |= {"seconds": times, "processor_seconds": used}
        del built
        write_record(arguments.out, record)
        headers += [f"time / {reference}'s", f"times as fast as {reference}"]
        headers.append(f"processor time / {reference}'s" if device == "cpu" else "seconds")
        for name, row in rows.items():
            low, middle, high = ratios(times, name, reference)
            row += [f"{middle:.2f} [{low:.2f}, {high:.2f}]", f"{1 / middle:.2f} [{1 / high:.2f}, {1 / low:.2f}]"]
            low, middle, high = ratios(used, name, reference)
            processors = f"{middle:.2f} [{low:.2f}, {high:.2f}]"
            row.append(processors if device == "cpu" else f"{statistics.median(times[name]):.4f}")
    if "memory" in arguments.measure:
        record["memory"] = {name: _in_process("memory", name, values) for name in arguments.variants}
        write_record(arguments.out, record)
        first = record["memory"][reference]
        headers += ["working memory, MiB", f"of {reference}'s", "with weights, MiB", f"of {reference}'s"]
        for name, row in rows.items():
            for part in ("working", "total"):
                figure = record["memory"][name][part]
                row += [f"{figure / 2**20:.0f}", f"{figure / first[part]:.2f}"]
    if "launches" in arguments.measure:
        record["launches"] = {name: _in_process("launches", name, values) for name in arguments.variants}
        headers.append("launches")
        for name, row in rows.items():
            row.append(f"{sum(record['launches'][name].values()):,}")
    tables = [markdown_table(headers, list(rows.values()))]
    if "output_difference" in record:
        difference = f"{record['output_difference']:.0e}"
        tables.append(f"Outputs in evaluation mode differ by {difference} of the largest value at most.")
    if arguments.roofline:
        record["roofline"], table = _roofline(setting, record.get("seconds", {}))
        tables.append(table)
    return record, tables


def _roofline(setting: Setting, times: Times) -> tuple[dict[str, Any], str]:
    floor = floors(setting.architecture, setting.input_size, setting.batch_size, setting.precision)
    reached = measure_machine(setting.device, setting.precision)
    least = {
        "arithmetic": floor.operations / reached.operations,
        "traffic, fused": floor.bytes_fused / reached.bandwidth,
        "traffic, by operator": floor.bytes_by_operator / reached.bandwidth,
    }
    amounts = [
        f"{floor.operations / 1e9:.0f} GFLOP", f"{floor.bytes_fused / 1e9:.1f} GB",
        f"{floor.bytes_by_operator / 1e9:.1f} GB",
    ]  # fmt: skip
    peaks = [f"{reached.operations / 1e9:.0f} GFLOP/s", *[f"{reached.bandwidth / 1e9:.1f} GB/s"] * 2]
    rows = [
        [name, amount, peak, *(f"{value / statistics.median(figures):.2f}" for figures in times.values())]
        for (name, value), amount, peak in zip(least.items(), amounts, peaks, strict=True)
    ]
    headers = ["floor", "a step needs", "the machine reaches", *(f"floor / median time of {name}" for name in times)]
    record = {
        "operations": floor.operations,
        "bytes_fused": floor.bytes_fused,
        "bytes_by_operator": floor.bytes_by_operator,
        "machine_operations": reached.operations,
        "machine_bandwidth": reached.bandwidth,
        "floor_seconds": least,
    }
    return record, markdown_table(headers, rows)


def compare_networks(arguments: argparse.Namespace, values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Measure the networks of a run; return the figures and a table, and write the picture."""
    run = Path(arguments.networks)
    size = read_yaml(run / "config.yaml").size("input_size") if arguments.input_size is None else values["input_size"]
    template = replace(named_setting(values | {"input_size": size}), input_size=(size[0], size[1]))
    networks = passed_networks(run, arguments.shares)
    macs = [cost(network, template.input_size).macs for network in networks]
    shares = [count / macs[0] for count in macs]
    table, measured, processors = [], {}, {}
    for name in arguments.variants:
        built = {
            str(index): VARIANTS[name](replace(template, architecture=network))
            for index, network in enumerate(networks)
        }
        times, used = measure_times(built, arguments.device, arguments.rounds)
        measured[name], processors[name] = times, used
        for index, (count, share) in enumerate(zip(macs, shares, strict=True)):
            low, middle, high = ratios(times, str(index), "0")
            words = [name, f"{count:,}", f"{share:.1%}", f"{middle:.3f} [{low:.3f}, {high:.3f}]"]
            low, middle, high = ratios(used, str(index), "0")
            table.append([*words, f"{middle:.3f} [{low:.3f}, {high:.3f}]"])
    points = {
        name: [(share, *ratios(times, str(index), "0")) for index, share in enumerate(shares)]
        for name, times in measured.items()
    }
    if arguments.out:
        arguments.out.with_suffix(".svg").write_text(draw_steps(points) + "\n", encoding="utf-8")
    record = {
        "setting": {
            "space": networks[0].name, "tokens": sum(block.tokens for _, block in networks[0].blocks()),
            "batch_size": template.batch_size, "device": template.device, "precision": template.precision,
            "input_size": list(size),
        },
        "macs": macs, "seconds": measured,
        "processor_seconds": processors,
    }  # fmt: skip
    headers = ["variant", "MACs", "of the supernet's", "time / the supernet's", "processor time / the supernet's"]
    return record, [markdown_table(headers, table)]


def _in_process(kind: str, name: str, values: dict[str, Any]) -> dict[str, int]:
    """Measure memory or launches of a variant in a process of its own, with the same settings."""
    words = [sys.executable, __file__, "--inner", json.dumps([kind, name, values])]
    words += [WITHOUT] if WITHOUT in sys.argv else []
    print(f"{kind} of {name}", file=sys.stderr, flush=True)
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return result


def _inner(kind: str, name: str, values: dict[str, Any]) -> dict[str, int]:
    if kind == "memory":
        return measure_memory(name, values)
    return count_launches(VARIANTS[name](named_setting(values)), values["device"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="hr")
    parser.add_argument("--input-size", help="256x256 where left out; with --networks the run's")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--transformers", default="none", choices=["none", "residual", "all"])
    parser.add_argument("--classes", type=int, default=11)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--variants", nargs="+", help="a0 a b where left out; with --networks b", choices=list(VARIANTS)
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--measure", nargs="+", default=["times", "memory", "launches"],
                        choices=["times", "memory", "launches"])  # fmt: skip
    parser.add_argument("--roofline", action="store_true", help="the floors, and the share of them that is reached")
    parser.add_argument("--networks", metavar="RUN", help="a run directory of a search")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.5, 0.25, 0.1], help="of the supernet's MACs")
    parser.add_argument(WITHOUT, action="store_true", help="leave oneDNN's cache, OpenMP and the allocator as they are")
    parser.add_argument("--out", type=Path, help="a JSON file for all figures")
    parser.add_argument("--inner", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inner:
        print(json.dumps(_inner(*json.loads(arguments.inner))))
        return
    arguments.variants = arguments.variants or (["b"] if arguments.networks else list(VARIANTS))
    height, width = (int(side) for side in (arguments.input_size or "256x256").split("x"))
    names = ("space", "transformers", "classes", "batch_size", "device", "precision")
    values = {name: getattr(arguments, name) for name in names} | {"input_size": [height, width]}
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
    record, tables = (compare_networks if arguments.networks else compare)(arguments, values)
    write_record(arguments.out, record)
    print("\n\n".join([where(), ", ".join(f"{name} {value}" for name, value in record["setting"].items()), *tables]))


if __name__ == "__main__":
    main()
