"""Weights of the 2021 code under its own names, translated to ours. Proved on recorded outputs in the tests."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from hrnas.arch.architecture import Architecture, Block
from hrnas.errors import CheckpointError

_NORM = ("weight", "bias", "running_mean", "running_var")


def translate_2021_weights(architecture: Architecture, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of `build_model(architecture)` from a state dict of the 2021 code.

    architecture: from `read_2021_architecture`; its kernel paths become one expansion and one projection a block.
    Raises CheckpointError when a tensor is missing.
    """
    try:
        return dict(_tensors(architecture, weights))
    except KeyError as error:
        raise CheckpointError(
            f"The weights have no tensor {error}; give the state dict that belongs to this block list."
        ) from None


def _tensors(architecture: Architecture, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for index in range(len(architecture.stem)):
        yield f"stem.{index}.conv.weight", weights[f"downsamples.{index}.0.weight"]
        yield from _norm(f"stem.{index}.norm", weights, [f"downsamples.{index}.1"])
    old_names = _block_names(architecture)
    for name, block in architecture.blocks():
        yield from _block(name, block, old_names[name], weights)
    yield "head.output.weight", weights["classifier.weight"]
    yield "head.output.bias", weights["classifier.bias"]


def _block_names(architecture: Architecture) -> dict[str, str]:
    """Map our block names to the old ones: fusion modules and parallel modules stand in one list there."""
    names = {"head.block": "transform"}
    for index, stage in enumerate(architecture.stages):
        num_fused = len(stage.branches) - len(stage.grow)
        for position, path in enumerate(stage.paths):
            # A path between branches is a sequence there, whose first part is the block.
            first = ".0" if path.source != path.target else ""
            names[f"stages.{index}.fusion.paths.{position}"] = (
                f"features.{2 * index}.fuse_layers.{path.target}.{path.source}{first}"
            )
        for position in range(len(stage.grow)):
            names[f"stages.{index}.fusion.grow.{position}"] = (
                f"features.{2 * index}.fuse_layers.{num_fused + position}.0"
            )
        for branch, blocks in enumerate(stage.branches):
            for position in range(len(blocks)):
                names[f"stages.{index}.branches.{branch}.{position}"] = (
                    f"features.{2 * index + 1}.branches.{branch}.{position}"
                )
    return names


def _block(name: str, block: Block, old: str, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    paths = [f"{old}.ops.{index}" for index in range(len(block.kernels))]
    if paths:
        yield f"{name}.expand.weight", torch.cat([weights[f"{path}.0.0.weight"] for path in paths])
        yield from _norm(f"{name}.expand_norm", weights, [f"{path}.0.1" for path in paths])
        for (size, _), path in zip(block.kernels, paths, strict=True):
            yield f"{name}.depthwise.convs.{size}.weight", weights[f"{path}.1.0.weight"]
        yield from _norm(f"{name}.depthwise_norm", weights, [f"{path}.1.1" for path in paths])
        yield f"{name}.project.weight", torch.cat([weights[f"{path}.2.weight"] for path in paths], dim=1)
        yield from _norm(f"{name}.project_norm", weights, [f"{old}.pw_bn"])
    if not block.is_residual:
        yield f"{name}.skip.weight", weights[f"{old}.residual.weight"]
    if block.tokens:
        yield from _transformer(f"{name}.transformer", weights, f"{old}.transformer")


def _transformer(name: str, weights: Mapping[str, Tensor], old: str) -> Iterator[tuple[str, Tensor]]:
    yield f"{name}.projector.weight", weights[f"{old}.input_proj.weight"]
    yield from _norm(f"{name}.token_norm", weights, [f"{old}.input_norm"])
    yield f"{name}.queries", weights[f"{old}.query_embed.weight"]
    for layer, attention in (("encoder", "self_attn"), ("decoder", "multihead_attn")):
        yield f"{name}.{layer}.attention.query_key_value.weight", weights[f"{old}.{layer}.{attention}.in_proj_weight"]
        yield f"{name}.{layer}.attention.out.weight", weights[f"{old}.{layer}.{attention}.out_proj.weight"]
        yield f"{name}.{layer}.feed_forward.0.weight", weights[f"{old}.{layer}.linear1.weight"]
        yield f"{name}.{layer}.feed_forward.3.weight", weights[f"{old}.{layer}.linear2.weight"]
        for norm in ("norm1", "norm2"):
            yield f"{name}.{layer}.{norm}.weight", weights[f"{old}.{layer}.{norm}.weight"]
            yield f"{name}.{layer}.{norm}.bias", weights[f"{old}.{layer}.{norm}.bias"]
    yield f"{name}.inverse_projector.weight", weights[f"{old}.reverse_proj.weight"]
    yield from _norm(f"{name}.out_norm", weights, [f"{old}.reverse_norm"])


def _norm(name: str, weights: Mapping[str, Tensor], old_norms: list[str]) -> Iterator[tuple[str, Tensor]]:
    for part in _NORM:
        yield f"{name}.{part}", torch.cat([weights[f"{old}.{part}"] for old in old_norms])
    # The old code counts no batches for a network of random weights; ours resets it whenever statistics are renewed.
    yield f"{name}.num_batches_tracked", torch.zeros((), dtype=torch.int64)
