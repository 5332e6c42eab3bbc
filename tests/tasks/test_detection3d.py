"""The task of 3D detection: its score against the evaluator, its views, what it learns, reads and writes."""

import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from detections import perfect_outputs
from hrnas.arch.presets import search_space
from hrnas.data.description import DataDescription, SplitKitti
from hrnas.data.kitti import KittiSet
from hrnas.data.kitti_classes import CLASSES, COLORS
from hrnas.data.kitti_frames import boxes_of, chosen, to_objects
from hrnas.data.loading import train_batches
from hrnas.data.opening import open_split
from hrnas.data.pictures import default_palette
from hrnas.data.progress import unseen
from hrnas.data.scene_pictures import bird_view
from hrnas.data.transforms import AugmentOptions
from hrnas.errors import InputError
from hrnas.metrics.kitti import kitti_ap
from hrnas.models.network import Network
from hrnas.structures import BoxClass, Boxes3D, Scene
from hrnas.tasks import make_task
from hrnas.tasks.anchors import AnchorGrid, assigned, no_boxes
from hrnas.tasks.detection3d import Detection3D
from hrnas.tasks.task import EvaluationOptions, TargetOptions, settled
from kitti_sets import IMAGE_SIZE, read_results, write_frame

INPUT = (160, 160)
"""Rows and columns of pillars of 0.16 m: 25.6 m x 25.6 m."""
NAMES = tuple(known.name for known in CLASSES)
GRID = AnchorGrid.of(CLASSES, INPUT, 0.16)
TRUCK = BoxClass(name="Truck", size=(10.1, 2.6, 3.2), z=-0.1, overlap=0.5)


def describe(path: Path | None = None, classes: tuple[BoxClass, ...] = CLASSES) -> DataDescription:
    splits = {} if path is None else {"train": SplitKitti(kitti="training"), "validation": SplitKitti(kitti="training")}
    return DataDescription(
        task="detection3d",
        path=path,
        splits=splits,
        names=tuple(known.name for known in classes),
        colors=COLORS if classes == CLASSES else default_palette(len(classes)),
        classes=classes,
    )


def task(classes: tuple[BoxClass, ...] = CLASSES, **targets: float) -> Detection3D:
    made = make_task(describe(classes=classes), TargetOptions(**targets))
    assert isinstance(made, Detection3D)
    return made


def augment(**given: Any) -> AugmentOptions:
    """Return options that change nothing but what is given."""
    return settled(replace(AugmentOptions.none(), **given), task().own, "detection3d", "augment")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of four frames with twelve objects, four of each class, and a Van; the last frame has no image."""
    path = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(5)
    for index in range(4):
        places = [(9.0, -3.0), (13.0, 2.5), (17.0, -4.0)]  # the odd ones' mirrored, so that all fit into one
        objects = []
        for label, (x, y) in zip(rng.permutation(3), places, strict=True):
            known = CLASSES[label]
            size = np.array(known.size) * rng.uniform(0.95, 1.1, 3)
            x, y = np.array([x, -y if index % 2 else y]) + rng.uniform(-0.8, 0.8, 2)
            objects.append((known.name, (x, y, known.z, *size, rng.uniform(-math.pi, math.pi))))
        if index == 0:
            objects.append(("Van", (20.0, 6.0, -0.8, 5.0, 2.0, 2.0, 0.3)))
        write_frame(path / "training", f"{index:06d}", objects, image=None if index == 3 else ".png")
    return path


@pytest.fixture
def frames(folder: Path) -> KittiSet:
    found = open_split(describe(folder), "train")
    assert isinstance(found, KittiSet)
    return found


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HRNAS_CACHE", str(tmp_path))


def true_boxes(scene: Scene) -> Boxes3D:
    return boxes_of(scene.objects, NAMES, scene.calibration)


def shown(frames: KittiSet, moved: Any = None) -> list[Tensor]:
    """Return the outputs that show each frame's boxes; moved: changes what they show, in place."""
    outputs = []
    for index in range(len(frames)):
        boxes = true_boxes(frames.scene(index))
        if moved is not None:
            moved(index, boxes.boxes)
        outputs.append(perfect_outputs(GRID, boxes))
    return outputs


def scored(frames: KittiSet, outputs: list[Tensor]) -> dict[str, Any]:
    score = task().make_score(frames, INPUT)
    for index, of_frame in enumerate(outputs):
        score.update(of_frame[None], [frames.scene(index)])
    return score.result()


def test_perfect_outputs_score_one(frames: KittiSet) -> None:
    result = scored(frames, shown(frames))
    assert next(iter(result)) == task().metric == "ap_3d"
    for name in ("ap_3d", "ap_bev", "ap_2d", "ap_3d_r11", "ap_bev_r11", "ap_2d_r11"):
        assert result[name] == 1.0, name
    assert result["aos"] == pytest.approx(1, abs=1e-4)
    assert [result[f"ap_3d_{name}_moderate"] for name in ("car", "pedestrian", "cyclist")] == [1, 1, 1]
    assert result["by_class"]["Cyclist"]["hard"]["ap_bev_r11"] == 1.0
    rows = result["parts"]["rows"]
    assert [(row["name"], row["value"], row["share"]) for row in rows] == [(name, 1.0, 1 / 3) for name in NAMES]
    assert [row["color"] for row in rows] == [list(color) for color in COLORS]
    conditions = result["conditions"]
    assert conditions["overlap"] == "Car above 0.7, Pedestrian above 0.5, Cyclist above 0.5"
    assert "R40" in conditions["AP"]
    assert "Car moderate 4" in conditions["few objects"]
    floats = [name for name, value in result.items() if isinstance(value, float)]
    assert len(floats) == 8 + 2 * 3 * 3


def test_in_a_cloud_without_points_nothing_is_found(frames: KittiSet) -> None:
    """Whatever the network says of it."""
    outputs = shown(frames)
    score = task().make_score(frames, INPUT)
    for index, of_frame in enumerate(outputs):
        score.update(of_frame[None], [replace(frames.scene(index), is_empty=True)])
    assert score.result()["ap_3d"] == 0
    sample = frames.read(0)
    assert len(task().decode(outputs[0], sample, INPUT)) > 0
    assert len(task().decode(outputs[0], replace(sample, truth=replace(sample.truth, is_empty=True)), INPUT)) == 0


def test_the_figures_are_the_evaluators_for_what_was_found(frames: KittiSet) -> None:
    """Boxes off by a metre to the side or up and a scene without any: the score keeps what decoding found."""

    def moved(index: int, boxes: np.ndarray) -> None:
        boxes[index % 3, 2 if index == 1 else 1] += 1.0
        boxes[:, 3] *= 1.1

    outputs = shown(frames, moved)
    outputs[3] = outputs[3].clone()
    outputs[3][: 6 * 3] = -9.0
    result = scored(frames, outputs)
    found = []
    for index, of_frame in enumerate(outputs):
        sample = frames.read(index)
        boxes = task().decode(of_frame, sample, INPUT)
        found.append(to_objects(boxes, NAMES, sample.truth.calibration, sample.truth.image_size))
    figures = kitti_ap([frames.scene(index).objects for index in range(len(frames))], found, CLASSES)
    values = [figures.value("3d", name, "moderate", 40) for name in NAMES]
    assert result["ap_3d"] == np.mean(values)
    assert 0 < result["ap_3d"] < 1
    assert [row["value"] for row in result["parts"]["rows"]] == values
    for measure, name in (("bev", "ap_bev"), ("2d", "ap_2d"), ("aos", "aos")):
        assert result[f"{name}_r11"] == np.mean([figures.value(measure, kind, "moderate", 11) for kind in NAMES])
        assert result["by_class"]["Car"]["easy"][f"{name}_r40"] == figures.value(measure, "Car", "easy", 40)
    assert result["ap_bev_pedestrian_hard"] == figures.value("bev", "Pedestrian", "hard", 40)
    assert result["ap_bev"] > result["ap_3d"]


def test_parts_of_a_set_add_up_and_what_is_not_scored_is_left_out(frames: KittiSet) -> None:
    outputs = shown(frames, lambda index, boxes: boxes.__setitem__((0, 0), boxes[0, 0] + index))
    whole = scored(frames, outputs)
    parts = [task().make_score(frames, INPUT) for _ in range(2)]
    for index, of_frame in enumerate(outputs):
        parts[index % 2].update(of_frame[None], [frames.scene(index)])
    assert whole["ap_3d"] < 1
    first = parts[0].result()
    assert "Car moderate 2" in first["conditions"]["few objects"]
    for mine, theirs in zip(parts[0].sums, parts[1].sums, strict=True):
        mine += theirs
    assert str(parts[0].result()) == str(whole)


def test_a_class_without_objects_is_left_out_of_the_mean(frames: KittiSet) -> None:
    class OneClass(KittiSet):
        def scene(self, index: int) -> Scene:
            scene = super().scene(index)
            return replace(scene, objects=chosen(scene.objects, np.array(scene.objects.types) == "Car"))

    cars = OneClass(frames=frames.frames, names=frames.names, colors=frames.colors, classes=frames.classes)
    result = scored(cars, shown(cars))
    assert result["ap_3d"] == 1.0
    assert math.isnan(result["ap_3d_cyclist_easy"])
    nothing = task().make_score(frames, INPUT).result()
    assert math.isnan(nothing["ap_3d"])


def test_the_training_view_is_the_cloud_with_the_anchors_of_its_boxes(frames: KittiSet) -> None:
    sample = frames.read(1)
    cloud, targets = task().training_view(sample, INPUT, augment(), np.random.default_rng(0))
    assert cloud.dtype == np.float32
    assert np.array_equal(np.unique(cloud, axis=0), np.unique(sample.content, axis=0))
    assert np.array_equal(targets, assigned(GRID, true_boxes(sample.truth)))
    assert np.array_equal(task().evaluation_view(sample, INPUT), sample.content)
    # The targets follow the boxes where the cloud is turned.
    turned = task().training_view(sample, INPUT, augment(rotation=45.0), np.random.default_rng(0))[1]
    assert not np.array_equal(turned[:, 0], targets[:, 0])
    # A finer grid has finer anchors.
    fine = task(cell=0.08).training_view(sample, (320, 320), augment(), np.random.default_rng(0))[1]
    assert np.array_equal(fine, assigned(AnchorGrid.of(CLASSES, (320, 320), 0.08), true_boxes(sample.truth)))


@pytest.mark.usefixtures("own_cache")
def test_views_fill_scenes_up_with_objects_of_others(frames: KittiSet) -> None:
    ours = task()
    assert ours.views(frames, augment(), unseen)._database is None
    options = augment(objects=(3, 3, 3))
    views = ours.views(frames, options, unseen)
    again = pickle.loads(pickle.dumps(views))
    sample = frames.read(1)
    cloud, targets = views.training_view(sample, INPUT, options, np.random.default_rng(2))
    assert len(cloud) > len(sample.content)
    assert (targets[:, 1] >= 0).sum() > (assigned(GRID, true_boxes(sample.truth))[:, 1] >= 0).sum()
    assert np.array_equal(again.training_view(sample, INPUT, options, np.random.default_rng(2))[1], targets)
    plain = ours.training_view(sample, INPUT, options, np.random.default_rng(2))[1]
    assert np.array_equal(plain, assigned(GRID, true_boxes(sample.truth))), "the task itself has no database"
    with pytest.raises(InputError, match=r"augment\.objects has 2 numbers; it must have one for each of the 3 classes"):
        ours.check_augment(augment(objects=(3, 3)))


def test_sets_of_other_classes_have_as_many_numbers_of_objects() -> None:
    ours = task((CLASSES[0], TRUCK))
    assert (ours.num_outputs, len(ours.own["objects"])) == (2, 2)
    assert settled(AugmentOptions(), ours.own, "detection3d", "augment").objects == ours.own["objects"]
    assert task().own["objects"] == (15, 10, 10)


@pytest.mark.usefixtures("own_cache")
def test_a_batch_of_the_loader_has_a_loss(frames: KittiSet) -> None:
    ours, options = task(), augment(objects=(2, 2, 2), flip=0.5, rotation=45.0)
    (batch,) = train_batches(
        frames, ours.views(frames, options, unseen), batch_size=4, input_size=INPUT, seed=0, first_step=0, num_steps=1,
        options=options, workers=0,
    )  # fmt: skip
    assert batch.inputs.dtype == batch.targets.dtype == torch.float32
    assert batch.inputs.shape[::2] == (4, 4)
    assert batch.targets.shape[::2] == (4, 10)
    assert torch.equal(ours.prepared(batch.inputs), batch.inputs)
    outputs = torch.zeros(4, 72, GRID.rows, GRID.columns, requires_grad=True)
    terms = ours.loss_terms(outputs, batch.targets)
    assert list(terms) == ["classes", "boxes", "directions"]
    weight = ours.weight(batch.targets)
    assert weight >= 4 * 3
    assert (terms["directions"] / weight).item() == pytest.approx(0.2 * math.log(2), rel=1e-5)
    sum(terms.values(), torch.tensor(0.0)).backward()
    assert outputs.grad is not None
    reached = outputs.grad.abs().amax((0, 2, 3)) > 0
    assert bool(reached[:18].all())
    assert bool(reached[18:60].any())
    assert bool(reached[60:].any())


def test_every_parameter_of_a_network_learns_from_it(frames: KittiSet) -> None:
    ours, options = task(), augment(flip=0.5)
    (batch,) = train_batches(
        frames, ours, batch_size=2, input_size=INPUT, seed=0, first_step=0, num_steps=1, options=options, workers=0
    )
    space = search_space("hr-small", stem_stride=ours.stem_stride)
    network = Network(space.supernet(ours.num_outputs, head=ours.head, pillars=ours.pillars(INPUT)))
    outputs = network(ours.prepared(batch.inputs))
    assert outputs.shape == (2, 72, GRID.rows, GRID.columns)
    sum(ours.loss_terms(outputs, batch.targets).values(), torch.tensor(0.0)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name


def test_outputs_that_lose_least_are_read_off_as_the_truth(frames: KittiSet) -> None:
    """What the loss asks for is what decoding and the score understand: descent on the outputs alone."""
    ours, sample = task(), frames.read(0)
    truth = true_boxes(sample.truth)
    targets = torch.from_numpy(assigned(GRID, truth))[None]
    start = torch.zeros(1, 72, GRID.rows, GRID.columns)
    start[:, :18] = -4.6
    outputs = start.requires_grad_()
    optimizer = torch.optim.Adam([outputs], fused=True)
    losses = []
    for step in range(40):
        optimizer.param_groups[0]["lr"] = 0.5 * (1 - step / 40)
        optimizer.zero_grad()
        loss = sum(ours.loss_terms(outputs, targets).values(), torch.tensor(0.0)) / ours.weight(targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.02 * losses[0]
    found = ours.decode(outputs[0].detach(), sample, INPUT)
    assert len(found) == len(truth)
    for box, label in zip(truth.boxes, truth.labels, strict=True):
        place = np.abs(found.boxes[:, :2] - box[:2]).sum(1).argmin()
        assert found.labels[place] == label
        assert found.boxes[place, :6] == pytest.approx(box[:6], abs=0.1)
        assert math.cos(found.boxes[place, 6] - box[6]) > 0.99


def test_networks_for_it_have_the_papers_pillars() -> None:
    ours = task()
    assert (ours.head, ours.stem_stride, ours.usual_input) == ("anchors", 2, (496, 432))
    pillars = ours.pillars((496, 432))
    assert (pillars.cell, pillars.rows, pillars.columns, pillars.bottom, pillars.top) == (0.16, 496, 432, -3, 1)
    assert (pillars.points, pillars.train_pillars, pillars.pillars) == (32, 16_000, 40_000)
    assert task(cell=0.24).pillars((100, 80)) == replace(pillars, cell=0.24, rows=100, columns=80)


def test_what_is_asked_in_vain_is_refused() -> None:
    ours = task()
    ours.check_input((496, 432))
    with pytest.raises(InputError, match=r"input size is 495x432; .* divisible by 2, .* Give 496x432 with --in"):
        ours.check_input((495, 432))
    with pytest.raises(InputError, match=r"4000x3000, which has 18,000,000 anchors; at most 16,777,216 are possible"):
        ours.check_input((4000, 3000))
    with pytest.raises(InputError, match=r"evaluation\.flip_test is True, which means nothing to task detection3d"):
        make_task(describe(), evaluation=EvaluationOptions(flip_test=True))
    with pytest.raises(InputError, match=r"augment\.half_body is 0\.3, which means nothing to task detection3d"):
        settled(AugmentOptions(half_body=0.3), ours.own, "detection3d", "augment")
    with pytest.raises(InputError, match=r"targets\.sigma is 2\.0, which means nothing .* it has cell"):
        task(sigma=2.0)


def test_a_file_of_points_is_read_with_what_lies_beside_it(folder: Path, frames: KittiSet, tmp_path: Path) -> None:
    ours = task()
    (sample,) = ours.unlabelled(frames.frames[1].points, None)
    assert np.array_equal(sample.content, frames.read(1).content)
    assert (sample.name, len(sample.truth.objects), sample.truth.image) == ("000001", 0, frames.frames[1].image)
    (bare,) = ours.unlabelled(frames.frames[3].points, None)
    assert bare.truth.image is None
    assert ours.endings == {".bin"}
    with pytest.raises(InputError, match=r"boxes are given; a detection finds them\. Leave them out\."):
        ours.unlabelled(frames.frames[1].points, [(0, 0, 1, 1)])
    alone = tmp_path / "velodyne" / "7.bin"
    alone.parent.mkdir()
    alone.write_bytes(frames.frames[1].points.read_bytes())
    with pytest.raises(InputError, match=r"7\.bin has no calibration .*calib/7\.txt\. Keep points in"):
        ours.unlabelled(alone, None)


def test_objects_beyond_the_grid_are_told(frames: KittiSet) -> None:
    middles = np.concatenate([true_boxes(frames.scene(index)).boxes for index in range(len(frames))])[:, :2]
    inside = sum(0 <= x <= 15.36 and -7.68 <= y <= 7.68 for x, y in middles.tolist())
    assert 0 < inside < len(middles)
    told = task().remarks(frames, (96, 96))[0]
    assert told.startswith(
        f"{len(middles) - inside} of the {len(middles)} labelled objects of the set to score on have"
    )
    assert "reaches 15.36 m ahead and 7.68 m to either side" in told


def test_what_is_taken_for_granted_and_cannot_be_scored_is_told(frames: KittiSet, folder: Path, tmp_path: Path) -> None:
    assumed = "Where image_2/ has no image of a frame, it is taken to be 621x188; what lies outside is left out."
    assert task().remarks(frames, (496, 432)) == [assumed]

    class LidarOnly(KittiSet):
        def scene(self, index: int) -> Scene:
            scene = super().scene(index)
            cars = np.array([[kind == "Car"] * 4 for kind in scene.objects.types])
            kept = np.where(cars, scene.objects.boxes_2d, 0)
            return replace(scene, image=folder, objects=replace(scene.objects, boxes_2d=kept))

    parts = {"frames": frames.frames, "names": frames.names, "colors": frames.colors, "classes": frames.classes}
    (remark,) = task().remarks(LidarOnly(**parts), (496, 432))
    assert remark.startswith("No object of Pedestrian, Cyclist in the set to score on counts in any difficulty")
    assert remark.endswith(": ap_3d leaves them out.")
    trucks = task((TRUCK,)).remarks(frames, (496, 432))[0]
    assert trucks.endswith(": ap_3d has no value.")

    samples = [frames.read(index) for index in range(4)]
    assert task().remarks_on(samples[:1]) == []
    assert task().remarks_on(samples) == [assumed]
    broken = tmp_path / "000000.png"
    broken.write_bytes((folder / "training" / "image_2" / "000000.png").read_bytes()[:3000])
    sample = replace(samples[0], truth=replace(samples[0].truth, image=broken))
    (remark,) = task().remarks_on([sample])
    assert remark.startswith(f"Drawn without its image: Image {broken} is corrupt or truncated")
    nothing = no_boxes()
    pictures = [task().draw([nothing], [replace(sample, truth=replace(sample.truth, image=image))], INPUT)
                for image in (broken, None)]  # fmt: skip
    assert np.array_equal(*map(np.array, pictures))


def test_predictions_are_written_as_kittis_results_and_drawn(frames: KittiSet, tmp_path: Path) -> None:
    ours, sample = task(), frames.read(0)
    found = ours.decode(shown(frames)[0], sample, INPUT)
    behind = found.boxes[:1] * [-1, 1, 1, 1, 1, 1, 1]
    with_one_behind = Boxes3D(
        boxes=np.concatenate([found.boxes, behind]),
        labels=np.append(found.labels, 0),
        scores=np.append(found.scores, 0.9),
    )
    file = ours.save(tmp_path, "a", [with_one_behind], [sample])
    assert file.name == "a.txt"
    lines = file.read_text().splitlines()
    assert [len(line.split()) for line in lines] == [16] * 3
    assert all(len(number.split(".")[-1]) <= 4 for line in lines for number in line.split()[4:15])
    read = read_results(file)
    assert read.types == tuple(NAMES[label] for label in found.labels)
    back = boxes_of(read, NAMES, sample.truth.calibration)
    assert back.boxes == pytest.approx(found.boxes, abs=1e-3)
    assert read.scores == pytest.approx(found.scores, abs=1e-4)
    empty = Boxes3D(boxes=found.boxes[:0], labels=found.labels[:0], scores=found.scores[:0])
    assert ours.save(tmp_path, "b", [empty], [sample]).read_text() == ""

    drawn = ours.draw([found], [sample], INPUT)
    assert drawn.mode == "RGB"
    assert drawn.height > IMAGE_SIZE[0] + 500, "the camera's picture over the bird's-eye view"
    nothing = ours.draw([empty], [sample], INPUT)
    unlikely = ours.draw([replace(found, scores=np.full(len(found), 0.29))], [sample], INPUT)
    bare = ours.draw([empty], ours.unlabelled(frames.frames[0].points, None), INPUT)
    pixels = [np.array(picture) for picture in (drawn, nothing, unlikely, bare)]
    assert np.array_equal(pixels[1], pixels[2]), "boxes of a low score are not drawn"
    assert not np.array_equal(pixels[0], pixels[1])
    assert not np.array_equal(pixels[1], pixels[3]), "the truth is drawn where it is known"


def test_the_cloud_is_drawn_as_far_as_the_grid_reaches(frames: KittiSet) -> None:
    sample = frames.read(0)
    nothing = no_boxes()
    for ours, reach in ((task(), (12.8, 25.6)), (task(cell=0.2), (16.0, 32.0))):
        drawn = ours.draw([nothing], [sample], (320, 80))
        above = bird_view(sample.content, true_boxes(sample.truth), nothing, COLORS, names=NAMES, reach=reach)
        assert np.array_equal(np.array(drawn)[IMAGE_SIZE[0] :], above), "the wider one of the two pictures"
