"""Compiling the CPU kernels: without a compiler, switched off, with a damaged cache."""

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest

from hrnas.errors import InputError
from hrnas.kernels import compiling

SOURCE = """
extern "C" int answer() { return 42; }
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, and a source that is compiled in no time."""
    (tmp_path / "answer.cpp").write_text(SOURCE)
    monkeypatch.setattr(compiling, "_SOURCES", [tmp_path / "answer.cpp"])
    monkeypatch.setattr(compiling, "_HEADERS", [])
    monkeypatch.setenv("HRNAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("HRNAS_KERNELS", raising=False)
    yield tmp_path / "cache"
    compiling._compiled_file.cache_clear()


def problem() -> str | None:
    """Return what a new process would find."""
    compiling._compiled_file.cache_clear()
    return compiling.problem.__wrapped__()


def test_without_a_compiler_torch_does_it(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in ("no-such-compiler", "no-such-compiler -m64"):
        monkeypatch.setenv("CXX", words)
        assert problem() == "no C++ compiler: 'no-such-compiler' is not there; install g++ or set CXX"
    monkeypatch.setenv("CXX", "false -m64")
    assert problem() == "'false -m64' failed: exit code 1"
    monkeypatch.setenv("HRNAS_KERNELS", "off")
    assert problem() == "switched off by HRNAS_KERNELS"
    monkeypatch.delenv("HRNAS_KERNELS")
    (tmp_path / "file").write_text("where a folder should be")
    monkeypatch.setenv("HRNAS_CACHE", str(tmp_path / "file"))
    assert problem() is not None
    assert not list(cache.rglob("*.so"))


@pytest.mark.skipif(compiling.problem() is not None, reason=f"no kernels: {compiling.problem()}")
def test_they_are_compiled_once(cache: Path) -> None:
    assert problem() is None
    (file,) = (cache / "kernels").iterdir()
    assert ctypes.CDLL(str(file)).answer() == 42
    made = file.stat().st_mtime_ns
    assert problem() is None
    assert file.stat().st_mtime_ns == made


@pytest.mark.skipif(compiling.problem() is not None, reason=f"no kernels: {compiling.problem()}")
def test_a_damaged_file_is_made_again(cache: Path) -> None:
    compiling._compiled_file.cache_clear()
    file = compiling._compiled_file()
    file.parent.mkdir(parents=True)
    file.write_bytes(b"\x7fELF, and then the power went")
    assert problem() is None
    assert ctypes.CDLL(str(file)).answer() == 42
    assert list((cache / "kernels").iterdir()) == [file]


@pytest.mark.skipif(compiling.problem() is not None, reason=f"no kernels: {compiling.problem()}")
def test_what_does_not_compile_says_why(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "answer.cpp").write_text("nonsense;")
    found = problem()
    assert found is not None
    assert "failed: " in found
    assert "error" in found
    assert not list((cache / "kernels").iterdir())


def test_a_switch_that_means_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HRNAS_KERNELS", "of")
    with pytest.raises(InputError, match=r"HRNAS_KERNELS is 'of', which means nothing\. Did you mean 'off'"):
        compiling.is_switched_off()
