"""Compiling the CPU kernels: without a compiler, switched off, with a damaged cache."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hrnas.errors import InputError
from hrnas.kernels import compiling

SUPPORT = """
import torch
from hrnas.kernels import calling, compiling
compiling._SOURCES = compiling._SOURCES[1:2]  # one is compiled sooner than all
print(calling.supports(torch.ones(1)), compiling.problem())
"""


def support(tmp_path: Path, **environment: str) -> str:
    """Return what a new process with an empty cache finds."""
    known = {name: value for name, value in os.environ.items() if name not in ("CXX", "HRNAS_KERNELS")}
    known |= {"PYTHONPATH": os.pathsep.join(sys.path), "HRNAS_CACHE": str(tmp_path / "cache"), **environment}
    return subprocess.run(
        [sys.executable, "-c", SUPPORT], env=known, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_without_a_compiler_torch_does_it(tmp_path: Path) -> None:
    assert support(tmp_path, CXX="no-such-compiler") == (
        "False no C++ compiler: 'no-such-compiler' is not there; install g++ or set CXX"
    )
    assert support(tmp_path, CXX="no-such-compiler -m64").startswith("False no C++ compiler: 'no-such-compiler' is not")
    assert support(tmp_path, CXX="false -m64") == "False 'false -m64' failed: exit code 1"
    assert support(tmp_path, HRNAS_KERNELS="off") == "False switched off by HRNAS_KERNELS"
    (tmp_path / "file").write_text("where a folder should be")
    assert support(tmp_path, HRNAS_CACHE=str(tmp_path / "file")).startswith("False ")


def test_a_damaged_file_in_the_cache_is_made_again(tmp_path: Path) -> None:
    assert support(tmp_path) == "True None"
    (file,) = (tmp_path / "cache" / "kernels").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert support(tmp_path) == "True None"


def test_a_switch_that_means_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HRNAS_KERNELS", "of")
    with pytest.raises(InputError, match=r"HRNAS_KERNELS is 'of', which means nothing\. Did you mean 'off'"):
        compiling.is_switched_off()
