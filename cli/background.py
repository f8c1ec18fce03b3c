"""Work that another thread does while the network runs: Pillow lets others run while it decodes and encodes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def in_background(function: Callable[[In], Out], items: Iterable[In], most: int = 4) -> Iterator[Out]:
    """``map(function, items)``, with up to ``most`` results computed ahead by another thread.

    The items are made by the calling thread. An exception is raised where its result would have been; whatever ends the
    loop, what has begun is finished first.
    """
    with ThreadPoolExecutor(1) as pool:
        begun: deque[Future[Out]] = deque()
        for item in items:
            begun.append(pool.submit(function, item))
            if len(begun) > most:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
