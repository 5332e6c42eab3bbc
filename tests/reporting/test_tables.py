"""The numbers of a run as rows of text."""

from dataclasses import replace

from hrnas.reporting.record import EvaluationPoint, RunRecord
from hrnas.reporting.tables import result_rows


def point(step: int, macs: int, miou: float, split: str = "validation") -> EvaluationPoint:
    return EvaluationPoint(step=step, split=split, miou=miou, pixel_accuracy=0.5, macs=macs, seconds=1.0)


def test_the_supernet_stands_beside_with_its_last_score_and_the_step_of_it(search_record: RunRecord) -> None:
    assert search_record.supernet_cost is not None
    widest = search_record.supernet_cost.macs
    points = (point(50, widest, 0.1), point(80, widest, 0.1234), point(90, widest, 0.9, "test"), point(99, 7, 0.9))
    rows = {row.label.split(" (")[0]: row for row in result_rows(replace(search_record, evaluations=points))[::-1]}
    assert rows["miou"].supernet == "0.1234 at step 80"
    assert rows["Pixel accuracy"].supernet == "0.5000 at step 80"


def test_a_supernet_never_evaluated_whole_has_no_score(search_record: RunRecord) -> None:
    rows = result_rows(replace(search_record, evaluations=(point(99, 7, 0.9),)))
    assert all(row.supernet == "" for row in rows if row.label.startswith(("miou", "Pixel")))
