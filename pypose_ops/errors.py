"""Errors that more than one part of the package raises."""

import re

_LONGEST = 400  # characters without a space: names in files may have any length


class InputError(ValueError):
    """A file or an option of the user is at fault. One line names it and what was expected."""

    def __init__(self, message: str) -> None:
        line = re.sub(rf"(\S{{{_LONGEST}}})\S+", r"\1...", " ".join(str(message).split()))
        super().__init__(line if len(line) <= 2 * _LONGEST else f"{line[: 2 * _LONGEST]}...")
