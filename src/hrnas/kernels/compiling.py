"""The CPU kernels' source, compiled at first use and kept in the cache.

A compiler is all that is needed, and nothing is where there is none: the network then runs on torch's own operators.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from hrnas.cache import cache_folder
from hrnas.errors import InputError, did_you_mean

SWITCH: Final = "HRNAS_KERNELS"
"""Environment variable: "off" leaves the kernels out; "triton" has those of GPUs run, which no GPU has measured yet."""
_VALUES: Final = ("off", "triton")
_SOURCES: Final = sorted(Path(__file__).parent.glob("*.cpp"))
_HEADERS: Final = sorted(Path(__file__).parent.glob("*.h"))
_FLAGS: Final = (
    *("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared"),
    *("-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"),
)
_SECONDS: Final = 300


@cache
def library() -> ctypes.CDLL | None:
    """Return the compiled kernels; None where they are switched off or cannot be compiled (`problem` says why)."""
    return None if problem() is not None else ctypes.CDLL(str(_compiled_file()))


@cache
def problem() -> str | None:
    """Return why there are no kernels, in a line; None when there are. Compiles them where that was not done yet."""
    if is_switched_off():
        return f"switched off by {SWITCH}"
    try:
        file = _compiled_file()
        if not file.is_file():
            if shutil.which(_compiler()[0]) is None:
                return f"no C++ compiler: '{_compiler()[0]}' is not there; install g++ or set CXX"
            _compile(file)
        elif hasattr(os, "getuid") and (owner := file.stat().st_uid) not in (os.getuid(), 0):
            return f"{file} belongs to another user ({owner}); set HRNAS_CACHE to a folder of your own"
        try:
            ctypes.CDLL(str(file))
        except OSError:  # damaged, by a power cut for one
            _compile(file)
            ctypes.CDLL(str(file))
    except subprocess.CalledProcessError as error:
        lines = str(error.stderr).strip().splitlines() or [f"exit code {error.returncode}"]
        return (
            f"'{shlex.join(_compiler())}' failed: {next((line for line in lines if 'error' in line), lines[-1])[:200]}"
        )
    except (OSError, RuntimeError, ValueError, subprocess.TimeoutExpired) as error:
        return " ".join(str(error).split())[:200]
    return None


def known_state() -> str | None:
    """Return "compiled", or why there are no kernels; None where nobody has asked: a run on a GPU compiles none."""
    return (problem() or "compiled") if problem.cache_info().currsize else None


def is_switched_off() -> bool:
    """Return whether the user wants no kernels. Raises InputError for a value that means nothing."""
    return _switch() == "off"


def has_triton(device: str) -> bool:
    """Return whether Triton's kernels shall run on a kind of device; on a CPU in its interpreter only, for tests."""
    return (
        _switch() == "triton"
        and (device == "cuda" or (device == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"))
        and find_spec("triton") is not None
    )


def _compile(file: Path) -> None:
    """Compile into `file` under another name, then rename: several processes may do it at once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        made = Path(folder) / file.name
        subprocess.run(
            [*_compiler(), *_flags(), *map(str, _SOURCES), "-o", str(made)],
            check=True,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            env={**os.environ, "LC_ALL": "C"},  # messages are searched for "error"
        )
        made.replace(file)


@cache
def _compiled_file() -> Path:
    """Return where the kernels belong: a name for these sources, compiler and processor."""
    version = ""
    with suppress(OSError, subprocess.TimeoutExpired):  # compiling will say so
        version = subprocess.run(
            [*_compiler(), "--version"], capture_output=True, text=True, errors="replace", timeout=30
        ).stdout
    texts = [file.read_text(encoding="utf-8") for file in (*_SOURCES, *_HEADERS)]
    parts = [*texts, *_flags(), *_compiler(), version, platform.machine(), _features()]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return cache_folder() / "kernels" / f"kernels-{digest}.so"


def _compiler() -> list[str]:
    """Return the words of the compiler: CXX may hold a launcher or options too."""
    return shlex.split(os.environ.get("CXX", "")) or ["g++"]


def _switch() -> str:
    value = os.environ.get(SWITCH, "").lower()
    if value not in ("", *_VALUES):
        raise InputError(f"{SWITCH} is '{value}', which means nothing. {did_you_mean(value, _VALUES)}")
    return value


def _flags() -> tuple[str, ...]:
    return (*_FLAGS, "-mprefer-vector-width=512") if "avx512f" in _features().split() else _FLAGS


@cache
def _features() -> str:
    """Return what the processor can do, which -march=native compiles for; "" where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next(
        (line.partition(":")[2].strip() for line in lines if line.lower().startswith(("flags", "features"))), ""
    )
