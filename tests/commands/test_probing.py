"""plan's time estimate: what it adds up from measured times, and which networks are measured."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from commands import tiny
from hrnas.arch.architecture import Architecture
from hrnas.arch.budget import parse_budget
from hrnas.commands import probing
from hrnas.commands.plan import PlanOptions
from hrnas.commands.probing import CUT_STEPS, Probe, TimeEstimate, estimate_time, probe, thinned_network
from hrnas.commands.session import Session, open_training_session
from hrnas.costing.analytic import cost
from hrnas.searching.plan import smallest_network

SUPERNET = tiny.TINY.supernet(10)
LOOKS = 40
OPTIONS = PlanOptions(
    data="", budget="", space="tiny", steps=200, batch_size=4, workers=0, evaluations=4, finish_steps=0.5
)
"""Shrinking begins after step 20 and ends with step 140; validations after steps 20, 50, 100, 150, 200."""


@pytest.fixture(scope="module")
def session(data: Path) -> Session:
    with tiny.tiny_world():
        return open_training_session(str(data), OPTIONS)


def estimate(
    session: Session, monkeypatch: pytest.MonkeyPatch, budget: str, step: Any, validation: Any, **changed: Any
) -> TimeEstimate:
    """Estimate with times that are functions of the share of the supernet's MACs."""

    def probed(network: Architecture, options: Any, session: Session) -> Probe:
        macs = cost(network, session.input_size).macs
        share = macs / widest.macs
        return Probe(macs=macs, step_seconds=step(share), validation_seconds=validation(share), num_steps=10)

    monkeypatch.setattr(probing, "probe", probed)
    smallest, widest = (cost(network, session.input_size) for network in (smallest_network(SUPERNET), SUPERNET))
    targets = parse_budget(budget).resolve(smallest.counts, widest.counts)
    return estimate_time(replace(OPTIONS, **changed), session, SUPERNET, targets, align=1)


def test_equal_steps_and_validations_are_counted(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    found = estimate(session, monkeypatch, "60%", lambda share: 2.0, lambda share: 7.0)
    assert found.validation_seconds == pytest.approx(5 * 7.0)
    assert found.seconds == pytest.approx(200 * 2.0 + LOOKS * CUT_STEPS * 2.0 + 5 * 7.0)
    assert found.num_steps == 20


def test_time_falls_in_a_straight_line_to_the_budget(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    found = estimate(session, monkeypatch, "60%", lambda share: share, lambda share: 100 * share)
    middle, last = 0.8, 0.6
    training = 20 * 1.0 + 120 * middle + 60 * last + LOOKS * CUT_STEPS * middle
    validation = 100 * (1.0 + (1 - 0.4 * 30 / 120) + (1 - 0.4 * 80 / 120) + last + last)
    assert found.validation_seconds == pytest.approx(validation, rel=0.02)  # the budget is met within 2 %
    assert found.seconds == pytest.approx(training + validation, rel=0.02)


def test_networks_of_other_budgets_are_finished_in_the_time(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    budgets = "macs=" + ",".join(str(int(share * cost(SUPERNET, session.input_size).macs)) for share in (0.8, 0.7, 0.6))
    times: dict[str, Any] = {"step": lambda share: share, "validation": lambda share: 0.0}
    without = estimate(session, monkeypatch, budgets, **times, finish=False).seconds
    assert estimate(session, monkeypatch, budgets, **times).seconds - without == pytest.approx(
        100 * (0.8 + 0.7), rel=0.02
    )
    ones: dict[str, Any] = {"step": lambda share: 0.0, "validation": lambda share: 1.0}
    assert estimate(session, monkeypatch, budgets, **ones).seconds == pytest.approx(5 + 2 * 2)


@pytest.mark.parametrize("budget", ["25%", "macs=70%,params=60%", "params=50%"])
@pytest.mark.parametrize("align", [1, 2])
def test_the_thinned_network_meets_the_budget_with_widths_of_a_search(
    session: Session, budget: str, align: int
) -> None:
    wide = replace(tiny.TINY, expand_ratio=8).supernet(10)
    smallest, widest = (cost(network, session.input_size) for network in (smallest_network(wide), wide))
    (target,) = parse_budget(budget).resolve(smallest.counts, widest.counts)
    network = thinned_network(wide, session, target, align=align)
    assert target.is_met(cost(network, session.input_size).counts)
    assert network == thinned_network(wide, session, target, align=align)
    before = dict(wide.blocks())
    for name, block in network.blocks():
        for size, width in block.kernels:
            assert width % align == 0
            # Evenly: no path is left alone, none loses all.
            assert width < dict(before[name].kernels)[size]


def test_a_slow_step_is_measured_twice_only(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = probe(SUPERNET, OPTIONS, session)
    assert quick.num_steps == probing.PROBE_STEPS // 2
    assert quick.step_seconds > 0 < quick.validation_seconds
    now = 0.0

    def later() -> float:
        nonlocal now
        now += 1000.0
        return now

    monkeypatch.setattr(probing.time, "perf_counter", later)
    slow = probe(SUPERNET, OPTIONS, session)
    assert (slow.num_steps, slow.step_seconds) == (2, 1000.0)
