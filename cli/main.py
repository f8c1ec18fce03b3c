"""The program ``pypose-ops``."""

import argparse
import importlib
import sys

from pypose_ops.errors import InputError

COMMANDS = ("train", "test", "evaluate", "predict", "export", "plot", "decode", "crop", "demo", "info")
DESCRIPTION = "2D human pose estimation: train and run pose systems, decode heatmaps, score joints."


def main(argv=None):
    """Runs one command; returns the exit code: 0, or 2 after one line on stderr when the input is at fault.

    Only the module of the command that is asked for is imported; for the help of the whole, all of them.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    wanted = argv[:1] if argv and argv[0] in COMMANDS else COMMANDS
    parser = argparse.ArgumentParser(prog="pypose-ops", description=DESCRIPTION)
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in wanted:
        module = importlib.import_module(f"pypose_ops.cli.{command}")
        subparser = subparsers.add_parser(
            command,
            help=module.__doc__.splitlines()[0],
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except InputError as error:
        print(f"pypose-ops: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
