"""3D detection in point clouds: boxes of objects by PointPillars' anchors; KITTI's average precision over the set.

B batch, K classes, A = 2 K anchors a place, P points, H, W rows and columns of the grid of pillars, H0, W0 of the map.
Source: PointPillars (Lang et al., CVPR 2019); method.md, row KITTI.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hrnas.arch.architecture import Pillars
from hrnas.data.decoding import read_image
from hrnas.data.description import DataDescription
from hrnas.data.kitti import KittiSet, frame_at, read_scene, sample_of
from hrnas.data.kitti_files import write_objects
from hrnas.data.kitti_frames import boxes_of, num_scored, to_objects
from hrnas.data.object_database import ObjectDatabase, open_database
from hrnas.data.opening import DataSet
from hrnas.data.progress import ShowProgress
from hrnas.data.scene_pictures import GROUND, Picture, bird_view, camera_view
from hrnas.data.scene_views import SCENES, evaluation_cloud, training_cloud, usual_objects
from hrnas.data.transforms import AugmentOptions
from hrnas.errors import InputError
from hrnas.structures import Boxes3D, Sample, Scene
from hrnas.tasks.anchors import MOST_ANCHORS, STRIDE, AnchorGrid, assigned, found_boxes, no_boxes
from hrnas.tasks.detection_loss import detection_losses, num_found
from hrnas.tasks.detection_score import DetectionScore
from hrnas.tasks.task import EvaluationOptions, TargetOptions

DRAWN_SCORE: Final = 0.3
"""Boxes of a lower score are predicted and written, but not drawn."""
_DECIMALS: Final = 4
"""Of the numbers of a result file."""


class Detection3D:
    """The boxes of a cloud's objects. Names, colours and usual boxes of the classes are the description's."""

    metric = "ap_3d"
    head: Literal["anchors"] = "anchors"
    stem_stride = STRIDE
    endings = frozenset({".bin"})
    usual_input = (496, 432)
    own: Mapping[str, Any] = {**SCENES, "cell": 0.16, "z_range": (-3.0, 1.0)}

    def __init__(self, description: DataDescription, targets: TargetOptions, evaluation: EvaluationOptions) -> None:
        assert description.classes, "a description of boxes in space has classes"
        assert targets.cell is not None
        assert targets.z_range is not None
        self.classes, self.names, self.colors = description.classes, description.names, description.colors
        self.targets, self.evaluation = targets, evaluation
        self.own = {**Detection3D.own, "objects": usual_objects(self.classes)}
        self._cell, self._z_range = targets.cell, targets.z_range
        self._database: ObjectDatabase | None = None

    @property
    def num_outputs(self) -> int:
        return len(self.classes)

    def pillars(self, input_size: tuple[int, int]) -> Pillars:
        """Return pillars on a grid of the input's rows and columns, as far as they reach at this cell."""
        bottom, top = self._z_range
        return Pillars(cell=self._cell, rows=input_size[0], columns=input_size[1], bottom=bottom, top=top)

    def check_augment(self, options: AugmentOptions) -> None:
        """Raise InputError for another number of objects than one a class, or none."""
        objects = options.objects or ()
        if objects and len(objects) != len(self.classes):
            raise InputError(
                f"augment.objects has {len(objects)} number{'s' * (len(objects) != 1)}; it must have one for each of"
                f" the {len(self.classes)} classes ({', '.join(self.names)}). Give so many, or [] for none."
            )

    def views(self, dataset: DataSet, options: AugmentOptions, progress: ShowProgress) -> "Detection3D":
        """Return the task with the set's objects at hand, where scenes are filled up with those of other scenes.

        Cut out of the whole set the first time, kept in the cache.
        """
        assert options.objects is not None
        views = copy(self)
        views._database = open_database(cast(KittiSet, dataset), options.objects, progress=progress)
        return views

    def remarks(self, dataset: DataSet, input_size: tuple[int, int]) -> Sequence[str]:
        """Return what cannot have a score or be found, and what size images are taken to have that are not there."""
        scenes = [cast(KittiSet, dataset).scene(index) for index in range(len(dataset))]
        counts = np.sum([num_scored(scene.objects, self.names) for scene in scenes], axis=0)
        unscored = [name for name, count in zip(self.names, counts, strict=True) if not count]
        remark = (
            f"No object of {', '.join(unscored)} in the set to score on counts in any difficulty (height in the image,"
            f" occlusion, truncation): {self.metric} {'leaves them out' if any(counts) else 'has no value'}."
        )
        return [*([remark] if unscored else []), *self._out_of_reach(scenes, input_size), *_assumed(scenes)]

    def remarks_on(self, samples: Sequence[Sample[Scene]]) -> Sequence[str]:
        """Return what size an image is taken to have that is not there, and that one cannot be read."""
        scenes = [sample.truth for sample in samples]
        faults = [str(error) for scene in scenes if isinstance(error := _image_of(scene), InputError)]
        return [*_assumed(scenes), *(f"Drawn without its image: {fault}" for fault in faults)]

    def training_view(
        self, sample: Sample[Scene], input_size: tuple[int, int], options: AugmentOptions, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return a random view of a cloud, (P, 4), and the anchors that are no background, as `anchors.assigned`."""
        cloud, boxes = training_cloud(sample, options, self.classes, rng, self._database)
        return cloud, assigned(self._grid(input_size), boxes)

    def evaluation_view(self, sample: Sample[Scene], input_size: tuple[int, int]) -> NDArray[np.float32]:
        """Return the cloud, float32 (P, 4)."""
        return evaluation_cloud(sample)

    def prepared(self, inputs: Tensor) -> Tensor:
        """Return clouds (B, P, 4) as they are."""
        return inputs

    def check_input(self, input_size: tuple[int, int]) -> None:
        """Raise InputError for a grid that has no map of exactly half its rows and columns, or too many anchors."""
        rows, columns = input_size
        if rows % STRIDE or columns % STRIDE:
            even = f"{rows + rows % STRIDE}x{columns + columns % STRIDE}"
            raise InputError(
                f"input size is {rows}x{columns}; for detection3d these are rows and columns of pillars, and both must"
                f" be divisible by {STRIDE}, the stride of the anchors. Give {even} with --input-size."
            )
        if (count := len(self._grid(input_size))) > MOST_ANCHORS:
            raise InputError(
                f"input size is {rows}x{columns}, which has {count:,} anchors; at most {MOST_ANCHORS:,} are possible."
                " Give a smaller one with --input-size, and a larger targets.cell."
            )

    def loss_terms(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return classes, boxes and directions of outputs (B, A (K + 9), H0, W0) for targets float32 (B, R, 10)."""
        return detection_losses(outputs, targets, len(self.classes))

    def weight(self, targets: Tensor) -> Tensor:
        """Return the number of anchors that stand for a box."""
        return num_found(targets)

    def mirrored(self, outputs: Tensor) -> Tensor:
        """There is no flip test: a direction's two halves of the circle are not each other's mirror image."""
        raise AssertionError("flip_test is none of this task's options")

    def make_score(self, dataset: DataSet, input_size: tuple[int, int]) -> DetectionScore:
        grid = self._grid(input_size)
        return DetectionScore(dataset, lambda outputs: found_boxes(outputs, grid))

    def decode(self, outputs: Tensor, sample: Sample[Scene], input_size: tuple[int, int]) -> Boxes3D:
        """Return the boxes that outputs (A (K + 9), H0, W0) show, in the lidar's frame, likeliest first."""
        return no_boxes() if sample.truth.is_empty else found_boxes(outputs, self._grid(input_size))

    def unlabelled(self, file: Path, boxes: Sequence[Any] | None) -> list[Sample[Scene]]:
        """Return the cloud of velodyne/NAME.bin, with calib/NAME.txt beside and, if there is one, the image.

        Raises InputError for a file that is missing or cannot be read, and for boxes.
        """
        if boxes is not None:
            raise InputError("boxes are given; a detection finds them. Leave them out.")
        frame = frame_at(file)
        scene = read_scene(frame, 0)
        return [sample_of(frame, scene)]

    def draw(
        self, predictions: Sequence[Boxes3D], samples: Sequence[Sample[Scene]], input_size: tuple[int, int]
    ) -> Image.Image:
        """Return the boxes in the camera's image and, below, the cloud from above; true boxes dashed, where known.

        An image that cannot be read is left out as one that is not there: the boxes are of the points alone.
        Boxes that the network is hardly sure of are left out.
        """
        scene, cloud = samples[0].truth, samples[0].content
        likely = predictions[0].scores >= DRAWN_SCORE
        found = Boxes3D(
            boxes=predictions[0].boxes[likely],
            labels=predictions[0].labels[likely],
            scores=predictions[0].scores[likely],
        )
        image = _image_of(scene)
        truth = boxes_of(scene.objects, self.names, scene.calibration) if len(scene.objects) else None
        camera = camera_view(
            None if isinstance(image, InputError) else image,
            truth,
            found,
            scene.calibration,
            self.colors,
            names=self.names,
            image_size=scene.image_size,
            cloud=cloud,
        )
        reach = self.pillars(input_size).reach
        return _stacked([camera, bird_view(cloud, truth, found, self.colors, names=self.names, reach=reach)])

    def save(self, folder: Path, name: str, predictions: Sequence[Boxes3D], samples: Sequence[Sample[Scene]]) -> Path:
        """Write the boxes that the camera sees as KITTI's result file, NAME.txt, of 16 columns."""
        scene = samples[0].truth
        objects = to_objects(predictions[0], self.names, scene.calibration, scene.image_size)
        rounded: dict[str, Any] = {
            name: np.round(value, _DECIMALS)
            for name, value in vars(objects).items()
            # Scores in full: they tell boxes apart.
            if isinstance(value, np.ndarray) and value.dtype == np.float64 and name != "scores"
        }
        file = folder / f"{name}.txt"
        write_objects(file, replace(objects, **rounded), scored=True)
        return file

    def _out_of_reach(self, scenes: Sequence[Scene], input_size: tuple[int, int]) -> list[str]:
        """Return how many objects of the classes have their middle where the grid does not reach, if there are any.

        Those that count in no difficulty are among them.
        """
        pillars = self.pillars(input_size)
        ahead, aside = pillars.reach
        boxes = [boxes_of(scene.objects, self.names, scene.calibration).boxes for scene in scenes]
        x, y = np.concatenate([np.zeros((0, 7)), *boxes])[:, :2].T
        outside = int(((x < 0) | (x > ahead) | (abs(y) > aside)).sum())
        if not outside:
            return []
        return [
            f"{outside} of the {len(x)} labelled objects of the set to score on have their middle outside the grid,"
            f" which reaches {pillars.reach_words}, and are hardly found. A larger input size or targets.cell reaches"
            " farther."
        ]

    def _grid(self, input_size: tuple[int, int]) -> AnchorGrid:
        return AnchorGrid.of(self.classes, input_size, self._cell)


def _image_of(scene: Scene) -> Picture | InputError | None:
    """Return the image of a scene (H, W, 3), what is wrong with it, or None where there is none."""
    try:
        return None if scene.image is None else read_image(scene.image)
    except InputError as error:
        return error


def _assumed(scenes: Sequence[Scene]) -> list[str]:
    """Return the sizes that images are taken to have that are not there, a line each."""
    sizes = dict.fromkeys(scene.image_size for scene in scenes if scene.image is None)
    return [
        f"Where image_2/ has no image of a frame, it is taken to be {width}x{height}; what lies outside is left out."
        for height, width in sizes
    ]


def _stacked(pictures: Sequence[Picture]) -> Image.Image:
    """Return pictures (H, W, 3) one above the other, in the middle."""
    width = max(picture.shape[1] for picture in pictures)
    sheet = Image.new("RGB", (width, sum(len(picture) for picture in pictures)), GROUND)
    top = 0
    for picture in pictures:
        sheet.paste(Image.fromarray(picture), ((width - picture.shape[1]) // 2, top))
        top += len(picture)
    return sheet
