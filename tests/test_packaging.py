"""What the repository promises before any code runs: pins, bounds, package data, and nothing of one machine in it."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LARGEST_FILE = 5_000_000  # bytes

MACHINE_PATH = re.compile(r"(?:^|[^a-zA-Z0-9_.}])/(?:(?:work|root|opt/wheels)/|tmp/(?!hrnas))", re.MULTILINE)
"""An absolute path of the machine somebody worked on; examples may name a temporary folder that starts with hrnas."""


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {normalised(name): version for name, version in pinned}


def lower_bounds(requirements: list[str]) -> dict[str, str]:
    """Return name -> lower bound; a requirement that is anything but one lower bound fails."""
    bounds = {}
    for requirement in requirements:
        match = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[\w,-]+\])?>=([0-9.]+)", requirement)
        assert match, f"'{requirement}' is not one lower bound, such as 'name>=1.2'."
        bounds[normalised(match[1])] = match[2]
    return bounds


def tracked_files() -> list[Path]:
    """Return the files git tracks and that exist; skips the test where this is no git checkout."""
    try:
        top = subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=True
        ).stdout.strip()
        listed = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True
        ).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs a git checkout: {error}")
    if Path(top) != ROOT.resolve():
        pytest.skip(f"needs a git checkout of its own; this one lies inside {top}")
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


def test_every_line_of_the_constraints_is_an_exact_pin() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    for line in lines:
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[0-9.]+", line), line


def test_the_constraints_pin_what_the_package_and_its_extras_need() -> None:
    pinned = pins()
    extras = PROJECT["project"]["optional-dependencies"].values()
    bounds = lower_bounds(PROJECT["project"]["dependencies"] + [need for extra in extras for need in extra])
    assert "torch" in bounds
    assert set(bounds) - set(pinned) == set()
    for name, bound in bounds.items():
        assert numbers(pinned[name]) >= numbers(bound), f"{name}: {pinned[name]} is pinned, >={bound} is required."


def test_requirements_are_lower_bounds_only() -> None:
    lower_bounds(PROJECT["build-system"]["requires"])
    lower_bounds(PROJECT["project"]["dependencies"])
    for requirements in PROJECT["project"]["optional-dependencies"].values():
        lower_bounds(requirements)


@pytest.mark.parametrize(
    "requirement", ["torch==2.13.0", "torch", "torch>=2.11,<3", "torch~=2.11", "torch @ file:wheel"]
)
def test_other_requirements_are_refused(requirement: str) -> None:
    with pytest.raises(AssertionError, match="not one lower bound"):
        lower_bounds([requirement])


def test_every_file_of_the_package_is_installed() -> None:
    """A template or a recipe outside the patterns works in a checkout and is missing from the wheel."""
    package = ROOT / "src" / "hrnas"
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["hrnas"]
    installed = {path for pattern in ["**/*.py", *patterns] for path in package.glob(pattern)}
    present = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert package / "py.typed" in installed
    assert present - installed == set()


def test_no_tracked_file_is_large() -> None:
    sizes = {str(path.relative_to(ROOT)): path.stat().st_size for path in tracked_files()}
    assert "pyproject.toml" in sizes
    assert {name: size for name, size in sizes.items() if size > LARGEST_FILE} == {}


def test_no_tracked_file_names_a_path_of_somebodys_machine() -> None:
    found = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(ROOT)}: {text[match.start() : match.end() + 30]!r}"
            for match in MACHINE_PATH.finditer(text)
        ]
    assert found == []


@pytest.mark.parametrize("folder", ["work", "root", "opt/wheels", "tmp"])
@pytest.mark.parametrize("before", ["", "cd ", "'", "=", "file://", "text\n"])
def test_a_machine_path_is_recognised(before: str, folder: str) -> None:
    assert MACHINE_PATH.search(f"{before}/{folder}/main")


@pytest.mark.parametrize(
    "text", ["/tmp/hrnas-demo", "./work/x", "a/tmp/x", "{tmp_path}/work/x", "/workshop/x", "../root/x"]
)
def test_another_path_is_not(text: str) -> None:
    assert not MACHINE_PATH.search(text)


def test_no_source_file_imports_torchvision() -> None:
    sources = [path for path in tracked_files() if path.suffix == ".py" and (ROOT / "src") in path.parents]
    assert sources
    pattern = re.compile(r"^\s*(?:import|from)\s+torchvision\b", re.MULTILINE)
    assert [path.name for path in sources if pattern.search(path.read_text(encoding="utf-8"))] == []
