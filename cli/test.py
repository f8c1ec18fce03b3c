"""Score weights on a data set: PCK@0.2 per joint group, PCP, visible and occluded joints; COCO's AP of COCO files.

Whole images (LSP) are used as they are, other people are cropped to their boxes enlarged by 1.25, without rotation.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from pypose_ops.datasets import SPLITS, data_path, joined, open_dataset
from pypose_ops.datasets.files import check_outputs, write_json
from pypose_ops.errors import InputError
from pypose_ops.models.weights.files import PACKAGED, open_weights, skeleton_of

if TYPE_CHECKING:
    import torch

WEIGHTS = f"{' or '.join(PACKAGED)} (packaged), or a file (default: %(default)s)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", metavar="NAME|FILE", default="coco17", help=WEIGHTS)
    parser.add_argument("--data", metavar="FORMAT:PATH", action="append", required=True, help="as in train")
    parser.add_argument("--split", choices=SPLITS, default="test", help="default: %(default)s")
    parser.add_argument("--per-stage", action="store_true", help="print a row per stage of the system")
    parser.add_argument("--flip", action="store_true", help="flip test: average with the mirrored crop")
    parser.add_argument("--batch", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--device", default="cpu", help="default: %(default)s")
    parser.add_argument("--json", metavar="OUT.json", type=Path, help="write all results and the PCK curve to a file")


def device_of(name: str) -> torch.device:
    """Parses an available torch device."""
    import torch

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InputError(f"--device must be cpu or a GPU of this machine, such as cuda, got {name}") from None
    return device


def print_scores(console: Console, title: str, stages: Any, digits: int = 1) -> None:
    """A table with a row for each of ``[(name, numbers by column)]``; turned where it would be too wide."""
    columns = list(stages[0][1])
    rows = [["stage", *columns]]
    rows += [[n, *("-" if v[c] is None else f"{v[c]:.{digits}f}" for c in columns)] for n, v in stages]
    if 1 + sum(3 + max(map(len, column)) for column in zip(*rows, strict=True)) > console.width:
        rows = list(zip(*rows, strict=True))
    table = Table(title=title)
    for i, column in enumerate(rows[0]):
        table.add_column(column, justify="right" if i else "left")
    for row in rows[1:]:
        table.add_row(*row)
    console.print(table)


def run(args: argparse.Namespace) -> None:
    from pypose_ops.models.training.loading import People
    from pypose_ops.models.training.scores import evaluate

    if args.batch < 1:
        raise InputError(f"--batch must be positive, got {args.batch}")
    device = device_of(args.device)
    system, info = open_weights(args.weights)
    skeleton = skeleton_of(info)
    if args.json:
        check_outputs([args.json], [Path(args.weights), *map(data_path, args.data)], "--json")
    parts = [open_dataset(spec, args.split, skeleton) for spec in args.data]
    people = joined(parts)
    if args.json:
        check_outputs([args.json], people.image_paths(), "--json")
    options = {"batch": args.batch, "device": device, "flip": args.flip}
    result = evaluate(system, skeleton, People(people, memory=0), parts, **options)
    if not result["stages"]:
        raise InputError(f"{people.name}: none of its images could be read, the first is {result['left_out'][0]}")
    stages = list(enumerate(result["stages"], 1))
    stages = [(str(n), stage) for n, stage in (stages if args.per_stage else stages[-1:])]
    console = Console()
    titles = {"pck": "PCK@0.2, %", "pcp_strict": "PCP@0.5 strict, %", "pcp_relaxed": "PCP@0.5 relaxed, %"}
    for key, title in titles.items():
        if key in stages[0][1]:
            print_scores(console, title, [(n, stage[key]) for n, stage in stages])
    kinds = [(n, {"seen": stage["pck_seen"], "occluded": stage["pck_occluded"]}) for n, stage in stages]
    print_scores(console, "PCK@0.2 by visibility, %", kinds)
    for part in stages[0][1].get("ap", {}):
        print_scores(console, f"COCO keypoints, {part}", [(n, stage["ap"][part]) for n, stage in stages], digits=3)
    left_out = f"; {len(result['left_out'])} images could not be read" if result["left_out"] else ""
    console.print(f"{info['system']} {info['preset']}, {result['people']} people{left_out}", highlight=False)
    if args.json:
        write_json(args.json, info | {"data": args.data, "split": args.split} | result)
        print(f"wrote {args.json}")
