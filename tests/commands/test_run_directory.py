"""best/ replaced as a whole, whatever stops it; and what of a killed run's leavings goes."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from commands import tiny
from commands.faults import Fault, die, run_elsewhere, watched
from commands.test_full_disk import refuse
from hrnas.commands.run_directory import clear_leftovers, save_network
from hrnas.models.loading import load
from hrnas.models.network import Network

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")

STAGES = (
    "mkdir /.best.new$", "save /model", "fsync /model", "fsync /.architecture", "rename /best$", "rename /.best.new$",
)  # fmt: skip


def network(seed: int) -> Network:
    torch.manual_seed(seed)
    return Network(tiny.TINY.supernet(3))


@pytest.mark.parametrize("stage", STAGES)
def test_a_network_whose_replacing_was_killed_comes_back(stage: str, tmp_path: Path) -> None:
    save_network(tmp_path / "best", network(0))
    before = tiny.snapshot(tmp_path)
    fault = Fault(stage, die)
    fault.arm()

    def replace() -> None:
        with watched(fault):
            save_network(tmp_path / "best", network(1))

    assert run_elsewhere(replace) == -9
    assert clear_leftovers(tmp_path) is (stage == "rename /.best.new$")
    assert tiny.snapshot(tmp_path) == before
    assert clear_leftovers(tmp_path) is False


def test_the_network_is_back_even_if_the_next_replacing_fails_too(tmp_path: Path) -> None:
    save_network(tmp_path / "best", network(0))
    before = tiny.snapshot(tmp_path)
    (tmp_path / "best").rename(tmp_path / ".best.old")  # as a kill leaves it
    fault = Fault("mkdir /.best.new$", refuse)
    fault.arm()
    with watched(fault), pytest.raises(OSError, match="No space"):
        save_network(tmp_path / "best", network(1))
    assert tiny.snapshot(tmp_path) == before


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_leaves_the_network_before(stage: str, tmp_path: Path) -> None:
    save_network(tmp_path / "best", network(0))
    before = tiny.snapshot(tmp_path)
    fault = Fault(stage, refuse)
    fault.arm()
    with watched(fault), pytest.raises((OSError, SafetensorError), match="No space left"):
        save_network(tmp_path / "best", network(1))
    assert tiny.snapshot(tmp_path) == before
    save_network(tmp_path / "best", network(1))
    assert tiny.snapshot(tmp_path) != before
    assert torch.equal(load(tmp_path).state_dict()["head.output.bias"], network(1).state_dict()["head.output.bias"])


def test_only_our_leavings_are_removed(tmp_path: Path) -> None:
    kept = [".gitignore", ".notes.partial.txt", "metrics.jsonl", "checkpoints/notes.txt", "checkpoints/step-00000001/a"]
    gone = [
        ".metrics.jsonl.12.partial",
        ".report-abc.html",
        ".best.new/model.safetensors",
        ".best.old/model.safetensors",
    ]
    gone += ["checkpoints/.step-00000002.34/model.safetensors", "checkpoints/.step-00000001.removed/state.json"]
    for name in (*kept, *gone, "best/model.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert clear_leftovers(tmp_path) is False
    assert sorted(tiny.snapshot(tmp_path)) == sorted([*kept, "best/model.safetensors"])
    assert clear_leftovers(tmp_path / "none") is False
