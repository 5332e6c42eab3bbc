"""How long a loop waits for what it works on."""

import time
from collections.abc import Iterator
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Waited(Generic[T]):
    """Items as they come, with the seconds that were waited for them."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self._seconds = 0.0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        started = time.perf_counter()
        try:
            return next(self._items)
        finally:
            self._seconds += time.perf_counter() - started

    def take_seconds(self) -> float:
        """Return the seconds waited since this was last asked."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds
