"""The run directory, written: made for one run, never mixed with another."""

import datetime
import json
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import torch
import yaml
from safetensors.torch import save_file

from hrnas.arch.file import to_json
from hrnas.engine.distributed import is_launched, launch
from hrnas.engine.records import write_json, write_text
from hrnas.errors import InputError
from hrnas.models.network import Backbone
from hrnas.version import VERSION

MARK = "config.yaml"
"""The file that makes a folder a run directory."""


def create_run(run: Path, *, verb: str, config: Mapping[str, Any], overwrite: bool) -> None:
    """Make an empty run directory with config.yaml and environment.json.

    Raises InputError as `check_free` does, and when the folder cannot be written.
    """
    check_free(run, overwrite=overwrite)
    try:
        if run.exists():
            _empty(run)
        run.mkdir(parents=True, exist_ok=True)
        write_json(run / "environment.json", environment(verb))
        write_text(run / MARK, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
    except OSError as error:
        raise InputError(f"Run directory {run} cannot be written ({error}). Give another with --run.") from None


def check_free(run: Path, *, overwrite: bool) -> None:
    """Raise InputError when the folder already holds something, unless that is a run and `overwrite` is set."""
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        is_run = _is_run(run)
        if not (overwrite and is_run):
            what = "another run" if is_run else "files that are no run of hrnas"
            remedy = f"Continue it with 'hrnas resume {run}', or set --overwrite" if is_run else "Empty it"
            raise InputError(f"Run directory {run} already holds {what}. {remedy}, or give another with --run.")


def _is_run(folder: Path) -> bool:
    """True for what `create_run` made; a config.yaml alone is in many a folder that is none."""
    try:
        return (folder / MARK).is_file() and "hrnas" in json.loads((folder / "environment.json").read_text("utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


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
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cuda": torch.version.cuda,
    }


def read_config(run: Path) -> tuple[str, dict[str, Any]]:
    """Return the verb and the resolved options of a run. Raises InputError when the folder is no run."""
    file = run / MARK
    if not file.is_file():
        raise InputError(f"{run} is no run directory: it holds no {MARK}. Give the folder that search or train wrote.")
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
        verb = yaml.safe_load((run / "environment.json").read_text(encoding="utf-8"))["verb"]
        return str(verb), dict(config)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"{file} or environment.json beside it is damaged ({line}). Start the run anew.") from None


def save_network(folder: Path, model: Backbone) -> None:
    """Write architecture.json and model.safetensors into `folder`, replacing it as a whole."""
    temporary, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("new", "old"))
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    (temporary / "architecture.json").write_text(to_json(model.architecture), encoding="utf-8")
    weights = {name: value.detach().contiguous().cpu() for name, value in model.state_dict().items()}
    save_file(weights, temporary / "model.safetensors")
    if folder.exists():
        folder.rename(old)
    temporary.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
