"""The numbers of a run as rows of text and as sentences."""

from dataclasses import replace
from pathlib import Path

import pytest

from hrnas.reporting.record import EvaluationPoint, RunRecord
from hrnas.reporting.run_directory import read_run
from hrnas.reporting.sentences import cut_sentence, sentence, transformer_sentence
from hrnas.reporting.tables import ResultRow, block_table, cut_table, format_change, format_score, result_groups
from reporting.run_directories import tokens, write_family
from reporting.scorings import POSE


def point(step: int, macs: int, miou: float, split: str = "validation") -> EvaluationPoint:
    figures = {"miou": miou, "pixel_accuracy": 0.5}
    return EvaluationPoint(step=step, split=split, metric="miou", figures=figures, macs=macs, seconds=1.0)


def cost_rows(record: RunRecord) -> tuple[ResultRow, ...]:
    return result_groups(record)[0].rows


def test_the_supernet_stands_beside_with_its_last_score_and_the_step_of_it(search_record: RunRecord) -> None:
    assert search_record.supernet_cost is not None
    widest = search_record.supernet_cost.macs
    points = (point(50, widest, 0.1), point(80, widest, 0.1234), point(90, widest, 0.9, "test"), point(99, 7, 0.9))
    _, validation, test = result_groups(replace(search_record, evaluations=points))
    assert [row.supernet for row in validation.rows] == ["0.1234 at step 80", "0.5000 at step 80"]
    assert [row.supernet for row in test.rows] == ["0.9000 at step 90", "0.5000 at step 90"]


def test_a_supernet_never_evaluated_whole_has_no_score(search_record: RunRecord) -> None:
    _, *scored = result_groups(replace(search_record, evaluations=(point(99, 7, 0.9),)))
    assert [row.supernet for group in scored for row in group.rows] == [""] * 4


def test_every_figure_stands_in_the_result_with_its_conditions(pose_record: RunRecord) -> None:
    _, *scored = result_groups(pose_record)
    assert [group.title for group in scored] == ["validation, 101 samples", "test, 233 samples"]
    for group, score in zip(scored, pose_record.scores.values(), strict=True):
        assert group.conditions == POSE.conditions
        assert [row.label for row in group.rows] == list(POSE.figures)
        assert [row.found for row in group.rows] == [format_score(value) for value in score.figures.values()]
    assert f"that reaches oks_ap {pose_record.scores['validation'].score:.3f} on validation" in sentence(pose_record)


def test_tokens_left_stand_in_the_result(family_record: RunRecord, search_record: RunRecord) -> None:
    rows = {row.label: (row.supernet, row.found) for row in cost_rows(family_record)}
    assert family_record.supernet is not None
    assert family_record.architecture is not None
    assert rows["Tokens of the transformers"] == (
        f"{tokens(family_record.supernet):,}",
        f"{tokens(family_record.architecture):,}",
    )
    left = sum(block.tokens > 0 for _, block in family_record.architecture.blocks())
    assert rows["Transformers"] == ("30", str(left))
    assert not any("oken" in row.label for row in cost_rows(search_record))


def test_each_limit_has_its_share(tmp_path: Path) -> None:
    record = read_run(write_family(tmp_path / "run", keeps=(0.3,), finished=(True,), by_params=True))
    assert record.found_cost is not None
    assert record.target is not None
    shares = [row.found for row in cost_rows(record) if row.label.startswith("Share of the budget")]
    assert shares == [
        f"{100 * count / limit:.1f}\N{NO-BREAK SPACE}%"
        for count, limit in (
            (record.found_cost.macs, record.target.macs or 0),
            (record.found_cost.params, record.target.params or 0),
        )
    ]
    assert f"{shares[0]} of the budget of MACs and {shares[1]} of that of parameters" in sentence(record)


def test_a_budget_of_parameters_alone_is_no_budget_of_macs(family_record: RunRecord) -> None:
    assert family_record.result is not None
    assert family_record.found_cost is not None
    limit = 2 * family_record.found_cost.params
    result = replace(family_record.result, budgets=(), budget_macs=None, budget_params=limit)
    record = replace(family_record, budget=f"params={limit}", result=result, pareto=())
    assert " parameters, 50.0\N{NO-BREAK SPACE}% of the budget" in sentence(record)
    (share,) = [row.label for row in cost_rows(record) if row.label.startswith("Share of the budget")]
    assert share.endswith(" parameters")


def test_the_sentence_speaks_of_all_networks(tmp_path: Path, family_record: RunRecord) -> None:
    assert "search found 3 networks of" in sentence(family_record)
    assert f"{family_record.targets[1].name} is still to be finished." in sentence(family_record)
    assert "reach miou" not in sentence(family_record)
    done = read_run(write_family(tmp_path / "done"))
    assert "that reach miou 0.550, 0.500 and 0.450 on validation" in sentence(done)
    assert "still" not in sentence(done)
    under_way = read_run(write_family(tmp_path / "stopped", set_aside=2))
    assert "has come to step 550 of 1,000" in sentence(under_way)
    assert "; 2 of 3 networks are set aside;" in sentence(under_way)


def test_the_largest_change_of_any_cut_is_said(family_record: RunRecord, search_record: RunRecord) -> None:
    assert cut_table(search_record) is None
    cuts = list(family_record.cuts)
    cuts[4] = replace(cuts[4], output_change=0.01234)
    table = cut_table(replace(family_record, cuts=tuple(cuts)))
    assert table is not None
    assert table.has_tokens
    assert not table.has_params
    assert cut_sentence(table).replace("\N{NO-BREAK SPACE}", " ") == (
        f"{len(cuts)} cuts; none changed the output by more than 1.2 % (at step {cuts[4].step}, dead units)."
    )
    unknown = tuple(replace(cut, output_change=None) for cut in cuts)
    table = cut_table(replace(family_record, cuts=unknown))
    assert table is not None
    assert "was not measured" in cut_sentence(table)


def test_what_is_left_of_the_transformers_is_said(family_record: RunRecord) -> None:
    blocks = block_table(family_record)
    assert blocks is not None
    architecture, supernet = family_record.architecture, family_record.supernet
    assert architecture is not None
    assert supernet is not None
    said = transformer_sentence(family_record, blocks)
    assert f"of 30 transformers are left, with {tokens(architecture):,} of {tokens(supernet):,} tokens" in said
    changed = {name: replace(block, tokens=0) for name, block in architecture.blocks()}
    without = replace(family_record, architecture=architecture.with_blocks(changed))
    blocks = block_table(without)
    assert blocks is not None
    assert transformer_sentence(without, blocks) == "None of 30 transformers is left."


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0063, "0.63 %"),
        (0.1234, "12 %"),
        (0.0995, "10 %"),
        (0.00000123, "0.00012 %"),
        (1e-9, "< 0.0001 %"),
        (0.0, "0 %"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_changes(share: float | None, text: str) -> None:
    assert format_change(share).replace("\N{NO-BREAK SPACE}", " ") == text
