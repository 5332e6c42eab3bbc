"""The run directory, written: made for one run, never mixed with another."""

import datetime
import json
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import save_file

from hrnas.arch.file import to_json
from hrnas.engine.checkpoint import clear_killed_saves
from hrnas.engine.distributed import is_launched, launch
from hrnas.engine.records import partial_files, sync, write_json, write_text
from hrnas.errors import InputError
from hrnas.kernels import compiling
from hrnas.models.network import Backbone
from hrnas.version import VERSION

MARK = "config.yaml"
"""The file that makes a folder a run directory."""


def create_run(run: Path, *, verb: str, config: Mapping[str, Any], overwrite: bool) -> None:
    """Make an empty run directory with config.yaml and environment.json.

    environment.json is there from first to last and config.yaml comes last: killed in between, the same command goes
    on where there is nothing yet to resume. Raises InputError as `check_free` does, and when the folder cannot be
    written.
    """
    check_free(run, overwrite=overwrite)
    try:
        if run.exists():
            _empty(run)
        run.mkdir(parents=True, exist_ok=True)
        sync(run.parent)
        write_json(run / "environment.json", environment(verb))
        write_text(run / MARK, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
    except OSError as error:
        raise InputError(f"Run directory {run} cannot be written ({error}). Give another with --run.") from None


def check_free(run: Path, *, overwrite: bool) -> None:
    """Raise InputError when the folder already holds something, unless that is a run and `overwrite` is set."""
    if run.exists() and (not run.is_dir() or not _is_hardly_begun(run)):
        is_run = _is_run(run)
        if not (overwrite and is_run):
            what = "another run" if is_run else "files that are no run of hrnas"
            remedy = f"Continue it with 'hrnas resume {run}', or set --overwrite" if is_run else "Empty it"
            raise InputError(f"Run directory {run} already holds {what}. {remedy}, or give another with --run.")


def _is_run(folder: Path) -> bool:
    """True for what `create_run` made, or began to replace; a config.yaml alone is in many a folder that is none."""
    try:
        return "hrnas" in json.loads((folder / "environment.json").read_text("utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _is_hardly_begun(folder: Path) -> bool:
    """True for an empty folder, and for one in which `create_run` was killed before the mark."""
    others = {*folder.iterdir()} - {*partial_files(folder), folder / "environment.json"}
    return not others and (_is_run(folder) or not (folder / "environment.json").exists())


def _empty(folder: Path) -> None:
    (folder / MARK).unlink(missing_ok=True)  # first: what is left of the old run must not be resumed
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != "environment.json":
            entry.unlink()


def clear_leftovers(run: Path) -> bool:
    """Remove what a killed run was writing, half done; return True when a best/ it was replacing had to come back."""
    clear_killed_saves(run / "checkpoints")
    for file in (*partial_files(run), *run.glob(".report-*.html")):
        file.unlink(missing_ok=True)
    return _clear_killed_replacing(run / "best")


@contextmanager
def writing(run: Path) -> Iterator[None]:
    """Within its block a disk that refuses becomes an InputError that says how to go on."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{run} could not be written ({error}); its checkpoints are whole. Free disk space and go on with "
            f"'hrnas resume {run}'."
        ) from None


def environment(verb: str) -> dict[str, Any]:
    """Return what a figure must be read with: command, date, versions, hardware."""
    arguments = sys.argv[1:] if Path(sys.argv[0]).name in ("hrnas", "__main__.py") else [verb, "(from Python)"]
    return {
        "verb": verb,
        "processes": int(os.environ["WORLD_SIZE"]) if is_launched() else 1,
        "launch": None if (found := launch()) is None else found[0],
        "command": shlex.join(["hrnas", *arguments]),
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "hrnas": VERSION,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "kernels": compiling.known_state(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cuda": torch.version.cuda,
    }


def read_config(run: Path) -> tuple[str, dict[str, Any]]:
    """Return the verb and the resolved options of a run. Raises InputError when the folder is no run."""
    file = run / MARK
    if not file.is_file():
        if _is_run(run):
            raise InputError(f"{run} has no {MARK}: it was stopped while it was made. Give its first command again.")
        raise InputError(f"{run} is no run directory: it holds no {MARK}. Give the folder that search or train wrote.")
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
        verb = yaml.safe_load((run / "environment.json").read_text(encoding="utf-8"))["verb"]
        return str(verb), dict(config)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"{file} or environment.json beside it is damaged ({line}). Start the run anew.") from None


def record_data(run: Path, data: Mapping[str, Any]) -> None:
    """Write a data description into a run's config.yaml in place of the one that is there."""
    _, config = read_config(run)
    write_text(run / MARK, yaml.safe_dump({**config, "data": dict(data)}, sort_keys=False, allow_unicode=True))


def save_network(folder: Path, model: Backbone) -> None:
    """Write architecture.json and model.safetensors into `folder`, replacing it as a whole.

    Whatever stops it leaves the old files or the new ones; killed between its two renames, they come back with
    `clear_leftovers`. Raises OSError or SafetensorError when the disk refuses.
    """
    _clear_killed_replacing(folder)
    temporary, old = _names_while_replacing(folder)
    try:
        temporary.mkdir(parents=True)
        weights = {name: value.detach().contiguous().cpu() for name, value in model.state_dict().items()}
        save_file(weights, temporary / "model.safetensors")
        sync(temporary / "model.safetensors")
        write_text(temporary / "architecture.json", to_json(model.architecture))
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
        sync(folder.parent)
    finally:
        _clear_killed_replacing(folder)


def _names_while_replacing(folder: Path) -> tuple[Path, Path]:
    """Return what the new and the old folder are called meanwhile."""
    return folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")


def _clear_killed_replacing(folder: Path) -> bool:
    """Remove what a replacing of `folder` that did not end has left; return True when the old one had to come back."""
    temporary, old = _names_while_replacing(folder)
    is_missing = old.is_dir() and not folder.exists()
    if is_missing:
        old.rename(folder)
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)
    return is_missing


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
