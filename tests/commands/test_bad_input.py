"""Bad input: one line that says what was got and what to do, the right exit code, and nothing written."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands import tiny
from commands.tiny import Outcome, hrnas
from hrnas.data.loading import epoch_order


def assert_refused(outcome: Outcome, *words: str, code: int = 2) -> None:
    assert outcome.code == code, outcome.err
    assert outcome.err.startswith("hrnas: ")
    assert outcome.err.count("\n") == 1, outcome.err
    assert outcome.err.strip()[-1] in ".:)", outcome.err
    for word in words:
        assert word in outcome.err, f"{word!r} is not in: {outcome.err}"
    for clutter in ("Traceback", "<class", "Errno -", "NoneType"):
        assert clutter not in outcome.err, outcome.err


# Data


def smaller_mask(root: Path) -> None:
    Image.new("L", (31, 24)).save(root / "train/masks/5.png")


def label_out_of_range(root: Path) -> None:
    mask = np.zeros((24, 32), np.uint8)
    mask[3, 4] = 7
    Image.fromarray(mask).save(root / "train/masks/5.png")


def label_out_of_range_in_validation(root: Path) -> None:
    Image.fromarray(np.full((24, 32), 9, np.uint8)).save(root / "validation/masks/2.png")


def missing_mask(root: Path) -> None:
    (root / "validation/masks/2.png").unlink()


def truncated_image(root: Path) -> None:
    file = root / "train/images/5.jpg"
    file.write_bytes(file.read_bytes()[:500])


def no_image(root: Path) -> None:
    (root / "train/images/5.jpg").write_text("hello")


def empty_split(root: Path) -> None:
    for file in (root / "validation/images").iterdir():
        file.unlink()


def no_validation(root: Path) -> None:
    file = root / "data.yaml"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if not line.startswith("validation")))


def unknown_key(root: Path) -> None:
    file = root / "data.yaml"
    file.write_text(file.read_text() + "ingore: 255\n")


def unknown_task(root: Path) -> None:
    file = root / "data.yaml"
    file.write_text(file.read_text().replace('"segmentation"', "segmantation"))


def missing_folder(root: Path) -> None:
    shutil.rmtree(root / "train/masks")


def broken_yaml(root: Path) -> None:
    (root / "data.yaml").write_text("names: [a, b\n")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (smaller_mask, ("5.jpg is 32x24", "5.png is 31x24", "must be the same size")),
        (label_out_of_range, ("5.png", "label values no class covers: 7 (1 pixel)", "label_map")),
        (label_out_of_range_in_validation, ("2.png", "9 (768 pixels)")),
        (missing_mask, ("2.jpg", "no mask", "Add a mask")),
        (truncated_image, ("5.jpg", "truncated", "Replace it")),
        (no_image, ("5.jpg", "Replace it")),
        (empty_split, ("Split 'validation' is empty", "Add images")),
        (no_validation, ("no split 'validation'", "add it to data.yaml")),
        (unknown_key, ("data.yaml", "ingore", "Did you mean 'ignore'?")),
        (unknown_task, ("segmantation", "Did you mean 'segmentation'?")),
        (missing_folder, ("masks of split 'train' does not exist", "Mend train.labels")),
        (broken_yaml, ("data.yaml",)),
    ],
)
@pytest.mark.parametrize("verb", ["search", "train"])
def test_bad_data_stops_a_run_before_it_is_written(
    verb: str, damage: Callable[[Path], None], words: tuple[str, ...], search_run: Path, tmp_path: Path
) -> None:
    data, run = tiny.pictures(tmp_path / "data"), tmp_path / "runs" / "run"
    damage(tmp_path / "data")
    outcome = tiny.search(data, run) if verb == "search" else tiny.train(search_run, data, run)
    assert_refused(outcome, *words)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (smaller_mask, ("31x24",)),
        (label_out_of_range, ("7 (1 pixel)", "see '5'", "label_map")),
        (missing_mask, ("2.jpg", "without a mask")),
        (truncated_image, ("5.jpg", "truncated")),
        (empty_split, ("Split 'validation' is empty",)),
        (unknown_key, ("Did you mean 'ignore'?",)),
    ],
)
def test_check_names_the_problem_and_fails(
    damage: Callable[[Path], None], words: tuple[str, ...], tmp_path: Path
) -> None:
    data = tiny.pictures(tmp_path / "data")
    damage(tmp_path / "data")
    assert_refused(hrnas("check", data, "--sheet", "none"), *words)


def test_check_says_every_problem_once(tmp_path: Path) -> None:
    data = tiny.pictures(tmp_path / "data")
    outcome = hrnas("check", data, "--sheet", "none")
    assert outcome.code == 0, outcome.err
    truncated_image(tmp_path / "data")
    outcome = hrnas("check", data, "--sheet", "none")
    assert_refused(outcome, "has a problem that would stop a search:")
    assert (outcome.out + outcome.err).count("5.jpg") == 1
    label_out_of_range_in_validation(tmp_path / "data")
    outcome = hrnas("check", data, "--sheet", "none")
    assert_refused(outcome, "has 2 problems that would stop a search; the last:")
    for word in ("5.jpg", "9 (768 pixels)"):
        assert (outcome.out + outcome.err).count(word) == 1
    assert outcome.out.count("problem ") == 1


def test_a_short_run_is_not_held_up_by_files_it_will_not_read(tmp_path: Path) -> None:
    data = tiny.pictures(tmp_path / "data")
    shown = set(epoch_order(6, 0, 0)[:2])
    for number in set(range(6)) - shown:
        (tmp_path / f"data/train/masks/{number}.png").write_bytes(
            (tmp_path / f"data/train/masks/{number}.png").read_bytes()[:80]
        )
    outcome = tiny.search(data, tmp_path / "run", steps=1, batch_size=2, calibration_batches=1)
    assert outcome.code == 0, outcome.err
    assert_refused(tiny.search(data, tmp_path / "other", steps=2, batch_size=2), "truncated")
    assert not (tmp_path / "other").exists()


def test_bad_data_found_by_evaluate_leaves_the_run_alone(tmp_path: Path) -> None:
    data, run = tiny.pictures(tmp_path / "data"), tmp_path / "run"
    assert tiny.search(data, run, steps=2).code == 0
    before = tiny.snapshot(run)
    label_out_of_range_in_validation(tmp_path / "data")
    assert_refused(hrnas("evaluate", run, "--workers", "0"), "9 (768 pixels)")
    assert_refused(hrnas("evaluate", run, "--workers", "1"), "9 (768 pixels)")
    assert tiny.snapshot(run) == before


# Options


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--stesp", "3"), ("Unknown option '--stesp'", "Did you mean '--steps'?")),
        (("--batch-sizes", "3"), ("Did you mean '--batch_size'?",)),
        (("--step", "3"), ("Unknown option '--step'", "Did you mean '--steps'?")),
        (("--checkp=3",), ("Unknown option '--checkp'", "Did you mean '--checkpoints'?")),
        (("--optimizer.warm", "0.2"), ("Unknown option '--optimizer.warm'", "Did you mean '--optimizer.warmup'?")),
        (("--optimizer.learningrate", "3"), ("Did you mean '--optimizer.learning_rate'?",)),
        (("--steps", "many"), ("'steps'", "int", "many")),
        (("--steps", "2.5"), ("'steps'", "int", "2.5")),
        (("--steps", "0"), ("steps is 0", "at least 1")),
        (("--seed", "-1"), ("seed is -1",)),
        (("--input-size", "24"), ("'input_size'", "'24'", "HEIGHTxWIDTH")),
        (("--input-size", "0x24"), ("HEIGHTxWIDTH",)),
        (("--cache", "much"), ("'cache'", "'much'", "as 512MiB")),
        (("--cache", "1.5GB"), ("'1.5GB'", "as 512MiB")),
        (("--overwrite=maybe",), ("'overwrite'", "bool", "maybe")),
        (("--overwrite", "maybe"), ("maybe",)),
        (("--budget", "much"), ("'much'", "params=2M or 60%")),
        (("--budget", "flops=1G"), ("Unknown budget 'flops'", "macs")),
        (("--budget", "120%"), ("120%", "at most at 100%")),
        (("--space", "tinny"), ("Unknown search space 'tinny'", "Did you mean 'tiny'?", "hr-small")),
        (("--transformers", "al"), ("Did you mean 'all'?",)),
        (("--recipe", "camvit"), ("Unknown recipe 'camvit'", "Did you mean 'camvid'?")),
        (("--config", "nothing.yaml"), ("nothing.yaml",)),
        (("--augment.flip", "2"), ("flip is 2",)),
        (("--shrink.start", "0.9"), ("shrink.start is 0.9", "start < end")),
        (("--device", "cuda:7"), ("Device 'cuda:7' cannot be used", "cpu")),
        (("--device", "gpu"), ("Device 'gpu' cannot be used",)),
        (("--device", "meta"), ("Device 'meta' cannot be used",)),
        (("surplus",), ("surplus",)),
    ],
)
def test_bad_options_are_named(words: tuple[str, ...], expected: tuple[str, ...], data: Path, tmp_path: Path) -> None:
    assert_refused(tiny.search(data, tmp_path / "runs" / "run", *words), *expected)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("verb", ["search", "plan"])
@pytest.mark.parametrize(("budget", "side"), [("macs=40k", "below the smallest"), ("macs=1G", "above the widest")])
def test_a_budget_out_of_reach_exits_with_3_and_the_range(
    verb: str, budget: str, side: str, data: Path, tmp_path: Path
) -> None:
    outcome = hrnas(verb, data, *tiny.options(tmp_path / "run", budget=budget))
    assert_refused(outcome, side, "from 53.5k to 479k MACs can be met", "Change the budget", code=3)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stpes: 3\n", ("stpes",)),
        ("steps: many\n", ("steps", "many")),
        ("optimizer: {lr: 3}\n", ("optimizer", "lr")),
        ("steps: [\n", ()),
        ("- steps\n", ()),
    ],
)
@pytest.mark.parametrize("option", ["--recipe", "--config"])
def test_bad_yaml_of_options_is_named(
    option: str, text: str, words: tuple[str, ...], data: Path, tmp_path: Path
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    assert_refused(tiny.search(data, tmp_path / "run", option, str(file), steps=None), *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("serch",), ("Unknown verb 'serch'", "Did you mean 'search'?")),
        (("search",), ("data",)),
        (("search", "toycitty", "--budget", "1%"), ("no data description 'toycitty'", "Did you mean 'toycity'?")),
        (("search", "toycity"), ("budget",)),
        (("train", "nothing.json", "tiny.yaml"), ("nothing.json cannot be read", "architecture.json")),
        (("check", "tiny.yaml", "--limit", "0"), ("limit is 0",)),
        (("evaluate",), ("run",)),
    ],
)
def test_what_is_missing_or_unknown_is_named(
    words: tuple[str, ...], expected: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.toycity(tmp_path).rename("tiny.yaml")
    assert_refused(hrnas(*words), *expected)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


# Run directories


def test_a_run_is_not_mixed_with_another(search_run: Path, train_run: Path, data: Path) -> None:
    for run in (search_run, train_run):
        before = tiny.snapshot(run)
        words = (f"{run} already holds another run", f"hrnas resume {run}", "--overwrite", "--run")
        assert_refused(tiny.search(data, run), *words)
        assert_refused(tiny.train(search_run, data, run), *words)
        assert tiny.snapshot(run) == before


def test_overwrite_replaces_a_run_as_a_whole(search_run: Path, train_run: Path, data: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(search_run, tmp_path / "run"))
    assert tiny.train(search_run, data, run, "--overwrite", "true").code == 0
    assert (run / "best/model.safetensors").read_bytes() == (train_run / "best/model.safetensors").read_bytes()
    assert {path.name for path in run.iterdir()} == {path.name for path in train_run.iterdir()}


def test_bad_input_replaces_no_run(search_run: Path, tmp_path: Path) -> None:
    data = tiny.pictures(tmp_path / "data")
    label_out_of_range(tmp_path / "data")
    before = tiny.snapshot(search_run)
    assert_refused(tiny.search(data, search_run, "--overwrite", "true"), "5.png")
    assert tiny.snapshot(search_run) == before


@pytest.mark.parametrize("overwrite", ["false", "true"])
@pytest.mark.parametrize("content", ["photo.jpg", "config.yaml", "environment.json"])
def test_a_folder_of_other_files_is_never_touched(content: str, overwrite: str, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / content).write_text("a: 1\n")
    before = tiny.snapshot(run)
    assert_refused(tiny.search(data, run, "--overwrite", overwrite), "no run of hrnas", "--run")
    assert tiny.snapshot(run) == before


def test_a_run_directory_that_is_a_file_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert_refused(tiny.search(data, tmp_path / "file"), "already holds")
    assert_refused(tiny.search(data, tmp_path / "file" / "run"), "cannot be written", "--run")
    assert (tmp_path / "file").read_text() == "mine"


def test_an_empty_folder_becomes_a_run(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert tiny.search(data, tmp_path / "run", steps=1).code == 0


@pytest.mark.parametrize("verb", ["evaluate", "predict", "show", "report", "resume"])
def test_a_folder_that_is_no_run_is_refused(verb: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    assert_refused(hrnas(verb, folder), str(folder))
    folder.mkdir()
    (folder / "photo.jpg").write_text("mine")
    assert_refused(hrnas(verb, folder), str(folder), "config.yaml")
    (folder / "config.yaml").write_text("steps: 3\n")
    (folder / "environment.json").write_text('{"verb": "search", "hrnas": "0"}')
    before = tiny.snapshot(folder)
    assert_refused(hrnas(verb, folder))
    assert tiny.snapshot(folder) == before


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_a_run_that_has_no_network_yet_says_so(verb: str, data: Path, tmp_path: Path) -> None:
    with tiny.at_step(4, tiny.ask_to_stop):
        assert tiny.search(data, tmp_path / "run").code == 130
    assert_refused(hrnas(verb, tmp_path / "run"), "holds no network", "reached its budget")
    assert hrnas("show", tmp_path / "run").code == 0
    assert hrnas("report", tmp_path / "run").code == 0


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
@pytest.mark.parametrize("damage", ["truncated", "foreign"])
def test_damaged_or_foreign_weights_are_refused(verb: str, damage: str, search_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(search_run, tmp_path / "run"))
    weights = run / "best" / "model.safetensors"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:2000])
        words = ("model.safetensors cannot be read", "Copy it anew")
    else:
        last = sorted((run / "checkpoints").iterdir())[-1]
        shutil.copy(last / "optimizer.safetensors", weights)
        words = ("tensor", "Use the weights that were saved with the architecture")
    before = tiny.snapshot(run)
    assert_refused(hrnas(verb, run), *words)
    assert tiny.snapshot(run) == before


def test_weights_of_another_architecture_are_refused(search_run: Path, data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert tiny.search(data, other, steps=1, budget="30%").code == 0
    outcome = tiny.train(search_run, data, tmp_path / "run", "--weights", str(other))
    assert_refused(outcome, str(other), "tensor", "Use the weights that were saved with the architecture")
    outcome = tiny.train(search_run, data, tmp_path / "run", "--weights", str(tmp_path))
    assert_refused(outcome, str(tmp_path), "holds no network")
    assert not (tmp_path / "run").exists()


def test_evaluate_refuses_data_of_other_classes_and_unknown_splits(search_run: Path, tmp_path: Path) -> None:
    data = tiny.pictures(tmp_path / "data", classes=3)
    before = tiny.snapshot(search_run)
    assert_refused(hrnas("evaluate", search_run, "--data", data), str(data), "'class 0' as name 1", "'road' there")
    assert_refused(hrnas("evaluate", search_run, "--split", "val"), "Unknown split 'val'", "Known: test, train")
    assert_refused(hrnas("evaluate", search_run, "--split", "tests"), "Did you mean 'test'?")
    assert_refused(hrnas("evaluate", search_run, "--batch-size", "0"), "batch_size is 0")
    assert_refused(hrnas("evaluate", search_run, "--device", "cuda"), "Device 'cuda' cannot be used")
    assert tiny.snapshot(search_run) == before


@pytest.mark.parametrize("damage", ["truncated", "text", "missing", "empty folder"])
def test_predict_refuses_a_broken_image_before_it_writes(damage: str, search_run: Path, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "images" / "bad.png"
    bad.parent.mkdir()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    image.save(good)
    given = bad
    if damage == "truncated":
        image.save(bad)
        bad.write_bytes(bad.read_bytes()[:1000])
    elif damage == "text":
        bad.write_text("not an image")
    elif damage == "empty folder":
        given = bad.parent
    before = tiny.snapshot(search_run)
    assert_refused(hrnas("predict", search_run, good, given, "--out", tmp_path / "out"), str(given))
    assert not (tmp_path / "out").exists()
    assert tiny.snapshot(search_run) == before
