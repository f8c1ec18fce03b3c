"""The commands of ``pypose-ops``, one module each: its docstring, ``add_arguments(parser)`` and ``run(args)``."""

import argparse
import sys


class InputError(Exception):
    """The user's file or option is at fault: one line, exit code 2."""


def run_command(commands, argv, *, prog, description, name=None):
    """Runs one of several commands; returns the exit code: 0, or 2 after one line on stderr when the input is at fault.

    Args:
        commands (dict[str, module]): by name, as described above.
        argv (list[str] or None): the arguments; None for those of the process.
        prog, description (str): of the whole, for its help.
        name (str, optional): before an error; None for ``prog``.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description)
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command, module in commands.items():
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
        print(f"{name or prog}: error: {error}", file=sys.stderr)
        return 2
    return 0
