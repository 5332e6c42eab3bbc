"""Calls of the compiled CPU kernels: what they work on, and how tensors are handed over."""

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final

import torch
from torch import Tensor

from hrnas.kernels.compiling import library

_NAMES: Final = {torch.float32: "float32", torch.float64: "float64"}


def supports(x: Tensor) -> bool:
    """Return whether the kernels can work on a map: on the CPU, of one of their types, and compiled at all."""
    return x.device.type == "cpu" and x.dtype in _NAMES and library() is not None


def pointers(tensors: Sequence[Tensor | None]) -> ctypes.Array[ctypes.c_void_p]:
    """Return where contiguous tensors of one type lie; null for None."""
    given = [tensor for tensor in tensors if tensor is not None]
    assert all(tensor.is_contiguous() and tensor.dtype == given[0].dtype for tensor in given)
    return (ctypes.c_void_p * len(tensors))(*(None if tensor is None else tensor.data_ptr() for tensor in tensors))


def longs(values: Sequence[int]) -> ctypes.Array[ctypes.c_int64]:
    """Return an array of 64-bit numbers."""
    return (ctypes.c_int64 * len(values))(*values)


def call(name: str, dtype: torch.dtype, *arguments: object) -> None:
    """Call a function of the library for a type; tensors are contiguous and of that type."""
    given: list[object] = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            assert argument.dtype == dtype
            assert argument.is_contiguous()
            given.append(ctypes.c_void_p(argument.data_ptr()))
        else:
            given.append(ctypes.c_int64(argument) if isinstance(argument, int) else argument)
    _function(name, dtype)(*given)


@cache
def _function(name: str, dtype: torch.dtype) -> Callable[..., None]:
    compiled = library()
    assert compiled is not None
    function = compiled[f"{name}_{_NAMES[dtype]}"]
    function.restype = None
    return function
