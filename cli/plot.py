"""Plot loss and PCK of a training run over the epochs, and PCK over the threshold.

DIR is the --out of train. DIR/loss.png and DIR/pck.png show its logs, DIR/curve.png all evaluations in it:
held_out.json, and files written by test --json.
"""

import argparse
import csv
import io
import json
import math
from pathlib import Path
from typing import Any

from pypose_ops.datasets.files import write_bytes
from pypose_ops.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", type=Path)


def read_logs(folder: Path) -> Any:
    """``{(phase, epoch): {name: value}}`` from all logs of a run; for repeated epochs, the last."""
    files = {}
    for path in folder.glob("logs/*-*/version_*/metrics.csv"):
        files[int(path.parts[-3].split("-")[0]), int(path.parts[-2].split("_")[1])] = path
    if not files:
        raise InputError(f"{folder}: expected the folder of a run of train, with logs/*/version_0/metrics.csv")
    epochs = {}
    for (phase, _), path in sorted(files.items()):
        fresh = {}
        try:
            with path.open(newline="") as file:
                for row in csv.DictReader(file):
                    float(row["step"])  # in every line of a log
                    if not row.get("epoch"):
                        continue  # of the learning rate; the only ones of a run stopped in its first epoch
                    fresh.setdefault((phase, int(row["epoch"])), {}).update({k: float(v) for k, v in row.items() if v})
        except (KeyError, ValueError, TypeError):
            raise InputError(f"{path}: expected a log written by train") from None
        epochs.update(fresh)
    return epochs


def series(epochs: Any, name: str) -> Any:
    """``(epochs from 1 over all phases, values)`` of the epochs with this value."""
    numbered = enumerate(sorted(epochs), 1)
    return zip(*[(n, epochs[key][name]) for n, key in numbered if name in epochs[key]], strict=True)


def run(args: argparse.Namespace) -> None:
    from matplotlib.figure import Figure

    epochs = read_logs(args.folder)
    names = sorted({name for values in epochs.values() for name in values})
    wanted = {
        "loss": ("loss", [n for n in names if n in ("loss", "val_loss")]),
        "pck": ("PCK@0.2 of the held-out people, %", [n for n in names if n.startswith("val_pck_")]),
    }
    for file, (label, lines) in wanted.items():
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.add_subplot(xlabel="epoch", ylabel=label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        for name in lines:
            axes.plot(*series(epochs, name), marker=".", label=LABELS.get(name, name.replace("val_pck_", "stage ")))
        if lines:
            finish(axes, epochs, figure, args.folder / f"{file}.png", log=file == "loss")
    draw_curves(args.folder)


LABELS = {"loss": "training", "val_loss": "held out"}


def finish(axes: Any, epochs: Any, figure: Any, path: Path, log: bool = False) -> None:
    """Marks the start of phases and saves the plot."""
    order = sorted(epochs)
    for n in range(1, len(order)):
        if order[n][0] != order[n - 1][0]:
            axes.axvline(n + 0.5, color="grey", linestyle=":")
    if log:
        axes.set_yscale("log")
    write(axes, figure, path)


def write(axes: Any, figure: Any, path: Path) -> None:
    axes.grid(alpha=0.3)
    axes.legend()
    data = io.BytesIO()
    figure.savefig(data, dpi=120, format="png")
    write_bytes(path, data.getvalue())
    print(f"wrote {path}")


def draw_curves(folder: Path) -> None:
    """Plots PCK over the threshold, a line per evaluation, of the last stage."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="threshold, of the torso", ylabel="PCK, %", ylim=(0, 100))
    for path in sorted(folder.glob("*.json")):
        try:
            curve = json.loads(path.read_text())["stages"][-1]["curve"]
            points = [[math.nan if v is None else float(v) for v in curve[k]] for k in ("thresholds", "pck")]
        except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
            continue  # such as run.json
        if len(points[0]) == len(points[1]):
            axes.plot(*points, label=path.stem)
    if axes.lines:
        write(axes, figure, folder / "curve.png")
