"""When the compiled CPU kernels may take the place of torch's operators."""

import torch
from torch import Tensor

from hrnas.kernels.calling import supports


def is_plain(x: Tensor) -> bool:
    """Return whether x holds numbers and nothing traces what is done to it: what traces must see torch's operators."""
    return (
        type(x) is Tensor
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
        and x.numel() > 0
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )


def runs_compiled(x: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Return whether the kernels run on x, with parameters of a type: on a CPU in float32 or float64, no autocast."""
    return is_plain(x) and x.dtype == (dtype or x.dtype) and supports(x) and not torch.is_autocast_enabled("cpu")
