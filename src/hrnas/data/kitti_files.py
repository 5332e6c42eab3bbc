"""KITTI's files of one frame, points (.bin), calibration and labels (.txt): read strictly, and written; so are results.

One line for whatever is not as it must be, naming the file and the row. P points, M objects.
Source: the object development kit's readme (cvlibs.net/datasets/kitti), "Data Format Description".
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hrnas.errors import InputError
from hrnas.structures import Calibration, KittiObjects

POINT_BYTES: Final = 16
"""Of a point: x, y, z, reflectance, each a float32, little-endian."""
NOT_AN_OBJECT: Final = "DontCare"
"""The type of a region of the image in which objects are not labelled; it has a 2D box and nothing else."""

_COLUMNS: Final = 15
_ROWS: Final = {"P2": (3, 4), "R0_rect": (3, 3), "Tr_velo_to_cam": (3, 4)}
_RESTORE: Final = "Restore it, or leave its frame out."


def read_points(file: Path) -> NDArray[np.float32]:
    """Return a frame's points, float32 (P, 4): x ahead, y left, z up in metres from the lidar, reflectance 0..1.

    P may be 0. Raises InputError for a file that is missing or cut off and for values that are not finite.
    """
    content = _content(file, "Points file")
    if len(content) % POINT_BYTES:
        raise cut_off(file, len(content))
    points = np.frombuffer(content, "<f4").reshape(-1, 4).astype(np.float32)  # (P, 4)
    finite = np.isfinite(points).all(1)
    if not finite.all():
        count, first = int((~finite).sum()), int(finite.argmin())
        raise InputError(
            f"Points file {file} has {count} point{'s' * (count != 1)} with a value that is nan or infinite, the first"
            f" is point {first + 1} of {len(points)}. Remove such points, or leave the frame out."
        )
    return points


def cut_off(file: Path, size: int) -> InputError:
    """Return the error for a points file of so many bytes, which are no whole number of points."""
    return InputError(
        f"Points file {file} has {size:,} bytes, which is no multiple of {POINT_BYTES} (x, y, z and reflectance as"
        f" float32): it is cut off, or no KITTI points file. {_RESTORE}"
    )


def read_calibration(file: Path) -> Calibration:
    """Return a frame's calibration; other rows than P2, R0_rect and Tr_velo_to_cam are passed over.

    Raises InputError for a row that is missing, given twice, has another number of values or cannot be inverted.
    """
    rows: dict[str, NDArray[np.float64]] = {}
    for line, text in _lines(file, "Calibration file"):
        name, _, rest = text.partition(":")
        if name not in _ROWS:
            continue
        shape, values = _ROWS[name], rest.split()
        if name in rows:
            raise InputError(f"Calibration file {file}, line {line}: row {name} is given twice. Keep one of them.")
        if len(values) != shape[0] * shape[1]:
            raise InputError(
                f"Calibration file {file}, line {line}: row {name} has {len(values)} values; it must have"
                f" {shape[0] * shape[1]}. {_RESTORE}"
            )
        numbers = [_number(value, f"Calibration file {file}, line {line}: {name} value") for value in values]
        rows[name] = np.array(numbers).reshape(shape)
    if missing := [name for name in _ROWS if name not in rows]:
        raise InputError(
            f"Calibration file {file} lacks the row{'s' * (len(missing) > 1)} {', '.join(missing)}; it must have"
            f" {', '.join(_ROWS)}. {_RESTORE}"
        )
    for name, matrix in rows.items():
        if abs(np.linalg.det(matrix[:, :3])) < 1e-6:
            raise InputError(f"Calibration file {file}: row {name} cannot be inverted. {_RESTORE}")
    return Calibration(p2=rows["P2"], r0_rect=rows["R0_rect"], tr_velo_to_cam=rows["Tr_velo_to_cam"])


def read_objects(file: Path) -> KittiObjects:
    """Return the objects of a label file, 15 columns a line; M may be 0.

    Raises InputError for another number of columns and for a value that is no number.
    """
    types: list[str] = []
    table: list[list[float]] = []
    for line, text in _lines(file, "Label file"):
        name, *values = text.split()
        where = f"Label file {file}, line {line}"
        if (count := len(values) + 1) != _COLUMNS:
            is_result = count == _COLUMNS + 1
            remark = " (16 columns are a result file's: the last one is the score)" if is_result else ""
            raise InputError(
                f"{where} has {count} columns; it must have {_COLUMNS}{remark}. Mend that line: type, truncated,"
                " occluded, alpha, 4 of the box in the image, height, width, length, x, y, z, rotation_y."
            )
        numbers = [_number(value, f"{where}, column {place}:") for place, value in enumerate(values, 2)]
        if numbers[1] not in (-1, 0, 1, 2, 3):
            raise InputError(
                f"{where}, column 3: occluded is '{values[1]}'; it must be 0, 1, 2, 3, or -1 where it is not said. Mend"
                " that line."
            )
        types.append(name)
        table.append(numbers)
    return _objects(types, np.array(table, np.float64).reshape(-1, _COLUMNS - 1))


def no_objects() -> KittiObjects:
    """Return the objects of a frame without any."""
    return _objects([], np.zeros((0, _COLUMNS - 1)))


def write_points(file: Path, points: NDArray[np.float32]) -> None:
    """Write points (P, 4), which `read_points` gives back as they are."""
    file.write_bytes(np.asarray(points, "<f4").tobytes())


def write_calibration(file: Path, calibration: Calibration) -> None:
    """Write a calibration, which `read_calibration` gives back to the bit.

    The cameras P0, P1 and P3 are written as P2 and the inertial unit as the lidar: KITTI's files have rows for them,
    and some readers count rows.
    """
    unmoved = np.eye(3, 4)
    rows = {
        **dict.fromkeys(("P0", "P1", "P2", "P3"), calibration.p2),
        "R0_rect": calibration.r0_rect,
        "Tr_velo_to_cam": calibration.tr_velo_to_cam,
        "Tr_imu_to_velo": unmoved,
    }
    text = "".join(f"{name}: {' '.join(f'{value:.16e}' for value in row.flat)}\n" for name, row in rows.items())
    file.write_text(text, encoding="ascii")


def write_objects(file: Path, objects: KittiObjects, *, scored: bool = False) -> None:
    """Write a label file, which `read_objects` gives back to the bit, or a result file: with the scores, 16 columns.

    Numbers are plain decimals, two digits at least; what is not said of an object (-1, -10, -1000) has none, as in
    KITTI's own files.
    """
    lines = []
    for place, name in enumerate(objects.types):
        numbers = [
            objects.truncated[place],
            objects.occluded[place],
            objects.alphas[place],
            *objects.boxes_2d[place],
            *objects.sizes[place],
            *objects.locations[place],
            objects.rotations[place],
            *([objects.scores[place]] if scored else []),
        ]
        unsaid = (0, 1, 2, *range(7, 14)) if name == NOT_AN_OBJECT else (0,) if numbers[0] == -1 else ()
        values = [_text(float(number), is_whole=at == 1 or at in unsaid) for at, number in enumerate(numbers)]
        lines.append(" ".join([name, *values]) + "\n")
    file.write_text("".join(lines), encoding="utf-8")


def _text(number: float, *, is_whole: bool) -> str:
    """Return the shortest decimal that is read back as the number, with two digits after the point, or none."""
    if is_whole and number == int(number):
        return str(int(number))
    return np.format_float_positional(number, unique=True, trim="k", min_digits=2)


def _objects(types: Iterable[str], table: NDArray[np.float64]) -> KittiObjects:
    """Return labelled objects from what follows the type on each line."""
    return KittiObjects(
        types=tuple(types),
        truncated=table[:, 0].copy(),
        occluded=table[:, 1].astype(np.int64),
        alphas=table[:, 2].copy(),
        boxes_2d=table[:, 3:7].copy(),
        sizes=table[:, 7:10].copy(),
        locations=table[:, 10:13].copy(),
        rotations=table[:, 13].copy(),
        scores=np.ones(len(table)),
    )


def _content(file: Path, what: str) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{what} {file} does not exist. {_RESTORE}") from None
    except OSError as error:
        raise InputError(f"{what} {file} cannot be read: {error.strerror}. {_RESTORE}") from error


def _lines(file: Path, what: str) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, text) of the lines that are not blank."""
    try:
        text = _content(file, what).decode("utf-8-sig")  # editors of Windows put a mark before the text
    except UnicodeDecodeError as error:
        raise InputError(f"{what} {file} is not a text file. {_RESTORE}") from error
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, line.strip()


def _number(text: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = np.nan
    if not np.isfinite(number):
        raise InputError(f"{where} '{text}' is not a finite number. Mend that line.")
    return number
