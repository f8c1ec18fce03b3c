"""Errors that more than one part of the package raises."""


class InputError(ValueError):
    """A file or an option of the user is at fault. The message is one line that names it and what was expected."""
