import io
import math
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hrnas.reporting.record import RunRecord
from hrnas.reporting.run_directory import read_run
from hrnas.reporting.terminal import result_tables, score_tables, summary_tables
from reporting.run_directories import write_family, write_run
from reporting.scorings import NAMES, POSE, SEGMENTATION


def shown(table: Table) -> list[list[str]]:
    """The cells of a printed table, row by row, its title line first."""
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table)
    text = console.export_text()
    return [[cell.strip() for cell in line.strip("│┃ ").replace("┃", "│").split("│")] for line in text.splitlines()]


def test_the_three_tables_have_the_numbers(search_record: RunRecord) -> None:
    result, classes, blocks = (shown(table) for table in summary_tables(search_record))
    found, supernet = search_record.found_cost, search_record.supernet_cost
    assert found is not None
    assert supernet is not None
    assert result[0] == ["search"]
    (macs,) = [row for row in result if row[0] == "MACs at 180×240"]
    assert f"{supernet.macs:,}" in macs[1]
    assert f"{found.macs:,}" in macs[2]
    test = [row[0] for row in result].index("test, 233 samples")
    assert result[test + 1][0] == "miou"
    assert result[test + 1][2] == f"{search_record.scores['test'].score:.4f}"
    assert [row[0].removeprefix("■ ") for row in classes if row[0].startswith("■")] == list(NAMES)
    assert search_record.architecture is not None
    assert search_record.supernet is not None
    rows = {row[0]: row for row in blocks}
    full = dict(search_record.supernet.blocks())
    for name, block in search_record.architecture.blocks():
        left = dict(block.kernels)
        assert rows[name][2:5] == [f"{left.get(size) or '–'}/{widest}" for size, widest in full[name].kernels]


def test_squeeze_excitations_have_a_column_where_there_are_any(
    squeezed_record: RunRecord, search_record: RunRecord
) -> None:
    blocks, plain = (shown(summary_tables(record)[-1]) for record in (squeezed_record, search_record))
    assert squeezed_record.architecture is not None
    column = blocks[2].index("squeeze")
    rows = {row[0]: row[column] for row in blocks[4:-1]}
    assert rows == {name: str(block.squeeze or "–") for name, block in squeezed_record.architecture.blocks()}
    assert "squeeze" not in plain[2]


def test_names_are_no_markup(tmp_path: Path) -> None:
    names = ("[red]car", "[/]", "road")
    record = read_run(write_run(tmp_path / "[bold]run", scoring=replace(SEGMENTATION, names=names)))
    result, classes, _ = (shown(table) for table in summary_tables(record))
    assert result[0] == ["[bold]run"]
    assert {"■ [red]car", "■ [/]"} <= {row[0] for row in classes}


def test_a_stopped_run_has_no_table_of_parts_and_a_training_no_supernet(tmp_path: Path, train_run: Path) -> None:
    stopped = summary_tables(read_run(write_run(tmp_path / "stopped", stop_at=430)))
    assert len(stopped) == 2
    training = summary_tables(read_run(train_run))
    assert [column.header for column in training[0].columns] == ["", "network"]
    assert not any("/" in cell for row in shown(training[2]) for cell in row)


def test_the_networks_come_first_and_the_cuts_have_their_table(family_record: RunRecord) -> None:
    networks, result, classes, cuts, blocks = (shown(table) for table in summary_tables(family_record))
    rows = [row for row in networks if row[0].startswith("macs=")]
    assert [row[0] for row in rows] == [target.text for target in family_record.targets]
    assert [row[-1] for row in rows] == ["finished", "at step 250 of 1,000", "finished"]
    assert [row[-3] for row in rows] == ["0.5200", "–", "0.4200"]
    assert result[0] == [family_record.name]
    assert classes[0] == ["IoU by class"]
    told = [row for row in cuts if row[1:2] in (["dead units"], ["to the budget"])]
    assert [(row[0], row[4]) for row in told] == [(f"{cut.step:,}", f"{cut.tokens:,}") for cut in family_record.cuts]
    assert [row[-1] for row in told if row[-1].startswith("macs=")] == [target.text for target in family_record.targets]
    assert "tokens" in blocks[2]


def test_there_is_a_column_of_tokens_or_parameters_only_where_there_are_any(tmp_path: Path) -> None:
    plain = read_run(write_family(tmp_path / "plain", transformers="none", keeps=(0.3,), finished=(True,)))
    _, _, cuts, blocks = (shown(table) for table in summary_tables(plain))
    assert "tokens left" not in cuts[2]
    assert "parameters left" not in cuts[2]
    assert "tokens" not in blocks[2]
    both = read_run(write_family(tmp_path / "both", keeps=(0.3,), finished=(True,), by_params=True))
    result, _, cuts, _ = (shown(table) for table in summary_tables(both))
    assert {"tokens left", "parameters left"} <= set(cuts[2])
    assert both.target is not None
    assert sum(row[0].startswith("Share of the budget of") for row in result) == 2


def test_search_ends_with_networks_and_result_and_evaluate_with_result_and_parts(family_record: RunRecord) -> None:
    titles = [[shown(table)[0] for table in tables(family_record)] for tables in (result_tables, score_tables)]
    name = family_record.name
    assert titles == [[[f"Networks of {name}"], [name]], [[name], ["IoU by class"]]]


def test_figures_conditions_and_parts_of_another_task(pose_record: RunRecord) -> None:
    result, parts, _ = (shown(table) for table in summary_tables(pose_record))
    start = [row[0] for row in result].index("validation, 101 samples")
    figures = pose_record.scores["validation"].figures
    expected = [[name, "–" if math.isnan(value) else f"{value:.4f}"] for name, value in figures.items()]
    conditions = [list(item) for item in POSE.conditions.items()]
    assert result[start + 1 : start + 1 + len(figures) + 3] == expected + conditions
    assert parts[2] == ["validation PCK", "test PCK"]
    assert len([row for row in parts if row[0].startswith("■")]) == len(POSE.names)


def test_the_middle_of_a_long_table_is_left_to_the_report(classification_record: RunRecord) -> None:
    _, parts, _ = (shown(table) for table in summary_tables(classification_record))
    assert len([row for row in parts if row[0].startswith("■")]) == 40
    assert [row[0] for row in parts if "other" in row[0]] == ["The other 110: see the report"]
