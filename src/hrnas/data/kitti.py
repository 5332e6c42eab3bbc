"""Sets in the layout of KITTI's object benchmark: finding the frames of a split, and reading them.

    ROOT/velodyne/NAME.bin  ROOT/calib/NAME.txt  ROOT/label_2/NAME.txt  ROOT/image_2/NAME.png (or .jpg; may be absent)

`dataset: kitti` in a data.yaml stands for PATH/training with PATH/ImageSets/train.txt and val.txt, a frame's name a
line. There is no test split: the labels of PATH/testing are not handed out.
Source: cvlibs.net/datasets/kitti, "Object Detection Evaluation"; the lists of Chen et al., "3D Object Proposals for
Accurate Object Class Detection" (NeurIPS 2015), 3,712 and 3,769 frames.

P points.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hrnas.data.decoding import picture_size
from hrnas.data.description import Split, SplitKitti
from hrnas.data.kitti_classes import spelled
from hrnas.data.kitti_files import POINT_BYTES, cut_off, no_objects, read_calibration, read_objects, read_points
from hrnas.data.kitti_frames import in_view
from hrnas.data.layout import check_folders
from hrnas.data.pictures import RGB
from hrnas.errors import InputError
from hrnas.structures import BoxClass, Sample, Scene

SPLIT_SOURCES: Final[dict[Split, SplitKitti]] = {
    "train": SplitKitti(kitti="training", list="ImageSets/train.txt"),
    "validation": SplitKitti(kitti="training", list="ImageSets/val.txt"),
}
IMAGE_SIZE: Final = (375, 1242)
"""Height and width of the camera's image, of most of KITTI and all of Toy City; where no frame of a set has one."""

_PARTS: Final = {"velodyne": ".bin", "calib": ".txt", "label_2": ".txt"}
_IMAGE_ENDINGS: Final = (".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG")


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The files of one frame. labels, image: None where there are none.

    size_of: of a frame without an image, the image of another whose size its own is taken to have, if there is one.
    """

    name: str
    points: Path
    calibration: Path
    labels: Path | None
    image: Path | None
    size_of: Path | None = None


@dataclass(frozen=True, kw_only=True)
class KittiSet:
    """A split of frames, opened. classes: what is looked for, named as `names`; a frame's other objects stay in it."""

    frames: Sequence[Frame]
    names: tuple[str, ...]
    colors: tuple[RGB, ...]
    classes: tuple[BoxClass, ...]

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, index: int) -> Sample[Scene]:
        """Return the points of frame `index` that the camera sees, float32 (P, 4), with its scene; P may be 0.

        KITTI labels what its camera sees; what is beside is unknown. Raises InputError as `scene` and `read_points`.
        """
        return sample_of(self.frames[index], self.scene(index))

    def scene(self, index: int) -> Scene:
        """Return what is known of frame `index`, without its points.

        Raises InputError naming the file that is not as it must be, also for an object of a class without a size.
        """
        scene = read_scene(self.frames[index], index, self.names)
        for place, (name, size) in enumerate(zip(scene.objects.types, scene.objects.sizes.tolist(), strict=True), 1):
            if name in self.names and min(size) <= 0:
                raise InputError(
                    f"Label file {self.frames[index].labels}: object {place}, a {name}, is {' x '.join(map(str, size))}"
                    " m (height x width x length); each must be above 0. Mend it, or make it a DontCare."
                )
        return scene

    def pictures(self) -> dict[str, list[int]]:
        """Return the samples of each picture by its name: one."""
        return {frame.name: [index] for index, frame in enumerate(self.frames)}


def read_scene(frame: Frame, index: int, names: Sequence[str] = ()) -> Scene:
    """Return what is known of a frame; no objects without labels. index: of the sample in its set.

    names: of the classes; an object's type is spelled as these or KITTI's where it differs by case alone.
    Raises InputError naming the file that is not as it must be.
    """
    objects = no_objects() if frame.labels is None else read_objects(frame.labels)
    image = frame.image or frame.size_of
    return Scene(
        objects=replace(objects, types=spelled(objects.types, names)),
        calibration=read_calibration(frame.calibration),
        image_size=IMAGE_SIZE if image is None else picture_size(image, "Image"),
        image=frame.image,
        index=index,
    )


def sample_of(frame: Frame, scene: Scene) -> Sample[Scene]:
    """Return the points of a frame that its camera sees, with its scene. Raises InputError as `read_points`."""
    cloud = _cloud(frame, scene)
    return Sample(content=cloud, truth=replace(scene, is_empty=not len(cloud)), name=frame.name)


def _cloud(frame: Frame, scene: Scene) -> NDArray[np.float32]:
    """Return the points of a frame that its camera sees, float32 (P, 4). Raises InputError as `read_points`."""
    points = read_points(frame.points)
    return points[in_view(points, scene.calibration, scene.image_size)]


def frame_at(points: Path) -> Frame:
    """Return the frame of a points file, its other files in the folders beside; without labels.

    Raises InputError where there is no calibration.
    """
    root, name = Path(os.path.abspath(points)).parent.parent, points.stem
    calibration = root / "calib" / f"{name}.txt"
    if not calibration.is_file():
        raise InputError(
            f"Points file {points} has no calibration {calibration}. Keep points in a folder velodyne/ and, beside it,"
            " calib/ with a text file of the same name."
        )
    image = _image(root, name)
    size_of = None if image else _any_image(root)
    return Frame(name=name, points=points, calibration=calibration, labels=None, image=image, size_of=size_of)


def find_frames(path: Path, source: SplitKitti, split: Split) -> list[Frame]:
    """Return a split's frames in the order of its list, or of all names without one, from names and sizes alone.

    Raises InputError for a missing folder or list, a frame listed twice, frames without points, calibration or labels,
    points files that are cut off, and a split without frames.
    """
    root = path / source.kitti
    if missing := [f"{part}/" for part in _PARTS if not (root / part).is_dir()]:
        raise InputError(
            f"Folder {root} of split '{split}' lacks {', '.join(missing)}. It must hold"
            f" {', '.join(f'{part}/' for part in _PARTS)} and, if there are images, image_2/. Mend {split}.kitti."
        )
    present = {part: {file.stem for file in (root / part).glob(f"*{ending}")} for part, ending in _PARTS.items()}
    names = sorted(present["velodyne"]) if source.list is None else _listed(path / source.list, split)
    if not names:
        where = root / "velodyne" if source.list is None else path / source.list
        raise InputError(f"Split '{split}' is empty: {where} names no frame. Add frames, or take the split out.")
    lacking = {part: [name for name in names if name not in present[part]] for part in _PARTS}
    for part, absent in lacking.items():
        if absent:
            more = f" and {len(absent) - 1} more frame{'s' * (len(absent) > 2)}" if len(absent) > 1 else ""
            raise InputError(
                f"Frame {absent[0]}{more} of split '{split}' ha{'s' if len(absent) == 1 else 've'} no"
                f" {root / part / absent[0]}{_PARTS[part]}. Add the file, or take the frame out of the split."
            )
    images = [_image(root, name) for name in names]
    spare = _any_image(root) if None in images else None
    frames = [
        Frame(
            name=name,
            points=root / "velodyne" / f"{name}.bin",
            calibration=root / "calib" / f"{name}.txt",
            labels=root / "label_2" / f"{name}.txt",
            image=image,
            size_of=None if image else spare,
        )
        for name, image in zip(names, images, strict=True)
    ]
    for frame in frames:
        if (size := frame.points.stat().st_size) % POINT_BYTES:
            raise cut_off(frame.points, size)
    return frames


def check_layout(path: Path) -> None:
    """Raise InputError naming what `path` lacks to be the folder of KITTI's object benchmark."""
    check_folders(
        path,
        [f"training/{part}" for part in _PARTS],
        known="KITTI",
        below="object",
        remedy="the folder into which the archives of velodyne, calib and label_2 were unpacked",
    )
    for source in SPLIT_SOURCES.values():
        assert source.list is not None
        if not (path / source.list).is_file():
            raise InputError(
                f"{path} lacks {source.list}, the list of the split's frames, which is no part of KITTI's archives. Put"
                " train.txt (3,712 frames) and val.txt (3,769) of Chen et al. there, or lists of your own, a frame's"
                " name such as 000007 a line."
            )


def _listed(file: Path, split: Split) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The list file {file} of split '{split}' cannot be read. Mend {split}.list.") from error
    names: list[str] = []
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if not name:
            continue
        if name in seen:
            raise InputError(f"{file}, line {number}: frame {name} is listed twice. Keep one of them.")
        seen.add(name)
        names.append(name)
    return names


def _image(root: Path, name: str) -> Path | None:
    files = (root / "image_2" / f"{name}{ending}" for ending in _IMAGE_ENDINGS)
    return next((file for file in files if file.is_file()), None)


def _any_image(root: Path) -> Path | None:
    """Return the first of all images, by name."""
    folder = root / "image_2"
    files = (file for file in folder.iterdir() if file.suffix in _IMAGE_ENDINGS) if folder.is_dir() else ()
    return min(files, default=None)
