import io
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hrnas.reporting.record import RunRecord
from hrnas.reporting.run_directory import read_run
from hrnas.reporting.terminal import result_tables, score_tables, summary_tables
from reporting.run_directories import NAMES, write_family, write_run


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
    (miou,) = [row for row in result if row[0].startswith("miou (test")]
    assert miou[2] == f"{search_record.scores['test'].miou:.4f}"
    assert [row[0].removeprefix("■ ") for row in classes if row[0].startswith("■")] == list(NAMES)
    assert search_record.architecture is not None
    assert search_record.supernet is not None
    rows = {row[0]: row for row in blocks}
    full = dict(search_record.supernet.blocks())
    for name, block in search_record.architecture.blocks():
        left = dict(block.kernels)
        assert rows[name][2:5] == [f"{left.get(size) or '–'}/{widest}" for size, widest in full[name].kernels]


def test_names_are_no_markup(tmp_path: Path) -> None:
    record = read_run(write_run(tmp_path / "[bold]run", names=("[red]car", "[/]", "road")))
    result, classes, _ = (shown(table) for table in summary_tables(record))
    assert result[0] == ["[bold]run"]
    assert {"■ [red]car", "■ [/]"} <= {row[0] for row in classes}


def test_a_stopped_run_has_no_class_table_and_a_training_no_supernet(tmp_path: Path, train_run: Path) -> None:
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
    assert classes[0] == ["IoU of the classes"]
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


def test_search_ends_with_networks_and_result_and_evaluate_with_result_and_classes(family_record: RunRecord) -> None:
    titles = [[shown(table)[0] for table in tables(family_record)] for tables in (result_tables, score_tables)]
    name = family_record.name
    assert titles == [[[f"Networks of {name}"], [name]], [[name], ["IoU of the classes"]]]
