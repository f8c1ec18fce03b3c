"""The commands of ``pypose-ops``, one module each: its docstring, ``add_arguments(parser)`` and ``run(args)``."""

import argparse
import importlib
import sys


class InputError(Exception):
    """The user's file or option is at fault: one line, exit code 2."""


def run_command(commands, argv, *, prog, description, name=None):
    """Runs one of several commands; returns the exit code: 0, or 2 after one line on stderr when the input is at fault.

    Only the module of the command that is asked for is imported; for the help of the whole, all of them.

    Args:
        commands (dict[str, str]): by name, the full name of a module as described above.
        argv (list[str] or None): the arguments; None for those of the process.
        prog, description (str): of the whole, for its help.
        name (str, optional): before an error; None for ``prog``.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    wanted = argv[:1] if argv and argv[0] in commands else commands
    parser = argparse.ArgumentParser(prog=prog, description=description)
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in wanted:
        module = importlib.import_module(commands[command])
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
