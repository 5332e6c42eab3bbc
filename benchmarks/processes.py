"""One process against several on the same global batches: loss curves, networks and scores of short searches.

    python benchmarks/processes.py --out runs/processes

Searches on Toy City with cuts in between, each pair once in float64 and once in float32. float64 tells whether the
two compute the same; float32 how far rounding alone drives two runs apart, as does the control there, one process on
two threads. Then scores the first network with one process and with two. Prints tables.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

LENGTH = "{train: 64, validation: 24, test: 24}"
ONE, THREADS, PARTS = "one process", "one process, two threads", "one process, --accumulate 2"
SHARED, PLAIN = "two processes, --sync-norm", "two processes"
SETTINGS = {
    ONE: (1, 1, []), SHARED: (2, 1, ["--sync-norm"]), PARTS: (1, 1, ["--accumulate", "2"]), PLAIN: (2, 1, []),
    THREADS: (1, 2, []),
}  # fmt: skip
"""By name: processes, threads of each, further words."""
PAIRS = {SHARED: ONE, PLAIN: PARTS, THREADS: ONE}


def hrnas(count: int, threads: int, words: list[str], *, is_double: bool = False) -> str:
    """Run a command line in so many processes; return what it prints with --json."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), "--"]
    program = [__file__, "--in-double" if is_double else "--in-single"]
    command = [sys.executable, *(launcher if count > 1 else []), *program, *words, "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout.splitlines()[-1]


def work(words: list[str], *, is_double: bool) -> int:
    """Be one of the processes that `hrnas` starts."""
    if is_double:
        from hrnas.commands.session import Session

        torch.set_default_dtype(torch.float64)
        prepared = Session.prepared
        Session.prepared = lambda session, inputs: prepared(session, inputs).double()  # type: ignore[method-assign]
    from hrnas.cli import main

    return main(words)


def read_run(run: Path) -> tuple[list[float], list[dict[str, object]]]:
    """Return the loss of every step and the line of every cut."""
    losses = [record["loss"] for record in map(json.loads, (run / "metrics.jsonl").open()) if record["kind"] == "train"]
    return losses, [json.loads(line) for line in (run / "architectures.jsonl").open()]


def compare(given: argparse.Namespace, data: Path, *, is_double: bool) -> None:
    """Search with every setting and print a row for each."""
    found = {}
    for number, (name, (count, threads, more)) in enumerate(SETTINGS.items()):
        if is_double and name == THREADS:
            continue
        run = given.out / f"{'double' if is_double else 'single'}-{number}"
        words = [
            "search", str(data), "--run", str(run), "--overwrite", "--space", given.space, "--budget", given.budget,
            "--steps", str(given.steps), "--batch-size", str(given.batch_size), "--log-every", "1",
            "--evaluations", "1", "--checkpoints", "1", "--workers", "0", *more,
        ]  # fmt: skip
        started = time.monotonic()
        hrnas(count, threads, words, is_double=is_double)
        losses, cuts = read_run(run)
        seconds = time.monotonic() - started
        found[name] = losses, [cut["fingerprint"] for cut in cuts]
        row = [f"float{64 if is_double else 32}", name, len(cuts) - 1, f"{cuts[-1]['macs']:,}", f"{losses[-1]:.8f}"]
        if (other := PAIRS.get(name)) is not None:
            pairs = zip(losses, found[other][0], strict=True)
            row += [other, f"{max(abs(one - two) for one, two in pairs):.1e}", found[name][1] == found[other][1]]
        else:
            row += ["", "", ""]
        print("|", " | ".join(map(str, [*row, f"{seconds:.0f}"])), "|", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--space", default="hr-small")
    parser.add_argument("--size", default="48x64")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--budget", default="60%")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    data = given.out / "data.yaml"
    height, width = given.size.split("x")
    data.write_text(f"dataset: toycity\nsize: [{height}, {width}]\nlength: {LENGTH}\n", encoding="utf-8")
    print(f"torch {torch.__version__}, {given.space} at {given.size}, {given.steps} steps of {given.batch_size}\n")
    print("| | search | cuts | MACs found | last loss | beside | largest difference of the loss | same cuts | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for is_double in (True, False):
        compare(given, data, is_double=is_double)
    print("\n| scored in | miou | pixel accuracy |\n|---|---|---|")
    for name in (ONE, PLAIN):
        words = ["evaluate", str(given.out / "single-0"), "--split", "test", "--workers", "0"]
        score = json.loads(hrnas(*SETTINGS[name][:2], words))
        print(f"| {name} | {score['miou']!r} | {score['pixel_accuracy']!r} |")


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in ("--in-double", "--in-single"):
        sys.exit(work(sys.argv[2:], is_double=sys.argv[1] == "--in-double"))
    main()
