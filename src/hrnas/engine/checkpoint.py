"""Checkpoints: a directory of plain files, written under a temporary name and renamed when complete.

step-NNNNNNNN/  architecture.json  {model,averages,optimizer,extra}.safetensors  state.json
Tensors and JSON only: loading one runs no code. state.json is written last and holds the digests of the others and
of itself. All is on the disk before the rename, and the rename before an older checkpoint goes.
"""

import hashlib
import json
import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hrnas.arch.architecture import Architecture
from hrnas.arch.file import fingerprint, read_architecture, to_json
from hrnas.engine.records import sync, to_plain, write_json
from hrnas.engine.training import TrainState
from hrnas.errors import CheckpointError, DamagedError, InputError
from hrnas.models.loading import load_weights

FORMAT: Final = "hrnas-checkpoint"
VERSION: Final = 2
_TENSOR_FILES: Final = ("model", "averages", "optimizer", "extra")
_REPLACED: Final = ".replaced"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint as read: the network's own architecture, its tensors by file, and plain state."""

    path: Path
    architecture: Architecture
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def checkpoint_name(step: int) -> str:
    """Return the folder name of a step's checkpoint."""
    return f"step-{step:08d}"


def save_checkpoint(
    folder: Path, state: TrainState, *, extra: dict[str, Any] | None = None, keep_last: int = 2
) -> Path:
    """Write folder/step-NNNNNNNN and remove all but the last `keep_last`; return its path.

    extra: further state, plain JSON types and tensors, given back by `read_checkpoint` in `state["extra"]`.
    A save that is killed leaves the older checkpoints as they were. Raises InputError when the disk refuses.
    """
    final = folder / checkpoint_name(state.step)
    temporary = folder / f".{final.name}.{os.getpid()}"
    replaced = folder / f".{final.name}{_REPLACED}"
    clear_killed_saves(folder)
    extra = extra or {}
    tensors = {
        "model": dict(state.model.state_dict()),
        "averages": state.averages.tensors,
        "optimizer": _optimizer_tensors(state),
        "extra": {name: value for name, value in extra.items() if torch.is_tensor(value)},
    }
    try:
        temporary.mkdir(parents=True)
        (temporary / "architecture.json").write_text(to_json(state.model.architecture), encoding="utf-8")
        for name, values in tensors.items():
            save_file({key: value.contiguous() for key, value in values.items()}, temporary / f"{name}.safetensors")
        plain = {
            "format": FORMAT,
            "version": VERSION,
            "step": state.step,
            "seconds": state.seconds,
            "num_updates": state.averages.num_updates,
            "fingerprint": fingerprint(state.model.architecture),
            "extra": {name: value for name, value in extra.items() if not torch.is_tensor(value)},
            "sha256": {file.name: _digest(file) for file in sorted(temporary.iterdir())},
        }
        for file in temporary.iterdir():
            sync(file)
        write_json(temporary / "state.json", {**plain, "seal": _seal(plain)})
        if final.exists():
            final.rename(replaced)
        temporary.rename(final)
        sync(folder)
        sync(folder.parent)  # which may have `folder` as a new entry
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"The checkpoint of step {state.step} could not be written ({error}); older ones in {folder} are whole. "
            "Free disk space and resume."
        ) from None
    finally:
        clear_killed_saves(folder)
    for old in list_checkpoints(folder)[:-keep_last]:
        removed = old.with_name(f".{old.name}.removed")  # at once: what is half removed is no checkpoint
        with suppress(OSError):  # the next save tries again
            old.rename(removed)
            shutil.rmtree(removed)
    return final


def clear_killed_saves(folder: Path) -> None:
    """Remove what saves that did not end have left in a folder; a checkpoint one was replacing comes back."""
    for replaced in folder.glob(f".step-*{_REPLACED}"):
        final = folder / replaced.name.removeprefix(".").removesuffix(_REPLACED)
        if not final.exists():
            replaced.rename(final)
    for leftover in folder.glob(".step-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, oldest first; a save that was killed has left none."""
    return sorted(path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{8,}", path.name) and path.is_dir())


def keep_damaged(path: Path) -> Path:
    """Rename a damaged checkpoint, so that it counts as none; return what it is called now."""
    aside = path.with_name(f"damaged-{path.name}")
    shutil.rmtree(aside, ignore_errors=True)  # of an earlier time at the same step
    path.rename(aside)
    return aside


def read_checkpoint(path: Path) -> Checkpoint:
    """Return a checkpoint.

    Raises DamagedError when a file is missing or not what was written, CheckpointError when it is of something else.
    """
    remedy = "Remove this checkpoint to use the one before it."
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise DamagedError(f"{path} holds no readable state.json ({error}).") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT or state.get("version") != VERSION:
        raise CheckpointError(f"{path} is no checkpoint of this hrnas (format {FORMAT}, version {VERSION}). {remedy}")
    if state.get("seal") != _seal(state):
        raise DamagedError(f"{path / 'state.json'} is not what was written.")
    for name, digest in state["sha256"].items():
        file = path / name
        if not file.is_file() or _digest(file) != digest:
            raise DamagedError(f"{file} is missing or not what was written.")
    try:
        architecture = read_architecture(path / "architecture.json")
        tensors = {name: load_file(path / f"{name}.safetensors") for name in _TENSOR_FILES}
    except (OSError, SafetensorError, InputError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}). {remedy}") from None
    return Checkpoint(path=path, architecture=architecture, tensors=tensors, state=state)


def restore(checkpoint: Checkpoint, state: TrainState) -> dict[str, Any]:
    """Put a checkpoint into a state whose model has the checkpoint's architecture; return what was saved as extra."""
    load_weights(state.model, checkpoint.tensors["model"], str(checkpoint.path))
    assert state.averages.tensors.keys() == checkpoint.tensors["averages"].keys()
    for name, value in checkpoint.tensors["averages"].items():
        state.averages.tensors[name].copy_(value)
    state.averages.num_updates = checkpoint.state["num_updates"]
    _load_optimizer(state, checkpoint.tensors["optimizer"])
    state.step, state.seconds = checkpoint.state["step"], checkpoint.state["seconds"]
    return {**checkpoint.state["extra"], **checkpoint.tensors["extra"]}


def _optimizer_tensors(state: TrainState) -> dict[str, Tensor]:
    names = {id(parameter): name for name, parameter in state.model.named_parameters()}
    return {
        f"{names[id(parameter)]}/{entry}": value
        for parameter, values in state.optimizer.state.items()
        for entry, value in values.items()
    }


def _load_optimizer(state: TrainState, tensors: dict[str, Tensor]) -> None:
    parameters = dict(state.model.named_parameters())
    for key, value in tensors.items():
        name, entry = key.rsplit("/", 1)
        parameter = parameters[name]
        if value.shape == parameter.shape:
            # With the parameter's strides: a fused optimizer goes through both in the order of memory.
            value = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
        elif state.optimizer.defaults.get("fused"):
            value = value.to(parameter.device)  # the count of steps
        state.optimizer.state[parameter][entry] = value


def _seal(state: dict[str, Any]) -> str:
    """Return the digest of state.json without its own entry, as it reads back."""
    plain = to_plain({name: value for name, value in state.items() if name != "seal"})
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
