"""Counts what a piece of work calls: on a GPU each would be a launch."""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hrnas.kernels import calling

IDLE: Final = (
    "empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "resize_", "set_", "_unsafe_view",
    "detach", "promote_types", "_local_scalar_dense", "_record_function_enter_new", "_record_function_exit",
)  # fmt: skip
"""Operators that take memory, make a view, read a number or mark the profile, and compute nothing."""


class Launches(TorchDispatchMode):
    """Counts the operators called below autograd while it is active, and our compiled kernels, by name.

    Not views (an output that aliases an input unwritten), nor allocations. An operation on a list of tensors counts
    once, however many kernels it is made of.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self._find = calling._function

    def __enter__(self) -> Self:
        calling._function = self._compiled
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        calling._function = self._find
        super().__exit__(*error)

    def _compiled(self, name: str, dtype: torch.dtype) -> Callable[..., None]:
        self.counts[f"compiled {name}"] += 1
        return self._find(name, dtype)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        is_view = any(out.alias_info is not None and not out.alias_info.is_write for out in func._schema.returns)
        if not is_view and name not in IDLE:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))
