"""Every search ends in (0.98, 1.00] of its budget, whatever seed, budget and length."""

import json
from pathlib import Path

import pytest

from commands import tiny
from hrnas.arch.file import read_architecture
from hrnas.costing.counted import count
from hrnas.models.network import build_model


@pytest.mark.parametrize(
    ("seed", "budget", "steps"),
    [
        (0, "100%", 10),
        (1, "95%", 12),
        (2, "80%", 20),
        (3, "macs=300k", 7),
        (4, "macs=200k", 20),
        (5, "35%", 12),
        (6, "macs=100k", 20),
        (7, "macs=70k", 12),
        (8, "macs=55k", 10),
        (9, "50%", 1),
        (10, "25%", 2),
    ],
)
def test_the_found_network_costs_what_was_asked_for(
    seed: int, budget: str, steps: int, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    outcome = tiny.search(data, run, seed=seed, budget=budget, steps=steps, evaluations=1, checkpoints=0)
    assert outcome.code == 0, outcome.err
    result = json.loads((run / "result.json").read_text())
    network = build_model(read_architecture(run / "best" / "architecture.json")).to("meta").eval()
    macs = count(network, (24, 32)).macs
    assert macs == result["found"]["macs"]
    assert 0.98 * result["budget_macs"] < macs <= result["budget_macs"]
