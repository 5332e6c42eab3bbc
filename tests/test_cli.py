"""The command line itself: help, version, --json, and which value of an option counts."""

import importlib
import json
import math
import subprocess
import sys
from argparse import SUPPRESS
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

from commands import tiny
from commands.tiny import hrnas
from hrnas.cli import VERBS, _parser, parse_options
from hrnas.commands.options import MemorySize
from hrnas.commands.plan import PlanOptions
from hrnas.commands.recipes import known_recipes
from hrnas.commands.resolved import options_from, resolved_config
from hrnas.commands.search import SearchOptions
from hrnas.commands.train import TrainOptions
from hrnas.data.sizes import InputSize
from hrnas.version import VERSION


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.toycity(tmp_path_factory.mktemp("data"))


def parse(*words: object) -> SearchOptions:
    with tiny.tiny_world():
        options = parse_options("search", VERBS["search"], SearchOptions, [str(word) for word in words])
    assert isinstance(options, SearchOptions)
    return options


def parser_of(verb: str) -> ArgumentParser:
    kind = getattr(importlib.import_module(f"hrnas.commands.{verb}"), f"{verb.capitalize()}Options")
    return _parser(verb, VERBS[verb], kind)


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_the_help_names_verbs_and_recipes(words: tuple[str, ...]) -> None:
    outcome = hrnas(*words)
    assert (outcome.code, outcome.err) == (0, "")
    for name, verb in VERBS.items():
        assert f"{name} " in outcome.out
        assert verb.summary in outcome.out
    assert ", ".join(known_recipes()) in outcome.out


def test_the_version() -> None:
    assert hrnas("--version").out == f"hrnas {VERSION}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_describes_every_option(verb: str) -> None:
    outcome = hrnas(verb, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert "<class" not in outcome.out
    assert " ".join(outcome.out.split()).count("usage: hrnas") == 1
    text = " ".join(outcome.out.split())
    for action in parser_of(verb)._actions:
        if action.help is not SUPPRESS and not action.dest.startswith("augment."):
            assert action.help, f"{action.dest} is not described"
            assert len(action.help.split()) >= 2, action.help
            assert action.dest in text
            if "%" not in action.help:
                assert " ".join(action.help.split())[:20].lower() in text.lower()


@pytest.mark.parametrize("words", [("--batch-size", "3"), ("--batch_size", "3"), ("--batch-size=3",)])
def test_hyphens_and_underscores_are_alike(words: tuple[str, ...], data: Path) -> None:
    assert parse(data, "--budget", "60%", *words).batch_size == 3


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), False),
        (("--overwrite",), True),
        (("--overwrite", "--steps", "3"), True),
        (("--overwrite", "true"), True),
        (("--overwrite", "false"), False),
        (("--overwrite=false",), False),
    ],
)
def test_a_flag_needs_no_value(words: tuple[str, ...], expected: bool, data: Path) -> None:
    assert parse(data, "--budget", "60%", *words).overwrite is expected


def test_nested_options(data: Path) -> None:
    options = parse(data, "--budget=60%", "--optimizer.learning-rate", "0.5", "--augment.scale", "[1, 1.5]")
    assert options.optimizer.learning_rate == 0.5
    assert options.augment.scale == (1, 1.5)
    assert options.shrink == SearchOptions(data="x", budget="60%").shrink


def test_the_later_of_recipe_config_and_command_line_counts(data: Path, tmp_path: Path) -> None:
    recipe, config = tmp_path / "recipe.yaml", tmp_path / "config.yaml"
    recipe.write_text("budget: 50%\nsteps: 10\nseed: 10\nlog_every: 10\noptimizer: {warmup: 0.5, weight_decay: 0.5}\n")
    config.write_text("seed: 20\nlog_every: 20\noptimizer: {warmup: 0.25}\n")
    options = parse(data, "--recipe", recipe, "--config", config, "--log-every", "30")
    assert (options.budget, options.steps, options.seed, options.log_every) == ("50%", 10, 20, 30)
    assert (options.optimizer.warmup, options.optimizer.weight_decay) == (0.25, 0.5)
    assert options.batch_size == SearchOptions(data="x", budget="1%").batch_size


@pytest.mark.parametrize("name", known_recipes())
@pytest.mark.parametrize("verb", ["search", "plan", "train"])
def test_every_recipe_is_valid(name: str, verb: str, data: Path) -> None:
    kind = {"search": SearchOptions, "plan": PlanOptions, "train": TrainOptions}[verb]
    given = ["--budget", "60%"] if verb != "train" else []
    words = [*(["architecture.json"] if verb == "train" else []), str(data), *given, "--recipe", name]
    options = parse_options(verb, VERBS[verb], kind, words)
    values = yaml.safe_load(Path(importlib.import_module("hrnas").__file__).with_name("recipes").joinpath(
        f"{name}.yaml"
    ).read_text())  # fmt: skip
    if "steps" in values:  # a recipe of a task has none: they depend on the set
        assert options.steps == values["steps"]
        assert options.input_size == InputSize.parse(values["input_size"])
    assert options.optimizer.learning_rate == values["optimizer"]["learning_rate"]
    if verb != "train":
        assert options.space == values["space"]


def test_the_recipe_of_a_known_set_is_taken_by_itself(tmp_path: Path) -> None:
    for folder in ("train", "trainannot", "val", "valannot", "test", "testannot"):
        (tmp_path / folder).mkdir()
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.txt").write_text("")
    data = tmp_path / "data.yaml"
    data.write_text("dataset: camvid\npath: .\n")
    named, found = (parse(data, "--budget", "60%", *words) for words in (("--recipe", "camvid"), ()))
    assert named == found
    assert str(found.input_size) == "180x240"


@pytest.mark.parametrize(
    ("text", "recipe"),
    [
        ("dataset: toycity\ntask: pose\n", "toycity-pose"),
        ("dataset: toycity\ntask: classification\n", "toycity-classification"),
        ("task: classification\npath: .\n", "classification"),
    ],
)
def test_a_task_has_its_own_recipe(tmp_path: Path, text: str, recipe: str) -> None:
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
    data = tmp_path / "data.yaml"
    data.write_text(text)
    named, found = (parse(data, "--budget", "60%", *words) for words in (("--recipe", recipe), ()))
    assert named == found
    assert found != parse(data, "--budget", "60%", "--recipe", "demo")


def test_json_is_one_object_and_all_of_stdout(data: Path, tmp_path: Path) -> None:
    outcome = tiny.search(data, tmp_path / "run", "--json", steps=4)
    result = outcome.result
    assert result == json.loads((tmp_path / "run" / "result.json").read_text())
    assert "validation miou" in outcome.err
    assert "Report:" in outcome.err
    assert str(tmp_path / "run" / "report.html") in outcome.err, "the path must stand on one line"
    for verb in ("show", "report", "predict", "evaluate"):
        words = ("--split", "test") if verb == "evaluate" else ()
        assert hrnas(verb, tmp_path / "run", *words, "--json").result["verb"] == verb
    assert "Report:" in hrnas("report", tmp_path / "run").out, "without --json people read stdout"


def test_json_has_no_numbers_that_json_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The IoU of a class that is neither in the truth nor predicted, as evaluate returns it.
    monkeypatch.setattr("hrnas.commands.show.show", lambda options: {"classes": [{"iou": math.nan}, {"iou": 0.5}]})
    assert hrnas("show", tmp_path, "--json").result == {"classes": [{"iou": None}, {"iou": 0.5}]}


def test_json_of_a_failure_leaves_stdout_empty(tmp_path: Path) -> None:
    outcome = hrnas("show", tmp_path, "--json")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1


def test_the_parser_needs_no_torch() -> None:
    code = "import sys, hrnas.cli; hrnas.cli.main(['--help']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True)


def test_the_module_is_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "hrnas", "show", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("hrnas: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "size", "written"),
    [("0", 0, "0"), ("1", 1, "1"), ("1536", 1536, "1536"), ("1024KiB", 2**20, "1MiB"), ("3 GiB", 3 * 2**30, "3GiB")],
)
def test_a_memory_size_is_written_as_it_can_be_read(data: Path, text: str, size: int, written: str) -> None:
    options = parse(data, "--budget", "60%", "--cache", text)
    assert (options.cache, str(options.cache)) == (size, written)
    assert resolved_config(options)["cache"] == written
    assert options_from(SearchOptions, {**resolved_config(options), "data": "x"}).cache == size
    assert SearchOptions(data="x", budget="1%", cache=size).cache == MemorySize.parse(written)
