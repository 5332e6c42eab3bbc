"""The networks of a run with several budgets."""

import json
import shutil
from pathlib import Path

import pytest

from hrnas.reporting.networks import budget_networks
from hrnas.reporting.record import RunRecord
from hrnas.reporting.run_directory import read_run
from reporting.run_directories import write_family, write_json


@pytest.fixture
def run(family_run: Path, tmp_path: Path) -> Path:
    """A copy of the search for three networks that a test may change."""
    return Path(shutil.copytree(family_run, tmp_path / "run"))


def test_each_network_has_its_budget_cost_score_and_state(family_run: Path, family_record: RunRecord) -> None:
    first, middle, last = budget_networks(family_record)
    files = json.loads((family_run / "pareto.json").read_text())["networks"]
    for network, file in zip((first, middle, last), files, strict=True):
        assert network.cost is not None
        assert (network.target.text, network.folder, network.cost.macs) == (
            file["budget"],
            file["folder"],
            file["macs"],
        )
        assert network.share is not None
        assert 0.98 < network.share <= 1
    assert (first.score, first.test, first.finished, first.state) == (0.55, files[0]["score"] - 0.03, True, "finished")
    assert (middle.finished, middle.state, middle.test) == (False, "at step 250 of 1,000", None)
    assert middle.score == family_record.finishing[str(middle.folder)].evaluations[-1].score
    assert (last.folder, last.finished) == (".", True)
    assert last.score == files[2]["score"]
    assert [network.step for network in (first, middle, last)] == [300, 500, 700]


def test_a_run_with_one_budget_has_no_networks(search_record: RunRecord, tmp_path: Path) -> None:
    assert budget_networks(search_record) == ()
    assert budget_networks(read_run(write_family(tmp_path / "one", keeps=(0.3,), finished=(True,)))) == ()


def test_what_was_finished_later_is_told_by_its_own_folder(run: Path) -> None:
    """pareto.json is as the search left it; `hrnas train RUN/budgets/NAME` came after."""
    first, middle, _ = json.loads((run / "pareto.json").read_text())["networks"]
    for name in ("result.json", "evaluation.json"):
        shutil.copy(run / first["folder"] / name, run / middle["folder"] / name)
    found = budget_networks(read_run(run))[1]
    assert (found.finished, found.score, found.state) == (True, 0.55, "finished")


def test_before_pareto_json_the_cuts_tell_what_is_set_aside(tmp_path: Path) -> None:
    run = write_family(tmp_path / "run", set_aside=2, finished=(True, False, False))
    with_file = budget_networks(read_run(run))
    (run / "pareto.json").unlink()
    first, second, third = budget_networks(read_run(run))
    assert [network.folder for network in (first, second)] == [network.folder for network in with_file[:2]]
    assert [network.cost for network in (first, second)] == [network.cost for network in with_file[:2]]
    assert (third.cost, third.folder, third.state) == (None, None, "not reached yet")


def test_a_network_that_has_not_begun_to_train_has_the_score_of_the_search(run: Path) -> None:
    data = json.loads((run / "pareto.json").read_text())
    folder, macs = data["networks"][1]["folder"], data["networks"][1]["macs"]
    (run / folder / "metrics.jsonl").unlink()
    record = read_run(run)
    network = budget_networks(record)[1]
    assert network.state == "set aside, not trained on yet"
    assert [network.score] == [point.score for point in record.evaluations if point.macs == macs]
    line = {"kind": "evaluation", "step": 501, "split": "test", "miou": 0.123, "pixel_accuracy": 0.5, "seconds": 1.0}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line | {"macs": macs}) + "\n")
        file.write(json.dumps(line | {"macs": macs + 1, "split": "validation"}) + "\n")
    assert budget_networks(read_run(run))[1].score == network.score


def test_budgets_in_an_unknown_grammar_are_shown_as_they_stand(run: Path) -> None:
    data = json.loads((run / "pareto.json").read_text())
    for index, network in enumerate(data["networks"]):
        network["budget"] = f"latency={index}ms"
    write_json(run / "pareto.json", data)
    (run / "result.json").unlink()
    config = (run / "config.yaml").read_text()
    line = next(line for line in config.splitlines() if line.startswith("budget"))
    (run / "config.yaml").write_text(config.replace(line, "budget: latency=0ms,1ms,2ms"))
    found = budget_networks(read_run(run))
    assert [network.target.name for network in found] == ["latency-0ms", "latency-1ms", "latency-2ms"]
    assert found[0].share is None
