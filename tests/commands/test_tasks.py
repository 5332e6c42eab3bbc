"""Every task through every verb, with nothing changed but `task:` in data.yaml; loops and verbs name none."""

import ast
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import hrnas
from commands import tiny
from commands.together import together
from hrnas.arch.architecture import Pillars
from hrnas.arch.file import read_architecture, to_json
from hrnas.arch.presets import search_space
from hrnas.commands.session import open_session
from hrnas.data import data_yaml
from hrnas.tasks import TASKS
from kitti_sets import write_set

INPUT = {"pose": "32x24", "classification": "32x32", "detection3d": "32x32"}
WORDS = {"detection3d": ("--targets.cell", "1")}
"""What a search of the task needs beside: pillars so wide that the grid reaches the objects."""
METRICS = {"pose": "oks_ap", "classification": "top1", "detection3d": "ap_3d"}
SAMPLES = {"pose": 4, "classification": 7, "detection3d": 1}
PARTS = {"pose": "nose", "classification": "car", "detection3d": "Cyclist"}


@pytest.fixture(scope="module", params=sorted(INPUT))
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def data(task: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(task)
    made = {"pose": lambda: tiny.toycity(folder, task), "classification": lambda: tiny.classes(folder)}
    return made[task]() if task in made else scenes(folder)


def scenes(folder: Path) -> Path:
    """Write a tiny set in KITTI's layout, whose validation frame is that of its test split too."""
    write_set(folder)
    splits = {"train": "train", "validation": "val", "test": "val"}
    plain = {name: {"kitti": "training", "list": f"ImageSets/{file}.txt"} for name, file in splits.items()}
    (folder / "data.yaml").write_text(yaml.safe_dump({"task": "detection3d", **plain}))
    return folder / "data.yaml"


def searched(task: str, data: Path, run: Path, *words: object) -> tiny.Outcome:
    return tiny.search(data, run, *WORDS.get(task, ()), *words, input_size=INPUT[task])


@pytest.fixture(scope="module")
def run(task: str, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search."""
    folder = tmp_path_factory.mktemp(task) / "run"
    outcome = searched(task, data, folder)
    assert outcome.code == 0, outcome.err
    return folder


def test_a_usual_input_is_known_without_reading_a_sample(tmp_path: Path) -> None:
    data = scenes(tmp_path)
    for file in (tmp_path / "training" / "velodyne").iterdir():
        file.write_bytes(np.full(4, np.nan, np.float32).tobytes())
    opened = open_session(str(data), input_size=None, device="cpu", workers=0, splits=("train",))
    assert opened.input_size == (496, 432)


def lines(run: Path, kind: str) -> list[dict[str, Any]]:
    read = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in read if line["kind"] == kind]


def test_a_search_meets_its_budget_and_says_what_it_scored(task: str, run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    assert (result["task"], result["metric"]) == (task, METRICS[task])
    assert 0.98 < result["share_of_budget"] <= 1
    evaluation = json.loads((run / "evaluation.json").read_text())["validation"]
    assert next(name for name in evaluation if name in (METRICS[task], "pck", "ap_bev")) == METRICS[task]
    assert evaluation["metric"] == METRICS[task]
    assert evaluation["samples"] == SAMPLES[task]
    assert lines(run, "evaluation")[-1]["metric"] == METRICS[task]
    assert PARTS[task] in {row["name"] for row in evaluation["parts"]["rows"]}
    assert "<svg" in (run / "report.html").read_text()
    assert METRICS[task] in tiny.hrnas("show", run).out


def test_what_was_left_to_the_task_stands_in_the_configuration(task: str, run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    for group in ("augment", "targets", "evaluation"):
        for name, value in config[group].items():
            assert (value is not None) == (name in TASKS[task].own), name


def test_a_stopped_search_goes_on_as_if_it_never_had(task: str, data: Path, run: Path, tmp_path: Path) -> None:
    with tiny.at_step(9, tiny.ask_to_stop):
        assert searched(task, data, tmp_path / "run").code == 130
    assert tiny.hrnas("resume", tmp_path / "run").code == 0
    for kind in ("train", "evaluation"):
        ours, theirs = ([{k: v for k, v in line.items() if "seconds" not in k} for line in lines(folder, kind)]
                        for folder in (tmp_path / "run", run))  # fmt: skip
        assert ours == theirs


def test_a_gated_search_meets_a_budget_of_parameters_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    """Stopped at a step at which channels behind gates fade, their shifts with them."""
    data = tiny.classes(tmp_path)
    words = ("--activation", "swish", "--squeeze-ratio", "0.5", "--optimizer.kind", "rmsprop")
    given = {"budget": "params=75%", "input_size": "32x32", "align": 2}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert tiny.search(data, whole, *words, **given).code == 0
    with tiny.at_step(11, tiny.ask_to_stop):
        assert tiny.search(data, stopped, *words, **given).code == 130
    assert tiny.hrnas("resume", stopped).code == 0
    for name in ("best/model.safetensors", "best/architecture.json"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()
    assert 0.98 < json.loads((whole / "result.json").read_text())["share_of_budget"] <= 1
    blocks = [block for _, block in read_architecture(whole / "best" / "architecture.json").blocks() if block.kernels]
    assert all(block.squeeze for block in blocks)
    assert all(channels % 2 == 0 for block in blocks for _, channels in block.kernels)


def test_two_processes_score_what_one_scores_to_the_last_digit(run: Path) -> None:
    """A score that needs every prediction as well: its rows are added up."""
    words = ("evaluate", run, "--split", "train", "--batch-size", 1, "--workers", 0, "--json")
    expected = tiny.hrnas(*words).result
    first, second = together(*words)
    assert second == tiny.Outcome(0, "", "")
    assert first.result == expected


def test_evaluate_scores_a_split_and_takes_another_way_of_evaluating(task: str, run: Path) -> None:
    plain = tiny.hrnas("evaluate", run, "--split", "test", "--json").result
    assert plain["metric"] == METRICS[task]
    if task == "detection3d":
        refused = tiny.hrnas("evaluate", run, "--evaluation.flip_test", "true")
        assert refused.code == 2
        assert "evaluation.flip_test is True, which means nothing to task detection3d" in refused.err
        return
    other = tiny.hrnas("evaluate", run, "--split", "test", "--evaluation.flip_test", "true", "--json").result
    assert other["conditions"]["flip test"] == "yes"


@pytest.mark.parametrize("task", ["detection3d"], indirect=True)
def test_predict_draws_scenes_and_clouds_and_writes_result_files(run: Path, data: Path) -> None:
    """Sixteen columns a line, as KITTI's development kit reads them."""
    found = tiny.hrnas("predict", run, "--json").result["files"]
    (own,) = tiny.hrnas("predict", run, data.parent / "training" / "velodyne" / "000000.bin", "--json").result["files"]
    for entry in (*found, own):
        with Image.open(entry["picture"]) as picture:
            assert picture.size[0] >= 621
        assert Path(entry["labels"]).name == f"{entry['name']}.txt"
        for line in Path(entry["labels"]).read_text().splitlines():
            kind, *numbers = line.split()
            assert kind in ("Car", "Pedestrian", "Cyclist")
            assert len([float(number) for number in numbers]) == 15
    assert [entry["name"] for entry in (*found, own)] == ["000002", "000000"]
    everything = tiny.hrnas("predict", run, data.parent / "training" / "velodyne", "--json").result["files"]
    assert [entry["name"] for entry in everything] == ["000000", "000001", "000002"]
    empty = data.parent / "training" / "velodyne" / "000009.bin"
    empty.write_bytes(b"")
    (empty.parents[1] / "calib" / "000009.txt").write_bytes((empty.parents[1] / "calib" / "000001.txt").read_bytes())
    (entry,) = tiny.hrnas("predict", run, empty, "--json").result["files"]
    assert Path(entry["labels"]).read_text() == ""
    empty.unlink()
    (data.parent / "training" / "calib" / "000001.txt").rename(data.parent / "kept")
    outcome = tiny.hrnas("predict", run, data.parent / "training" / "velodyne")
    (data.parent / "kept").rename(data.parent / "training" / "calib" / "000001.txt")
    assert outcome.code == 2
    assert "000001.bin has no calibration" in outcome.err
    assert outcome.err.count("\n") == 1


def test_predict_refuses_files_that_the_task_does_not_read(task: str, run: Path, tmp_path: Path) -> None:
    image, cloud = tmp_path / "a.png", tmp_path / "b.bin"
    Image.new("RGB", (40, 30)).save(image)
    cloud.write_bytes(bytes(16))
    good, bad = (cloud, image) if task == "detection3d" else (image, cloud)
    boxes = [] if task != "pose" else ["--boxes", tmp_path / "none.json"]
    before = tiny.snapshot(run)
    outcome = tiny.hrnas("predict", run, good, bad, *boxes)
    known = ".bin" if task == "detection3d" else ".bmp or .jpeg or .jpg or .png or .ppm or .tif or .tiff or .webp"
    assert outcome.code == 2
    assert f"{bad} is no file that this run's task reads. Give {known} files, or folders" in outcome.err
    assert outcome.err.count("\n") == 1
    assert tiny.snapshot(run) == before


@pytest.mark.parametrize("task", ["detection3d"], indirect=True)
def test_clouds_whose_images_are_missing_or_broken_are_predicted_and_that_is_told_once(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_set(tmp_path) / "training"
    broken = root / "image_2" / "000000.png"
    broken.write_bytes(broken.read_bytes()[:3000])
    for name in ("000001", "000002"):
        (root / "image_2" / f"{name}.png").unlink()
    monkeypatch.chdir(root / "velodyne")
    words = ("000000.bin", "000001.bin", "../velodyne/000002.bin", "--out", tmp_path / "out")
    outcome = tiny.hrnas("predict", run, *words)
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("Drawn without its image: Image") == outcome.out.count("000000.png is corrupt") == 1
    assert outcome.out.count("it is taken to be 621x188") == 1
    assert len(list((tmp_path / "out" / "inputs").iterdir())) == 6


def test_who_trains_is_told_which_classes_cannot_have_a_score(task: str, run: Path, tmp_path: Path) -> None:
    data = {"pose": lambda: tiny.toycity(tmp_path, task), "classification": lambda: tiny.classes(tmp_path)}.get(
        task, lambda: scenes(tmp_path)
    )()
    outcome = tiny.train(run, data, tmp_path / "run", *WORDS.get(task, ()), input_size=INPUT[task], steps=1)
    assert outcome.code == 0, outcome.err
    said = "No object of Pedestrian, Cyclist in the set to score on counts in any difficulty"
    assert (said in outcome.out) == (task == "detection3d")
    assert "ap_3d has no value" not in outcome.out


@pytest.mark.parametrize("task", ["classification", "pose"], indirect=True)
def test_predict_draws_samples_and_images_and_writes_json(task: str, run: Path, tmp_path: Path) -> None:
    found = tiny.hrnas("predict", run, "--limit", "2", "--json").result
    assert len(found["files"]) == 2
    for entry in found["files"]:
        with Image.open(entry["picture"]) as picture:
            assert picture.size[0] > 40
        json.loads(Path(entry["labels"]).read_text())
    image = tmp_path / "mine.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)).save(image)
    (entry,) = tiny.hrnas("predict", run, image, "--json").result["files"]
    written = json.loads(Path(entry["labels"]).read_text())
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"mine.png": [[5, 5, 20, 30], [10, 0, 30, 50]]}))
    outcome = tiny.hrnas("predict", run, image, "--boxes", boxes, "--json")
    if task == "pose":
        assert [person["box"] for person in written["people"]] == [[0, 0, 40, 50]]
        written = json.loads(Path(outcome.result["files"][0]["labels"]).read_text())
        assert [person["box"] for person in written["people"]] == [[5, 5, 20, 30], [10, 0, 30, 50]]
        assert np.array(written["people"][1]["joints"]).shape == (17, 3)
    else:
        assert sum(entry["probability"] for entry in written["classes"]) <= 1.00001
        assert outcome.code == 2
        assert "a classification looks at whole images" in outcome.err


def test_a_found_network_is_trained_again(task: str, run: Path, data: Path, tmp_path: Path) -> None:
    outcome = tiny.train(run, data, tmp_path / "again", *WORDS.get(task, ()), input_size=INPUT[task], steps=4)
    assert outcome.code == 0, outcome.err
    assert json.loads((tmp_path / "again" / "result.json").read_text())["metric"] == METRICS[task]


def test_plan_and_check_know_the_task(task: str, data: Path, tmp_path: Path) -> None:
    words = ("--space", "tiny", "--budget", "60%", "--batch-size", "2", "--workers", "0", "--input-size", INPUT[task])
    words += WORDS.get(task, ())
    assert tiny.hrnas("plan", data, *words, "--json").result["budget_macs"] > 0
    checked = tiny.hrnas("check", data, "--sheet", tmp_path / "sheet.png", "--json").result
    assert checked["problems"] == []
    assert sum(checked["splits"]["train"]["shares"].values()) > 0


def test_an_option_of_another_task_is_one_line(task: str, data: Path, tmp_path: Path) -> None:
    option = "--augment.area=[0.5,1]" if task == "pose" else "--targets.sigma=2"
    outcome = searched(task, data, tmp_path / "run", option)
    assert outcome.code == 2
    assert f"which means nothing to task {task}" in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_architecture_for_another_task_is_refused_before_anything_is_written(
    task: str, run: Path, tmp_path: Path
) -> None:
    other = tiny.toycity(tmp_path) if task == "classification" else tiny.classes(tmp_path)
    outcome = tiny.train(run, other, tmp_path / "again")
    assert outcome.code == 2
    assert f"has a head of kind {TASKS[task].head}; the task of the data needs" in outcome.err
    assert not (tmp_path / "again").exists()
    scored = tiny.hrnas("evaluate", run, "--data", other)
    assert scored.code == 2
    assert f"was trained for {task}. Give data for that." in scored.err


def test_the_pillars_of_a_given_architecture_stay_but_for_their_places(tmp_path: Path) -> None:
    data = scenes(tmp_path)
    space = search_space("hr-small", stem_stride=2)
    given = space.supernet(3, head="anchors", pillars=Pillars(points=7, channels=5, bottom=-9, rows=8))
    (tmp_path / "net.json").write_text(to_json(given))
    words = ("--targets.cell", "1", "--targets.z_range", "[-2,2]")
    outcome = tiny.train(tmp_path / "net.json", data, tmp_path / "run", *words, input_size="32x32", steps=1)
    assert outcome.code == 0, outcome.err
    trained = read_architecture(tmp_path / "run" / "best" / "architecture.json")
    assert trained.pillars == Pillars(points=7, channels=5, cell=1.0, rows=32, columns=32, bottom=-2.0, top=2.0)
    flat = replace(given, pillars=None, in_channels=3)
    (tmp_path / "net.json").write_text(to_json(flat))
    outcome = tiny.train(tmp_path / "net.json", data, tmp_path / "other", *words, input_size="32x32", steps=1)
    assert outcome.code == 2
    assert "takes images; the data are clouds" in outcome.err


def test_an_architecture_of_another_stride_and_data_with_other_usual_boxes_are_refused(tmp_path: Path) -> None:
    data, run = scenes(tmp_path), tmp_path / "run"
    flat = search_space("hr-small").supernet(3, head="anchors", pillars=Pillars())
    (tmp_path / "net.json").write_text(to_json(flat))
    refused = tiny.train(tmp_path / "net.json", data, run, *WORDS["detection3d"], input_size="32x32")
    assert refused.code == 2
    assert "has a stem of stride 4; the task of the data needs 2" in refused.err
    assert not run.exists()
    assert searched("detection3d", data, run).code == 0
    other = yaml.safe_load(data.read_text()) | {"anchors": {"Car": [3.9, 1.6, 1.56, 0.5]}}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    refused = tiny.hrnas("evaluate", run, "--data", tmp_path / "other.yaml")
    assert refused.code == 2
    assert "as the usual Car" in refused.err


def test_numbers_of_objects_for_other_classes_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    outcome = searched("detection3d", scenes(tmp_path), tmp_path / "run", "--augment.objects", "[3,3]")
    assert outcome.code == 2
    assert "augment.objects has 2 numbers; it must have one for each of the 3 classes" in outcome.err
    assert not (tmp_path / "run").exists()


def coco(folder: Path, **validation: str) -> Path:
    """Describe the four COCO images with people; skip where they are not."""
    root = Path(__file__).parents[3] / "shared" / "data" / "coco_mmpose_tests"
    if not root.is_dir():
        pytest.skip("needs the shared data sets beside the checkout")
    people = {"coco": "annotations/person_keypoints_test.json", "images": "images"}
    plain = {"task": "pose", "path": str(root), "train": people, "validation": people | validation}
    file = folder / "data.yaml"
    file.write_text(yaml.safe_dump(plain, sort_keys=False))
    return file


def test_people_of_coco_are_searched_and_scored_in_labelled_and_detected_boxes(tmp_path: Path) -> None:
    run = tmp_path / "run"
    outcome = tiny.search(coco(tmp_path), run, steps=8, input_size="32x24")
    assert outcome.code == 0, outcome.err
    for split in ("train", "validation"):
        scored = tiny.hrnas("evaluate", run, "--split", split, "--json").result
        assert (scored["samples"], scored["conditions"]["boxes"]) == (12, "ground truth")
        assert {"oks_ap", "oks_ap_50", "pck"} <= scored.keys()
    (tmp_path / "other").mkdir()
    detected = coco(tmp_path / "other", boxes="annotations/person_detections_AP_H_56.json")
    scored = tiny.hrnas("evaluate", run, "--data", detected, "--json").result
    assert scored["samples"] == 118
    assert "person_detections_AP_H_56.json" in scored["conditions"]["boxes"]
    assert "boxes: detector" in tiny.hrnas("evaluate", run, "--data", detected).out
    assert tiny.hrnas("check", detected, "--sheet", "none", "--json").result["problems"] == []
    found = tiny.hrnas("predict", run, "--limit", "2", "--json").result
    assert [entry["name"] for entry in found["files"]] == ["000000000785", "000000197388"]
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["data"]["names"][0] == "nose"


def test_other_joints_of_the_same_number_are_not_scored(tmp_path: Path) -> None:
    data = coco(tmp_path)
    run = tmp_path / "run"
    assert tiny.search(data, run, steps=8, input_size="32x24").code == 0
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["names"][:2] = config["data"]["names"][1::-1]
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    outcome = tiny.hrnas("evaluate", run, "--data", data)
    assert outcome.code == 2
    assert "has 'nose' as name 1" in outcome.err


def test_the_tasks_of_data_yaml_are_the_tasks_there_are() -> None:
    assert set(data_yaml.TASKS) == set(TASKS)


def test_loops_and_verbs_contain_no_tasks_name() -> None:
    """In no text of theirs but documentation; the words of help texts and errors are documentation."""
    folder = Path(hrnas.__file__).parent
    for file in sorted([*(folder / "commands").glob("*.py"), *(folder / "engine").glob("*.py")]):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant):
                assert node.value not in TASKS, f"{file.name}, line {node.lineno}"
