"""Whole runs with the options that save memory."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest
from torch import nn

from commands import tiny
from hrnas.data.folders import FolderSet
from hrnas.engine.recomputation import recompute_blocks


@contextmanager
def counted_recomputation() -> Iterator[Counter[str]]:
    """Count by verb how often a network is made to recompute its blocks."""
    counts: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        for verb in ("search", "train"):
            module = import_module(f"hrnas.commands.{verb}")

            def count(model: nn.Module, verb: str = verb) -> None:
                counts[verb] += 1
                recompute_blocks(model)

            patch.setattr(module, "recompute_blocks", count)
        yield counts


def test_a_search_that_recomputes_is_the_plain_search(search_run: Path, data: Path, tmp_path: Path) -> None:
    """Weights, averages, moments and cuts, bit for bit."""
    run = tmp_path / "run"
    with counted_recomputation() as counts:
        assert tiny.search(data, run, "--recompute").code == 0
    assert counts["search"] == 1
    for file in ("best/model.safetensors", "best/architecture.json"):
        assert (run / file).read_bytes() == (search_run / file).read_bytes(), file
    found, expected = (tiny.without_seconds(tiny.lines(folder / "metrics.jsonl")) for folder in (run, search_run))
    assert found == expected
    checkpoints = [sorted(folder.glob("checkpoints/*/optimizer.safetensors")) for folder in (run, search_run)]
    assert [file.read_bytes() for file in checkpoints[0]] == [file.read_bytes() for file in checkpoints[1]]


def test_a_training_that_recomputes_is_the_plain_training(
    search_run: Path, train_run: Path, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with counted_recomputation() as counts:
        assert tiny.train(search_run, data, run, "--recompute").code == 0
    assert counts["train"] == 1
    assert (run / "best/model.safetensors").read_bytes() == (train_run / "best/model.safetensors").read_bytes()


def test_a_search_in_bfloat16_with_transformers_cuts_and_ends(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("--precision", "bfloat16", "--recompute", "--json")
    result = tiny.search(data, run, *words, space="tiny-transformers", budget="80%").result
    assert 0.98 < result["found"]["macs"] / result["budget_macs"] <= 1
    assert len(tiny.lines(run / "architectures.jsonl")) > 1
    assert "precision: bfloat16" in (run / "config.yaml").read_text(encoding="utf-8")
    losses = [line["loss"] for line in tiny.lines(run / "metrics.jsonl") if line["kind"] == "train"]
    assert losses[-1] < losses[0]
    again = tiny.hrnas("evaluate", run, "--workers", 0, "--json").result
    assert again["miou"] == json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["validation"]["miou"]


def test_bfloat16_reaches_the_steps_of_both_loops(
    search_run: Path, train_run: Path, data: Path, tmp_path: Path
) -> None:
    words = ("--precision", "bfloat16")
    assert tiny.search(data, tmp_path / "search", *words).code == 0
    assert tiny.train(search_run, data, tmp_path / "train", *words).code == 0
    for run, plain in ((tmp_path / "search", search_run), (tmp_path / "train", train_run)):
        first, expected = (tiny.lines(folder / "metrics.jsonl")[0]["loss"] for folder in (run, plain))
        assert first != expected
        assert first == pytest.approx(expected, rel=0.02)


def test_an_unknown_precision_is_refused(data: Path, tmp_path: Path) -> None:
    outcome = tiny.search(data, tmp_path / "run", "--precision", "bfloat61")
    assert outcome.code == 2
    assert "Unknown precision 'bfloat61'. Did you mean 'bfloat16'?" in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_search_of_cached_images_is_the_search_of_decoded_ones(tmp_path: Path) -> None:
    data = tiny.pictures(tmp_path)
    assert tiny.search(data, tmp_path / "with", steps=6).code == 0
    decode, decoded = FolderSet.read, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FolderSet, "read", lambda self, index: decoded.append(index) or decode(self, index))
        assert tiny.search(data, tmp_path / "without", "--cache", "0", steps=6).code == 0
        num_without = len(decoded)
        decoded.clear()
        assert tiny.search(data, tmp_path / "again", steps=6).code == 0
    # The size of the first image is asked of the set itself; after that each of the 6 + 3 pairs is decoded once.
    assert len(decoded) == 1 + 9 < num_without
    weights = [(tmp_path / name / "best" / "model.safetensors").read_bytes() for name in ("with", "without", "again")]
    assert weights[0] == weights[1] == weights[2]
