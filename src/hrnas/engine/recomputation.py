"""Activation checkpointing: search blocks that keep their input only and compute the rest again in the backward pass.

B batch, C channels, H height, W width.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from hrnas.nn.search_block import SearchBlock


def recompute_blocks(model: nn.Module) -> None:
    """Let every search block of a network keep only its input in training, in place; the numbers stay the same.

    Batch-norm statistics move once a step and dropout draws the same numbers in the recomputation. The network's names,
    values and modules do not change, and its blocks may be cut afterwards.
    """
    for module in model.modules():
        if isinstance(module, SearchBlock):
            module.forward = partial(_forward, module)  # type: ignore[method-assign]


def _forward(block: SearchBlock, x: Tensor) -> Tensor:
    """Map (B, in_channels, H, W) as the block's own forward does."""
    if not (block.training and torch.is_grad_enabled()):
        return SearchBlock.forward(block, x)
    output: Tensor = checkpoint(
        partial(SearchBlock.forward, block),
        x,
        use_reentrant=False,
        preserve_rng_state=block.transformer is not None,  # the only part with dropout
        context_fn=lambda: (nullcontext(), _without_tracking(block)),
    )
    return output


@contextmanager
def _without_tracking(block: SearchBlock) -> Iterator[None]:
    """Let the block's batch norms record what they see in copies that are thrown away."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    buffers = [(norm, name, buffer) for norm in norms for name, buffer in norm.named_buffers(recurse=False)]
    for norm, name, buffer in buffers:
        setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, name, buffer in buffers:
            setattr(norm, name, buffer)
