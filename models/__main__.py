"""The command line of the systems: ``python -m pypose_ops.models COMMAND``."""

import sys

from pypose_ops.commands import run_command

COMMANDS = ("train", "evaluate", "predict", "plot", "export")


def main(argv=None):
    """Runs one command; returns the exit code."""
    return run_command(
        {name: f"pypose_ops.models.commands.{name}" for name in COMMANDS},
        argv,
        prog="python -m pypose_ops.models",
        description="Classic pose systems: train, evaluate, predict, ship.",
        name="pypose_ops.models",
    )


if __name__ == "__main__":
    sys.exit(main())
