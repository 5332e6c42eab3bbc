"""A search beside the baselines it must beat: at the same MACs, for the same image passes, with the same recipe.

The study; a training takes about 3 minutes of two quiet cores in the first, 10 in the second (camvid.yaml:
{dataset: camvid, path: FOLDER}), and there are 18 in each:

    python benchmarks/baselines.py toycity --recipe demo --budget macs=40M --out runs/on-toycity
    python benchmarks/baselines.py camvid.yaml --budget 25% --input-size 120x160 --steps 1200 --out runs/on-camvid

| method | what is trained, for the same steps of the same batch |
|---|---|
| search | `hrnas search` |
| align-4, align-8, align-16 | `hrnas search --align N`; only where --methods names it |
| uniform | the supernet with every kernel path thinned alike, from scratch |
| random | the supernet less units drawn at random, another draw a seed, from scratch |
| magnitude | the supernet for 70 % of the steps, cut once by abs(factor), trained on (`cut_once.py`) |
| magnitude-per-mac | the same, by abs(factor) per MAC |
| supernet | the supernet itself, never cut: not at equal MACs, the mark above |

Each network costs (0.98, 1.00] of the budget. Validation chooses the best of a run's last validations; test is read
once. A set without a test split is scored on validation again, which is then no unseen data. The methods take turns
within a seed. OUT/cells holds a file for each finished training: started again, the study goes on with the others.
OUT/table.md is the result, OUT/logs what the verbs said.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from hrnas.cli import prepare_process

prepare_process()  # before torch loads

import torch  # noqa: E402

from cells import VerbError, cell, hrnas, machine, markdown_table, run_json, spread  # noqa: E402
from hrnas.arch.architecture import Architecture  # noqa: E402
from hrnas.arch.file import to_json  # noqa: E402
from hrnas.arch.presets import search_space  # noqa: E402
from hrnas.data.data_yaml import read_description  # noqa: E402
from hrnas.searching.units import num_units, unit_groups  # noqa: E402
from hrnas.tasks import make_task  # noqa: E402
from thinning import cut_in_order, uniform_at_budget  # noqa: E402

METHODS = ("search", "uniform", "random", "magnitude", "magnitude-per-mac", "supernet")
ALIGNED = ("align-4", "align-8", "align-16")


def main() -> None:
    arguments = parsed_arguments()
    out: Path = arguments.out
    given = ("recipe", "input_size", "steps", "batch_size")
    words = [f"--{name}={getattr(arguments, name)}" for name in given if getattr(arguments, name) is not None]
    space_words = [f"--{name}={value}" for name in ("space", "transformers") if (value := getattr(arguments, name))]
    search_words = [f"--budget={arguments.budget}", *space_words]
    settings = {"data": arguments.data, "words": [*words, *search_words]}
    plan = cell(
        out / "cells" / "plan.json",
        settings,
        lambda: hrnas(["plan", arguments.data, *words, *search_words], out / "logs" / "plan.log"),
    )
    budget_macs, input_size = plan["budget_macs"], tuple(plan["input_size"])
    description = read_description(arguments.data)
    task = make_task(description)
    space = search_space(plan["space"], arguments.transformers, stem_stride=task.stem_stride)
    supernet = space.supernet(task.num_outputs, head=task.head, pillars=task.pillars(input_size))
    split = "test" if "test" in description.split_names else "validation"

    def trained(method: str, seed: int) -> dict[str, Any]:
        """Train and score one network; its run is OUT/runs/METHOD-seedN."""
        name = f"{method}-seed{seed}"
        run, log = out / "runs" / name, out / "logs" / f"{name}.log"
        run_words = [f"--run={run}", "--overwrite", f"--seed={seed}", *words]
        if method == "search" or method in ALIGNED:
            align = [f"--align={method.removeprefix('align-')}"] if method in ALIGNED else []
            result = hrnas(["search", arguments.data, *run_words, *search_words, *align], log)
        else:
            network = given_network(method, supernet, input_size, budget_macs, seed)
            file = out / "architectures" / f"{name}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(to_json(network), encoding="utf-8")
            if method in ("magnitude", "magnitude-per-mac"):
                script = str(Path(__file__).with_name("cut_once.py"))
                result = run_json([script, method, str(budget_macs), str(file), arguments.data, *run_words], log)
            else:
                result = hrnas(["train", str(file), arguments.data, *run_words], log)
        macs = result["found"]["macs"]
        if method != "supernet" and not 0.98 * budget_macs < macs <= budget_macs:
            raise VerbError(f"{macs} MACs are {macs / budget_macs:.4f} of the budget; (0.98, 1.00] is needed")
        test = hrnas(["evaluate", str(run), "--split", split], log)
        metric = result["metric"]
        return {
            "metric": metric,
            "steps": result["steps"],
            "macs": macs,
            "params": result["found"]["params"],
            "validation": result[f"validation_{metric}"],
            "test": test[metric],
            "wall_seconds": result["wall_seconds"],
            "cpu_seconds": result["cpu_seconds"],
        }

    results: dict[str, dict[int, dict[str, Any]]] = {}
    failed = []
    for seed in arguments.seeds:
        for method in arguments.methods:
            name = f"{method}-seed{seed}"
            try:
                result = cell(
                    out / "cells" / f"{name}.json",
                    {**settings, "method": method, "seed": seed},
                    lambda method=method, seed=seed: trained(method, seed),
                )
            except VerbError as error:
                failed.append(f"{name}: {error}")
                print(failed[-1], flush=True)
                continue
            results.setdefault(method, {})[seed] = result
    text = page(arguments, plan, results, failed)
    (out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    sys.exit(1 if failed else 0)


def given_network(
    method: str, supernet: Architecture, input_size: tuple[int, int], budget_macs: int, seed: int
) -> Architecture:
    """Return the network a method starts to train."""
    if method == "uniform":
        return uniform_at_budget(supernet, input_size, budget_macs)
    if method == "random":
        count = num_units(unit_groups(supernet, input_size))
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        return cut_in_order(supernet, input_size, order, budget_macs).architecture
    return supernet


def page(
    arguments: argparse.Namespace,
    plan: dict[str, Any],
    results: dict[str, dict[int, dict[str, Any]]],
    failed: list[str],
) -> str:
    """Return the study as markdown: where it ran, and a line for each method."""
    rows = []
    searched = results.get("search", {})
    for method, by_seed in results.items():
        cells = list(by_seed.values())
        shared = [seed for seed in by_seed if seed in searched]
        leads = [searched[seed]["test"] - by_seed[seed]["test"] for seed in shared]
        is_other = method != "search" and bool(leads)
        rows.append(
            [
                method + (" (not at equal MACs)" if method == "supernet" else ""),
                len(cells),
                f"{statistics.fmean(one['macs'] for one in cells):,.0f}",
                f"{min(one['macs'] for one in cells) / plan['budget_macs']:.4f}",
                f"{statistics.fmean(one['params'] for one in cells):,.0f}",
                spread([one["validation"] for one in cells]),
                spread([one["test"] for one in cells]),
                spread(leads) if is_other else "",
                f"{sum(lead > 0 for lead in leads)} of {len(leads)}" if is_other else "",
                f"{statistics.fmean(one['wall_seconds'] for one in cells) / 60:.1f}",
            ]
        )
    metric = next((one["metric"] for by_seed in results.values() for one in by_seed.values()), "score")
    headers = [
        "method", "seeds", "MACs", "least share of the budget", "parameters", f"validation {metric}", f"test {metric}",
        "search's lead on test, by seed", "search ahead", "wall minutes, not comparable",
    ]  # fmt: skip
    lines = [
        machine(),
        f"`python benchmarks/baselines.py {' '.join(sys.argv[1:])}`",
        f"Budget {arguments.budget}: {plan['budget_macs']:,} MACs at {plan['input_size'][0]}x{plan['input_size'][1]}; "
        f"space {plan['space']}, supernet {plan['networks']['widest']['macs']:,} MACs. Mean ± standard deviation.",
        markdown_table(headers, rows),
        *(f"Failed: {line}" for line in failed),
    ]
    return "\n\n".join(lines)


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a data.yaml, or toycity")
    parser.add_argument("--budget", required=True, help="MACs, as macs=40M or 25%%")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, *ALIGNED], default=list(METHODS))
    parser.add_argument("--recipe", help="of hrnas, for all methods alike")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--input-size", dest="input_size", help="HEIGHTxWIDTH")
    parser.add_argument("--batch-size", dest="batch_size", type=int)
    parser.add_argument("--space")
    parser.add_argument("--transformers", choices=["none", "residual", "all"])
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
