"""The 2021 code's description of a network, constructor arguments and a block list, read as an Architecture."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hrnas.arch.architecture import Architecture, StemConv
from hrnas.arch.space import SearchSpace, StageSpace
from hrnas.errors import InputError

BlockRow = tuple[int, int, int, list[int], list[int], bool]
"""[out_channels, repeats (always 1), stride, kernel sizes, hidden channels, expand (always true)]."""


def read_2021_architecture(path: str | Path) -> Architecture:
    """Return the architecture of a segmentation network of the 2021 code from its JSON file.

    The file holds `model_kwparams`, `use_transformer`, `downsampling_transformer` and the block list
    `inverted_residual_setting`. Raises InputError when it is not such a file.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        return _architecture(data, Path(path).stem)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise InputError(f"{path}: {error}") from None
        raise InputError(
            f"{path} cannot be read as a network of the 2021 code ({error!r}). "
            "It needs model_kwparams, use_transformer, downsampling_transformer and inverted_residual_setting."
        ) from None


def _architecture(data: Mapping[str, Any], name: str) -> Architecture:
    arguments = data["model_kwparams"]
    if arguments["task"] != "segmentation" or arguments["input_stride"] != 4:
        raise InputError(
            f"task is '{arguments['task']}' with input stride {arguments['input_stride']}; "
            "segmentation with stride 4 is needed."
        )
    transformers = "none"
    if data["use_transformer"]:
        transformers = "all" if data["downsampling_transformer"] else "residual"
    supernet = SearchSpace(
        name=name,
        stem=tuple(StemConv(out_channels=channels) for channels in arguments["input_channel"]),
        stages=tuple(
            StageSpace(blocks=tuple(blocks), channels=tuple(channels))
            for _, blocks, channels in arguments["inverted_residual_setting"]
        ),
        head_channels=arguments["last_channel"],
        kernel_sizes=tuple(arguments["kernel_sizes"]),
        expand_ratio=arguments["expand_ratio"],
        transformers=transformers,
        norm_momentum=arguments["bn_momentum"],
        norm_eps=arguments["bn_epsilon"],
    ).supernet(arguments["num_classes"])
    return with_block_list(supernet, data["inverted_residual_setting"])


def with_block_list(supernet: Architecture, rows: list[BlockRow]) -> Architecture:
    """Return `supernet` with the kernels of a 2021 block list, which is in the order of `supernet.blocks()`.

    Raises InputError when their number, a width or a stride differs.
    """
    blocks = list(supernet.blocks())
    if len(rows) != len(blocks):
        raise InputError(f"the block list has {len(rows)} blocks; this network has {len(blocks)}.")
    changed = {}
    for (name, block), (out_channels, _, stride, sizes, widths, _) in zip(blocks, rows, strict=True):
        if (out_channels, stride) != (block.out_channels, block.stride):
            raise InputError(
                f"block {name} is listed with {out_channels} channels and stride {stride}; "
                f"it needs {block.out_channels} and {block.stride}."
            )
        changed[name] = block.with_kernels(tuple(sorted(zip(sizes, widths, strict=True))))
    return supernet.with_blocks(changed)
