"""What `hrnas plan` says a search takes over what it takes.

    python benchmarks/plan_time.py --camvid FOLDER --out runs/plan-time           # about 15 minutes on two quiet cores

For each setting plan is run, then the search with the same words, each in a process of its own. Compared is the time of
the search's loop, validations and the finishing of further budgets' networks included: its result's "seconds". Beside
it stands the wall time of the whole process, which also starts Python, opens the data and writes the report. Both plan
and search feel what else the machine does; on a busy one the ratios say nothing. OUT/cells holds a file for each
setting that is done; started again, the benchmark goes on with the others. OUT/table.md is the result.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from cells import VerbError, cell, hrnas, machine, markdown_table, read_lines

LIMIT = 0.3
SETTINGS = {
    "small": ["toycity", "--input-size=64x96", "--batch-size=8", "--steps=300", "--budget=25%"],
    "transformers": ["toycity", "--input-size=64x96", "--batch-size=8", "--steps=200", "--budget=25%",
                     "--transformers=all"],
    "camvid": ["camvid", "--input-size=90x120", "--batch-size=8", "--steps=200", "--budget=30%"],
    "budgets": ["toycity", "--input-size=64x96", "--batch-size=8", "--steps=300", "--budget=macs=43M,30M,21M"],
}  # fmt: skip
"""By name: the words of plan and search, which also get two evaluations and one checkpoint."""


def measured(name: str, data: str, out: Path) -> dict[str, Any]:
    """Run plan and search of one setting."""
    words = [data, *SETTINGS[name][1:], "--evaluations=2", "--checkpoints=1"]
    log = out / "logs" / f"{name}.log"
    planned = hrnas(["plan", *words], log)
    run = out / "runs" / name
    found = hrnas(["search", *words, f"--run={run}", "--overwrite"], log)
    validations = [
        line["evaluation_seconds"] for line in read_lines(run / "metrics.jsonl") if line["kind"] == "evaluation"
    ]
    for line in (run / "budgets").glob("*/metrics.jsonl"):
        validations += [entry["evaluation_seconds"] for entry in read_lines(line) if entry["kind"] == "evaluation"]
    return {
        "planned": planned["seconds"],
        "planned_validation": planned["validation_seconds"],
        "plan_wall": planned["wall_seconds"],
        "real": found["seconds"],
        "real_validation": round(sum(validations), 1),
        "wall": found["wall_seconds"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", type=Path, help="CamVid's folder; its setting is left out without it")
    parser.add_argument("--only", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    sources = {"toycity": "toycity"}
    if given.camvid is not None:
        sources["camvid"] = str(given.out / "camvid.yaml")
        Path(sources["camvid"]).write_text(f"dataset: camvid\npath: {given.camvid.resolve()}\n", encoding="utf-8")

    rows, is_held = [], True
    for name in given.only:
        data = SETTINGS[name][0]
        if data not in sources:
            print(f"{name}: left out, --camvid is not given")
            continue
        try:
            result = cell(
                given.out / "cells" / f"{name}.json",
                {"words": SETTINGS[name]},
                lambda name=name, data=data: measured(name, sources[data], given.out),
            )
        except VerbError as error:
            raise SystemExit(f"{name}: {error}") from None
        ratio = result["planned"] / result["real"]
        is_held &= abs(ratio - 1) <= LIMIT
        share = result["real_validation"] / result["real"]
        rows.append(
            [" ".join(SETTINGS[name]), f"{ratio:.2f}", f"{result['planned'] / result['wall']:.2f}",
             f"{result['planned_validation'] / result['real_validation']:.2f}", f"{share:.1%}",
             f"{result['plan_wall'] / result['wall']:.2f}"]
        )  # fmt: skip
    headers = [
        "search", "planned / loop", "planned / process", "validations, planned / real", "validations of the loop",
        "process of plan / of search",
    ]  # fmt: skip
    text = "\n\n".join(
        [
            machine(),
            f"`python benchmarks/plan_time.py {' '.join(sys.argv[1:])}`",
            markdown_table(headers, rows),
            f"Within {LIMIT:.0%} of the loop: {'held' if is_held else 'NOT HELD'}.",
        ]
    )
    (given.out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    sys.exit(0 if is_held else 1)


if __name__ == "__main__":
    main()
