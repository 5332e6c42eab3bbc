"""Sets in KITTI's layout: what data.yaml says, which frames are found, what is read, what the doctor finds."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from hrnas.data.data_yaml import BUILT_IN, completed, parse_description, read_description
from hrnas.data.description import DataDescription, SplitKitti
from hrnas.data.doctor import examine
from hrnas.data.kitti import IMAGE_SIZE as USUAL_SIZE
from hrnas.data.kitti import KittiSet, frame_at, read_scene, sample_of
from hrnas.data.kitti_classes import CLASSES, TYPES
from hrnas.data.kitti_files import write_points
from hrnas.data.opening import open_split
from hrnas.data.sheet import contact_sheet
from hrnas.errors import InputError
from kitti_sets import IMAGE_SIZE, MINI, SCENES, camera, cloud, write_set

OWN = {"task": "detection3d", "train": {"kitti": "training", "list": "ImageSets/train.txt"}}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_set(tmp_path)


def describe(root: Path, **changes: Any) -> DataDescription:
    """Write data.yaml and read it; a change to None takes a field out."""
    plain = OWN | {"validation": {"kitti": "training", "list": "ImageSets/val.txt"}} | changes
    (root / "data.yaml").write_text(yaml.safe_dump({key: part for key, part in plain.items() if part is not None}))
    return read_description(root)


def known(root: Path) -> DataDescription:
    (root / "kitti.yaml").write_text(f"{{dataset: kitti, path: {root}}}")
    return read_description(root / "kitti.yaml")


def message_of(call: Any, *args: Any, **options: Any) -> str:
    with pytest.raises(InputError) as error:
        call(*args, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def train_of(root: Path) -> KittiSet:
    dataset = open_split(describe(root), "train")
    assert isinstance(dataset, KittiSet)
    return dataset


def test_the_benchmark_needs_only_a_path(root: Path) -> None:
    description = known(root)
    assert (description.task, description.dataset) == ("detection3d", "kitti")
    assert description.names == ("Car", "Pedestrian", "Cyclist")
    assert description.classes == CLASSES
    assert description.split_names == ("train", "validation")
    assert description.splits == describe(root).splits
    assert description.to_dict() == {"task": "detection3d", "dataset": "kitti", "path": str(root)}
    assert parse_description(description.to_dict(), where="config", folder=Path("/nowhere")) == description


def test_the_classes_are_the_benchmarks() -> None:
    assert [(known.name, known.size, known.overlap, known.neighbours) for known in CLASSES] == [
        ("Car", (3.9, 1.6, 1.56), 0.7, ("Van",)),
        ("Pedestrian", (0.8, 0.6, 1.73), 0.5, ("Person_sitting",)),
        ("Cyclist", (1.76, 0.6, 1.73), 0.5, ()),
    ]
    for known in CLASSES:  # all stand on the ground
        assert known.z - known.size[2] / 2 == pytest.approx(-1.73)
        assert {known.name, *known.neighbours} <= set(TYPES)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"names": ["Car"]},
        {"names": ["Cyclist", "Truck"], "anchors": {"Truck": [10, 2.6, 3.2, -0.1]}},
        {
            "names": ["Car", "Van"],
            "anchors": {"Van": [5, 1.9, 2.2, -0.6], "Car": [4.2, 1.7, 1.5, -1]},
            "test": {"kitti": "x"},
        },
    ],
)
def test_a_set_of_ones_own_is_what_a_run_keeps_of_it(root: Path, changes: dict[str, Any]) -> None:
    description = describe(root, **changes)
    assert description.names == tuple(changes.get("names", ("Car", "Pedestrian", "Cyclist")))
    assert len(set(description.colors)) == len(description.names) == len(description.classes)
    plain = yaml.safe_load(yaml.safe_dump(description.to_dict(), sort_keys=False))
    again = parse_description(plain, where="config", folder=Path("/nowhere"))
    assert again == description
    assert completed(again, where="config") == description


def test_anchors_are_the_users_and_the_rest_the_benchmarks(root: Path) -> None:
    description = describe(
        root, names=["Truck", "Car"], anchors={"Truck": [10, 2.6, 3.2, -0.1], "Car": [4, 2, 1.5, -1]}
    )
    truck, car = description.classes
    assert (truck.name, truck.size, truck.z, truck.overlap, truck.neighbours) == (
        "Truck",
        (10, 2.6, 3.2),
        -0.1,
        0.5,
        (),
    )
    assert (car.name, car.size, car.z, car.overlap, car.neighbours) == ("Car", (4, 2, 1.5), -1, 0.7, ("Van",))


@pytest.mark.parametrize("anchors", [{}, {"Car": [4, 2, 1.5, -1]}])
def test_a_neighbour_that_is_looked_for_is_no_neighbour(root: Path, anchors: dict[str, list[float]]) -> None:
    description = describe(root, names=["Pedestrian", "van", "Car"], anchors={"van": [5, 1.9, 2.2, -0.6], **anchors})
    assert [known.neighbours for known in description.classes] == [("Person_sitting",), (), ()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": None}, "'train' is missing"),
        ({"train": {"kitti": "training", "lst": "x"}}, "unknown key 'train.lst'. Did you mean 'list'?"),
        ({"train": {"list": "x"}}, "'train.kitti' is missing"),
        (
            {"train": "training"},
            "'train' is 'training' (a text); it must be a mapping, such as {kitti: DIR, list: FILE}",
        ),
        ({"names": "Car"}, "'names' is 'Car' (a text); it must be a list of the types"),
        ({"names": []}, "'names' is [] (a list)"),
        ({"names": ["Car", "Car"]}, "'names' holds 'Car' twice"),
        ({"names": ["Car", "DontCare"]}, "'names' holds 'DontCare'; it must be types of objects"),
        ({"names": ["Car", "dontcare"]}, "'names' holds 'dontcare'; it must be types of objects"),
        ({"names": ["Car", "Cyclist", "car"]}, "'names' holds 'Car' and 'car', alike but for case; it must be a diff"),
        ({"names": ["Big car"]}, "'names' holds 'Big car'"),
        (
            {"names": ["Car", "Truck"]},
            "'anchors' has no box for class 'Truck', which is none of Car, Pedestrian, Cyclist;"
            " it must be {Truck: [length, width, height",
        ),
        ({"anchors": {"Cart": [1, 1, 1, 0]}}, "'anchors' has the unknown class 'Cart'. Did you mean 'Car'?"),
        ({"anchors": [1, 2, 3, 0]}, "'anchors' is [1, 2, 3, 0] (a list); it must be a mapping"),
        (
            {"anchors": {"Car": [4, 2, 1.5]}},
            "'anchors[Car]' is [4, 2, 1.5] (a list); it must be [length, width, height, z",
        ),
        ({"anchors": {"Car": [4, 0, 1.5, -1]}}, "'anchors[Car]' is"),
        ({"anchors": {"Car": [4, 2, float("inf"), -1]}}, "'anchors[Car]' is"),
        ({"anchors": {"Car": [4, 2, True, -1]}}, "'anchors[Car]' is"),
        ({"colors": [[1, 2, 3]]}, "unknown key 'colors'"),
        ({"dataset": "kitti"}, "for dataset kitti"),
        ({"dataset": "kitti", "task": "pose"}, "'task' is 'pose'; it must be detection3d for dataset kitti"),
    ],
)
def test_fields_that_are_not_as_they_must_be_are_told(root: Path, changes: dict[str, Any], message: str) -> None:
    assert message in message_of(describe, root, **changes)


def test_a_folder_that_is_not_the_benchmarks_is_told(root: Path, tmp_path: Path) -> None:
    (root / "ImageSets" / "val.txt").unlink()
    assert "lacks ImageSets/val.txt, the list of the split's frames" in message_of(known, root)
    (root / "training" / "calib").rename(root / "calib")
    assert "is not the folder of KITTI: it lacks training/calib/" in message_of(known, root)


def test_toycity_is_described() -> None:
    description = read_description("toycity-detection3d")
    assert BUILT_IN["toycity-detection3d"] == description.task == "detection3d"
    assert (description.names, description.classes) == (tuple(known.name for known in CLASSES), CLASSES)
    assert parse_description(description.to_dict(), where="config", folder=Path()) == description


@pytest.mark.parametrize("image", [".png", ".jpg", ".PNG", ".JPG", None])
def test_frames_are_read(tmp_path: Path, image: str | None) -> None:
    train = train_of(write_set(tmp_path, image=image))
    assert (train.names, train.classes) == (tuple(known.name for known in CLASSES), CLASSES)
    assert train.pictures() == {"000001": [0], "000000": [1]}  # in the list's order
    sample = train.read(1)
    assert (sample.name, sample.truth.index) == ("000000", 1)
    assert sample.truth.image == (None if image is None else tmp_path / f"training/image_2/000000{image}")
    assert sample.truth.image_size == (USUAL_SIZE if image is None else IMAGE_SIZE)
    assert sample.truth.objects.types == ("Car", "Pedestrian")
    assert np.array_equal(sample.truth.calibration.p2, camera().p2)
    assert train.read(0).truth.objects.types == ("Cyclist", "Van")
    scene = train.scene(1)
    assert (scene.objects.types, scene.image_size, scene.index) == (("Car", "Pedestrian"), sample.truth.image_size, 1)
    again = pickle.loads(pickle.dumps(train)).read(1)  # as the processes that read get it
    assert np.array_equal(again.content, sample.content)


def test_a_frame_without_an_image_has_the_size_of_anothers(root: Path) -> None:
    image = root / "training" / "image_2" / "000001.png"
    image.unlink()
    train = train_of(root)
    cloud_of_another = train.read(0)
    assert (cloud_of_another.truth.image, cloud_of_another.truth.image_size) == (None, IMAGE_SIZE)
    given = frame_at(root / "training" / "velodyne" / "000001.bin")
    assert (given.image, read_scene(given, 0).image_size) == (None, IMAGE_SIZE)
    for other in image.parent.iterdir():
        other.unlink()
    assert train_of(root).scene(0).image_size == USUAL_SIZE


def test_types_are_read_without_regard_to_case(root: Path) -> None:
    training = root / "training"
    for name, types in (
        ("000000", {"Car": "CAR", "Pedestrian": "bus"}),
        ("000001", {"Cyclist": "cyclist", "Van": "van"}),
    ):
        file = training / "label_2" / f"{name}.txt"
        text = file.read_text()
        for usual, given in types.items():
            text = text.replace(usual, given)
        file.write_text(text + "dontcare -1 -1 -10 503 169 590 190 -1 -1 -1 -1000 -1000 -1000 -10\n")
    train = train_of(root)
    assert train.scene(0).objects.types == ("Cyclist", "Van", "DontCare")
    assert train.scene(1).objects.types == ("Car", "bus", "DontCare")
    description = describe(root, names=["car", "Bus"], anchors={"Bus": [10, 2.6, 3.2, -0.1]})
    ours, usual = description.classes[0], CLASSES[0]
    assert (ours.name, ours.size, ours.overlap, ours.neighbours) == ("car", usual.size, 0.7, ("Van",))
    train = open_split(description, "train")
    assert isinstance(train, KittiSet)
    assert train.scene(1).objects.types == ("car", "Bus", "DontCare")
    found = examine(description).splits[0]
    assert (found.counts, found.total) == ((1, 1), 4)


def test_the_mark_before_a_list_of_windows_is_no_part_of_it(root: Path) -> None:
    (root / "ImageSets" / "train.txt").write_text("000001\r\n000000\r\n", encoding="utf-8-sig")
    assert list(train_of(root).pictures()) == ["000001", "000000"]


def test_the_cloud_is_cut_to_what_the_camera_sees(root: Path) -> None:
    train = train_of(root)
    points = train.read(1).content
    whole = cloud(SCENES["000000"])
    assert points.dtype == np.float32
    # By hand: 0.27 m behind the lidar, 360 pixels of focal length, the middle of the image at column 310, row 86.
    depth = whole[:, 0] - 0.27 + 0.003
    column = 310 + (360 * (0.02 - whole[:, 1]) + 22.4 - 0.003 * 310) / depth
    row = 86 + (360 * (-0.08 - whole[:, 2]) + 0.1 - 0.003 * 86) / depth
    seen = (depth > 0) & (column >= 0) & (column < 621) & (row >= 0) & (row < 188)
    assert 80 < seen.sum() < len(whole) - 200
    assert np.array_equal(points, whole[seen])


def test_without_a_list_all_frames_are_read(root: Path) -> None:
    dataset = open_split(describe(root, train={"kitti": "training"}), "train")
    assert list(dataset.pictures()) == ["000000", "000001", "000002"]


def test_a_frame_to_predict_needs_no_label(root: Path) -> None:
    (root / "training" / "label_2" / "000000.txt").unlink()
    frame = frame_at(root / "training" / "velodyne" / "000000.bin")
    scene = read_scene(frame, 0)
    assert (len(scene.objects), scene.image_size) == (0, IMAGE_SIZE)
    labelled_frame = open_split(describe(root, train={"kitti": "training", "list": "ImageSets/val.txt"}), "train")
    alone = sample_of(frame_at(labelled_frame.frames[0].points), scene)
    assert np.array_equal(alone.content, labelled_frame.read(0).content)
    assert not alone.truth.is_empty
    (root / "training" / "calib" / "000000.txt").unlink()
    message = message_of(frame_at, root / "training" / "velodyne" / "000000.bin")
    assert "000000.bin has no calibration" in message
    assert "calib/000000.txt" in message


@pytest.mark.parametrize("given", ["000000.bin", "./000000.bin", "../velodyne/000000.bin"])
def test_a_frame_to_predict_may_be_named_from_its_own_folder(
    root: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.chdir(root / "training" / "velodyne")
    frame = frame_at(Path(given))
    assert read_scene(frame, 0).image == root / "training" / "image_2" / "000000.png"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "training/velodyne/000001.bin").unlink(), "000001 of split 'train' has no "),
        (
            lambda root: (root / "training/calib/000001.txt").unlink(),
            "training/calib/000001.txt. Add the file, or take",
        ),
        (
            lambda root: [file.unlink() for file in (root / "training/label_2").iterdir()],
            "Frame 000001 and 1 more frame of split 'train' have no",
        ),
        (
            lambda root: (root / "training/label_2").rename(root / "label_2"),
            "training of split 'train' lacks label_2/. It must hold velodyne/, calib/, label_2/ and, if there are",
        ),
        (
            lambda root: (root / "training/velodyne/000000.bin").write_bytes(b"x" * 33),
            "velodyne/000000.bin has 33 bytes, which is no multiple of 16",
        ),
        (lambda root: (root / "ImageSets/train.txt").unlink(), "list file"),
        (lambda root: (root / "ImageSets/train.txt").write_text(" \n"), "Split 'train' is empty"),
        (
            lambda root: (root / "ImageSets/train.txt").write_text("000001\n\n000001\n"),
            "line 3: frame 000001 is listed twice",
        ),
        (
            lambda root: (root / "ImageSets/train.txt").write_text("000001\n000007\n"),
            "Frame 000007 of split 'train' has no",
        ),
    ],
)
def test_what_is_wrong_with_a_split_is_told_when_it_is_opened(root: Path, spoil: Any, message: str) -> None:
    description = describe(root)
    spoil(root)
    assert message in message_of(open_split, description, "train")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("calib/000001.txt", "P2: 1 2 3\n", "calib/000001.txt, line 1: row P2 has 3 values"),
        ("label_2/000001.txt", "Car 0 0 0\n", "label_2/000001.txt, line 1 has 4 columns"),
        ("image_2/000001.png", "no picture", "image_2/000001.png is not a picture Pillow can read"),
        (
            "label_2/000001.txt",
            "Van 0 0 0 0 0 9 9 0 1 2 0 1 9 0\nCar 0 0 0 0 0 9 9 0 1 2 0 1 9 0\n",
            "label_2/000001.txt: object 2, a Car, is 0.0 x 1.0 x 2.0 m (height x width x length); each must be above 0",
        ),
    ],
)
def test_what_is_wrong_with_a_frame_is_told_when_it_is_read(root: Path, file: str, text: str, message: str) -> None:
    (root / "training" / file).write_text(text)
    train = train_of(root)
    assert message in message_of(train.read, 0)
    train.read(1)


def test_a_cloud_may_be_empty(root: Path) -> None:
    write_points(root / "training" / "velodyne" / "000001.bin", np.zeros((0, 4), np.float32))
    sample = train_of(root).read(0)
    assert (sample.content.shape, sample.truth.is_empty) == ((0, 4), True)


def test_the_doctor_has_nothing_to_say_of_a_sound_set(root: Path) -> None:
    found = examine(describe(root))
    assert (found.problems, found.repeated) == ((), ())
    assert found.warnings == ("validation: no object of Pedestrian, Cyclist, which therefore cannot be scored.",)
    train, validation = found.splits
    assert (train.num_read, train.sizes) == (2, {IMAGE_SIZE: 2})
    assert (found.counted, train.counts, train.total) == ("object of", (1, 1, 1), 4)
    assert train.shares == (0.25, 0.25, 0.25)
    assert (validation.counts, validation.total) == ((1, 0, 0), 1)


def test_the_doctor_tells_what_is_likely_unmeant(root: Path) -> None:
    training = root / "training"
    labels = training / "label_2" / "000000.txt"
    car = labels.read_text().splitlines()[0]
    far = "Car 0.00 0 0.00 300.00 90.00 310.00 99.00 1.50 1.60 3.90 2.00 1.50 60.00 0.00"
    ignored = "DontCare -1 -1 -10 503.89 169.71 590.61 190.13 -1 -1 -1 -1000 -1000 -1000 -10"
    labels.write_text(
        f"{car}\n{far}\n{far}\n{car.replace('Car', 'Pedestrain')}\n{car.replace('Car', 'Tram')}\n{ignored}\n"
    )
    (training / "image_2" / "000001.png").unlink()
    write_points(training / "velodyne" / "000002.bin", np.full((3, 4), -5, np.float32))
    found = examine(describe(root))
    assert found.problems == ()
    assert found.splits[0].total == 5 + 2
    train = [line.removeprefix("train: ") for line in found.warnings if line.startswith("train: ")]
    assert [line.split(",")[0] for line in train] == [
        "no object of Pedestrian",
        "1 frame without an image",
        "2 objects without a point in its box",
        "1 object of the unknown type 'Pedestrain'",
    ]
    assert "such as in '000001'. It is taken to be 621x188" in train[1]
    assert "such as in '000000'. Far and hidden ones" in train[2]
    assert "Did you mean 'Pedestrian'?" in train[3]
    validation = [line for line in found.warnings if line.startswith("validation: 1")]
    assert [line.split(",")[0] for line in validation] == [
        "validation: 1 object without a point in its box",
        "validation: 1 frame without a point in the camera's view",
    ]


@pytest.mark.parametrize("image", [".png", None])
def test_the_doctor_finds_broken_and_repeated_frames(tmp_path: Path, image: str | None) -> None:
    root = write_set(tmp_path, image=image)
    training = root / "training"
    for part, ending in (("velodyne", "bin"), ("calib", "txt"), ("label_2", "txt")):
        files = [training / part / f"{name}.{ending}" for name in ("000001", "000002")]
        files[1].write_bytes(files[0].read_bytes())
    (training / "calib" / "000000.txt").write_text("")
    found = examine(describe(root))
    assert found.repeated == (("train: 000001", "validation: 000002"),)
    assert len(found.problems) == 1
    assert "train: 1 broken file, the first: Calibration file" in found.problems[0]


def without_box(columns: list[str]) -> list[str]:
    """As sets of a lidar alone write it."""
    return [*columns[:4], "0", "0", "0", "0", *columns[8:]]


@pytest.mark.parametrize("spoil", [
    without_box,
    lambda columns: [*columns[:5], "100", "200", "125", *columns[8:]],
    lambda columns: [*columns[:2], "3", *columns[3:]],
    lambda columns: [columns[0], "0.51", *columns[2:]],
])  # fmt: skip
def test_the_doctor_tells_of_classes_that_cannot_have_a_score(root: Path, spoil: Any) -> None:
    labels = root / "training" / "label_2" / "000000.txt"
    car, walker = labels.read_text().splitlines()
    labels.write_text(f"{' '.join(spoil(car.split()))}\n{walker}\n")
    found = examine(describe(root))
    assert found.problems == ()
    assert found.splits[0].counts == (1, 1, 1)
    assert [line for line in found.warnings if "counts in any" in line] == [
        "train: no object of Car counts in any difficulty (height in the image, occlusion, truncation), so there is no"
        " score. See columns 2, 3 and 5 to 8 of the labels."
    ]
    labels.write_text(f"{' '.join(spoil(car.split()))}\n{walker}\n{car}\n")
    assert not [line for line in examine(describe(root)).warnings if "counts in any" in line]


def test_an_image_that_is_cut_off_stops_no_search(root: Path, tmp_path: Path) -> None:
    image = root / "training" / "image_2" / "000001.png"
    image.write_bytes(image.read_bytes()[:3000])
    description = describe(root)
    found = examine(description)
    assert (found.problems, found.splits[0].num_read) == ((), 2)
    assert (
        "train: 1 frame with an image that cannot be read to its end, such as in '000001'. Its size is all that is"
        " needed of it, but it cannot be shown. Replace it."
    ) in found.warnings
    assert contact_sheet(description, tmp_path / "sheet.png").is_file()


@pytest.mark.parametrize("image", [".png", None])
def test_the_contact_sheet_shows_each_class(tmp_path: Path, image: str | None) -> None:
    description = describe(write_set(tmp_path, image=image))
    file = contact_sheet(description, tmp_path / "sheet.png")
    with Image.open(file) as picture:
        pixels = np.array(picture)
    colors = {tuple(color) for color in np.unique(pixels.reshape(-1, 3), axis=0).tolist()}
    assert colors >= set(description.colors)  # the legend's
    assert (255, 0, 0) not in colors  # "cannot be read"
    bird = pixels[60:300, 10 + 336 : 10 + 2 * 336]  # beside the first camera image
    assert (np.ptp(bird.reshape(-1, 3), axis=0) > 60).all()


@pytest.mark.skipif(not MINI.is_dir(), reason="the KITTI frames (../shared/data/kitti_mini) are not on this machine")
def test_the_real_frames_are_a_sound_set(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text(f"{{dataset: kitti, path: {MINI}}}")
    description = read_description(tmp_path)
    found = examine(description)
    assert (found.problems, found.warnings, found.repeated) == ((), (), ())
    assert [split.num_read for split in found.splits] == [7, 7]
    assert np.sum([split.counts for split in found.splits], axis=0).tolist() == [38, 21, 11]
    assert sum(split.total for split in found.splits) == 73
    names = (MINI / "ImageSets" / "train.txt").read_text().split()
    assert list(open_split(description, "train").pictures()) == names
    assert isinstance(description.splits["train"], SplitKitti)
