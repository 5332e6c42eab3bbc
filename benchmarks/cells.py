"""The cells of a study: each is made once and kept in a result file, so that a study can be stopped and resumed."""

import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch


class VerbError(RuntimeError):
    """A process that ended with another exit code than 0; the message is its last line."""


def hrnas(words: Sequence[str], log: Path) -> dict[str, Any]:
    """Run `hrnas` with these words in a process of its own; return its result, as `run_json` does."""
    return run_json(["-m", "hrnas", *words, "--json"], log)


def run_json(words: Sequence[str], log: Path) -> dict[str, Any]:
    """Run Python with these words; return the JSON object it prints last.

    It gains "wall_seconds", and "cpu_seconds" of the process and all it started: what a busy machine changes less.
    log: gets the words and all the process says. Raises VerbError when it fails.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ python {' '.join(words)}\n")
        file.flush()
        done = subprocess.run([sys.executable, *words], stdout=subprocess.PIPE, stderr=file, text=True)
        file.write(done.stdout)
    if done.returncode:
        last = log.read_text(encoding="utf-8").strip().splitlines()[-1]
        raise VerbError(f"exit code {done.returncode}: {last}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        **json.loads(done.stdout.strip().splitlines()[-1]),
        "wall_seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
    }


def cell(file: Path, settings: Mapping[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the result of a cell: from its file, or made now and written there.

    settings: what the cell depends on, as plain types. A file of other settings stops the study.
    """
    if file.exists():
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["settings"] != json.loads(json.dumps(settings)):
            raise SystemExit(f"{file} is of other settings ({kept['settings']}). Choose another --out, or remove it.")
        print(f"{file.stem}: finished before", flush=True)
        return kept["result"]
    print(f"{file.stem}: begins at {time.strftime('%H:%M:%S')}", flush=True)
    result = make()
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".new")
    temporary.write_text(json.dumps({"settings": settings, "result": result}, indent=1) + "\n", encoding="utf-8")
    temporary.replace(file)
    return result


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON lines file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def spread(values: Sequence[float], digits: int = 4) -> str:
    """Return mean ± standard deviation (over n - 1); one value has none."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table in markdown."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(str(entry).replace("|", "\\|") for entry in line) + " |" for line in lines)


def machine(versions: Mapping[str, str] | None = None) -> str:
    """Return date, hardware and versions in a line, as every dated result needs them."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (named := re.search(r"model name\s*: (.*)", cpuinfo.read_text())):
        processor = named[1]
    cards = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    named = {"Python": platform.python_version(), "torch": torch.__version__, **(versions or {})}
    return (
        f"{time.strftime('%Y-%m-%d')}, {processor}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"{', '.join(cards) or 'no GPU'}; {platform.system()} {platform.release()}, "
        f"{', '.join(f'{name} {version}' for name, version in named.items())}."
    )
