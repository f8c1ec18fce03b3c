"""Show the version, the build configuration and the GPUs."""

import argparse

from rich.console import Console
from rich.table import Table

from pypose_ops import build_info


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> None:
    table = Table(show_header=False, title="pypose_ops")
    for name, value in build_info().items():
        if isinstance(value, list):
            value = ", ".join(map(str, value))
        table.add_row(name.replace("_", " "), "none" if value in (None, "") else str(value))
    Console().print(table)
