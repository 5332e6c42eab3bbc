"""The layer table of docs/design.md, held by reading the imports of every file in src/hrnas."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "hrnas"

LAYERS = {
    "errors": 0,
    "version": 0,
    "cache": 0,
    "arch": 1,
    "kernels": 1,
    "geometry": 1,
    "structures": 1,
    "nn": 2,
    "costing": 2,
    "data": 2,
    "metrics": 2,
    "models": 3,
    "searching": 4,
    "tasks": 4,
    "engine": 5,
    "exporting": 5,
    "reporting": 5,
    "commands": 6,
    "cli": 7,
}
ABOVE_ALL = {"__init__", "__main__"}
"""hrnas/__init__.py and hrnas/__main__.py import anything of ours; nothing imports them."""
MAY_DELAY = {"__init__", "commands", "cli"}
"""May import our modules inside functions, so that `hrnas --help` need not wait for torch; direction still holds."""
WITHOUT_TORCH = {"arch", "structures", "reporting"}
KNOWS_NOTHING_OF = {"searching": {"data", "tasks", "engine"}, "engine": {"tasks", "searching"}}
WITH_TRITON = {"hrnas.kernels.triton_depthwise", "hrnas.kernels.triton_kernels"}
"""Can only be imported where Triton is, which comes with torch's builds for GPUs: anyone may delay their import."""
NEVER = {"torchvision", "timm", "mmcv", "albumentations"}


@dataclass(frozen=True)
class Import:
    """One imported module: its full dotted name, the line, and whether the import waits inside a function."""

    module: str
    line: int
    delayed: bool


def imports(module: str, source: str, *, is_package: bool = False) -> list[Import]:
    """Return what `source`, the text of the module named `module`, imports, relative names made absolute.

    `from a import b` gives `a.b`, as b may be a module; who wants the package only looks at the first parts.
    """
    parents = module.split(".") if is_package else module.split(".")[:-1]
    found: list[Import] = []

    def visit(node: ast.AST, delayed: bool) -> None:
        match node:
            case ast.Import():
                found.extend(Import(alias.name, node.lineno, delayed) for alias in node.names)
            case ast.ImportFrom():
                above = parents[: len(parents) - node.level + 1] if node.level else []
                base = [*above, *([node.module] if node.module else [])]
                found.extend(Import(".".join([*base, alias.name]), node.lineno, delayed) for alias in node.names)
            case ast.Call(
                func=ast.Name(id=name) | ast.Attribute(attr=name), args=[ast.Constant(value=str(target)), *_]
            ):
                if name in {"import_module", "__import__"}:
                    found.append(Import(target, node.lineno, delayed))
        inside = delayed or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(source), False)
    return found


def package_of(module: str) -> str:
    """Return the package a module of ours belongs to: `hrnas.nn.conv` gives `nn`, `hrnas` gives `__init__`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def violations(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """Return one line for each import of `source` that the layer table or a named rule forbids."""
    package = package_of(module)
    if package not in LAYERS and package not in ABOVE_ALL:
        return [
            f"{module}: 'hrnas.{package}' is not in the layer table. "
            "Give it a layer in docs/design.md and in LAYERS of tests/test_layers.py."
        ]
    lines = []
    for found in imports(module, source, is_package=is_package):
        where = f"{module}, line {found.line}"
        outer = found.module.split(".")[0]
        if outer in NEVER:
            lines.append(f"{where}: imports {outer}, which this project never uses.")
        if outer == "torch" and package in WITHOUT_TORCH:
            lines.append(f"{where}: imports torch; {package} works without it.")
        if outer != "hrnas":
            continue
        if found.delayed and package not in MAY_DELAY and found.module not in WITH_TRITON:
            lines.append(f"{where}: imports {found.module} inside a function; move it to the top of the file.")
        target = package_of(found.module)
        if target == package or package in ABOVE_ALL:
            continue
        if target not in LAYERS:
            lines.append(f"{where}: imports {found.module}, which is above all layers or not in the layer table.")
        elif LAYERS[target] > LAYERS[package]:
            lines.append(
                f"{where}: imports upward, {package} (layer {LAYERS[package]}) from {target} ({LAYERS[target]})."
            )
        elif LAYERS[target] == LAYERS[package]:
            lines.append(f"{where}: imports its neighbour {target}; both are of layer {LAYERS[package]}.")
        if target in KNOWS_NOTHING_OF.get(package, ()):
            lines.append(f"{where}: imports {target}; {package} must know nothing of it.")
    return lines


def modules() -> Iterator[tuple[str, Path]]:
    """Yield the name and file of every module of hrnas."""
    for path in sorted(SOURCES.rglob("*.py")):
        parts = path.relative_to(SOURCES.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def test_the_tree_holds_the_table() -> None:
    found = [
        line
        for module, path in modules()
        for line in violations(module, path.read_text(encoding="utf-8"), is_package=path.name == "__init__.py")
    ]
    assert not found, "\n".join(found)


def test_every_folder_and_every_import_line_was_read() -> None:
    """Guards the test above against passing because it looked at nothing."""
    folders = {folder.name for folder in SOURCES.iterdir() if any(folder.rglob("*.py"))}
    files = {path.stem for path in SOURCES.glob("*.py")}
    seen = {package_of(module) for module, _ in modules()}
    assert {"errors", "structures"} <= seen
    assert seen == folders | files
    for module, path in modules():
        source = path.read_text(encoding="utf-8")
        ours = [found for found in imports(module, source) if found.module.startswith("hrnas")]
        assert len(ours) >= len(re.findall(r"^(?:from|import) hrnas\b", source, re.MULTILINE)), module


def test_the_design_page_has_the_same_table() -> None:
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| `(\w+)(?:/|\.py)` \|", page, re.MULTILINE)
    assert {package: int(layer) for layer, package in rows} == LAYERS


@pytest.mark.parametrize("package", sorted(WITHOUT_TORCH))
def test_torch_is_not_reached_through_a_lower_layer(package: str) -> None:
    imported = {
        module: [
            found.module
            for found in imports(module, path.read_text(encoding="utf-8"), is_package=path.stem == "__init__")
        ]
        for module, path in modules()
    }
    waiting = [(module, module) for module in imported if package_of(module) == package]
    if not waiting:
        pytest.skip(f"{package} is not built yet")
    seen: set[str] = set()
    while waiting:
        module, way = waiting.pop()
        for name in imported[module]:
            assert name.split(".")[0] != "torch", f"{way} -> torch"
            # Of hrnas.a.b.name the modules a, a.b and, when it is one, a.b.name run.
            parts = name.split(".")
            for end in range(2, len(parts) + 1):
                target = ".".join(parts[:end])
                if target in imported and target not in seen:
                    seen.add(target)
                    waiting.append((target, f"{way} -> {target}"))


def test_importing_everything_brings_no_torchvision() -> None:
    left_out = set() if find_spec("triton") else WITH_TRITON
    names = [module for module, _ in modules() if not module.endswith("__main__") and module not in left_out]
    assert len(names) >= 2
    program = (
        "import importlib, sys\n"
        "for name in ['hrnas', *sys.argv[1:]]: importlib.import_module(name)\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, *names],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCES.parent)},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    loaded = set(result.stdout.split())
    assert "hrnas" in loaded
    assert not loaded & NEVER


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("hrnas.nn.conv", "from hrnas.models.backbone import Backbone", "imports upward"),
        ("hrnas.nn.conv", "from hrnas import models", "imports upward"),
        ("hrnas.nn.conv", "from ..models import backbone", "imports upward"),
        ("hrnas.nn.conv", "from .. import models", "imports upward"),
        ("hrnas.nn.conv", "import hrnas.models.backbone as backbone", "imports upward"),
        ("hrnas.nn.conv", "if TYPE_CHECKING:\n    from hrnas.models import Backbone", "imports upward"),
        ("hrnas.nn.conv", "import_module('hrnas.models')", "imports upward"),
        ("hrnas.nn.conv", "def f():\n    from hrnas.models import Backbone", "imports upward"),
        ("hrnas.nn.conv", "def f():\n    from hrnas.arch import Block", "inside a function"),
        ("hrnas.commands.search", "def f():\n    from hrnas.cli import main", "imports upward"),
        ("hrnas.errors", "from hrnas.arch import Architecture", "imports upward"),
        ("hrnas.nn.conv", "from hrnas.costing import macs", "neighbour costing"),
        ("hrnas.arch.space", "from hrnas.structures import Sample", "neighbour structures"),
        ("hrnas.engine.step", "from hrnas.reporting import page", "neighbour reporting"),
        ("hrnas.arch.space", "import torch", "imports torch"),
        ("hrnas.arch.space", "from torch import nn", "imports torch"),
        ("hrnas.arch.space", "def f():\n    import torch.nn", "imports torch"),
        ("hrnas.structures", "import torch", "imports torch"),
        ("hrnas.reporting.page", "import torch", "imports torch"),
        ("hrnas.searching.plan", "from hrnas.data import Batch", "must know nothing of it"),
        ("hrnas.searching.plan", "from hrnas.tasks import Task", "must know nothing of it"),
        ("hrnas.searching.plan", "from hrnas.engine import State", "must know nothing of it"),
        ("hrnas.engine.step", "from hrnas.tasks import Task", "must know nothing of it"),
        ("hrnas.engine.step", "from hrnas.searching import cut", "must know nothing of it"),
        ("hrnas.data.camvid", "import torchvision.transforms", "never uses"),
        ("hrnas", "def f():\n    import timm", "never uses"),
        ("hrnas.cli", "from mmcv import Config", "never uses"),
        ("hrnas.data.camvid", "import albumentations", "never uses"),
        ("hrnas.nn.conv", "from hrnas import create_model", "above all layers"),
        ("hrnas.nn.conv", "import hrnas", "above all layers"),
        ("hrnas.cli", "from hrnas.helpers import thing", "not in the layer table"),
        ("hrnas.helpers.thing", "", "'hrnas.helpers' is not in the layer table"),
        ("hrnas.helpers", "", "Give it a layer in docs/design.md"),
    ],
)
def test_a_forbidden_import_is_named(module: str, source: str, message: str) -> None:
    assert any(message in line for line in violations(module, source)), violations(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "hrnas.nn.conv",
            "import torch\nfrom torch import nn\nfrom hrnas.arch import Block\nfrom hrnas.errors import InputError",
        ),
        ("hrnas.nn.conv", "from hrnas.nn.norm import Norm\nfrom .norm import Norm\nfrom . import norm"),
        ("hrnas.models.backbone", "from hrnas import nn\nfrom ..nn.conv import Conv"),
        ("hrnas.reporting.page", "from hrnas.arch import Architecture\nimport jinja2"),
        ("hrnas.exporting.onnx", "def f():\n    import onnx"),
        ("hrnas.commands.search", "def f():\n    from hrnas.engine import State"),
        ("hrnas.cli", "import_module('hrnas.commands.search')"),
        ("hrnas", "def f():\n    from hrnas.cli import main"),
        ("hrnas.__main__", "from hrnas.cli import main"),
    ],
)
def test_an_allowed_import_passes(module: str, source: str) -> None:
    assert violations(module, source) == []


def test_relative_imports_of_a_package_start_at_itself() -> None:
    assert [found.module for found in imports("hrnas.nn", "from .conv import Conv", is_package=True)] == [
        "hrnas.nn.conv.Conv"
    ]
    assert [found.module for found in imports("hrnas.nn.conv", "from .norm import Norm")] == ["hrnas.nn.norm.Norm"]
