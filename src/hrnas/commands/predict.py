"""hrnas predict: pictures and label files of what a trained network sees."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rich
import torch
from numpy.typing import NDArray
from PIL import Image

from hrnas.commands.evaluate import find_split, open_run
from hrnas.commands.options import default_workers
from hrnas.commands.session import Session
from hrnas.data.decoding import read_image
from hrnas.data.folders import IMAGE_ENDINGS
from hrnas.data.transforms import evaluation_view, normalize
from hrnas.errors import InputError
from hrnas.models.network import Network
from hrnas.structures import Sample


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Predict images, or samples of a split beside their truth; writes RUN/predictions.

    run: the run directory.
    images: image files, or folders of them; left out, samples of `split`.
    split: where samples come from when no images are given.
    limit: samples of the split, evenly spaced over it.
    out: where to write; RUN/predictions where left out.
    device: auto, cpu, cuda, cuda:0, ...
    """

    run: str
    images: list[str] | None = None
    split: str = "validation"
    limit: int = 6
    out: str | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise InputError(f"limit is {self.limit}; at least 1 is needed.")


def predict(options: PredictOptions) -> dict[str, Any]:
    """Predict and draw; return the files written: NAME.png, a picture, and NAME.labels.png, the prediction as indices.

    Earlier predictions of the same split go from the run, those of other images stay. Raises InputError for a run or an
    image that cannot be read, before anything is written.
    """
    run = Path(options.run)
    split = None if options.images else find_split(options.split)
    images = _image_files(options.images or [])
    network, session = open_run(run, data=None, split=split, device=options.device, workers=default_workers())
    for path in images.values():
        read_image(path)  # takes a fraction of the prediction's time
    folder = Path(options.out or run / "predictions") / (split or "images")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Folder {folder} cannot be written ({error}). Give another with --out.") from None
    files = []
    for name, image, truth in _inputs(options, session, images):
        prediction = _predict(network, session, image)
        picture, labels = folder / f"{name}.png", folder / f"{name}.labels.png"
        session.task.draw(image, prediction, truth).save(picture)
        Image.fromarray(prediction).save(labels)
        files.append({"name": name, "picture": str(picture), "labels": str(labels)})
        rich.get_console().print(f"Picture: {picture}", markup=False, highlight=False, soft_wrap=True)
    if split is not None and options.out is None:
        written = {Path(path) for entry in files for path in (entry["picture"], entry["labels"])}
        for earlier in {*folder.glob("*.png")} - written:
            earlier.unlink()
    return {"verb": "predict", "run": options.run, "files": files}


@torch.no_grad()
def _predict(network: Network, session: Session, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the prediction for an image uint8 (h, w, 3), at its own size."""
    view = torch.from_numpy(evaluation_view(image, session.input_size)).permute(2, 0, 1)[None]
    outputs = network(normalize(view.to(session.device)))[0]
    return session.task.decode(outputs, (image.shape[0], image.shape[1]))


def _inputs(
    options: PredictOptions, session: Session, images: dict[str, Path]
) -> Iterator[tuple[str, NDArray[np.uint8], Sample | None]]:
    """Yield name, image (h, w, 3) and, for samples of a split, the sample with its truth."""
    if not images:
        dataset = session.sets[find_split(options.split)]
        for index in np.linspace(0, len(dataset) - 1, min(options.limit, len(dataset))).round().astype(int):
            sample = dataset.read(int(index))
            yield _file_name(sample.name), sample.image, sample
        return
    for name, path in images.items():
        yield name, read_image(path), None


def _image_files(given: list[str]) -> dict[str, Path]:
    """Return the files by the names of their predictions: the stem, or the path where several share a stem."""
    files: list[Path] = []
    for path in map(Path, given):
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_ENDINGS)
            if not inside:
                raise InputError(f"Folder {path} holds no images ({', '.join(sorted(IMAGE_ENDINGS))}). Give another.")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise InputError(f"There is no image {path}. Give image files or folders of them.")
    stems = Counter(_file_name(path.stem) for path in files)
    return {_file_name(path.stem if stems[_file_name(path.stem)] == 1 else str(path)): path for path in files}


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
