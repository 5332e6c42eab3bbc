"""How the data layer shows that something takes long, without knowing where it is shown."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

ShowProgress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""From what is done and how many there are of it to a function that is told how many are done."""


@contextmanager
def unseen(_what: str, _total: int) -> Iterator[Callable[[int], None]]:
    """Show no progress."""
    yield lambda done: None
