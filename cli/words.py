"""What the commands say."""

from collections.abc import Collection
from itertools import islice


def people(count: int) -> str:
    return "1 person" if count == 1 else f"{count} people"


def first(names: Collection[object], most: int = 3) -> str:
    """The first of some names, with commas between."""
    return ", ".join(map(str, islice(names, most))) + (", ..." if len(names) > most else "")
