"""hrnas: give it your images and a budget; it returns the most accurate high-resolution network that fits.

model = hrnas.create_model("hr", num_classes=19)              # a network for your own training loop
backbone = hrnas.create_model("hr", features_only=True)       # a list of maps, one a branch
model = hrnas.load("runs/camvid-macs-150M")                   # what a search has found, trained
hrnas.cost(model, (512, 1024)).macs                           # exact, at the input size you name
hrnas.search("data.yaml", budget="macs=1G", run="runs/mine")  # the whole search
hrnas.Shrinker(model, optimizer, ...)                         # the search inside your own loop
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hrnas.errors import (
    BudgetError,
    CheckpointError,
    HrnasError,
    InputError,
    Interrupted,
    LostProcessError,
    NonFiniteError,
)
from hrnas.version import VERSION

if TYPE_CHECKING:
    from hrnas.arch.architecture import Architecture
    from hrnas.costing.analytic import Cost
    from hrnas.models.loading import create_model, list_models, load
    from hrnas.models.network import Backbone
    from hrnas.searching.shrinker import Shrinker

__version__ = VERSION

__all__ = [
    "BudgetError",
    "CheckpointError",
    "HrnasError",
    "InputError",
    "Interrupted",
    "LostProcessError",
    "NonFiniteError",
    "Shrinker",
    "__version__",
    "cost",
    "create_model",
    "list_models",
    "load",
    "search",
]

_LATER = {
    "Shrinker": "hrnas.searching.shrinker",
    "create_model": "hrnas.models.loading",
    "list_models": "hrnas.models.loading",
    "load": "hrnas.models.loading",
}
"""Names that need torch, and the module each lives in; loaded at first use, so that `import hrnas` is quick."""


def cost(model_or_architecture: Backbone | Architecture, input_size: tuple[int, int]) -> Cost:
    """Return the exact MACs and parameters of a network for one image of input_size, (H, W) in pixels.

    Of a network for point clouds it is the two-dimensional part's, on its grid; input_size is (rows, columns) of that.
    Raises InputError for a module that hrnas did not build, a size that is no pair of positive whole numbers, or is
    another than the grid's.
    """
    from hrnas.arch.architecture import Architecture
    from hrnas.costing import analytic

    if not (isinstance(input_size, tuple | list) and len(input_size) == 2 and all(side > 0 for side in input_size)):
        raise InputError(f"input_size is {input_size!r}; a pair (height, width) of positive pixels is needed.")
    architecture = getattr(model_or_architecture, "architecture", model_or_architecture)
    if not isinstance(architecture, Architecture):
        kind = type(model_or_architecture).__name__
        raise InputError(f"{kind} has no architecture; give a network of hrnas or an Architecture.")
    grid = architecture.pillars
    if grid is not None and tuple(input_size) != (grid.rows, grid.columns):
        raise InputError(
            f"input_size is {tuple(input_size)}; this network's pillars stand in {grid.rows} rows and {grid.columns} "
            "columns. Give these."
        )
    return analytic.cost(architecture, (input_size[0], input_size[1]))


def search(data: str, *, budget: str, **options: Any) -> dict[str, Any]:
    """Search and train a network; return the result and leave a run directory, as the command `hrnas search` does.

    data: a data.yaml, a folder that holds one, or the name of a built-in set.
    budget: MACs of one image, as "macs=1.5G", or a share of the supernet's, as "60%".
    options: fields of hrnas.commands.search.SearchOptions; no recipe is applied.
    Raises InputError for data or options that cannot be used, BudgetError for a budget out of reach.
    """
    from hrnas.commands.search import SearchOptions
    from hrnas.commands.search import search as run_search

    return run_search(SearchOptions(data=data, budget=budget, **options))


def __getattr__(name: str) -> Any:
    if name in _LATER:
        from importlib import import_module

        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'hrnas' has no attribute '{name}'")
