"""The commands of ``pypose-ops``, one module each: its docstring, ``add_arguments(parser)`` and ``run(args)``."""


class InputError(Exception):
    """The user's file or option is at fault: one line, exit code 2."""
