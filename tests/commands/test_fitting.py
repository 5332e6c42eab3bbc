"""Whether a step fits into memory, what would make it fit, and what plan says of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from commands import tiny
from hrnas.arch.presets import search_space
from hrnas.commands.fitting import MARGIN, Setting, fit
from hrnas.engine.training import TrainState, train_step
from hrnas.kernels import compiling
from hrnas.nn.search_block import SearchBlock

WIDE = search_space("hr-small").supernet(11)
SIZE = (96, 128)
SETTING = Setting(batch_size=16, accumulate=1, precision="float32", recompute=False, device="cpu", kernels=False)


def peak(**changed: object) -> int:
    return replace(SETTING, **changed).peak(WIDE, SIZE)


@pytest.mark.parametrize("batch", [1, 2, 7, 16, 33, 200])
def test_the_largest_batch_fits_and_one_more_does_not(batch: int) -> None:
    free = int(MARGIN * peak(batch_size=batch)) + 1
    found = fit(WIDE, SIZE, SETTING, free)
    assert found.largest_batch_size == batch
    assert MARGIN * peak(batch_size=batch + 1) > free
    assert found.fits == (batch >= 16)
    assert (found.predicted, found.free) == (peak(), free)


def test_what_fits_needs_no_remedy_and_what_is_unknown_has_none() -> None:
    assert fit(WIDE, SIZE, SETTING, 2**40).remedies == ()
    unknown = fit(WIDE, SIZE, SETTING, None)
    assert (unknown.fits, unknown.largest_batch_size, unknown.remedies) == (None, None, ())
    assert unknown.predicted == peak()
    nothing = fit(WIDE, SIZE, SETTING, 1000)
    assert (nothing.fits, nothing.largest_batch_size, nothing.remedies) == (False, 0, ())


def test_remedies_make_it_fit_with_the_fewest_micro_batches() -> None:
    free = int(MARGIN * peak(accumulate=4)) + 1
    found = {remedy.options: remedy.predicted for remedy in fit(WIDE, SIZE, SETTING, free).remedies}
    assert found["--accumulate 4"] == peak(accumulate=4)
    assert len(found) == 4
    for options, predicted in found.items():
        words = options.split()
        changed: dict[str, object] = {"recompute": "--recompute" in words}
        if "--precision" in words:
            changed["precision"] = words[words.index("--precision") + 1]
        count = int(words[words.index("--accumulate") + 1]) if "--accumulate" in words else 1
        assert predicted == peak(**changed, accumulate=count)
        assert MARGIN * predicted <= free
        assert SETTING.batch_size % count == 0  # a search refuses others
        assert count == 1 or MARGIN * peak(**changed, accumulate=count // 2) > free  # the divisor before


def test_options_that_are_set_are_not_proposed() -> None:
    setting = replace(SETTING, precision="bfloat16", recompute=True, accumulate=2)
    free = int(MARGIN * replace(setting, accumulate=3).peak(WIDE, SIZE)) + 1
    assert [remedy.options for remedy in fit(WIDE, SIZE, setting, free).remedies] == ["--accumulate 4"]


@pytest.mark.parametrize("free", [2**40, 5_000_000, 1, None])
def test_plan_warns_and_proposes(free: int | None, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hrnas.commands.plan.free_memory", lambda device: free)
    words = ("plan", data, "--space", "tiny", "--budget", "60%", "--batch-size", "64", "--workers", "0")
    shown = tiny.hrnas(*words)
    assert shown.code == 0, shown.err
    text = " ".join(shown.out.split())
    result = tiny.hrnas(*words, "--json").result
    memory = result["memory"]
    assert memory["predicted_bytes"] == result["networks"]["widest"]["memory_bytes"]
    assert memory["free_bytes"] == free
    assert memory["fits"] == (None if free is None else free > 2**30)
    assert (result["seconds"] is None) == (memory["fits"] is False) == ("Time: not measured" in text)
    assert ("Warning: too little memory" in text) == (memory["fits"] is False)
    if free == 5_000_000:
        assert 0 < memory["largest_batch_size"] < 64
        assert f"with a fifth to spare, is {memory['largest_batch_size']}." in text
        assert memory["remedies"]
        assert all(f"Batch 64 fits with {remedy['options']}" in text for remedy in memory["remedies"])
    elif free == 1:
        assert (memory["largest_batch_size"], memory["remedies"]) == (0, [])
        assert "Nothing makes this batch fit" in text
    elif free is None:
        assert "does not say how much is free" in text
    else:
        assert memory["largest_batch_size"] >= 64


def test_plan_predicts_for_the_options_given(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "problem", lambda: "left out")  # bfloat16 has none, and is compared without
    words = ("plan", data, "--space", "tiny", "--budget", "60%", "--workers", "0", "--json")
    plain = tiny.hrnas(*words).result["memory"]["predicted_bytes"]
    assert tiny.hrnas(*words, "--recompute").result["memory"]["predicted_bytes"] != plain
    assert tiny.hrnas(*words, "--precision", "bfloat16").result["memory"]["predicted_bytes"] < plain


def test_plan_times_the_step_that_the_search_would_do(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []

    def step(state: TrainState, *given: Any, **named: Any) -> float:
        is_recomputing = any(isinstance(m, SearchBlock) and "forward" in vars(m) for m in state.model.modules())
        steps.append((state.precision, is_recomputing, named))
        return train_step(state, *given, **named)

    monkeypatch.setattr("hrnas.commands.probing.train_step", step)
    words = ("plan", data, "--space", "tiny", "--budget", "60%", "--workers", "0", "--batch-size", "4")
    shown = tiny.hrnas(*words, "--accumulate", "2", "--recompute", "--precision", "bfloat16")
    assert shown.code == 0, shown.err
    assert "predicted at the highest point of a step of one process, " in " ".join(shown.out.split())
    assert steps
    assert all(found == ("bfloat16", True, {"accumulate": 2}) for found in steps), steps


def test_plan_refuses_a_batch_that_a_search_refuses(data: Path) -> None:
    shown = tiny.hrnas("plan", data, "--space", "tiny", "--budget", "60%", "--batch-size", "4", "--accumulate", "3")
    assert shown.code == 2
    assert "cannot be dealt out evenly to 3 micro-batches on each" in " ".join(shown.err.split())
