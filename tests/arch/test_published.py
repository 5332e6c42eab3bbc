"""The published network's block list, against the list it was read off."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hrnas.arch.hrnas2021 import with_block_list
from hrnas.arch.published import PUBLISHED, published_network

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "imagenet_searched_2021.json"


@pytest.mark.skipif(not REFERENCE.is_file(), reason="the 2021 block list (../shared/reference) is not on this machine")
@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_blocks_are_those_of_the_list(name: str) -> None:
    supernet = PUBLISHED[name].supernet(1000, head="classes")
    assert published_network(name) == with_block_list(supernet, json.loads(REFERENCE.read_text()))


def test_plain_and_gated_networks_differ_in_gates_and_activation_alone() -> None:
    plain, gated = published_network("hrnas-imagenet"), published_network("hrnas-imagenet-se")
    assert (plain.activation, gated.activation) == ("relu", "swish")
    for (name, block), (_, other) in zip(plain.blocks(), gated.blocks(), strict=True):
        assert replace(block, squeeze=other.squeeze) == other, name
        assert other.squeeze == (round(0.5 * block.in_channels) if block.kernels else 0), name
