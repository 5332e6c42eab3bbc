"""What the text of a budget comes to."""

import pytest

from hrnas.arch.budget import Target
from hrnas.costing.analytic import Cost
from hrnas.reporting.targets import read_targets, share_of

WIDEST = Cost(macs=10_000_000_000, params=4_000_000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("macs=1.5G", [("macs=1.5G", "1.5G", 1_500_000_000, None)]),
        ("macs=16300000", [("macs=16300000", "16300000", 16_300_000, None)]),
        ("60%", [("60%", "60pct", 6_000_000_000, None)]),
        ("params=2M", [("params=2M", "params-2M", None, 2_000_000)]),
        ("params=50%", [("params=50%", "params-50pct", None, 2_000_000)]),
        ("macs=1G, params=2M", [("macs=1G,params=2M", "1G-params-2M", 1_000_000_000, 2_000_000)]),
        (
            "macs=1G,500M,2G",
            [
                ("macs=2G", "2G", 2_000_000_000, None),
                ("macs=1G", "1G", 1_000_000_000, None),
                ("macs=500M", "500M", 500_000_000, None),
            ],
        ),
        ("latency=12ms", []),
        (
            "macs=500M,1G,params=2M",
            [
                ("macs=1G,params=2M", "1G-params-2M", 1_000_000_000, 2_000_000),
                ("macs=500M,params=2M", "500M-params-2M", 500_000_000, 2_000_000),
            ],
        ),
        ("macs=2G,1G,params=2M,1M", []),
        ("", []),
        (None, []),
    ],
)
def test_a_budget_comes_to_its_targets_dearest_first(
    text: str | None, expected: list[tuple[str, str, int | None, int | None]]
) -> None:
    found = read_targets(text, WIDEST)
    assert [(target.text, target.name, target.macs, target.params) for target in found] == expected


def test_a_share_of_an_unknown_supernet_comes_to_nothing() -> None:
    assert read_targets("60%", None) == ()
    assert read_targets("macs=1G", None)[0].macs == 1_000_000_000


def test_the_share_is_that_of_the_tighter_limit() -> None:
    both = Target(text="", macs=200, params=100)
    assert share_of(both, Cost(macs=100, params=90)) == 0.9
    assert share_of(Target(text="", macs=200), Cost(macs=100, params=90)) == 0.5
    assert share_of(Target(text=""), Cost(macs=100, params=90)) is None
