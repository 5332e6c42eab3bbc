"""Whether other data can take the place of those a network was trained on."""

from hrnas.data.description import DataDescription
from hrnas.errors import InputError


def check_same(given: DataDescription, own: DataDescription, data: str, run: str) -> None:
    """Raise InputError for data of another task, or with other classes, joints or usual boxes, than the run's.

    data, run: what messages call the two.
    """
    if given.task != own.task:
        raise InputError(f"{data} is for {given.task}; {run} was trained for {own.task}. Give data for that.")
    if given.names != own.names:
        place = next(
            (i for i, pair in enumerate(zip(given.names, own.names, strict=False)) if pair[0] != pair[1]), None
        )
        got = f"{len(given.names)} names" if place is None else f"'{given.names[place]}' as name {place + 1}"
        need = f"{len(own.names)}" if place is None else f"'{own.names[place]}' there"
        raise InputError(f"{data} has {got}; {run} has {need}. Give data with the run's names in its order.")
    for ours, theirs in zip(own.classes, given.classes, strict=True):
        # What a network says is relative to the usual box of the class.
        if (ours.size, ours.z) != (theirs.size, theirs.z):
            got, need = ([*box.size, box.z] for box in (theirs, ours))
            raise InputError(f"{data} has {got} as the usual {ours.name}; {run} has {need}. Give the run's 'anchors'.")
