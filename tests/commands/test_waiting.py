"""The seconds a loop waits are those in which it had asked for an item and none had come."""

from collections.abc import Iterator

import pytest

from hrnas.commands import waiting
from hrnas.commands.waiting import Waited


def test_waiting_counts_from_asking_to_getting_and_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(waiting.time, "perf_counter", lambda: now)

    def items() -> Iterator[int]:
        nonlocal now
        for number in range(3):
            now += 2.0
            yield number

    batches = Waited(items())
    assert next(batches) == 0
    now += 100.0  # the step
    assert next(batches) == 1
    assert batches.take_seconds() == 4.0
    assert batches.take_seconds() == 0.0
    assert list(batches) == [2]
    assert batches.take_seconds() == 2.0
