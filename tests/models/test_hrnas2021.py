"""The recorded networks of the 2021 code: its weights in our network give its features and its logits."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from hrnas.arch.hrnas2021 import read_2021_architecture
from hrnas.errors import CheckpointError, InputError
from hrnas.models.hrnas2021 import translate_2021_weights
from hrnas.models.network import Backbone, build_model

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"
NAMES = ("seg_narrow", "seg_narrow_searched")

needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(),
    reason="the recorded networks of the 2021 code (../shared/reference) are not on this machine",
)


def relative(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return ((found - expected).abs().max() / expected.abs().max()).item()


@needs_reference
@pytest.mark.parametrize("name", NAMES)
def test_features_and_output_agree(name: str) -> None:
    architecture = read_2021_architecture(REFERENCE / f"{name}.json")
    model = build_model(architecture).eval()
    model.load_state_dict(translate_2021_weights(architecture, load_file(REFERENCE / f"{name}.weights.safetensors")))
    recorded = load_file(REFERENCE / f"{name}.io.safetensors")
    with torch.no_grad():
        features = Backbone.forward(model, recorded["input"])
        output = model(recorded["input"])
    assert len(features) == 4
    for index, feature in enumerate(features):
        assert relative(feature, recorded[f"features.{index}"]) <= 1e-4, index
    assert relative(output, recorded["output"]) <= 1e-4


class ReadWeights(dict[str, Tensor]):
    """Weights that remember which of them were read."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__(weights)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        return super().__getitem__(name)


@needs_reference
@pytest.mark.parametrize(("name", "emptied"), [("seg_narrow", 0), ("seg_narrow_searched", 7)])
def test_every_recorded_tensor_is_used(name: str, emptied: int) -> None:
    """But the shared norm of an emptied block, which the 2021 code drops (docs/method.md, known faults)."""
    architecture = read_2021_architecture(REFERENCE / f"{name}.json")
    assert sum(not block.kernels for _, block in architecture.blocks()) == emptied
    weights = ReadWeights(load_file(REFERENCE / f"{name}.weights.safetensors"))
    translate_2021_weights(architecture, weights)
    unread = {key.rsplit(".", 1)[0] for key in weights.keys() - weights.read}
    assert len(unread) == emptied
    assert all(key.endswith(".pw_bn") for key in unread)


@needs_reference
def test_a_missing_tensor_is_named() -> None:
    architecture = read_2021_architecture(REFERENCE / "seg_narrow.json")
    weights = load_file(REFERENCE / "seg_narrow.weights.safetensors")
    for key in ("classifier.bias", "downsamples.0.0.weight", "features.1.branches.0.0.ops.2.1.0.weight"):
        some = {name: tensor for name, tensor in weights.items() if name != key}
        with pytest.raises(CheckpointError, match=f"have no tensor '{key}'; give the state dict that belongs"):
            translate_2021_weights(architecture, some)


@needs_reference
def test_a_wrong_block_list_is_refused(tmp_path: Path) -> None:
    data = json.loads((REFERENCE / "seg_narrow.json").read_text(encoding="utf-8"))
    path = tmp_path / "network.json"
    rows = data["inverted_residual_setting"]

    path.write_text(json.dumps({**data, "inverted_residual_setting": rows[:-1]}), encoding="utf-8")
    with pytest.raises(
        InputError, match=rf"network\.json: the block list has {len(rows) - 1} blocks; this network has"
    ):
        read_2021_architecture(path)

    wide = [[rows[0][0] + 1, *rows[0][1:]], *rows[1:]]
    path.write_text(json.dumps({**data, "inverted_residual_setting": wide}), encoding="utf-8")
    expected = "block stages.0.fusion.paths.0 is listed with 9 channels and stride 1; it needs 8 and 1"
    with pytest.raises(InputError, match=expected):
        read_2021_architecture(path)


@needs_reference
def test_another_task_is_refused(tmp_path: Path) -> None:
    data = json.loads((REFERENCE / "seg_narrow.json").read_text(encoding="utf-8"))
    data["model_kwparams"]["task"] = "classification"
    path = tmp_path / "network.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(InputError, match=r"task is 'classification' with input stride 4; segmentation .* is needed"):
        read_2021_architecture(path)
