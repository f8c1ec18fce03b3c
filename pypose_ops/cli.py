"""The command line: ``pypose-ops COMMAND``. A command is a module of :mod:`pypose_ops.commands`."""

import sys

from .commands import crop, decode, demo, evaluate, info, run_command

COMMANDS = {"info": info, "crop": crop, "decode": decode, "evaluate": evaluate, "demo": demo}


def main(argv=None):
    """Runs one command; returns the exit code."""
    description = "2D human pose operators: try them on real heatmaps."
    return run_command(COMMANDS, argv, prog="pypose-ops", description=description)


if __name__ == "__main__":
    sys.exit(main())
