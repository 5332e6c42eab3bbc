import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from hrnas.arch.file import read_architecture
from hrnas.costing.analytic import cost
from hrnas.errors import InputError
from hrnas.reporting.record import RunRecord
from hrnas.reporting.report import render
from hrnas.reporting.run_directory import read_run
from reporting.run_directories import write_family, write_json, write_lines, write_run
from reporting.scorings import POSE


@pytest.fixture
def run(search_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished search that a test may change."""
    return Path(shutil.copytree(search_run, tmp_path / "run"))


def train_line(step: float, **changed: Any) -> dict[str, Any]:
    line = {"kind": "train", "step": step, "loss": 1.0, "learning_rate": 0.1, "macs": 5, "seconds": 1.0}
    return {**line, **changed}


def evaluation_line(step: int, miou: float) -> dict[str, Any]:
    line = {"kind": "evaluation", "metric": "miou", "step": step, "split": "validation", "macs": 5, "seconds": 2.0}
    return {**line, "pixel_accuracy": 0.5, "miou": miou}


def test_everything_the_files_say_is_in_the_record(search_run: Path, search_record: RunRecord) -> None:
    record = search_record
    result = json.loads((search_run / "result.json").read_text())
    lines = [json.loads(line) for line in (search_run / "metrics.jsonl").read_text().splitlines()]
    cuts = [json.loads(line) for line in (search_run / "architectures.jsonl").read_text().splitlines()]
    assert (record.verb, record.task, record.dataset, record.steps) == ("search", "segmentation", "camvid", 1000)
    assert record.input_size == (180, 240)
    assert record.architecture == read_architecture(search_run / "architecture.json")
    assert record.supernet is not None
    assert cost(record.supernet, (180, 240)).macs == result["supernet"]["macs"] == record.supernet_cost.macs  # type: ignore[union-attr]
    assert record.found_cost.macs == result["found"]["macs"]  # type: ignore[union-attr]
    assert record.target.macs == result["budget_macs"]
    assert [point.loss for point in record.train] == [line["loss"] for line in lines if line["kind"] == "train"]
    assert [point.score for point in record.evaluations] == [line["miou"] for line in lines if "miou" in line]
    assert record.start is not None
    assert [(cut.step, cut.macs, cut.removed) for cut in (record.start, *record.cuts)] == [
        (cut["step"], cut["macs"], cut["removed"]) for cut in cuts
    ]
    assert list(record.scores) == ["validation", "test"]
    test = json.loads((search_run / "evaluation.json").read_text())["test"]
    score = record.scores["test"]
    assert (score.metric, score.score) == ("miou", test["miou"])
    assert list(score.figures.items()) == [(name, test[name]) for name in ("miou", "pixel_accuracy")]
    assert (score.samples, score.conditions) == (233, {})
    assert score.parts is not None
    assert (score.parts.title, score.parts.value, score.parts.share) == ("IoU by class", "IoU", "share of pixels")
    assert [part.value for part in score.parts.rows] == [row["value"] for row in test["parts"]["rows"]]
    assert score.parts.rows[2].value is None
    assert score.parts.rows[3].color == (128, 64, 128)
    assert [picture.name for picture in record.predictions] == [f"street_{index:03d}" for index in range(4)]
    assert record.environment["torch"] == "2.13.0"


def test_a_train_run_has_no_search_parts(train_run: Path) -> None:
    record = read_run(train_run)
    assert not record.is_search
    assert record.supernet is None
    assert record.target is None
    assert record.train[0].penalty is None
    assert record.train[0].planned_macs is None


def test_a_run_with_config_and_metrics_alone_is_read(run: Path) -> None:
    for entry in list(run.iterdir()):
        if entry.name not in ("config.yaml", "metrics.jsonl"):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    record = read_run(run)
    assert record.architecture is None
    assert not record.finished
    assert record.seconds == 1103.0  # the last evaluation ended 3 s after the last step
    assert record.target is not None  # the config's text says it


def test_without_architecture_json_the_last_cut_is_the_network(run: Path) -> None:
    expected = read_architecture(run / "architecture.json")
    (run / "architecture.json").unlink()
    assert read_run(run).architecture == expected


def test_a_share_becomes_macs_once_the_supernet_is_known(run: Path) -> None:
    (run / "result.json").unlink()
    config = (run / "config.yaml").read_text()
    budget = next(line for line in config.splitlines() if line.startswith("budget"))
    (run / "config.yaml").write_text(config.replace(budget, "budget: 25%"))
    record = read_run(run)
    assert record.target.macs == record.supernet_cost.macs // 4  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.yaml", r"holds no config\.yaml, so it is no run directory\. Give"),
        ("metrics.jsonl", r"holds no metrics\.jsonl: the run had not begun to train\. Run `hrnas resume"),
    ],
)
def test_a_missing_file_is_named_with_the_remedy(run: Path, name: str, message: str) -> None:
    (run / name).unlink()
    with pytest.raises(InputError, match=message):
        read_run(run)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing is not a folder\. Give"):
        read_run(tmp_path / "nothing")


@pytest.mark.parametrize(
    "name", ["config.yaml", "environment.json", "architecture.json", "result.json", "evaluation.json"]
)
@pytest.mark.parametrize("text", ["{", "[1]", "\udc80"])
def test_a_broken_file_is_named(run: Path, name: str, text: str) -> None:
    (run / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(InputError, match=name):
        read_run(run)


@pytest.mark.parametrize("name", ["metrics.jsonl", "architectures.jsonl"])
def test_a_half_written_last_line_is_skipped_and_any_other_is_an_error(run: Path, name: str) -> None:
    whole = read_run(run)
    text = (run / name).read_text()
    (run / name).write_text(text + text.splitlines()[-1][:40])
    assert read_run(run) == whole
    (run / name).write_text(text + '{"kind": "tr\n')
    with pytest.raises(InputError, match=rf"{name}, line {len(text.splitlines()) + 1} is not JSON"):
        read_run(run)
    (run / name).write_text('{"kind": "tr\n' + text)
    with pytest.raises(InputError, match=rf"{name}, line 1 is not JSON"):
        read_run(run)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (train_line(1, loss="low"), r"line 1: 'loss' is \"low\"; a number is needed"),
        (train_line(1.5), r"line 1: 'step' is 1.5; a whole number is needed"),
        (train_line(1, macs=True), r"line 1: 'macs' is true; a whole number is needed"),
        ({"kind": "train", "step": 1}, r"line 1: 'loss' is missing"),
    ],
)
def test_a_wrong_value_is_named(run: Path, line: dict[str, Any], message: str) -> None:
    write_lines(run / "metrics.jsonl", [line])
    with pytest.raises(InputError, match=message):
        read_run(run)


def test_null_and_nan_losses_are_nan(run: Path) -> None:
    write_lines(run / "metrics.jsonl", [train_line(1, loss=None), train_line(2, loss=math.nan), train_line(3)])
    assert [math.isnan(point.loss) for point in read_run(run).train] == [True, True, False]


def test_after_a_resume_the_later_lines_win(run: Path) -> None:
    first = [train_line(step, loss=9.0) for step in (10, 20, 30, 40)]
    again = [train_line(20, loss=1.0), evaluation_line(20, 0.7), train_line(30, loss=1.0)]
    write_lines(
        run / "metrics.jsonl", [*first[:2], evaluation_line(20, 0.1), *first[2:], evaluation_line(40, 0.2), *again]
    )
    record = read_run(run)
    # Step 40 was undone by the resume and has not been reached again.
    assert [(point.step, point.loss) for point in record.train] == [(10, 9.0), (20, 1.0), (30, 1.0)]
    assert [(point.step, point.score) for point in record.evaluations] == [(20, 0.7)]


def test_after_a_resume_the_later_cuts_win_but_two_cuts_may_share_a_step(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "architectures.jsonl").read_text().splitlines()[:4]]
    supernet, first, second, third = lines
    first |= {"step": 10, "reason": "dead"}
    second |= {"step": 20, "reason": "dead"}
    third |= {"step": 20, "reason": "budget"}
    write_lines(run / "architectures.jsonl", [supernet, first, second, third, second, third])
    assert [(cut.step, cut.reason) for cut in read_run(run).cuts] == [(10, "dead"), (20, "dead"), (20, "budget")]
    write_lines(run / "architectures.jsonl", [supernet, first, second, first])
    assert [(cut.step, cut.reason) for cut in read_run(run).cuts] == [(10, "dead")]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"metric": "top1"}, r"test: 'top1' is missing"),
        ({"metric": 1}, r"test: 'metric' is 1; a text is needed"),
        ({"parts": []}, r"test: 'parts' is \[\]; an object is needed"),
        ({"parts": {"title": "", "value": "", "rows": [{}]}}, r"test: parts: rows\[0\]: 'name' is missing"),
        (
            {"parts": {"title": "", "value": "", "rows": [{"name": "car", "color": [1, 2, 300]}]}},
            r"rows\[0\]: 'color' is \[1, 2, 300\]; \[red, green, blue\], each 0..255, is needed",
        ),
        ({"conditions": {"boxes": 3}}, r"test: conditions: 'boxes' is 3; a text is needed"),
    ],
)
def test_a_broken_evaluation_is_named(run: Path, changed: dict[str, Any], message: str) -> None:
    data = json.loads((run / "evaluation.json").read_text())
    data["test"] |= changed
    write_json(run / "evaluation.json", data)
    with pytest.raises(InputError, match=rf"evaluation\.json: {message}" if message.startswith("test") else message):
        read_run(run)


def test_a_figure_or_a_part_that_does_not_exist_is_nan_or_none(pose_record: RunRecord) -> None:
    score = pose_record.scores["validation"]
    assert [name for name, value in score.figures.items() if math.isnan(value)] == ["oks_ap_medium"]
    assert score.parts is not None
    assert [part.name for part in score.parts.rows if part.value is None] == ["right eye"]
    assert {part.share for part in score.parts.rows} == {None}
    assert score.conditions == POSE.conditions
    assert {tuple(point.figures) for point in pose_record.evaluations} == {tuple(POSE.figures)}


def test_an_evaluation_that_names_no_metric_is_told_by_its_first_figure(run: Path) -> None:
    """So were they written before there were several tasks, with a list of classes that is left aside."""
    evaluation = json.loads((run / "evaluation.json").read_text())
    for score in evaluation.values():
        del score["metric"], score["parts"], score["conditions"]
        score["classes"] = [{"name": "car", "iou": 0.5, "share": 1.0, "color": [1, 2, 3]}]
    write_json(run / "evaluation.json", evaluation)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    write_lines(run / "metrics.jsonl", [{name: line[name] for name in line if name != "metric"} for line in lines])
    record = read_run(run)
    assert {point.metric for point in (*record.evaluations, *record.scores.values())} == {"miou"}
    assert record.scores["test"].score == evaluation["test"]["miou"]
    assert 'id="parts"' not in render(record)


def test_what_lies_beside_a_picture_is_no_picture(run: Path) -> None:
    folder = run / "predictions" / "validation"
    shutil.copy(folder / "street_000.png", folder / "street_000.labels.png")
    (folder / "street_001.json").write_text("[]")
    assert [picture.name for picture in read_run(run).predictions] == [f"street_{index:03d}" for index in range(4)]


def test_a_run_stopped_half_way_is_read(tmp_path: Path) -> None:
    record = read_run(write_run(tmp_path / "stopped", stop_at=430))
    assert not record.finished
    assert record.last_step == 430
    assert record.scores == {}


def test_a_cut_after_the_last_logged_step_counts(run: Path) -> None:
    write_lines(run / "metrics.jsonl", [train_line(10)])
    assert read_run(run).last_step == 700


def test_what_a_search_of_tokens_for_several_budgets_adds_is_read(family_run: Path, family_record: RunRecord) -> None:
    record = family_record
    lines = [json.loads(line) for line in (family_run / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["kind"] == "train"]
    assert [point.gain for point in record.train] == [line["gain"] for line in train]
    assert [point.params for point in record.train] == [line["params"] for line in train]
    assert {point.planned_params for point in record.train} == {None}
    cuts = [json.loads(line) for line in (family_run / "architectures.jsonl").read_text().splitlines()]
    assert record.start is not None
    assert [(cut.tokens, cut.output_change, cut.budget) for cut in (record.start, *record.cuts)] == [
        (cut["tokens"], cut["output_change"], cut.get("budget")) for cut in cuts
    ]
    result = json.loads((family_run / "result.json").read_text())
    assert [target.text for target in record.targets] == result["budgets"]
    assert record.target is not None
    assert (record.target.macs, record.target.params) == (result["budget_macs"], None)
    networks = json.loads((family_run / "pareto.json").read_text())["networks"]
    assert [(entry.budget, entry.score) for entry in record.pareto] == [
        (network["budget"], network["score"]) for network in networks
    ]
    assert list(record.finishing) == sorted(network["folder"] for network in networks[:2])


def test_a_budget_of_parameters_is_read(tmp_path: Path) -> None:
    record = read_run(write_family(tmp_path / "run", keeps=(0.3,), finished=(True,), by_params=True))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert record.target is not None
    assert (record.target.macs, record.target.params) == (result["budget_macs"], result["budget_params"])
    assert record.train[0].planned_params is not None
    assert record.train[-1].planned_params is None


def test_an_older_run_has_none_of_it(search_record: RunRecord) -> None:
    assert {(point.gain, point.params, point.planned_params) for point in search_record.train} == {(None, None, None)}
    assert {(cut.tokens, cut.output_change, cut.budget) for cut in search_record.cuts} == {(None, None, None)}
    assert (search_record.pareto, search_record.finishing) == ((), {})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"macs": "many"}, r"pareto\.json: networks\[1\]: 'macs' is \"many\"; a whole number is needed"),
        ({"finished": 1}, r"pareto\.json: networks\[1\]: 'finished' is 1; true or false is needed"),
        ({"folder": "../other"}, r"networks\[1\]: 'folder' is \"\.\./other\"; a folder inside the run directory"),
        ({"folder": "/tmp"}, r"'folder' is \"/tmp\"; a folder inside the run directory"),
        ({"budget": None}, r"'budget' is null; a text is needed"),
    ],
)
def test_a_broken_pareto_file_is_named(family_run: Path, tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    run = Path(shutil.copytree(family_run, tmp_path / "run"))
    data = json.loads((run / "pareto.json").read_text())
    data["networks"][1] |= changed
    write_json(run / "pareto.json", data)
    with pytest.raises(InputError, match=message):
        read_run(run)


@pytest.mark.parametrize("text", ["{", "[1]", "{}", '{"networks": {}}'])
def test_a_pareto_file_that_is_none_is_named(run: Path, text: str) -> None:
    (run / "pareto.json").write_text(text)
    with pytest.raises(InputError, match=r"pareto\.json.*(Give a run directory that hrnas wrote, or restore the file)"):
        read_run(run)


def test_a_broken_file_of_a_network_set_aside_is_named(family_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(family_run, tmp_path / "run"))
    folder = json.loads((run / "pareto.json").read_text())["networks"][0]["folder"]
    (run / folder / "result.json").write_text("{")
    with pytest.raises(InputError, match=rf"{folder}/result\.json is not JSON"):
        read_run(run)


def test_seconds_of_evaluations_and_of_waiting_add_up_where_every_line_has_them(run: Path) -> None:
    lines = [
        train_line(5, seconds=10.0, data_seconds=0.5),
        {**evaluation_line(5, 0.1), "seconds": 10.0, "evaluation_seconds": 2.0},
        train_line(10, seconds=25.0, data_seconds=0.25),
        {**evaluation_line(10, 0.2), "seconds": 25.0, "evaluation_seconds": 3.0},
    ]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    record = read_run(run)
    assert (record.loop_seconds, record.evaluation_seconds, record.data_seconds) == (28.0, 5.0, 0.75)
    assert record.evaluations[0].figures == {"miou": 0.1, "pixel_accuracy": 0.5}  # no time or cost is a figure
    page = render(record)
    assert "<dt>validations</dt><dd>5 s, 17.9 % of the loop</dd>" in page.replace("\N{NO-BREAK SPACE}", " ")
    del lines[0]["data_seconds"], lines[1]["evaluation_seconds"]  # as an older run has them, resumed by this one
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    record = read_run(run)
    assert (record.evaluation_seconds, record.data_seconds) == (None, None)
    assert "<dt>validations</dt>" not in render(record)
