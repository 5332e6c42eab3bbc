"""hrnas predict: pictures and label files of what a trained network sees."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rich
import torch

from hrnas.commands.evaluate import find_split, open_run
from hrnas.commands.options import default_workers
from hrnas.commands.session import Session
from hrnas.data.boxes import read_boxes
from hrnas.data.description import Split
from hrnas.data.loading import stacked
from hrnas.errors import InputError
from hrnas.models.network import Network
from hrnas.structures import Sample
from hrnas.tasks.task import EvaluationOptions


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Predict files, or samples of a split beside their truth; writes RUN/predictions.

    run: the run directory.
    inputs: files, or folders of them: images, or point clouds (.bin) with their calibration in ../calib and maybe an
    image in ../image_2; left out, pictures of `split`.
    boxes: for people: a JSON file, {"photo.jpg": [[x, y, width, height], ...]}, in pixels, by file name or path; the
    whole image is the box of an image that is not in it, or where it is left out.
    split: where pictures come from when no inputs are given.
    limit: pictures of the split, evenly spaced over it.
    out: where to write, into a folder named after the split, or inputs; RUN/predictions where left out.
    device: auto, cpu, cuda, cuda:0, ...
    evaluation: how the network is evaluated; as in the run where left out.
    """

    run: str
    inputs: list[str] | None = None
    boxes: str | None = None
    split: str = "validation"
    limit: int = 6
    out: str | None = None
    device: str = "auto"
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise InputError(f"limit is {self.limit}; at least 1 is needed.")
        if self.boxes is not None and not self.inputs:
            raise InputError("boxes are given without inputs; samples of a split have their own. Give inputs as well.")


def predict(options: PredictOptions) -> dict[str, Any]:
    """Predict and draw; return the files written: NAME.png, a picture, and the prediction for other programs.

    Earlier predictions of the same split go from the run, those of other files stay. Raises InputError for a run or a
    file that cannot be read, before anything is written.
    """
    run = Path(options.run)
    split = None if options.inputs else find_split(options.split)
    given = _existing(options.inputs or [])
    network, session = open_run(
        run,
        data=None,
        split=split,
        device=options.device,
        workers=default_workers(),
        evaluation=options.evaluation,
    )
    if split:
        pictures = _split_pictures(session, split, options.limit)
    else:
        pictures = _own_pictures(session, _named(given, session.task.endings), options)
    folder = Path(options.out or run / "predictions") / (split or "inputs")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Folder {folder} cannot be written ({error}). Give another with --out.") from None
    files, task, said = [], session.task, set()
    for name, read in pictures.items():
        samples = read()
        for remark in task.remarks_on(samples):
            if remark not in said:
                said.add(remark)
                rich.get_console().print(remark, markup=False, highlight=False, soft_wrap=True)
        predictions = _predict(network, session, samples)
        labels = task.save(folder, name, predictions, samples)
        picture = folder / f"{name}.png"
        task.draw(predictions, samples, session.input_size).save(picture)
        files.append({"name": name, "picture": str(picture), "labels": str(labels)})
        rich.get_console().print(f"Picture: {picture}", markup=False, highlight=False, soft_wrap=True)
    if files:
        console = rich.get_console()
        console.print(
            f"Predictions as files are beside the pictures, in {folder}", markup=False, highlight=False, soft_wrap=True
        )
    if split is not None and options.out is None:
        written = {Path(path) for entry in files for path in (entry["picture"], entry["labels"])}
        for earlier in {*folder.glob("*.png"), *folder.glob("*.json"), *folder.glob("*.txt")} - written:
            earlier.unlink()
    return {"verb": "predict", "run": options.run, "files": files}


@torch.no_grad()
def _predict(network: Network, session: Session, samples: Sequence[Sample[Any]]) -> list[Any]:
    """Return the prediction for each sample of one picture, in the picture's own pixels."""
    predictions = []
    for sample in samples:
        view = session.task.evaluation_view(sample, session.input_size)
        outputs = session.outputs(network, stacked([view]))
        predictions.append(session.task.decode(outputs[0], sample, session.input_size))
    return predictions


def _split_pictures(session: Session, split: Split, limit: int) -> dict[str, Callable[[], list[Sample[Any]]]]:
    """Return readers of some pictures of a split, with their truth, by the names of their predictions."""
    dataset = session.sets[split]
    pictures = list(dataset.pictures().items())
    chosen = np.linspace(0, len(pictures) - 1, min(limit, len(pictures))).round().astype(int)
    readers: dict[str, Callable[[], list[Sample[Any]]]] = {}
    for name, indices in (pictures[place] for place in chosen):
        readers[_file_name(name)] = lambda indices=indices: [dataset.read(index) for index in indices]  # type: ignore[misc]
    return readers


def _own_pictures(
    session: Session, files: dict[str, Path], options: PredictOptions
) -> dict[str, Callable[[], list[Sample[Any]]]]:
    """Return readers of files without truth, by the names of their predictions; every file is read once before.

    Raises InputError for a file, or boxes, that cannot be used.
    """
    boxes = None if options.boxes is None else read_boxes(Path(options.boxes), list(files.values()))

    def read(name: str) -> list[Sample[Any]]:
        return session.task.unlabelled(files[name], None if boxes is None else boxes.get(files[name]))

    for name in files:
        read(name)  # takes a fraction of the prediction's time
    return {name: lambda name=name: read(name) for name in files}  # type: ignore[misc]


def _existing(given: list[str]) -> list[Path]:
    """Return files and folders. Raises InputError for one that is not there."""
    paths = [Path(path) for path in given]
    if missing := [path for path in paths if not path.exists()]:
        raise InputError(f"There is no file {missing[0]}. Give files or folders of them.")
    return paths


def _named(given: list[Path], endings: Collection[str]) -> dict[str, Path]:
    """Return the files by the names of their predictions: the stem, or the path where several share a stem.

    Raises InputError for a file of another ending and for a folder without a file of these.
    """
    known = " or ".join(sorted(endings))
    if others := [path for path in given if not path.is_dir() and path.suffix.lower() not in endings]:
        raise InputError(f"{others[0]} is no file that this run's task reads. Give {known} files, or folders of them.")
    files: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in endings)
            if not inside:
                raise InputError(f"Folder {path} holds no {known} files itself. Give the folder they are in.")
            files += inside
        else:
            files.append(path)
    stems = Counter(_file_name(path.stem) for path in files)
    return {_file_name(path.stem if stems[_file_name(path.stem)] == 1 else str(path)): path for path in files}


def _file_name(name: str) -> str:
    plain = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
    return plain.lstrip("._") or "_"  # a name that begins with a dot is a hidden file's
