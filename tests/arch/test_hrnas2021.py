"""The reader of the 2021 code's network files; equality of the networks is shown in tests/models."""

import json
from pathlib import Path
from typing import Any

import pytest

from hrnas.arch.architecture import Feature
from hrnas.arch.hrnas2021 import read_2021_architecture
from hrnas.errors import InputError


def network(**arguments: Any) -> dict[str, Any]:
    """Return the data of a one-branch network of the 2021 code: a stage of two blocks, and the head's."""
    return {
        "model_kwparams": {
            "task": "segmentation",
            "input_stride": 4,
            "input_channel": [4, 6],
            "last_channel": 5,
            "kernel_sizes": [3, 5],
            "expand_ratio": 2,
            "num_classes": 7,
            "bn_momentum": 0.05,
            "bn_epsilon": 0.002,
            "inverted_residual_setting": [[1, [1], [8]]],
            **arguments,
        },
        "use_transformer": False,
        "downsampling_transformer": False,
        "inverted_residual_setting": [
            [8, 1, 1, [3, 5], [11, 12], True],
            [8, 1, 1, [5], [3], True],
            [5, 1, 1, [], [], True],
        ],
    }


def read(tmp_path: Path, text: str) -> Any:
    path = tmp_path / "old.json"
    path.write_text(text, encoding="utf-8")
    return read_2021_architecture(path)


def test_reads_a_network(tmp_path: Path) -> None:
    architecture = read(tmp_path, json.dumps(network()))
    assert architecture.name == "old"
    assert [conv.out_channels for conv in architecture.stem] == [4, 6]
    assert (architecture.norm_momentum, architecture.norm_eps) == (0.05, 0.002)
    assert [(name, block.kernels) for name, block in architecture.blocks()] == [
        ("stages.0.fusion.paths.0", ((3, 11), (5, 12))),
        ("stages.0.branches.0.0", ((5, 3),)),
        ("head.block", ()),
    ]
    assert architecture.features == (Feature(channels=8, stride=4),)
    assert architecture.head.outputs == 7


@pytest.mark.parametrize(("everywhere", "tokens"), [(False, [0, 64, 0]), (True, [64, 64, 64])])
def test_where_transformers_are(everywhere: bool, tokens: list[int], tmp_path: Path) -> None:
    data = {**network(), "use_transformer": True, "downsampling_transformer": everywhere}
    assert [block.tokens for _, block in read(tmp_path, json.dumps(data)).blocks()] == tokens


CANNOT = "old.json cannot be read as a network of the 2021 code"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not JSON", CANNOT),
        ("[]", CANNOT),
        ("{}", f"{CANNOT} (KeyError('model_kwparams'))"),
        (json.dumps({**network(), "inverted_residual_setting": [[8, 1]]}), "the block list has 1 blocks; this network"),
        (json.dumps({**network(), "inverted_residual_setting": [[8, 1]] * 3}), CANNOT),
        (json.dumps(network(kernel_sizes=3)), CANNOT),
        (json.dumps(network(input_channel=[])), "Space 'old' has an empty stem"),
        (json.dumps(network(kernel_sizes=[4])), "kernels have sizes [4]"),
        (json.dumps(network(task="pose")), "task is 'pose' with input stride 4; segmentation with stride 4 is needed."),
        (json.dumps(network(input_stride=2)), "task is 'segmentation' with input stride 2; segmentation with stride 4"),
        (
            json.dumps(network(inverted_residual_setting=[[1, [1], [9]]])),
            "block stages.0.fusion.paths.0 is listed with 8 channels and stride 1; it needs 9 and 1.",
        ),
    ],
)
def test_what_is_no_such_network(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "old.json"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.json cannot be read .* It needs model_kwparams, use_transformer"):
        read_2021_architecture(tmp_path / "nowhere.json")
