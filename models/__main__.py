"""The command line of the systems: ``python -m pypose_ops.models COMMAND``."""

import argparse
import importlib
import sys

from pypose_ops.commands import InputError

COMMANDS = ("train", "evaluate", "predict", "plot")


def build_parser():
    parser = argparse.ArgumentParser(
        prog="python -m pypose_ops.models", description="Classic pose systems: train, evaluate, predict."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f".commands.{name}", __package__)
        command = commands.add_parser(
            name,
            help=module.__doc__.splitlines()[0],
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(argv=None):
    """Runs one command; returns the exit code: 0, or 2 after one line on stderr when the input is at fault."""
    args = build_parser().parse_args(argv)
    try:
        args.run(args)
    except InputError as error:
        print(f"pypose_ops.models: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
