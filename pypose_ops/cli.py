"""The command line: ``pypose-ops COMMAND``. A command is a module of :mod:`pypose_ops.commands`."""

import argparse
import sys

from .commands import InputError, crop, decode, demo, evaluate, info

COMMANDS = {"info": info, "crop": crop, "decode": decode, "evaluate": evaluate, "demo": demo}


def build_parser():
    parser = argparse.ArgumentParser(
        prog="pypose-ops", description="2D human pose operators: try them on real heatmaps."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        summary = module.__doc__.splitlines()[0]
        command = commands.add_parser(
            name, help=summary, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
        print(f"pypose-ops: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
