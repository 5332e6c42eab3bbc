"""Budgets: their grammar, the range they must lie in, and counts as people read them."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrnas.arch.budget import Budget, format_count, parse_budget
from hrnas.errors import BudgetError, InputError


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("macs=1.5G", Budget(macs=1_500_000_000)),
        ("macs=150M", Budget(macs=150_000_000)),
        ("macs=150000000", Budget(macs=150_000_000)),
        ("macs=20k", Budget(macs=20_000)),
        ("macs=20K", Budget(macs=20_000)),
        ("macs=0.1T", Budget(macs=100_000_000_000)),
        ("macs=1", Budget(macs=1)),
        (" macs = 1.5 G ", Budget(macs=1_500_000_000)),
        ("60%", Budget(share=0.6)),
        (" 12.5 % ", Budget(share=0.125)),
        ("100%", Budget(share=1.0)),
    ],
)
def test_what_a_budget_means(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget


HOW_TO_WRITE = "write macs= and a number of MACs, or a share of the supernet, as macs=1.5G or 60%."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"Budget is ''; {HOW_TO_WRITE}"),
        ("1.5G", f"Budget is '1.5G'; {HOW_TO_WRITE}"),
        ("60", f"Budget is '60'; {HOW_TO_WRITE}"),
        ("macs=", f"Budget is 'macs='; {HOW_TO_WRITE}"),
        ("macs=0", f"Budget is 'macs=0'; {HOW_TO_WRITE}"),
        ("macs=-1G", f"Budget is 'macs=-1G'; {HOW_TO_WRITE}"),
        ("macs=1.5g", f"Budget is 'macs=1.5g'; {HOW_TO_WRITE}"),
        ("macs=1.5GMACs", f"Budget is 'macs=1.5GMACs'; {HOW_TO_WRITE}"),
        ("macs=1e9", f"Budget is 'macs=1e9'; {HOW_TO_WRITE}"),
        ("macs=1G,params=2M", f"Budget is 'macs=1G,params=2M'; {HOW_TO_WRITE}"),
        ("macs=nan", f"Budget is 'macs=nan'; {HOW_TO_WRITE}"),
        ("0%", "Budget is '0%'; a share of the supernet lies above 0% and at most at 100%."),
        ("101%", "Budget is '101%'; a share of the supernet lies above 0% and at most at 100%."),
        ("-5%", f"Budget is '-5%'; {HOW_TO_WRITE}"),
        ("mac=1G", "Unknown budget 'mac'. Did you mean 'macs'? Known: macs. Write macs=1.5G or 60%."),
        ("flops=1G", "Unknown budget 'flops'. Known: macs. Write macs=1.5G or 60%."),
    ],
)
def test_refused_budgets(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_budget(text)
    assert str(caught.value) == message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("budget", "macs"),
    [
        (Budget(macs=100), 100),
        (Budget(macs=500), 500),
        (Budget(macs=1000), 1000),
        (Budget(macs=1020), 1020),  # the widest network, 1000, is above 0.98 * 1020 = 999.6
        (Budget(share=0.6), 600),
        (Budget(share=1.0), 1000),
        (Budget(share=0.1), 100),
    ],
)
def test_budgets_in_the_range(budget: Budget, macs: int) -> None:
    assert budget.resolve(smallest_macs=100, widest_macs=1000) == macs


@pytest.mark.parametrize(
    ("budget", "side"),
    [
        (Budget(macs=99), "Budget of 99 MACs is below the smallest"),
        (Budget(macs=1021), "Budget of 1.02k MACs is above the widest"),
        (Budget(share=0.05), "Budget of 50 MACs is below the smallest"),
    ],
)
def test_budgets_out_of_the_range(budget: Budget, side: str) -> None:
    with pytest.raises(BudgetError) as caught:
        budget.resolve(smallest_macs=100, widest_macs=1000)
    assert str(caught.value) == (
        f"{side} network of the space; budgets from 100 to 1k MACs can be met at this input size. "
        "Change the budget, the space or the input size."
    )
    assert caught.value.exit_code == 3


@settings(max_examples=200, deadline=None, derandomize=True)
@given(smallest=st.integers(1, 10**12), factor=st.floats(1.03, 1000))
def test_the_range_as_printed_can_be_asked_for(smallest: int, factor: float) -> None:
    widest = int(smallest * factor) + 1
    with pytest.raises(BudgetError) as caught:
        Budget(macs=3 * widest).resolve(smallest, widest)
    printed = re.search(r"budgets from (\S+) to (\S+) MACs", str(caught.value))
    assert printed is not None
    for text in printed.groups():
        parse_budget(f"macs={text}").resolve(smallest, widest)


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
