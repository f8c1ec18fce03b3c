"""The program ``pypose-ops``, until it knows the command: imports nothing but the standard library.

Installed beside the package, because importing ``pypose_ops`` imports torch, which takes seconds.
"""

import argparse
import importlib
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import NoReturn

# The first line of each command's help, so that the main help imports none of them.
COMMANDS = {
    "train": "Train a system on images of people; writes weights, logs and checkpoints to a folder.",
    "test": "Score weights on a data set.",
    "evaluate": "Evaluate predicted joints against a data set's ground truth.",
    "predict": "Find the joints of people in images, and draw them.",
    "export": "Export weights in half precision, or as a program for other runtimes.",
    "plot": "Plot loss and PCK of a training run over the epochs, and PCK over the threshold.",
    "decode": "Decode a file of heatmaps to joints, and draw them on the image.",
    "crop": "Crop boxes from an image: one file per box, and a contact sheet.",
    "demo": "Go from a photograph to a pose, and compare speed and accuracy.",
    "info": "Show the version, the build configuration and the GPUs.",
}
DESCRIPTION = "2D human pose estimation: train and run pose systems, decode heatmaps, score joints."


class Parser(argparse.ArgumentParser):
    """Reports wrong arguments in one line, as all other invalid input; the usage is in the help."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"pypose-ops: error: {' '.join(message.split())}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code: 0, or 2 after a one-line error for invalid input.

    Only the module of that command is imported.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    wanted = argv[0] if argv else None
    parser = Parser(prog="pypose-ops", description=DESCRIPTION)
    subparsers = parser.add_subparsers(metavar="COMMAND")
    if wanted == "--version":
        print(f"pypose-ops {importlib.metadata.version('pypose_ops')}")
        return 0
    listed = {wanted: COMMANDS[wanted]} if wanted in COMMANDS else COMMANDS
    for command, summary in listed.items():
        if command != wanted:
            subparsers.add_parser(command, help=summary)
            continue
        module = importlib.import_module(f"pypose_ops.cli.{command}")
        subparser = subparsers.add_parser(
            command,
            help=summary,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        chosen = subparsers.choices[wanted] if wanted in COMMANDS else parser
        chosen.error(f"unrecognized arguments: {' '.join(unknown)}")
    if "run" not in args:
        parser.error("the following arguments are required: COMMAND")

    from pypose_ops.errors import InputError

    try:
        return args.run(args) or 0
    except InputError as error:
        print(f"pypose-ops: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
