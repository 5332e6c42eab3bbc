"""The golden figures of docs/method.md, exact, by the formula and by the independent count."""

from dataclasses import replace

import pytest
import torch

from hrnas.arch.architecture import Architecture
from hrnas.arch.presets import search_space
from hrnas.arch.published import PUBLISHED, published_network
from hrnas.costing.analytic import cost
from hrnas.costing.counted import count
from hrnas.models.network import build_model

TRANSFORMERS = ("none", "residual", "all")

SEGMENTATION_MACS = {
    (512, 1024): (61_836_632_064, 62_043_906_048, 62_123_409_408),
    (1024, 2048): (247_346_528_256, 247_553_802_240, 247_633_305_600),
    (352, 480): (19_927_820_880, 20_135_094_864, 20_214_598_224),
}
ADE20K_MACS = {(512, 512): (36_114_665_472, 36_321_939_456, 36_401_811_456)}
POSE_MACS = {
    (256, 192): (5_796_631_296, 6_003_905_280, 6_083_408_640),
    (384, 288): (13_042_420_416, 13_249_694_400, 13_329_197_760),
}
GOLDEN = {
    "segmentation": (19, 90, SEGMENTATION_MACS, (10_110_235, 12_841_839, 13_887_971)),
    "ade20k": (150, 180, ADE20K_MACS, (10_427_706, 13_159_310, 14_211_382)),
    "pose": (17, 90, POSE_MACS, (10_110_053, 12_841_657, 13_887_789)),
}
"""Network: outputs, last_channel, MACs by input size and parameters, each without / residual / all transformers."""

CASES = [(network, transformers) for network in GOLDEN for transformers in TRANSFORMERS]


def supernet(network: str, transformers: str) -> Architecture:
    outputs, head_channels, _, _ = GOLDEN[network]
    return replace(search_space("hr", transformers), head_channels=head_channels).supernet(outputs)


IMAGENET = {
    "none": (2_422_799_760, 13_243_868),
    "residual": (2_630_073_744, 15_975_472),
    "all": (2_739_994_000, 17_429_016),
}
"""MACs at 224x224 and parameters of the supernet with a head of 1000 classes, by its transformers."""

UNUSED = 2 * (7 * 18 + 36 + 72)
"""What the count of the plain searched network holds beyond ours: as many as the shared norms of its nine emptied
blocks have, scale and shift, which nothing uses there. That of the network with squeeze-excitation holds none."""

SEARCHED = {"hrnas-imagenet": (259_232_935, 3_894_152 - UNUSED), "hrnas-imagenet-se": (259_930_681, 4_600_000)}


@pytest.mark.parametrize(("network", "transformers"), CASES)
def test_formula(network: str, transformers: str) -> None:
    architecture = supernet(network, transformers)
    _, _, macs, params = GOLDEN[network]
    column = TRANSFORMERS.index(transformers)
    for size, expected in macs.items():
        found = cost(architecture, size)
        assert (found.macs, found.params) == (expected[column], params[column]), size


@pytest.mark.parametrize(("network", "transformers"), CASES)
def test_independent_count(network: str, transformers: str) -> None:
    with torch.device("meta"):
        model = build_model(supernet(network, transformers)).eval()
    _, _, macs, params = GOLDEN[network]
    column = TRANSFORMERS.index(transformers)
    for size, expected in macs.items():
        found = count(model, size)
        assert (found.macs, found.params) == (expected[column], params[column]), size


@pytest.mark.parametrize("transformers", TRANSFORMERS)
def test_the_supernet_of_imagenet(transformers: str) -> None:
    architecture = search_space("hr", transformers).supernet(1000, head="classes")
    with torch.device("meta"):
        model = build_model(architecture).eval()
    for found in (cost(architecture, (224, 224)), count(model, (224, 224))):
        assert (found.macs, found.params) == IMAGENET[transformers]


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_searched_network_of_imagenet(name: str) -> None:
    architecture = published_network(name)
    with torch.device("meta"):
        model = build_model(architecture).eval()
    for found in (cost(architecture, (224, 224)), count(model, (224, 224))):
        assert (found.macs, found.params) == SEARCHED[name]


def test_the_difference_to_the_plain_count_is_the_size_of_the_emptied_blocks_norms() -> None:
    emptied = [block for _, block in published_network("hrnas-imagenet").blocks() if not block.kernels]
    assert len(emptied) == 9
    assert 2 * sum(block.out_channels for block in emptied) == UNUSED
