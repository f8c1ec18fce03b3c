"""Show the version, the build configuration and the GPUs."""

import argparse

from pypose_ops import build_info


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> None:
    # Plain lines: importing rich takes a tenth of a second, and its tables cut off paths.
    for name, value in build_info().items():
        if isinstance(value, list):
            value = ", ".join(map(str, value))
        print(f"{name.replace('_', ' '):20}{'none' if value in (None, '') else value}")
