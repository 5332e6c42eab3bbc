"""Budgets: their grammar, the range they must lie in, and counts as people read them."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrnas.arch.budget import Amount, Budget, Target, format_count, parse_budget
from hrnas.errors import BudgetError, InputError


def count(text: str, number: int) -> Amount:
    return Amount(text=text, count=number)


def share(text: str, number: float) -> Amount:
    return Amount(text=text, share=number)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("macs=1.5G", Budget(macs=(count("1.5G", 1_500_000_000),))),
        ("macs=150M", Budget(macs=(count("150M", 150_000_000),))),
        ("macs=150000000", Budget(macs=(count("150000000", 150_000_000),))),
        ("macs=20k", Budget(macs=(count("20k", 20_000),))),
        ("macs=20K", Budget(macs=(count("20K", 20_000),))),
        ("macs=0.1T", Budget(macs=(count("0.1T", 100_000_000_000),))),
        ("macs=1", Budget(macs=(count("1", 1),))),
        (" macs = 1.5 G ", Budget(macs=(count("1.5G", 1_500_000_000),))),
        ("60%", Budget(macs=(share("60%", 0.6),))),
        ("macs=60%", Budget(macs=(share("60%", 0.6),))),
        (" 12.5 % ", Budget(macs=(share("12.5%", 0.125),))),
        ("100%", Budget(macs=(share("100%", 1.0),))),
        ("params=2M", Budget(params=(count("2M", 2_000_000),))),
        ("params=50%", Budget(params=(share("50%", 0.5),))),
        ("macs=1G,params=2M", Budget(macs=(count("1G", 10**9),), params=(count("2M", 2 * 10**6),))),
        ("params=2M, macs=1G", Budget(macs=(count("1G", 10**9),), params=(count("2M", 2 * 10**6),))),
        ("60%,params=2M", Budget(macs=(share("60%", 0.6),), params=(count("2M", 2 * 10**6),))),
        ("macs=2G,1G,500M", Budget(macs=(count("2G", 2 * 10**9), count("1G", 10**9), count("500M", 5 * 10**8)))),
        ("60%,30%", Budget(macs=(share("60%", 0.6), share("30%", 0.3)))),
        (
            "params=2M,1M,macs=1G",
            Budget(macs=(count("1G", 10**9),), params=(count("2M", 2 * 10**6), count("1M", 10**6))),
        ),
    ],
)
def test_what_a_budget_means(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget


HOW_TO_WRITE = (
    "write macs= or params= and a number, or a share of the supernet, as macs=1.5G, params=2M or 60%; several at once "
    "as macs=1G,params=2M, several networks as macs=2G,1G."
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *(
            (text, f"Budget is '{text}'; {HOW_TO_WRITE}")
            for text in (
                "", "1.5G", "60", "macs=", "macs=0", "macs=-1G", "macs=1.5g", "macs=1.5GMACs", "macs=1e9", "macs=nan",
                "-5%", "macs=1G,", "macs=1G,,500M", "1G,macs=2G",
            )
        ),
        ("0%", "Budget is '0%'; a share of the supernet lies above 0% and at most at 100%."),
        ("101%", "Budget is '101%'; a share of the supernet lies above 0% and at most at 100%."),
        ("params=0%", "Budget is 'params=0%'; a share of the supernet lies above 0% and at most at 100%."),
        (
            "macs=2G,1G,params=2M,1M",
            "Budget is 'macs=2G,1G,params=2M,1M'; only one of macs and params can be a list. Give the other one value.",
        ),
        (
            "mac=1G",
            "Unknown budget 'mac'. Did you mean 'macs'? Known: macs, params. Write macs=1.5G, params=2M or 60%.",
        ),
        ("flops=1G", "Unknown budget 'flops'. Known: macs, params. Write macs=1.5G, params=2M or 60%."),
        ("latency=12ms", "Unknown budget 'latency'. Known: macs, params. Write macs=1.5G, params=2M or 60%."),
    ],
)  # fmt: skip
def test_refused_budgets(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_budget(text)
    assert str(caught.value) == message
    assert caught.value.exit_code == 2


SMALLEST, WIDEST = {"macs": 100, "params": 20}, {"macs": 1000, "params": 400}


def resolved(text: str) -> list[tuple[str, dict[str, int]]]:
    return [(target.text, target.limits) for target in parse_budget(text).resolve(SMALLEST, WIDEST)]


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("macs=100", [("macs=100", {"macs": 100})]),
        ("macs=1k", [("macs=1k", {"macs": 1000})]),
        ("macs=1020", [("macs=1020", {"macs": 1020})]),  # the widest network, 1000, is above 0.98 * 1020 = 999.6
        ("60%", [("60%", {"macs": 600})]),
        ("macs=60%", [("60%", {"macs": 600})]),
        ("params=50%", [("params=50%", {"params": 200})]),
        ("params=20", [("params=20", {"params": 20})]),
        ("macs=500,params=9M", [("macs=500,params=9M", {"macs": 500, "params": 9_000_000})]),
        ("macs=9G,params=200", [("macs=9G,params=200", {"macs": 9 * 10**9, "params": 200})]),
        ("macs=200,800,50%", [("macs=800", {"macs": 800}), ("50%", {"macs": 500}), ("macs=200", {"macs": 200})]),
        (
            "macs=300,params=100,200",
            [
                ("macs=300,params=200", {"macs": 300, "params": 200}),
                ("macs=300,params=100", {"macs": 300, "params": 100}),
            ],
        ),
    ],
)
def test_budgets_in_the_range(text: str, targets: list[tuple[str, dict[str, int]]]) -> None:
    assert resolved(text) == targets


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("macs=800", "800"),
        ("60%", "60pct"),
        ("params=200", "params-200"),
        ("macs=300,params=50%", "300-params-50pct"),
    ],
)
def test_a_target_names_a_folder(text: str, name: str) -> None:
    (target,) = parse_budget(text).resolve(SMALLEST, WIDEST)
    assert target.name == name


MACS_RANGE = (
    "budgets from 100 to 1k MACs can be met at this input size. Change the budget, the space or the input size."
)
PARAMS_RANGE = "budgets from 20 to 400 parameters can be met. Change the budget, the space or the input size."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("macs=99", f"Budget of 99 MACs is below the smallest network of the space; {MACS_RANGE}"),
        ("macs=1021", f"Budget of 1.02k MACs is above the widest network of the space; {MACS_RANGE}"),
        ("5%", f"Budget of 50 MACs is below the smallest network of the space; {MACS_RANGE}"),
        ("macs=500,90", f"Budget of 90 MACs is below the smallest network of the space; {MACS_RANGE}"),
        ("params=19", f"Budget of 19 parameters is below the smallest network of the space; {PARAMS_RANGE}"),
        ("macs=500,params=19", f"Budget of 19 parameters is below the smallest network of the space; {PARAMS_RANGE}"),
        ("macs=2k,params=500", f"Budget of 2k MACs is above the widest network of the space; {MACS_RANGE}"),
    ],
)
def test_budgets_out_of_the_range(text: str, message: str) -> None:
    with pytest.raises(BudgetError) as caught:
        resolved(text)
    assert str(caught.value) == message
    assert caught.value.exit_code == 3


def test_a_target_given_twice_is_refused() -> None:
    with pytest.raises(InputError, match=r"'macs=500' and '50%', which are the same"):
        resolved("macs=500,50%")


def test_a_target_is_met_within_two_percent_of_one_limit() -> None:
    both = Target(text="both", macs=1000, params=100)
    met = {(1000, 100): True, (981, 10): True, (10, 99): True, (980, 98): False, (1001, 99): False, (990, 101): False}
    assert {counts: both.is_met({"macs": counts[0], "params": counts[1]}) for counts in met} == met
    assert both.share({"macs": 500, "params": 90}) == 0.9


@settings(max_examples=200, deadline=None, derandomize=True)
@given(smallest=st.integers(1, 10**12), factor=st.floats(1.03, 1000), name=st.sampled_from(["macs", "params"]))
def test_the_range_as_printed_can_be_asked_for(smallest: int, factor: float, name: str) -> None:
    widest = int(smallest * factor) + 1
    ranges = {"macs": 1, "params": 1, name: smallest}, {"macs": 2, "params": 2, name: widest}
    with pytest.raises(BudgetError) as caught:
        parse_budget(f"{name}={3 * widest}").resolve(*ranges)
    printed = re.search(r"budgets from (\S+) to (\S+) ", str(caught.value))
    assert printed is not None
    for text in printed.groups():
        parse_budget(f"{name}={text}").resolve(*ranges)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (1000, "1k"),
        (9_312, "9.31k"),
        (999_499, "999k"),
        (999_500, "1M"),
        (150_000_000, "150M"),
        (61_836_632_064, "61.8G"),
        (1_500_000_000, "1.5G"),
        (999_600_000_000, "1T"),
        (2.5e12, "2.5T"),
        (-9_312, "-9.31k"),
    ],
)
def test_counts_have_three_digits_and_a_unit(count: float, text: str) -> None:
    assert format_count(count) == text
