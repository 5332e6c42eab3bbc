import math

import pytest

from hrnas.reporting.series import linear_axis, log_axis, pieces, smooth, thin


def test_thinning_keeps_ends_and_extremes_and_bounds_the_points() -> None:
    points = [(float(step), math.sin(step)) for step in range(50_000)]
    points[31_234] = (31_234.0, 77.0)
    points[1_111] = (1_111.0, -55.0)
    kept = thin(points, buckets=100)
    assert len(kept) <= 500
    assert kept == sorted(kept)
    assert {points[0], points[-1], points[31_234], points[1_111]} <= set(kept)


def test_a_short_curve_is_left_whole() -> None:
    points = [(float(step), 1.0) for step in range(300)]
    assert thin(points, buckets=100) == points


def test_gaps_survive_thinning_however_many_there_are() -> None:
    points = [(float(step), math.nan if step % 2 else 1.0) for step in range(20_000)]
    assert len(thin(points, buckets=100)) <= 500
    points = [(float(step), math.nan if step == 777 else 1.0) for step in range(20_000)]
    assert len(pieces(thin(points, buckets=100))) == 2


def test_pieces_are_what_lies_between_gaps() -> None:
    nan = math.nan
    assert pieces([(0, nan), (1, 1.0), (2, 2.0), (3, nan), (4, math.inf), (5, 5.0)]) == [
        [(1, 1.0), (2, 2.0)],
        [(5, 5.0)],
    ]
    assert pieces([(0, nan)]) == []
    assert pieces([]) == []


def test_the_mean_of_a_line_is_the_line_and_gaps_stay() -> None:
    line = [(float(x), 2.0 * x) for x in range(40)]
    assert [y for _, y in smooth(line, 8)[4:-4]] == pytest.approx([y for _, y in line[4:-4]])
    assert smooth([(0.0, 1.0), (1.0, 3.0)], 8) == [(0.0, 2.0), (1.0, 2.0)]
    broken = smooth([(0.0, 1.0), (1.0, math.nan), (2.0, 3.0)], 8)
    assert [math.isnan(y) for _, y in broken] == [False, True, False]
    assert broken[0][1] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 3000), (0.3, 0.31), (5, 5), (0, 0), (-2, 7), (0, 1e-7), (0, 8e11)]
)
def test_a_linear_axis_covers_its_values_with_a_few_round_ticks(low: float, high: float) -> None:
    axis = linear_axis(low, high)
    assert axis.low <= low
    assert axis.high >= high
    assert 2 <= len(axis.ticks) <= 9
    assert axis.place(axis.low) == 0
    assert axis.place(axis.high) == 1


def test_an_axis_that_is_not_widened_ends_where_it_was_told() -> None:
    axis = linear_axis(0, 1430, count=6, widen=False)
    assert (axis.low, axis.high) == (0, 1430)
    assert axis.ticks == (0, 250, 500, 750, 1000, 1250)


@pytest.mark.parametrize(("low", "high"), [(96e6, 833e6), (1e-9, 1e3), (3, 3), (150, 160)])
def test_a_log_axis_covers_its_values(low: float, high: float) -> None:
    axis = log_axis(low, high)
    assert axis.low < low
    assert axis.high > high
    assert len(axis.ticks) <= 7
    assert axis.place(math.sqrt(axis.low * axis.high)) == pytest.approx(0.5)
