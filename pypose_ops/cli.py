"""The command line: ``pypose-ops COMMAND``. A command is a module, most of them of :mod:`pypose_ops.commands`."""

import sys

from .commands import run_command

COMMANDS = {name: f"pypose_ops.commands.{name}" for name in ("info", "crop", "decode", "evaluate")}
COMMANDS |= {"predict": "pypose_ops.models.commands.predict", "demo": "pypose_ops.commands.demo"}


def main(argv=None):
    """Runs one command; returns the exit code."""
    description = "2D human pose operators: find joints in pictures and heatmaps, and score them."
    return run_command(COMMANDS, argv, prog="pypose-ops", description=description)


if __name__ == "__main__":
    sys.exit(main())
