"""The control over many settings, none retuned: spaces, batch sizes, lengths, inputs, data, classes, budgets.

    python benchmarks/settings.py --camvid FOLDER --out runs/settings         # about 20 minutes on two quiet cores

Every setting is a search with the defaults of `shrink.*` and of the data set's recipe. The scores are those of networks
that saw few images, and say nothing but that the network left is a working one. There is one task yet, segmentation;
what varies of it is the data set and the classes. OUT/cells holds a file for each finished search: started again, the
study goes on with the others. OUT/table.md is the result, OUT/logs what the searches said.

Columns: share, final cost over the budget, of each limit; cuts, and of them the largest relative change of the output
on the probe batch; last step, the share of the network's cost (of the limits, the largest) that the exact step took.
"""

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from cells import VerbError, cell, hrnas, machine, markdown_table, read_lines


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One search; all but data are words of `hrnas search`.

    data: toycity, camvid, or camvid-4, which has its classes merged to four.
    """

    data: str
    space: str = "hr-small"
    transformers: str = "none"
    input_size: str
    batch_size: int
    steps: int
    budget: str

    @property
    def name(self) -> str:
        """A name for its files."""
        parts = (self.data, self.space, self.transformers, self.input_size, self.batch_size, self.steps, self.budget)
        return "-".join(str(part) for part in parts).replace("%", "pct").replace("=", "").replace(",", "-")


SETTINGS = (
    Setting(data="toycity", input_size="64x96", batch_size=2, steps=600, budget="25%"),
    Setting(data="toycity", input_size="64x96", batch_size=4, steps=300, budget="50%"),
    Setting(data="toycity", input_size="64x96", batch_size=8, steps=60, budget="75%"),
    Setting(data="toycity", input_size="64x96", batch_size=16, steps=100, budget="90%"),
    Setting(data="toycity", input_size="96x128", batch_size=8, steps=160, budget="macs=50M"),
    Setting(data="toycity", input_size="96x128", batch_size=4, steps=240, budget="params=50%"),
    Setting(data="toycity", input_size="64x96", batch_size=8, steps=240, budget="macs=40M,params=300k"),
    Setting(data="toycity", transformers="all", input_size="64x96", batch_size=8, steps=120, budget="25%"),
    Setting(data="toycity", transformers="all", input_size="64x96", batch_size=4, steps=200, budget="60%"),
    Setting(data="toycity", space="hr", transformers="all", input_size="64x64", batch_size=2, steps=60, budget="50%"),
    Setting(data="toycity", space="hr", input_size="64x64", batch_size=4, steps=60, budget="params=40%"),
    Setting(data="camvid", input_size="90x120", batch_size=4, steps=300, budget="30%"),
    Setting(data="camvid", input_size="120x160", batch_size=8, steps=120, budget="60%"),
    Setting(data="camvid", transformers="residual", input_size="90x120", batch_size=8, steps=120, budget="40%"),
    Setting(data="camvid-4", input_size="90x120", batch_size=16, steps=80, budget="macs=60M,params=50%"),
)

CAMVID_4 = {
    "names": ["above", "building", "ground", "object"],
    "label_map": {0: 0, 5: 0, 1: 1, 7: 1, 3: 2, 4: 2, 2: 3, 6: 3, 8: 3, 9: 3, 10: 3, 11: None},
    "train": {"images": "train", "labels": "trainannot"},
    "validation": {"images": "val", "labels": "valannot"},
}


def searched(setting: Setting, data: str, out: Path) -> dict[str, Any]:
    """Run one search; return what the table shows of it."""
    run = out / "runs" / setting.name
    words = [f"--{name}={value}" for name, value in asdict(setting).items() if name != "data"]
    words += [f"--run={run}", "--overwrite", "--evaluations=2", "--checkpoints=0"]
    result = hrnas(["search", data, *words], out / "logs" / f"{setting.name}.log")
    lines = read_lines(run / "architectures.jsonl")
    cuts = lines[1:]
    limits = {"macs": result["budget_macs"], "params": result.get("budget_params")}
    limits = {name: limit for name, limit in limits.items() if limit is not None}
    exact = [(before, after) for before, after in zip(lines, cuts, strict=False) if after["reason"] == "budget"]
    before, after = exact[-1] if exact else (lines[-1], lines[-1])
    changes = [line["output_change"] for line in cuts if line.get("output_change") is not None]
    return {
        "supernet": {name: lines[0][name] for name in limits},
        "limits": limits,
        "found": {name: result["found"][name] for name in limits},
        "cuts": len(cuts),
        "largest_change": max(changes) if changes else None,
        "last_step": max(1 - after[name] / before[name] for name in limits),
        "score": result[f"validation_{result['metric']}"],
        "metric": result["metric"],
        "wall_seconds": result["wall_seconds"],
    }


def row(setting: Setting, result: dict[str, Any]) -> list[object]:
    """Return a setting's line of the table."""
    shares = {name: result["found"][name] / limit for name, limit in result["limits"].items()}
    return [
        *asdict(setting).values(),
        ", ".join(f"{name} {count:,}" for name, count in result["found"].items()),
        ", ".join(f"{share:.4f}" for share in shares.values()),
        "yes" if is_met(result) else "NO",
        result["cuts"],
        "unknown" if result["largest_change"] is None else f"{result['largest_change']:.2e}",
        f"{result['last_step']:.1%}",
        f"{result['score']:.3f}",
    ]


def is_met(result: dict[str, Any]) -> bool:
    """True when every limit holds and the tightest is used to more than 98 %."""
    shares = [result["found"][name] / limit for name, limit in result["limits"].items()]
    return 0.98 < max(shares) <= 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", type=Path, help="CamVid's folder; its settings are left out without it")
    parser.add_argument("--only", nargs="+", type=int, help="positions of the settings to run, from 0; all if left out")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    out: Path = arguments.out
    sources = {"toycity": "toycity"}
    if arguments.camvid is not None:
        out.mkdir(parents=True, exist_ok=True)
        folder = str(arguments.camvid.resolve())
        for name, described in (("camvid", {"dataset": "camvid"}), ("camvid-4", {"task": "segmentation", **CAMVID_4})):
            file = out / f"{name}.yaml"
            file.write_text(yaml.safe_dump({**described, "path": folder}), encoding="utf-8")
            sources[name] = str(file)

    rows, wrong, seconds = [], [], 0.0
    for position in range(len(SETTINGS)) if arguments.only is None else arguments.only:
        setting = SETTINGS[position]
        if setting.data not in sources:
            print(f"{setting.name}: left out, --camvid is not given")
            continue
        try:
            result = cell(
                out / "cells" / f"{setting.name}.json",
                asdict(setting),
                lambda setting=setting: searched(setting, sources[setting.data], out),
            )
        except VerbError as error:
            wrong.append(f"{setting.name}: {error}")
            print(wrong[-1], flush=True)
            continue
        seconds += result["wall_seconds"]
        rows.append(row(setting, result))
        if not is_met(result):
            wrong.append(f"{setting.name}: the budget is not met")
    headers = [
        "data", "space", "transformers", "input", "batch", "steps", "budget",
        "final cost", "share", "met", "cuts", "largest change", "last step", "miou",
    ]  # fmt: skip
    text = "\n\n".join(
        [
            machine(),
            f"`python benchmarks/settings.py {' '.join(sys.argv[1:])}`",
            f"{len(rows)} settings, {seconds / 60:.0f} minutes.",
            markdown_table(headers, rows),
            *(f"Wrong: {line}" for line in wrong),
        ]
    )
    (out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
