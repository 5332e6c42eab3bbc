"""Budget control: the curve's values listed, the weight worked by hand, options refused."""

import pytest
import torch

from hrnas.errors import InputError
from hrnas.searching.control import CostCurve, ShrinkOptions, cost_curve, penalty_weight


def test_the_curve_falls_by_a_constant_factor() -> None:
    curve = CostCurve(supernet_macs=1600, budget_macs=100, start_step=10, end_step=50)
    listed = {0: 1600, 9: 1600, 10: 1600, 20: 800, 30: 400, 40: 200, 50: 100, 51: 100, 1000: 100}
    assert {step: curve.planned_macs(step) for step in listed} == pytest.approx(listed)
    factors = [curve.planned_macs(step + 1) / curve.planned_macs(step) for step in range(10, 50)]
    assert factors == pytest.approx([16 ** (-1 / 40)] * 40)


def test_cost_curve_takes_its_steps_from_the_shares() -> None:
    curve = cost_curve(ShrinkOptions(start=0.1, end=0.7), supernet_macs=1000, budget_macs=300, steps=200)
    assert (curve.start_step, curve.end_step) == (20, 140)
    assert (curve.supernet_macs, curve.budget_macs) == (1000, 300)


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (0.99, 1.0), (0.0, 0.01), (0.1, 0.7)])
def test_the_curve_ends_within_the_run(steps: int, start: float, end: float) -> None:
    curve = cost_curve(ShrinkOptions(start=start, end=end), supernet_macs=1000, budget_macs=300, steps=steps)
    assert 0 <= curve.start_step < curve.end_step <= steps


def test_a_budget_above_the_supernet_plans_the_supernet() -> None:
    curve = cost_curve(ShrinkOptions(), supernet_macs=1000, budget_macs=1010, steps=100)
    assert {curve.planned_macs(step) for step in range(101)} == {1000}


def weight(excess: float, rate: float = 0.1, horizon: float = 20) -> float:
    """Four units; importance per cost 0.2, 0.5, 1, 4; MACs in that order 10, 30, 20, 40."""
    return penalty_weight(
        torch.tensor([1.0, 0.4, 2.0, 0.25]),
        torch.tensor([1.0, 2.0, 0.5, 0.5]),
        torch.tensor([20, 10, 40, 30]),
        excess_macs=excess,
        learning_rate=rate,
        horizon_steps=horizon,
    )


@pytest.mark.parametrize(
    ("excess", "reach"),
    [(1, 0.2), (10, 0.2), (11, 0.5), (40, 0.5), (41, 1.0), (60, 1.0), (60.5, 4.0), (100, 4.0), (1000, 4.0)],
)
def test_weight_brings_the_cheapest_units_that_suffice_to_zero_in_time(excess: float, reach: float) -> None:
    # importance / (cost * rate * weight) steps = the horizon, for the last unit that must go
    assert weight(excess) == pytest.approx(reach / (0.1 * 20))


def test_weight_scales_with_the_rate_and_the_horizon() -> None:
    assert weight(11, rate=0.2) == pytest.approx(weight(11) / 2)
    assert weight(11, horizon=5) == pytest.approx(weight(11) * 4)


def test_nothing_to_remove_is_no_weight() -> None:
    assert weight(0) == 0
    assert weight(-5) == 0
    empty = torch.zeros(0)
    macs = torch.zeros(0, dtype=torch.int64)
    assert penalty_weight(empty, empty, macs, excess_macs=5, learning_rate=1, horizon_steps=1) == 0


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"start": -0.1}, "shrink.start"),
        ({"start": 0.7}, "shrink.start"),
        ({"start": 0.8}, "shrink.start"),
        ({"end": 1.1}, "shrink.end"),
        ({"start": float("nan")}, "shrink.start"),
        ({"horizon": 0.0}, "shrink.horizon"),
        ({"pull": -1.0}, "shrink.pull"),
        ({"travel": 0.0}, "shrink.travel"),
        ({"threshold": 0.0}, "shrink.threshold"),
        ({"cuts": 0}, "shrink.cuts"),
    ],
)
def test_bad_options_are_refused(bad: dict[str, float], named: str) -> None:
    with pytest.raises(InputError, match=named) as error:
        ShrinkOptions(**bad)
    assert str(next(iter(bad.values()))) in str(error.value)
