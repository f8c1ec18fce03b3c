#!/usr/bin/env python3
"""Reads broken files by the package's readers and commands: a value or one line, never a traceback, never much memory.

    python scripts/fuzz_files.py --files 100000
    python scripts/fuzz_files.py --seed 3 --file 1234 --keep DIR   # one file again; it stays in DIR

Valid files of COCO, LSP, MPII, AI Challenger, FLIC, heatmaps, boxes, skeletons, weights and images are broken by their
structure: fields dropped, doubled, retyped, reordered; arrays of other shapes and dtypes; bytes cut and changed.
Every file is drawn from the seed and its number alone. The exit status is 1 where one failed.
"""

import argparse
import pathlib
import sys
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests"))

import torch  # noqa: E402
from fuzzing import file_calls, file_campaign  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--file", type=int, help="only this one, with the whole traceback")
    parser.add_argument("--keep", metavar="DIR", default="out/fuzz_files", help="where --file writes it")
    parser.add_argument("--only", metavar="KIND", choices=file_calls.KINDS, help="skip the files of other kinds")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.file is None:
        return file_campaign.run(options)
    file_calls.prepare(options.keep)
    try:
        print(*file_calls.one_file(options.seed, options.file, options.keep))
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
