"""The baseline every search must beat: the supernet with every kernel path thinned alike, at the same MACs.

    python benchmarks/uniform_network.py --space hr-small --classes 11 --input-size 180x240 --budget macs=150M out.json
    hrnas train out.json camvid.yaml --run runs/camvid-uniform

Writes the architecture; `hrnas train` with the recipe of the search then trains it for the same steps.
"""

import argparse
from pathlib import Path

from hrnas.arch.architecture import Architecture
from hrnas.arch.budget import parse_budget
from hrnas.arch.file import to_json
from hrnas.arch.presets import search_space
from hrnas.costing.analytic import Size, cost
from hrnas.searching.plan import uniform_network
from hrnas.searching.shrinker import macs_range


def uniform_at_budget(supernet: Architecture, input_size: Size, budget_macs: int) -> Architecture:
    """Return the uniformly thinned network of the largest cost that is not above the budget, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(40):
        share = (low + high) / 2
        if cost(uniform_network(supernet, share), input_size).macs <= budget_macs:
            low = share
        else:
            high = share
    return uniform_network(supernet, low)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", required=True)
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--input-size", required=True, help="HEIGHTxWIDTH")
    parser.add_argument("--budget", required=True)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    height, width = (int(side) for side in arguments.input_size.split("x"))
    supernet = search_space(arguments.space).supernet(arguments.classes)
    smallest, widest = macs_range(supernet, (height, width))
    budget_macs = parse_budget(arguments.budget).resolve(smallest.macs, widest.macs)
    network = uniform_at_budget(supernet, (height, width), budget_macs)
    arguments.out.write_text(to_json(network), encoding="utf-8")
    price = cost(network, (height, width))
    share = price.macs / budget_macs
    print(f"{price.macs} MACs ({share:.4f} of the budget), {price.params} parameters: {arguments.out}")


if __name__ == "__main__":
    main()
