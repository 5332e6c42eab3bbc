"""Budget control: the curve's values listed, the weight worked by hand, options refused."""

import pytest
import torch

from hrnas.arch.budget import Target
from hrnas.errors import InputError
from hrnas.searching.control import CostCurve, ShrinkOptions, cost_curve, penalty_weight

SUPERNET = {"macs": 1600, "params": 900}


def macs(*limits: int) -> tuple[Target, ...]:
    return tuple(Target(text=f"macs={limit}", macs=limit) for limit in limits)


def test_the_curve_falls_by_a_constant_factor() -> None:
    curve = CostCurve(supernet=SUPERNET, targets=macs(100), start_step=10, steps=(50,))
    listed = {0: 1600, 9: 1600, 10: 1600, 20: 800, 30: 400, 40: 200, 50: 100, 51: 100, 1000: 100}
    assert {step: curve.planned(step)["macs"] for step in listed} == pytest.approx(listed)
    factors = [curve.planned(step + 1)["macs"] / curve.planned(step)["macs"] for step in range(10, 50)]
    assert factors == pytest.approx([16 ** (-1 / 40)] * 40)
    assert curve.planned(20).keys() == {"macs"}


def test_targets_between_lie_on_the_curve_to_the_last() -> None:
    curve = cost_curve(ShrinkOptions(start=0.1, end=0.5), supernet=SUPERNET, targets=macs(800, 200, 100), steps=100)
    assert curve.steps == (20, 40, 50)
    alone = cost_curve(ShrinkOptions(start=0.1, end=0.5), supernet=SUPERNET, targets=macs(100), steps=100)
    for step in range(60):
        assert curve.planned(step)["macs"] == pytest.approx(alone.planned(step)["macs"])
    assert [curve.index(step) for step in (1, 20, 21, 40, 41, 50, 51, 99)] == [0, 0, 1, 1, 2, 2, 2, 2]
    assert curve.end_step == 50


def test_two_limits_each_fall_to_their_own() -> None:
    both = (Target(text="both", macs=400, params=450),)
    curve = CostCurve(supernet=SUPERNET, targets=both, start_step=0, steps=(10,))
    assert curve.planned(5) == pytest.approx({"macs": 800, "params": 450 * 2**0.5})
    assert curve.planned(10) == pytest.approx({"macs": 400, "params": 450})


@pytest.mark.parametrize("limits", [(1599, 1598, 1597), (1600, 101, 100), (1620, 1610, 100), (103, 102, 101)])
def test_each_target_has_its_own_step(limits: tuple[int, ...]) -> None:
    for steps in (5, 6, 7, 30):
        curve = cost_curve(ShrinkOptions(start=0.1, end=0.7), supernet=SUPERNET, targets=macs(*limits), steps=steps)
        assert curve.start_step < curve.steps[0] < curve.steps[1] < curve.steps[2] == max(3, round(0.7 * steps))
        planned = [curve.planned(step)["macs"] for step in range(steps)]
        assert planned == sorted(planned, reverse=True)
        assert planned[curve.steps[1]] == pytest.approx(min(limits[1], 1600))


def test_more_targets_than_steps_are_refused() -> None:
    with pytest.raises(InputError, match=r"3 budgets are to be met in 2 steps"):
        cost_curve(ShrinkOptions(start=0.1, end=0.7), supernet=SUPERNET, targets=macs(9, 8, 7), steps=3)


def test_cost_curve_takes_its_steps_from_the_shares() -> None:
    curve = cost_curve(ShrinkOptions(start=0.1, end=0.7), supernet=SUPERNET, targets=macs(300), steps=200)
    assert (curve.start_step, curve.end_step) == (20, 140)
    assert (curve.supernet, curve.targets) == (SUPERNET, macs(300))


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (0.99, 1.0), (0.0, 0.01), (0.1, 0.7)])
def test_the_curve_ends_within_the_run(steps: int, start: float, end: float) -> None:
    curve = cost_curve(ShrinkOptions(start=start, end=end), supernet=SUPERNET, targets=macs(300), steps=steps)
    assert 0 <= curve.start_step < curve.end_step <= steps


def test_a_budget_above_the_supernet_plans_the_supernet() -> None:
    curve = cost_curve(ShrinkOptions(), supernet=SUPERNET, targets=macs(1610), steps=100)
    assert {curve.planned(step)["macs"] for step in range(101)} == {1600}


def weight(excess: float, rate: float = 0.1, horizon: float = 20, params: float = 0) -> float:
    """Four units; importance per cost 0.2, 0.5, 1, 4; MACs in that order 10, 30, 20, 40."""
    return penalty_weight(
        torch.tensor([1.0, 0.4, 2.0, 0.25]),
        torch.tensor([1.0, 2.0, 0.5, 0.5]),
        {"macs": torch.tensor([20, 10, 40, 30]), "params": torch.tensor([1, 1, 1, 1])},
        excess={"macs": excess, "params": params},
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
    none = {"macs": torch.zeros(0, dtype=torch.int64)}
    assert penalty_weight(empty, empty, none, excess={"macs": 5}, learning_rate=1, horizon_steps=1) == 0


def test_the_harder_of_two_excesses_counts() -> None:
    assert weight(1, params=3) == pytest.approx(1.0 / (0.1 * 20))
    assert weight(41, params=1) == pytest.approx(1.0 / (0.1 * 20))
    assert weight(-1, params=1) == pytest.approx(0.2 / (0.1 * 20))


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
        ({"fade": 0.0}, "shrink.fade"),
    ],
)
def test_bad_options_are_refused(bad: dict[str, float], named: str) -> None:
    with pytest.raises(InputError, match=named) as error:
        ShrinkOptions(**bad)
    assert str(next(iter(bad.values()))) in str(error.value)
