"""create_model, list_models and load: plain modules, by name, from a file, from a run."""

import math
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import hrnas
from architectures import random_architecture
from commands import tiny
from hrnas.arch.architecture import Pillars
from hrnas.arch.file import read_architecture, to_json
from hrnas.arch.presets import SPACES
from hrnas.arch.published import published_network
from hrnas.commands.run_directory import save_network
from hrnas.errors import CheckpointError, InputError
from hrnas.models.loading import create_model, list_models, load, network_folder
from hrnas.models.network import Backbone, Network, build_model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search with its validation figures; not to be changed."""
    folder = tmp_path_factory.mktemp("run")
    data = tiny.toycity(folder)
    outcome = tiny.search(data, folder / "run", steps=6)
    assert outcome.code == 0, outcome.err
    return folder / "run"


def with_head(seed: int) -> Network:
    """Return a small random network that has a head."""
    random = Random(seed)
    while (architecture := random_architecture(random)).head is None:
        pass
    model = build_model(architecture)
    assert isinstance(model, Network)
    return model


@pytest.mark.parametrize("name", list_models())
def test_features_are_as_published(name: str) -> None:
    with torch.device("meta"):
        backbone = create_model(name, features_only=True, in_chans=4)
    assert type(backbone) is Backbone
    maps = backbone(torch.empty(2, 4, 64, 96, device="meta"))
    assert [(feature.channels, feature.stride) for feature in backbone.features] == [
        (part.shape[1], 64 // part.shape[2]) for part in maps
    ]
    assert [part.shape[3] for part in maps] == [96 // feature.stride for feature in backbone.features]


def test_the_names_are_those_of_the_spaces_and_of_published_networks() -> None:
    assert list_models() == ["hr", "hr-small", "hrnas-imagenet", "hrnas-imagenet-se"]


def test_a_published_network_by_name() -> None:
    with torch.device("meta"):
        model, fewer = create_model("hrnas-imagenet-se"), create_model("hrnas-imagenet", num_classes=10, in_chans=1)
        backbone = create_model("hrnas-imagenet", features_only=True)
    assert model.architecture == published_network("hrnas-imagenet-se")
    assert model(torch.empty(2, 3, 65, 64, device="meta")).shape == (2, 1000)
    assert fewer.architecture == published_network("hrnas-imagenet", 10, 1)
    assert fewer(torch.empty(2, 1, 64, 64, device="meta")).shape == (2, 10)
    assert type(backbone) is Backbone


def test_a_supernet_with_a_head_of_classes() -> None:
    model = create_model("hr-small", num_classes=7, head="classes")
    assert model.architecture == SPACES["hr-small"].supernet(7, head="classes")
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    with pytest.raises(InputError, match=r"Unknown head 'class'\. Did you mean 'classes'\?"):
        create_model("hr-small", num_classes=7, head="class")


def test_a_network_for_clouds_by_name() -> None:
    """PointPillars' grid; the cost is the flat part's and counts at no other size."""
    model = create_model("hr-small", num_classes=3, head="anchors").eval()
    assert (model.architecture.pillars, model.architecture.features[0].stride) == (Pillars(), 2)
    cloud = torch.tensor([[[10.0, 2.0, -1.0, 0.3], [69.0, -39.0, 0.5, 0.1], [math.inf] * 4]])
    with torch.no_grad():
        out = model(cloud)
    assert out.shape == (1, 6 * (3 + 7 + 2), 248, 216)
    assert hrnas.cost(model, (496, 432)).macs == 5_621_586_624
    with pytest.raises(InputError, match="pillars stand in 496 rows and 432 columns"):
        hrnas.cost(model, (96, 128))
    with pytest.raises(InputError, match=r"shape 1x3x8x8; clouds, \(B, P, 4\), are needed"):
        model(torch.zeros(1, 3, 8, 8))
    with pytest.raises(InputError, match="in_chans is 3; a network with head anchors takes clouds"):
        create_model("hr", num_classes=3, head="anchors", in_chans=3)


def test_a_network_by_name_is_the_supernet_of_the_space() -> None:
    model = create_model("hr-small", num_classes=7, in_chans=1)
    assert isinstance(model, Network)
    assert model.architecture == SPACES["hr-small"].supernet(7, 1)
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 7, 8, 8)
    assert create_model("hr-small", num_classes=7).architecture.in_channels == 3


def test_a_network_from_an_architecture_file_or_object(tmp_path: Path) -> None:
    architecture = with_head(0).architecture
    (tmp_path / "architecture.json").write_text(to_json(architecture))
    for given in (architecture, tmp_path / "architecture.json", str(tmp_path / "architecture.json")):
        assert create_model(given).architecture == architecture
    assert architecture.head is not None
    assert create_model(architecture, num_classes=architecture.head.outputs).architecture == architecture
    backbone = create_model(architecture, features_only=True)
    assert type(backbone) is Backbone
    assert backbone.architecture == replace(architecture, head=None)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, ("num_classes is missing", "features_only=True")),
        ({"name": "hr-smal"}, ("Unknown model 'hr-smal'", "Did you mean 'hr-small'?")),
        ({"num_classes": 0}, ("outputs",)),
        ({"num_classes": 3, "in_chans": 0}, ("in_channels",)),
    ],
)
def test_a_wrong_name_or_number_is_refused(given: dict[str, object], words: tuple[str, ...]) -> None:
    name = given.pop("name", "hr-small")
    with pytest.raises(InputError) as caught:
        create_model(name, **given)  # type: ignore[arg-type]
    for word in words:
        assert word in str(caught.value)


def test_numbers_that_contradict_the_architecture_are_refused() -> None:
    architecture = with_head(1).architecture
    assert architecture.head is not None
    with pytest.raises(InputError, match=r"num_classes is 9; this architecture has \d"):
        create_model(architecture, num_classes=9)
    with pytest.raises(InputError, match=r"in_chans is 7; this architecture has \d"):
        create_model(architecture, in_chans=7)
    with pytest.raises(InputError, match="num_classes is 5; this architecture has no head"):
        create_model(replace(architecture, head=None), num_classes=5)


def test_load_gives_the_network_that_was_evaluated(run: Path) -> None:
    model = load(run)
    assert type(model) is Network
    assert not any(module.training for module in model.modules())
    assert model.architecture == read_architecture(run / "best" / "architecture.json")
    weights = load_file(run / "best" / "model.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    with tiny.tiny_world():
        from hrnas.commands.evaluate import EvaluateOptions, evaluate

        recorded = tiny.lines(run / "metrics.jsonl")[-1]
        assert recorded["kind"] == "evaluation"
        assert evaluate(EvaluateOptions(run=str(run), workers=0))["miou"] == recorded["miou"]


@pytest.mark.parametrize("seed", range(5))
def test_what_was_saved_computes_the_same(seed: int, tmp_path: Path) -> None:
    model = with_head(seed).eval()
    for name, value in model.state_dict().items():
        if name.endswith(("running_mean", "running_var")):  # as training leaves them
            value.copy_(torch.rand_like(value) + 0.5)
    save_network(tmp_path / "best", model)
    image = torch.randn(2, model.architecture.in_channels, 33, 40)
    with torch.no_grad():
        expected = model(image)
        for given in (tmp_path, tmp_path / "best", str(tmp_path)):
            assert torch.equal(load(given)(image), expected)
        pretrained = create_model(model.architecture, pretrained=tmp_path).eval()
        assert torch.equal(pretrained(image), expected)
        backbone = create_model(tmp_path, features_only=True, pretrained=tmp_path).eval()
        for got, needed in zip(backbone(image), Backbone.forward(model, image), strict=True):
            assert torch.equal(got, needed)


def test_saving_replaces_the_folder_as_a_whole(tmp_path: Path) -> None:
    for seed in (0, 1):
        save_network(tmp_path / "best", with_head(seed))
    assert load(tmp_path).architecture == with_head(1).architecture
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_network(tmp_path / "one", with_head(0))
    with pytest.raises(CheckpointError, match=r"one: tensor '[\w.]+' is .*; this architecture .* Use the weights"):
        create_model(with_head(1).architecture, pretrained=tmp_path / "one")
    (tmp_path / "one" / "architecture.json").write_text(to_json(with_head(1).architecture))
    with pytest.raises(CheckpointError, match="Use the weights"):
        load(tmp_path / "one")


def test_a_folder_without_a_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no network"):
        network_folder(tmp_path)
    save_network(tmp_path / "best", with_head(0))
    weights = tmp_path / "best" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(tmp_path)
    weights.unlink()
    with pytest.raises(InputError, match="holds no network"):
        load(tmp_path)


def test_a_backbone_is_not_loaded_as_a_network(tmp_path: Path) -> None:
    architecture = replace(with_head(0).architecture, head=None)
    save_network(tmp_path, build_model(architecture))
    with pytest.raises(InputError, match="features_only=True"):
        load(tmp_path)
    assert type(create_model(architecture, pretrained=tmp_path)) is Backbone


def test_cost_refuses_what_it_cannot_count() -> None:
    model = hrnas.create_model("hr-small", num_classes=3)
    assert hrnas.cost(model, (33, 47)) == hrnas.cost(model.architecture, (33, 47))
    with pytest.raises(InputError, match=r"input_size is 60; a pair \(height, width\)"):
        hrnas.cost(model, 60)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Linear has no architecture"):
        hrnas.cost(nn.Linear(2, 2), (60, 80))  # type: ignore[arg-type]
