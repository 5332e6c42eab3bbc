"""The kill table: real searches killed with SIGKILL at random moments and resumed, against one never stopped.

    OMP_NUM_THREADS=1 python benchmarks/kills.py --out kills --seed 0

Each run is killed and resumed, again and again, until its moments are used up, then resumed to its end and compared
with the reference, bit for bit. A moment is a time, or an event in the run directory that is awaited before the kill:
so the kill falls into a save, a rename, a line. Half of the kills hit the main process alone, half its whole group.
Every moment is a line of OUT/moments.jsonl; the same command goes on where it was stopped. Linux only.
"""

import argparse
import glob
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich

from hrnas.commands.run_directory import environment

STEPS, INTERVAL = 40, 4
DATA = "dataset: toycity\nsize: [32, 48]\nlength: {train: 32, validation: 8, test: 4}\n"
WORDS = (
    f"--space hr-small --budget 50% --steps {STEPS} --batch-size 2 --checkpoints {STEPS // INTERVAL} --evaluations 8 "
    "--log-every 1 --workers 1 --calibration-batches 2 --seed 0"
).split()


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of moment.

    tries: how many. pattern: what must appear in the run directory, or None for a time drawn; within: seconds from
    there to the kill. occurrences: the kill follows one of the first so many appearances. grows: it is the file's
    growth that counts. begins, ends: the steps of the last checkpoint with which it makes sense; None: a new run.
    """

    says: str
    tries: int
    pattern: str | None
    within: float
    occurrences: int = 1
    grows: bool = False
    begins: int | None = 0
    ends: int = STEPS - INTERVAL


KINDS = {
    "creation": Kind(
        says="run directory being made, up to the first steps", tries=5, pattern=".", within=0.3, begins=None, ends=-1
    ),
    "any": Kind(
        says="at any time, from the start of the process on", tries=14, pattern=None, within=12.0, begins=None
    ),
    "save": Kind(
        says="checkpoint being written", tries=9, pattern="checkpoints/.step-*", within=0.12, occurrences=3, begins=None
    ),
    "line": Kind(
        says="line of metrics.jsonl just appended", tries=4, pattern="metrics.jsonl", within=0.003, occurrences=8,
        grows=True, begins=None,
    ),
    "reopening": Kind(says="resume rewriting metrics.jsonl", tries=4, pattern=".metrics.jsonl.*", within=0.002),
    "removal": Kind(
        says="old checkpoint being removed", tries=3, pattern="checkpoints/step-*", within=0.003, begins=8
    ),
    "best": Kind(says="best/ being written", tries=4, pattern=".best.new", within=0.03, begins=20, ends=32),
    "swap": Kind(says="best/ being renamed", tries=2, pattern=".best.old", within=0.0, begins=28, ends=32),
    "ending": Kind(
        says="result and report being written", tries=5, pattern="result.json", within=0.25, begins=24, ends=STEPS
    ),
}  # fmt: skip
"""50 moments. best/ is written at step 30, once the shape is final, and replaced at step 35 (seed 0 of the search)."""


@dataclass(frozen=True)
class Tool:
    """Starts hrnas on runs below a folder."""

    out: Path

    def start(self, run: Path) -> subprocess.Popen[str]:
        """Begin the run, or resume it where it has begun."""
        words = ["resume", run] if (run / "config.yaml").exists() else ["search", self.out / "data.yaml", *WORDS]
        words += [] if words[0] == "resume" else ["--run", run]
        with (self.out / "output.txt").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "hrnas", *map(str, words)],
                stdout=log, stderr=subprocess.PIPE, text=True, start_new_session=True,
                env={**os.environ, "HRNAS_CACHE": str(self.out / "cache")},
            )  # fmt: skip

    def finish(self, run: Path) -> float:
        """Run to the end; return the seconds it took."""
        started = time.monotonic()
        process = self.start(run)
        _, error = process.communicate()
        assert process.returncode == 0, f"{run} cannot be resumed: {error}"
        return time.monotonic() - started


def occurs(run: Path, kind: Kind) -> Callable[[], bool]:
    """Return a question: has the awaited thing appeared, or grown, since the last time it was asked?"""
    last: tuple[object, ...] = ()

    def ask() -> bool:
        nonlocal last
        try:
            paths = sorted(glob.glob(f"{run}/{kind.pattern}"))
            found = tuple((path, os.stat(path).st_size if kind.grows else 0) for path in paths)
        except OSError:  # gone again
            return False
        is_new, last = bool(found) and found != last, found
        return is_new

    ask()  # what is there already is no event
    return ask


def choose(left: dict[str, int], kept: int | None, draw: random.Random) -> str | None:
    """Return a kind that has tries left and makes sense after this checkpoint; those that seldom do come first."""

    def fits(kind: Kind) -> bool:
        return kind.begins is None if kept is None else (kind.begins or 0) <= kept <= kind.ends

    fitting = [name for name, kind in KINDS.items() if left[name] > 0 and fits(kind)]
    if not fitting and kept is None:
        fitting = [name for name in KINDS if left[name] > 0]  # awaited from the very start of a run
    for name in ("creation", "swap", "best", "ending"):
        if name in fitting and not (name == "ending" and len(fitting) > 1 and draw.random() < 0.5):
            return name
    return draw.choices(fitting, [left[name] for name in fitting])[0] if fitting else None


def kill_at(process: subprocess.Popen[str], run: Path, kind: Kind, draw: random.Random) -> bool:
    """Wait for the moment and kill; False when the run ended before it came."""
    is_whole_group, pause, left = draw.random() < 0.5, draw.uniform(0, kind.within), draw.randint(1, kind.occurrences)
    if kind.pattern is None:
        deadline = time.monotonic() + pause
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.002)
    else:
        ask = occurs(run, kind)
        while left and process.poll() is None:
            left -= ask()
            time.sleep(0.0003)
        time.sleep(pause)
    if process.poll() is not None:
        _, error = process.communicate()
        assert process.returncode == 0, error
        return False
    (os.killpg if is_whole_group else os.kill)(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stderr is not None
    process.stderr.close()
    return True


def lines(file: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file that may end in the middle of one."""
    found = []
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def after_kill(run: Path) -> dict[str, Any]:
    """Return what a kill has left: the steps done and saved, and which half-written things lie there."""
    done = max((line["step"] for line in lines(run / "metrics.jsonl")), default=0)
    kept = max((int(path.name[5:]) for path in run.glob("checkpoints/step-*")), default=0)
    left = [path.name for folder in (run, run / "checkpoints") if folder.exists() for path in folder.glob(".*")]
    shown = sorted({"".join(letter for letter in name if not letter.isdigit()) for name in left})
    if (run / ".best.old").exists() and not (run / "best").exists():
        shown.append("no best/")
    is_begun = (run / "config.yaml").exists()
    return {"is_begun": is_begun, "step": done, "kept": kept if is_begun else None, "lost": done - kept, "left": shown}


def content(run: Path) -> Iterator[tuple[str, bytes]]:
    """Yield all that must not differ: every file but the report, without durations and the run's own path."""
    own = {"seconds", "run", "sha256", "seal", "started", "command"}
    for file in sorted(path for path in run.rglob("*") if path.is_file() and path.name != "report.html"):
        data = file.read_bytes()
        if file.suffix in (".json", ".jsonl") and file.name != "architecture.json":
            records = (
                [json.loads(line) for line in data.splitlines()] if file.suffix == ".jsonl" else [json.loads(data)]
            )
            data = json.dumps([{k: v for k, v in record.items() if k not in own} for record in records]).encode()
        yield str(file.relative_to(run)), data


def bits_different(run: Path, reference: Path) -> int:
    """Return the number of bits in which two finished runs differ; a missing or additional file counts in full."""
    one, other = dict(content(run)), dict(content(reference))
    total = 0
    for name in one.keys() | other.keys():
        left, right = one.get(name, b""), other.get(name, b"")
        length = max(len(left), len(right))
        pair = (int.from_bytes(data.ljust(length, b"\0"), "big") for data in (left, right))
        difference = (next(pair) ^ next(pair)).bit_count() + 8 * (name not in one or name not in other)
        if difference or len(left) != len(right):
            rich.print(f"[red]{run / name}: {difference} bits, {len(left)} against {len(right)} bytes")
        total += difference + 8 * abs(len(left) - len(right))
    return total


def processes_of(sessions: set[int]) -> list[int]:
    """Return the processes still alive of the sessions that were killed: data workers without their main process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z" and int(fields[3]) in sessions:
                found.append(int(entry.name))
    return found


def table(moments: list[dict[str, Any]], runs: dict[str, int]) -> str:
    """Return the table as Markdown."""
    says = {name: kind.says for name, kind in KINDS.items()}
    rows = ["| moment | tried | resumed | begun anew | most steps lost | bits different |", "|---|---|---|---|---|---|"]
    for name in (*says, ""):
        of_kind = [moment for moment in moments if name in ("", moment["kind"])]
        if of_kind:
            anew = sum(not moment["is_begun"] for moment in of_kind)
            lost = max(moment["lost"] for moment in of_kind)
            bits = sum(runs[run] for run in {moment["run"] for moment in of_kind})
            cells = (says.get(name, "all"), len(of_kind), len(of_kind) - anew, anew, lost, bits)
            rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs and the log")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    out: Path = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    (out / "data.yaml").write_text(DATA)
    tool, log = Tool(out), out / "moments.jsonl"
    reference = out / "reference"
    if not (reference / "result.json").exists():
        shutil.rmtree(reference, ignore_errors=True)
        tool.finish(reference)  # renders the data, too
        shutil.rmtree(reference)
        duration = tool.finish(reference)
        (out / "duration.json").write_text(json.dumps(duration))
    duration = json.loads((out / "duration.json").read_text())
    cuts = len(lines(reference / "architectures.jsonl")) - 1
    rich.print(f"reference: {STEPS} steps in {duration:.1f} s, {cuts} cuts, a checkpoint every {INTERVAL} steps")

    moments = [line for line in lines(log) if "kind" in line]
    runs = {line["run"]: line["bits_different"] for line in lines(log) if "bits_different" in line}
    moments = [moment for moment in moments if moment["run"] in runs]  # a run that has not ended is made again
    sessions: set[int] = set()
    left = {name: kind.tries - sum(moment["kind"] == name for moment in moments) for name, kind in KINDS.items()}
    while sum(left.values()):
        assert len(runs) < 40, f"moments that do not come: {left}"
        name, kept = f"run-{len(runs)}", None
        draw, run = random.Random(f"{given.seed} {name}"), out / name
        shutil.rmtree(run, ignore_errors=True)
        while not (run / "report.html").exists() and (kind := choose(left, kept, draw)):
            process = tool.start(run)
            sessions.add(process.pid)
            try:
                if not kill_at(process, run, KINDS[kind], draw):
                    break
            finally:
                process.kill()
            moment = {"run": name, "kind": kind, **after_kill(run)}
            kept = moment["kept"]
            left[kind] -= 1
            moments.append(moment)
            rich.get_console().print(json.dumps(moment), soft_wrap=True)
            with log.open("a") as file:
                file.write(json.dumps(moment) + "\n")
        if not (run / "report.html").exists():
            tool.finish(run)
        runs[name] = bits_different(run, reference)
        with log.open("a") as file:
            file.write(json.dumps({"run": name, "bits_different": runs[name]}) + "\n")
    time.sleep(6)  # data workers look every 5 seconds whether their main process is there
    orphans = processes_of(sessions)

    facts = environment("kills")
    print(f"{facts['processor']}, {facts['cores']} cores, torch {facts['torch']}, Python {facts['python']}\n")
    print(table(moments, runs))
    killed = len({moment["run"] for moment in moments})
    print(f"\n{killed} runs were killed at these moments, then ended and compared; {len(orphans)} processes left over.")
    half_written = sorted({name for moment in moments for name in moment["left"]})
    print(f"Half-written things found after kills: {', '.join(half_written)}.")
    if sum(runs.values()) or orphans or max(moment["lost"] for moment in moments) > INTERVAL:
        sys.exit(1)


if __name__ == "__main__":
    main()
