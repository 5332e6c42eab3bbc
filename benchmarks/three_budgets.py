"""One run with three budgets beside three runs with one: the networks' scores, and the time.

    python benchmarks/three_budgets.py toycity --recipe demo --budgets 80M 40M 20M --out runs/three-budgets

For each seed there is the run with all budgets (its networks are finished in the same process) and a run for each
budget, with the same options; which comes first changes with the seed. The time of a run is that of its process, data
set and validations included: wall time, which a busy machine stretches, and CPU time, which it stretches less. The
price of two more budgets is the time of the run with three over the run for the smallest alone, at most 1.6.
OUT/cells holds a file for each finished run: started again, the study goes on with the others.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from cells import VerbError, cell, hrnas, machine, markdown_table, spread

LIMIT = 1.6
ALL = "all"


def main() -> None:
    arguments = parsed_arguments()
    out: Path = arguments.out
    given = ("recipe", "input_size", "steps", "batch_size", "space", "transformers")
    words = [f"--{name}={getattr(arguments, name)}" for name in given if getattr(arguments, name) is not None]
    budgets = [f"macs={amount}" for amount in arguments.budgets]
    texts = {ALL: f"macs={','.join(arguments.budgets)}", **{budget: budget for budget in budgets}}

    def searched(name: str, seed: int) -> dict[str, Any]:
        """Run one search and score all it has found."""
        plain = f"{name.removeprefix('macs=')}-seed{seed}"
        run, log = out / "runs" / plain, out / "logs" / f"{plain}.log"
        options = [f"--run={run}", "--overwrite", f"--seed={seed}", f"--budget={texts[name]}", *words]
        result = hrnas(["search", arguments.data, *options], log)
        if name == ALL:
            pareto = json.loads((run / "pareto.json").read_text(encoding="utf-8"))
            folders = {network["budget"]: network for network in pareto["networks"]}
            if unfinished := [budget for budget, network in folders.items() if not network["finished"]]:
                raise VerbError(f"the networks of {unfinished} are not finished")
            networks = {budget: (run / one["folder"], one["macs"], one["score"]) for budget, one in folders.items()}
        else:
            networks = {name: (run, result["found"]["macs"], result[f"validation_{result['metric']}"])}
        found = {}
        for budget, (folder, macs, score) in networks.items():
            test = hrnas(["evaluate", str(folder), "--split", "test"], log)
            found[budget] = {"macs": macs, "validation": score, "test": test[test["metric"]]}
        return {"found": found, "wall_seconds": result["wall_seconds"], "cpu_seconds": result["cpu_seconds"]}

    results: dict[str, list[dict[str, Any]]] = {name: [] for name in texts}
    for turn, seed in enumerate(arguments.seeds):
        names = list(texts) if turn % 2 == 0 else list(reversed(texts))
        for name in names:
            settings = {"data": arguments.data, "budget": texts[name], "seed": seed, "words": words}
            plain = f"{name.removeprefix('macs=')}-seed{seed}"
            file = out / "cells" / f"{plain}.json"
            try:
                result = cell(file, settings, lambda name=name, seed=seed: searched(name, seed))
            except VerbError as error:
                raise SystemExit(f"{plain}: {error}") from None
            results[name].append(result)

    rows = []
    for budget in budgets:
        together = [result["found"][budget] for result in results[ALL]]
        alone = [result["found"][budget] for result in results[budget]]
        row: list[object] = [budget]
        for figure in ("validation", "test"):
            row += [spread([one[figure] for one in together]), spread([one[figure] for one in alone])]
            row.append(spread([one[figure] - other[figure] for one, other in zip(together, alone, strict=True)]))
        rows.append([*row, *(f"{statistics.fmean(one['macs'] for one in ones):,.0f}" for ones in (together, alone))])
    smallest = budgets[-1]
    times, prices = [], {}
    for clock in ("wall_seconds", "cpu_seconds"):
        seconds = {name: [result[clock] for result in results[name]] for name in texts}
        ratios = [one / other for one, other in zip(seconds[ALL], seconds[smallest], strict=True)]
        of_all = [one / sum(others) for one, *others in zip(*seconds.values(), strict=True)]
        prices[clock] = statistics.median(ratios)
        means = [f"{statistics.fmean(seconds[name]):.0f}" for name in texts]
        times.append([clock.replace("_", " "), *means, spread(ratios, 2), f"{prices[clock]:.2f}", spread(of_all, 2)])
    headers = ["budget"]
    headers += [f"{figure}, {what}" for figure in ("validation", "test") for what in ("one run", "alone", "difference")]
    is_met = prices["wall_seconds"] <= LIMIT
    text = "\n\n".join(
        [
            machine(),
            f"`python benchmarks/three_budgets.py {' '.join(sys.argv[1:])}`; {len(arguments.seeds)} seeds, mean ± "
            "standard deviation.",
            markdown_table([*headers, "MACs, one run", "MACs, alone"], rows),
            markdown_table(
                [
                    "time",
                    "one run",
                    *budgets,
                    f"one run : {smallest} alone",
                    "median",
                    "one run : all single runs",
                ],
                times,
            ),
            f"Two more budgets cost {prices['wall_seconds']:.2f} times the smallest alone; {LIMIT} is the limit: "
            f"{'held' if is_met else 'NOT HELD'}.",
        ]
    )
    (out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    sys.exit(0 if is_met else 1)


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a data.yaml, or toycity")
    parser.add_argument("--budgets", nargs="+", required=True, help="MACs, largest first, as 80M 40M 20M")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--recipe")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--input-size", dest="input_size", help="HEIGHTxWIDTH")
    parser.add_argument("--batch-size", dest="batch_size", type=int)
    parser.add_argument("--space")
    parser.add_argument("--transformers", choices=["none", "residual", "all"])
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
