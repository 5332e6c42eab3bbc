"""Several budgets from one run, parameters and two limits at once, aligned widths: from the command line."""

import importlib
import json
import shutil
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

import hrnas as package
from commands import tiny
from commands.tiny import hrnas
from hrnas.arch.file import fingerprint, read_architecture
from hrnas.commands import recipes
from hrnas.costing.analytic import cost
from hrnas.engine.optimization import OptimizerOptions, learning_rate

SIZE = (24, 32)
BUDGET = "80%,60%,40%"
SMALL = cost(tiny.TINY.supernet(10), SIZE)


def same_files(one: Path, other: Path, *names: str) -> None:
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search with three budgets; not to be changed."""
    folder = tmp_path_factory.mktemp("several") / "run"
    outcome = tiny.search(data, folder, "--json", budget=BUDGET)
    assert [network["budget"] for network in outcome.result["networks"]] == ["80%", "60%", "40%"]
    return folder


@pytest.fixture(scope="module")
def unfinished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, its networks set aside and not finished; not to be changed."""
    folder = tmp_path_factory.mktemp("several") / "unfinished"
    assert tiny.search(data, folder, "--finish", "false", budget=BUDGET).code == 0
    return folder


def test_one_run_leaves_a_network_for_each_budget(run: Path) -> None:
    pareto = json.loads((run / "pareto.json").read_text())
    assert (pareto["metric"], pareto["split"], pareto["input_size"]) == ("miou", "validation", list(SIZE))
    folders = ["budgets/80pct", "budgets/60pct", "."]
    assert [network["folder"] for network in pareto["networks"]] == folders
    cuts = {line["budget"]: line for line in tiny.lines(run / "architectures.jsonl") if line["budget"]}
    assert list(cuts) == ["80%", "60%", "40%"]
    for network, share in zip(pareto["networks"], (0.8, 0.6, 0.4), strict=True):
        folder = run / network["folder"]
        architecture = read_architecture(folder / "best" / "architecture.json")
        price = cost(architecture, SIZE)
        assert 0.98 * int(share * SMALL.macs) < price.macs <= int(share * SMALL.macs)
        assert (network["macs"], network["params"]) == (price.macs, price.params)
        assert network["fingerprint"] == fingerprint(architecture) == cuts[network["budget"]]["fingerprint"]
        assert network["finished"]
        assert network["score"] == json.loads((folder / "evaluation.json").read_text())["validation"]["miou"]
        assert package.load(folder).architecture == architecture
        assert (folder / "report.html").is_file()
    assert "budgets/80pct" in (run / "report.html").read_text()
    assert json.loads((run / "result.json").read_text())["budgets"] == ["80%", "60%", "40%"]


def test_a_network_set_aside_trains_on_from_the_present_rate_down(run: Path) -> None:
    met = next(line["step"] for line in tiny.lines(run / "architectures.jsonl") if line["budget"] == "60%")
    of_search = learning_rate(OptimizerOptions(), step=met - 1, steps=tiny.STEPS, batch_size=4)
    config = yaml.safe_load((run / "budgets/60pct/config.yaml").read_text())["optimizer"]
    assert (config["learning_rate"] * 4 / config["reference_batch"], config["warmup"]) == (pytest.approx(of_search), 0)
    finishing = [line for line in tiny.lines(run / "budgets/60pct/metrics.jsonl") if line["kind"] == "train"]
    rates = [line["learning_rate"] for line in finishing]
    assert rates[0] < of_search
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.01 * rates[0]
    assert finishing[-1]["step"] == 4


def test_finishing_later_is_finishing_at_once(run: Path, unfinished: Path, tmp_path: Path) -> None:
    networks = json.loads((unfinished / "pareto.json").read_text())["networks"]
    assert [network["finished"] for network in networks] == [False, False, True]
    assert [network["score"] is None for network in networks] == [True, True, False]
    later = tmp_path / "later"
    shutil.copytree(unfinished, later)
    assert hrnas("train", later / "budgets/80pct").code == 0
    same_files(run / "budgets/80pct", later / "budgets/80pct", "best/model.safetensors", "evaluation.json")
    networks = json.loads((later / "pareto.json").read_text())["networks"]
    assert [network["finished"] for network in networks] == [True, False, True]
    assert networks[0]["score"] is not None
    again = hrnas("train", later / "budgets/80pct")
    assert again.code == 2
    assert "is finished" in again.err


def test_finishing_elsewhere(run: Path, unfinished: Path, tmp_path: Path) -> None:
    """The folder alone, on another machine, where the data lie elsewhere."""
    folder, place = tmp_path / "elsewhere", tmp_path / "place"
    shutil.copytree(unfinished / "budgets/60pct", folder)
    place.mkdir()
    assert hrnas("train", folder, tiny.toycity(place)).code == 0
    same_files(run / "budgets/60pct", folder, "best/model.safetensors", "evaluation.json")


def test_finishing_may_be_stopped_and_goes_on(run: Path, unfinished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    shutil.copytree(unfinished / "budgets/60pct", folder)
    with tiny.at_step(2, tiny.ask_to_stop):
        assert hrnas("train", folder).code == 130
    assert hrnas("resume", folder).code == 0
    same_files(run / "budgets/60pct", folder, "best/model.safetensors", "evaluation.json")


@pytest.mark.parametrize("step", [5, 9, 13])
def test_a_search_with_several_budgets_resumes_bit_for_bit(run: Path, data: Path, tmp_path: Path, step: int) -> None:
    other = tmp_path / "run"
    with tiny.at_step(step, tiny.ask_to_stop):
        assert tiny.search(data, other, budget=BUDGET).code == 130
    assert hrnas("resume", other).code == 0
    same_files(run, other, "best/model.safetensors", "architectures.jsonl", "pareto.json", "evaluation.json")
    for name in ("80pct", "60pct"):
        same_files(run / "budgets" / name, other / "budgets" / name, "best/model.safetensors", "evaluation.json")


def test_a_search_killed_while_it_finishes_goes_on_there(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(run, other)
    for file in ("result.json", "report.html", "budgets/60pct/result.json", "budgets/60pct/report.html"):
        (other / file).unlink()
    shutil.rmtree(other / "budgets/60pct/checkpoints/step-00000004")
    untouched = (other / "budgets/80pct/result.json").stat().st_mtime_ns
    assert hrnas("resume", other).code == 0
    same_files(run / "budgets/60pct", other / "budgets/60pct", "best/model.safetensors", "evaluation.json")
    same_files(run, other, "pareto.json")
    assert (other / "budgets/80pct/result.json").stat().st_mtime_ns == untouched


@pytest.mark.parametrize(
    ("budget", "limits"),
    [
        ("params=50%", {"params": int(0.5 * SMALL.params)}),
        ("macs=70%,params=60%", {"macs": int(0.7 * SMALL.macs), "params": int(0.6 * SMALL.params)}),
    ],
)
def test_parameters_and_both(budget: str, limits: dict[str, int], data: Path, tmp_path: Path) -> None:
    result = tiny.search(data, tmp_path / "run", "--json", budget=budget).result
    assert all(result["found"][name] <= limit for name, limit in limits.items())
    shares = [result["found"][name] / limit for name, limit in limits.items()]
    assert max(shares) > 0.98
    assert result["share_of_budget"] == max(shares)
    assert (result["budget_macs"], result["budget_params"]) == (limits.get("macs"), limits["params"])
    lines = [line for line in tiny.lines(tmp_path / "run/metrics.jsonl") if line["kind"] == "train"]
    planned = [line["planned_params"] for line in lines if line["step"] < 14]
    assert planned == sorted(planned, reverse=True)
    assert all((line["planned_macs"] is None) == ("macs" not in limits or line["step"] >= 14) for line in lines)


def test_aligned_widths(data: Path, tmp_path: Path) -> None:
    assert tiny.search(data, tmp_path / "run", "--align", "4").code == 0
    architecture = read_architecture(tmp_path / "run/best/architecture.json")
    widths = [channels for _, block in architecture.blocks() for _, channels in block.kernels]
    assert widths
    assert all(channels % 4 == 0 for channels in widths)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--align", "0"), "align is '0'; auto or a number of channels"),
        (("--align", "eight"), "align is 'eight'"),
        (("--finish-steps", "0"), "finish_steps is 0.0"),
        (("--budget", "60%,60%"), "which are the same"),
        (("--budget", "macs=1G,500M"), "above the widest"),
        (("--budget", "80%,1%"), "below the smallest"),
    ],
)
def test_what_cannot_be_is_one_line(words: tuple[str, ...], said: str, data: Path, tmp_path: Path) -> None:
    outcome = tiny.search(data, tmp_path / "run", *words)
    assert outcome.code in (2, 3)
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_only_what_was_set_aside_knows_its_data(search_run: Path, tmp_path: Path) -> None:
    outcome = hrnas("train", search_run, "--run", tmp_path / "run")
    assert outcome.code == 2
    assert outcome.err.startswith("hrnas: data is missing; only a network that a search has set aside")


def test_weights_of_a_network_set_aside_are_those_of_the_search(unfinished: Path) -> None:
    state = json.loads((unfinished / "budgets/80pct/checkpoints/step-00000000/state.json").read_text())
    assert state["step"] == 0
    weights = load_file(unfinished / "budgets/80pct/checkpoints/step-00000000/model.safetensors")
    assert len(weights) > 10
    assert not list(unfinished.glob("budgets/40pct")), "the last is finished in the run itself"


def test_auto_is_what_was_measured(data: Path, tmp_path: Path) -> None:
    """Without --align a CPU gets multiples of 8 (benchmarks/2026-11-24-align-latency.md)."""
    words = [word for word in tiny.options(tmp_path / "run") if word != "--align"]
    words.remove("1")
    assert hrnas("search", data, *words).code == 0
    architecture = read_architecture(tmp_path / "run/best/architecture.json")
    widths = {channels for _, block in architecture.blocks() for _, channels in block.kernels}
    assert widths
    assert all(channels % 8 == 0 for channels in widths)


def test_finishing_shares_the_data_of_the_search(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its decoded images too, which would else be held twice."""
    train = importlib.import_module("hrnas.commands.train")
    opened: list[str] = []
    plain = train.open_training_session
    monkeypatch.setattr(train, "open_training_session", lambda *given: (opened.append("again"), plain(*given))[1])
    assert tiny.search(data, tmp_path / "run", "--finish", "false", budget=BUDGET).code == 0
    assert hrnas("train", tmp_path / "run/budgets/80pct").code == 0
    assert opened == ["again"]
    assert tiny.search(data, tmp_path / "whole", budget=BUDGET).code == 0
    assert opened == ["again"]


def test_a_resumed_search_leaves_what_is_finished(run: Path, data: Path, tmp_path: Path) -> None:
    """Its network was set aside, and finished by hand, after the checkpoint the search goes on from."""
    other = tmp_path / "run"
    with tiny.at_step(9, tiny.ask_to_stop):
        assert tiny.search(data, other, "--finish", "false", budget=BUDGET).code == 130
    assert (other / "budgets/80pct").is_dir()
    assert hrnas("train", other / "budgets/80pct").code == 0
    shutil.rmtree(other / "checkpoints/step-00000009")
    finished = (other / "budgets/80pct/result.json").stat().st_mtime_ns
    assert hrnas("resume", other).code == 0
    assert (other / "budgets/80pct/result.json").stat().st_mtime_ns == finished
    same_files(run / "budgets/80pct", other / "budgets/80pct", "best/model.safetensors")


def test_finishing_elsewhere_remembers_where_the_data_are(unfinished: Path, tmp_path: Path) -> None:
    folder, place = tmp_path / "elsewhere", tmp_path / "place"
    shutil.copytree(unfinished / "budgets/60pct", folder)
    place.mkdir()
    other = tiny.toycity(place)
    other.write_text(other.read_text().replace("validation: 4", "validation: 3"))
    with tiny.at_step(2, tiny.ask_to_stop):
        assert hrnas("train", folder, other).code == 130
    assert hrnas("resume", folder).code == 0
    assert json.loads((folder / "evaluation.json").read_text())["validation"]["samples"] == 3
    assert hrnas("evaluate", folder, "--json").result["samples"] == 3


def test_finishing_refuses_other_settings_and_other_classes(
    unfinished: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(unfinished / "budgets/60pct", folder)
    outcome = hrnas("train", folder, "--steps", "77")
    assert outcome.code == 2
    assert outcome.err.startswith(f"hrnas: steps is 77; {folder} is finished with the settings of its search, here 4.")
    for option, value in (("--input-size", "40x56"), ("--optimizer.weight_decay", "0.5"), ("--log-every", "3")):
        outcome = hrnas("train", folder, option, value)
        assert outcome.code == 2
        assert "is finished with the settings of its search" in outcome.err
    outcome = hrnas("train", folder, tiny.pictures(tmp_path / "pictures"))
    assert outcome.code == 2
    assert "The data have 3 names" in outcome.err
    monkeypatch.setattr(recipes, "recipe_values", lambda *_: {"optimizer.weight_decay": 0.5})  # as of a known data set
    own = ("--optimizer.warmup", "0.0", "--optimizer.weight_decay", "0.5")  # of the search's, of the recipe's
    assert hrnas("train", folder, data, "--workers", "0", "--device", "cpu", *own).code == 0


def test_a_wish_to_stop_in_the_last_step_is_granted_before_the_others_are_finished(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    with tiny.at_step(tiny.STEPS, tiny.ask_to_stop):
        outcome = tiny.search(data, other, budget=BUDGET)
    assert outcome.code == 130
    assert outcome.err.endswith(f"continue with 'hrnas resume {other}'.\n")
    assert not (other / "budgets/80pct/result.json").exists()
    assert hrnas("resume", other).code == 0
    assert (other / "budgets/80pct/result.json").is_file()


def test_a_wish_to_stop_while_others_are_finished_names_the_run(unfinished: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(unfinished, other)
    (other / "result.json").unlink()
    config = yaml.safe_load((other / "config.yaml").read_text())
    (other / "config.yaml").write_text(yaml.safe_dump({**config, "finish": True}))
    with tiny.at_step(2, tiny.ask_to_stop):
        outcome = hrnas("resume", other)
    assert outcome.code == 130
    assert outcome.err.endswith(f"continue with 'hrnas resume {other}'.\n")
    assert hrnas("resume", other).code == 0
    assert all(network["finished"] for network in json.loads((other / "pareto.json").read_text())["networks"])
