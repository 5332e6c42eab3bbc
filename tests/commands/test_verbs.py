"""Each verb end to end on a tiny Toy City: what it leaves, and that the files say the same as each other."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from commands import tiny
from commands.tiny import hrnas
from hrnas.arch.file import fingerprint, read_architecture, to_json
from hrnas.arch.presets import search_space
from hrnas.costing.analytic import cost
from hrnas.costing.counted import count
from hrnas.engine.checkpoint import read_checkpoint
from hrnas.models.network import build_model

SIZE = (24, 32)


def read(picture: str | Path) -> NDArray[np.uint8]:
    with Image.open(picture) as opened:
        return np.array(opened)


def copy(run: Path, folder: Path) -> Path:
    return Path(shutil.copytree(run, folder / "copy"))


def test_check_finds_toy_city_sound_and_draws_it(data: Path, tmp_path: Path) -> None:
    result = hrnas("check", data, "--sheet", tmp_path / "sheet.png", "--json").result
    assert result["problems"] == []
    assert {split: found["pictures"] for split, found in result["splits"].items()} == {
        "train": 8,
        "validation": 4,
        "test": 4,
    }
    shares = result["splits"]["train"]["shares"]
    assert sum(shares.values()) == pytest.approx(1)
    assert read(tmp_path / "sheet.png").shape[1] > 100


def test_check_without_a_sheet_writes_nothing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert hrnas("check", data, "--sheet", "none", "--limit", "1").code == 0
    assert list(tmp_path.iterdir()) == []


def test_plan_shows_range_memory_and_time_and_writes_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("plan", data, "--space", "tiny", "--budget", "60%", "--batch-size", "2", "--workers", "0")
    result = hrnas(*words, "--json").result
    networks = result["networks"]
    widest = cost(tiny.TINY.supernet(10), SIZE)
    assert networks["widest"] | {"memory_bytes": 0} == {
        "macs": widest.macs,
        "params": widest.params,
        "memory_bytes": 0,
    }
    assert networks["smallest"]["macs"] < networks["middle"]["macs"] < networks["widest"]["macs"]
    assert result["budget_macs"] == int(0.6 * widest.macs)
    assert result["seconds"] > 0
    shown = hrnas(*words)
    assert "can be met" in shown.out
    assert "Time: about" in shown.out
    assert list(tmp_path.iterdir()) == []


def test_search_leaves_a_whole_run_directory(search_run: Path) -> None:
    config = yaml.safe_load((search_run / "config.yaml").read_text())
    assert config["data"]["dataset"] == "toycity"
    assert config["input_size"] == "24x32"
    assert config["budget"] == "60%"
    environment = json.loads((search_run / "environment.json").read_text())
    assert environment["verb"] == "search"
    assert environment["torch"] == torch.__version__

    cuts = tiny.lines(search_run / "architectures.jsonl")
    assert (cuts[0]["step"], cuts[0]["reason"]) == (0, "supernet")
    assert cuts[-1]["reason"] == "budget"
    assert cuts[-1]["step"] == 14
    macs, units = ([cut[name] for cut in cuts] for name in ("macs", "units"))
    assert macs == sorted(macs, reverse=True)
    assert [before - after for before, after in itertools.pairwise(units)] == [cut["removed"] for cut in cuts[1:]]

    architecture = read_architecture(search_run / "architecture.json")
    assert architecture == read_architecture(search_run / "best" / "architecture.json")
    assert fingerprint(architecture) == cuts[-1]["fingerprint"]
    price, counted = cost(architecture, SIZE), count(build_model(architecture).to("meta").eval(), SIZE)
    result = json.loads((search_run / "result.json").read_text())
    assert result["found"] == {"macs": price.macs, "params": price.params}
    assert (counted.macs, counted.params) == (price.macs, price.params) == (cuts[-1]["macs"], cuts[-1]["params"])
    assert 0.98 * result["budget_macs"] < price.macs <= result["budget_macs"]
    assert result["share_of_budget"] == price.macs / result["budget_macs"]

    evaluation = json.loads((search_run / "evaluation.json").read_text())["validation"]
    assert evaluation["miou"] == result["validation_miou"]
    assert evaluation["macs"] == price.macs
    assert evaluation["samples"] == 4
    weights = load_file(search_run / "best" / "model.safetensors")
    assert {name: value.shape for name, value in weights.items()} == {
        name: value.shape for name, value in build_model(architecture).state_dict().items()
    }

    kept = sorted(path.name for path in (search_run / "checkpoints").iterdir())
    assert kept == ["step-00000015", "step-00000020"]
    assert read_checkpoint(search_run / "checkpoints" / kept[-1]).architecture == architecture
    assert "<html" in (search_run / "report.html").read_text()
    assert not list(search_run.rglob(".*")), "temporary files stayed"


@pytest.mark.parametrize("verb", ["search", "train"])
def test_the_lines_are_at_their_steps_and_the_loss_falls(verb: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(f"{verb}_run")
    lines = tiny.lines(run / "metrics.jsonl")
    losses = {line["step"]: line["loss"] for line in lines if line["kind"] == "train"}
    assert list(losses) == list(range(2, tiny.STEPS + 1, 2))
    early, late = list(losses.values())[:3], list(losses.values())[-3:]
    assert sum(late) < 0.9 * sum(early)
    evaluated = [line["step"] for line in lines if line["kind"] == "evaluation"]
    assert {10, 20} <= set(evaluated)
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds)
    evaluations, trained = ([line for line in lines if line["kind"] == kind] for kind in ("evaluation", "train"))
    parts = [line["data_seconds"] for line in trained] + [line["evaluation_seconds"] for line in evaluations]
    assert 0 < sum(parts) < 1.01 * (seconds[-1] + evaluations[-1]["evaluation_seconds"]) + 0.01 * len(parts)


def test_a_search_is_given_by_its_config(search_run: Path, tmp_path: Path) -> None:
    outcome = hrnas("search", "--config", search_run / "config.yaml", "--run", tmp_path / "again")
    assert outcome.code == 0, outcome.err
    for name in ("architecture.json", "model.safetensors"):
        assert (tmp_path / "again" / "best" / name).read_bytes() == (search_run / "best" / name).read_bytes()
    assert (tmp_path / "again" / "config.yaml").read_text() == (search_run / "config.yaml").read_text()


def test_options_come_over_the_config(search_run: Path, tmp_path: Path) -> None:
    words = ("--run", tmp_path / "again", "--steps", "4", "--seed", "1")
    assert hrnas("search", "--config", search_run / "config.yaml", *words).code == 0
    config = yaml.safe_load((tmp_path / "again" / "config.yaml").read_text())
    assert (config["steps"], config["seed"], config["batch_size"]) == (4, 1, 4)


def test_a_training_is_given_by_its_config_wherever_it_stands(
    search_run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy(search_run, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert tiny.train(Path("copy"), data, Path("first"), "--weights", "copy", steps=3).code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    outcome = hrnas("train", "--config", "../first/config.yaml", "--run", "again")
    assert outcome.code == 0, outcome.err
    first, again = (tmp_path / name / "best" / "model.safetensors" for name in ("first", "elsewhere/again"))
    assert first.read_bytes() == again.read_bytes()


def test_train_takes_the_architecture_of_a_run(search_run: Path, train_run: Path) -> None:
    architecture = read_architecture(search_run / "best" / "architecture.json")
    assert read_architecture(train_run / "best" / "architecture.json") == architecture
    [line] = tiny.lines(train_run / "architectures.jsonl")
    assert (line["step"], line["reason"], line["fingerprint"]) == (0, "given", fingerprint(architecture))
    result = json.loads((train_run / "result.json").read_text())
    assert result["budget"] is None
    assert result["found"]["macs"] == cost(architecture, SIZE).macs
    assert result["validation_miou"] == json.loads((train_run / "evaluation.json").read_text())["validation"]["miou"]


def test_train_takes_an_architecture_file_as_it_takes_the_run(
    search_run: Path, train_run: Path, data: Path, tmp_path: Path
) -> None:
    assert tiny.train(search_run / "best" / "architecture.json", data, tmp_path / "run").code == 0
    one, other = (run / "best" / "model.safetensors" for run in (train_run, tmp_path / "run"))
    assert one.read_bytes() == other.read_bytes()


def test_training_from_weights_starts_where_they_are(
    search_run: Path, train_run: Path, data: Path, tmp_path: Path
) -> None:
    assert tiny.train(search_run, data, tmp_path / "run", "--weights", search_run).code == 0

    def first_loss(run: Path) -> float:
        return float(tiny.lines(run / "metrics.jsonl")[0]["loss"])

    assert first_loss(tmp_path / "run") < first_loss(train_run)


def test_train_fits_the_head_to_the_data(search_run: Path, tmp_path: Path) -> None:
    data = tiny.pictures(tmp_path / "data", classes=3)
    assert tiny.train(search_run, data, tmp_path / "run", steps=2).code == 0
    architecture = read_architecture(tmp_path / "run" / "best" / "architecture.json")
    assert architecture.head is not None
    assert architecture.head.outputs == 3
    assert architecture.stages == read_architecture(search_run / "best" / "architecture.json").stages


def test_evaluate_repeats_the_figures_of_the_run_and_adds_the_test_split(search_run: Path, tmp_path: Path) -> None:
    run = copy(search_run, tmp_path)
    recorded = json.loads((run / "evaluation.json").read_text())["validation"]
    shown = hrnas("evaluate", run, "--workers", "0", "--json").result
    assert {name: shown[name] for name in ("metric", "miou", "pixel_accuracy", "parts", "samples")} == {
        name: recorded[name] for name in ("metric", "miou", "pixel_accuracy", "parts", "samples")
    }
    tested = hrnas("evaluate", run, "--split", "test", "--workers", "0", "--batch-size", "3", "--json").result
    assert tested["split"] == "test"
    written = json.loads((run / "evaluation.json").read_text())
    assert list(written) == ["validation", "test"]
    assert written["validation"] == recorded
    assert written["test"]["miou"] == tested["miou"]
    assert written["test"]["macs"] == recorded["macs"]


def test_evaluate_on_other_data_leaves_the_run_alone(search_run: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.yaml"
    data.write_text("dataset: toycity\nsize: [24, 32]\nseed: 5\nlength: {train: 8, validation: 4, test: 4}\n")
    before = tiny.snapshot(search_run)
    result = hrnas("evaluate", search_run, "--data", data, "--workers", "0", "--json").result
    assert result["samples"] == 4
    assert tiny.snapshot(search_run) == before


def test_predict_draws_samples_of_a_split_beside_their_truth(search_run: Path, tmp_path: Path) -> None:
    run = copy(search_run, tmp_path)
    for split in ("validation", "test"):
        files = hrnas("predict", run, "--split", split, "--limit", "2", "--json").result["files"]
        assert [entry["name"] for entry in files] == [f"{split}-00000", f"{split}-00003"]
        for entry in files:
            assert Path(entry["picture"]).parent == run / "predictions" / split
            assert read(entry["picture"]).shape == (24, 3 * 32 + 2 * 4, 3)  # image, truth, prediction
            labels = read(entry["labels"])
            assert labels.shape == (24, 32)
            assert labels.max() < 10


def test_predict_replaces_earlier_predictions_of_the_split_alone(search_run: Path, tmp_path: Path) -> None:
    run = copy(search_run, tmp_path)
    photo = tmp_path / "photo.png"
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(photo)
    for words in ((photo,), ("--limit", "3"), ("--split", "test", "--limit", "1"), ("--limit", "1")):
        assert hrnas("predict", run, *words).code == 0
    assert sorted(tiny.snapshot(run / "predictions")) == [
        "inputs/photo.labels.png",
        "inputs/photo.png",
        "test/test-00000.labels.png",
        "test/test-00000.png",
        "validation/validation-00000.labels.png",
        "validation/validation-00000.png",
    ]
    own = tmp_path / "validation"  # as the user may have named a folder of other pictures
    own.mkdir()
    shutil.copy(photo, own)
    assert hrnas("predict", run, "--limit", "1", "--out", tmp_path).code == 0
    assert (own / "photo.png").is_file()


def test_predict_takes_files_and_folders_of_any_size(search_run: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    names = ("photos/a.png", "photos/b.jpg", "b.png", "c d.png")
    sizes = ((24, 32), (31, 17), (64, 48), (9, 40))
    for name, size in zip(names, sizes, strict=True):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "photos" / "notes.txt").write_text("not an image")
    before = tiny.snapshot(search_run)
    given = (tmp_path / "photos", tmp_path / "b.png", tmp_path / "c d.png")
    files = hrnas("predict", search_run, *given, "--out", tmp_path / "out", "--json").result["files"]
    shapes = [read(entry["labels"]).shape for entry in files]
    assert shapes == list(sizes), "the two files named b must not replace each other"
    assert {Path(entry["picture"]).parent for entry in files} == {tmp_path / "out" / "inputs"}
    assert len({entry["picture"] for entry in files}) == 4
    assert tiny.snapshot(search_run) == before


@pytest.mark.parametrize("verb", ["search", "train"])
def test_show_and_report_read_what_was_written(verb: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    run = copy(request.getfixturevalue(f"{verb}_run"), tmp_path)
    shown = hrnas("show", run)
    result = json.loads((run / "result.json").read_text())
    assert f"{result['found']['macs']:,}" in shown.out
    (run / "report.html").unlink()
    report = hrnas("report", run, "--json").result["report"]
    assert Path(report) == run / "report.html"
    assert f"{result['found']['macs']:,}" in Path(report).read_text().replace("\u202f", ",").replace("\u2009", ",")


def test_a_run_of_files_with_mapped_labels_goes_all_the_way(tmp_path: Path) -> None:
    data = tiny.pictures(tmp_path / "data", mapped=True)
    run = tmp_path / "run"
    with tiny.at_step(3, tiny.ask_to_stop):
        assert tiny.search(data, run, steps=6).code == 130
    outcome = hrnas("resume", run)
    assert outcome.code == 0, outcome.err
    assert hrnas("evaluate", run, "--workers", "0", "--json").result["samples"] == 3
    assert hrnas("predict", run, "--limit", "1").code == 0
    outcome = hrnas("search", "--config", run / "config.yaml", "--run", tmp_path / "again")
    assert outcome.code == 0, outcome.err
    one, other = (folder / "best" / "model.safetensors" for folder in (run, tmp_path / "again"))
    assert one.read_bytes() == other.read_bytes()


def test_show_lists_the_blocks_of_an_architecture_file(search_run: Path) -> None:
    file = search_run / "best" / "architecture.json"
    outcome = hrnas("show", file)
    assert outcome.code == 0, outcome.err
    architecture = read_architecture(file)
    for name, block in architecture.blocks():
        (line,) = [line for line in outcome.out.splitlines() if f" {name} " in line]
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        widths = {int(size): int(width) for size, width in zip((3, 5, 7), cells[3:6], strict=True) if width != "-"}
        assert cells[1] == f"{block.in_channels} -> {block.out_channels}"
        assert widths == dict(block.kernels)


def test_show_of_a_file_has_tokens_only_where_there_are_transformers(tmp_path: Path) -> None:
    for transformers, cells in (("none", 6), ("all", 7)):
        file = tmp_path / f"{transformers}.json"
        file.write_text(to_json(search_space("hr-small", transformers).supernet(3)))
        lines = hrnas("show", file).out.splitlines()
        (head,) = [line for line in lines if " stages.0.branches.0.0 " in line]
        assert len(head.split("│")[1:-1]) == cells
