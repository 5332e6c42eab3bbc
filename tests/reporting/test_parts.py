"""The table of parts: classes, joints."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from hrnas.reporting.parts import ENDS, MANY, PartTable, part_table
from hrnas.reporting.record import Parts, PartScore, RunRecord


def table_of(record: RunRecord, *splits: Sequence[tuple[str, float | None, float | None]]) -> PartTable:
    """The table of a record whose splits have these rows of name, value and share."""
    scores = {
        split: replace(
            score,
            parts=Parts(
                title="by class",
                value="top1",
                share="share of images",
                rows=tuple(PartScore(name=name, value=value, share=share, color=None) for name, value, share in rows),
            ),
        )
        for (split, score), rows in zip(record.scores.items(), splits, strict=False)
    }
    table = part_table(replace(record, scores=scores))
    assert table is not None
    return table


def test_a_short_table_has_the_order_of_the_data_set(search_record: RunRecord) -> None:
    table = part_table(search_record)
    assert table is not None
    assert (table.title, table.value, table.share) == ("IoU by class", "IoU", "share of pixels")
    assert not table.is_ranked
    (group,) = table.groups
    for index, split in enumerate(("validation", "test")):
        score = search_record.scores[split]
        assert score.parts is not None
        assert [row.values[index] for row in group.rows] == [part.value for part in score.parts.rows]
        assert table.means[index] == pytest.approx(score.score, abs=1e-12)  # miou is the mean of its classes


def test_splits_are_matched_by_name_and_classes_of_one_name_stay_apart(search_record: RunRecord) -> None:
    validation = [("crane", 0.1, 0.2), ("crane", 0.3, 0.4), ("dog", 0.5, 0.4)]
    test = [("dog", 0.6, 0.5), ("crane", 0.7, 0.25)]
    (group,) = table_of(search_record, validation, test).groups
    assert [row.values for row in group.rows] == [(0.1, 0.7), (0.3, None), (0.5, 0.6)]
    assert [row.shares for row in group.rows] == [(0.2, 0.25), (0.4, None), (0.4, 0.5)]


def test_there_are_shares_only_where_a_row_has_one(search_record: RunRecord) -> None:
    assert table_of(search_record, [("a", 0.5, None), ("b", 0.5, 0.1)]).share == "share of images"
    assert table_of(search_record, [("a", 0.5, None), ("b", 0.5, None)]).share == ""


def test_a_long_table_is_ranked_and_loses_no_row(search_record: RunRecord) -> None:
    rows = [(f"{index}", None if index % 10 == 7 else math.sin(index) ** 2, 0.1) for index in range(150)]
    table = table_of(search_record, rows)
    best, others, worst = table.groups
    assert (len(best.rows), len(others.rows), len(worst.rows)) == (ENDS, 150 - 2 * ENDS, ENDS)
    assert (best.folded, others.folded, worst.folded) == (False, True, False)
    ranked = [row.values[0] for group in table.groups for row in group.rows if row.values[0] is not None]
    assert ranked == sorted((value for _, value, _ in rows if value is not None), reverse=True)
    assert {row.values for row in others.rows[-15:]} == {(None,)}  # what has no value is not among the worst
    assert sorted(int(row.name) for group in table.groups for row in group.rows) == list(range(150))
    assert table.num_rows == 150
    assert not table_of(search_record, rows[:MANY]).is_ranked


@pytest.mark.parametrize(("num_values", "sizes"), [(0, [60]), (15, [15, 45]), (30, [20, 30, 10])])
def test_a_long_table_of_few_values_has_no_empty_end(
    search_record: RunRecord, num_values: int, sizes: list[int]
) -> None:
    rows = [(f"{index}", 0.5 if index < num_values else None, 0.1) for index in range(60)]
    assert [len(group.rows) for group in table_of(search_record, rows).groups] == sizes
