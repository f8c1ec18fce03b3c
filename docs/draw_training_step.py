"""Draws docs/training_step.png: where the time of a training step goes, in three ways.

    python benchmarks/training_step.py --json FILE && python docs/draw_training_step.py FILE...

One row of the image for each file.
"""

import argparse
import json
import sys
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

OUT = Path(__file__).with_name("training_step.png")
NETWORK = {"forward": "#c9ced6", "backward": "#a9b1bd", "optimizer": "#868f9c"}
OTHER = {"data": "#e3b23c", "crop": "#1f77b4", "target+loss": "#2ca02c", "decode": "#d2521e"}


def draw_step(axis, ways):
    """Bars of the whole step, its parts one after the other."""
    for row, way in enumerate(ways.values()):
        left = 0.0
        for part, seconds in way["parts"].items():
            color = (NETWORK | OTHER)[part]
            axis.barh(row, 1e3 * seconds, left=left, color=color, label=part if row == 0 else None)
            left += 1e3 * seconds
        axis.text(left, row, f" {way['images_per_second']:.0f} images/s", va="center", fontsize=8)
    axis.set_xlim(0, 1.3e3 * max(way["step"] for way in ways.values()))
    axis.set(yticks=range(len(ways)), yticklabels=list(ways), xlabel="ms per step")
    axis.invert_yaxis()
    axis.legend(fontsize=7, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)


def draw_parts(axis, ways):
    """What the operators do, part by part, each way a bar."""
    shown = [part for part in OTHER if part != "data"]
    for row, part in enumerate(shown):
        for number, (name, way) in enumerate(ways.items()):
            milliseconds = 1e3 * way["parts"][part]
            if name == "loader" and part == "crop":
                milliseconds, name = 1e3 * way["process_seconds"], "loader (its process, targets too)"
            place = row + 0.27 * (number - 1)
            axis.barh(place, milliseconds, 0.25, color=OTHER[part], alpha=(1.0, 0.55, 0.3)[number])
            axis.text(milliseconds, place, f" {milliseconds:.1f}  {name}", va="center", fontsize=7)
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    axis.set_xlim(low, high * 20)
    axis.set(yticks=range(len(shown)), yticklabels=shown, xlabel="ms, logarithmic")
    axis.invert_yaxis()


def draw(results, path):
    """One row of panels for each of ``results``, the contents of json files."""
    figure = Figure(figsize=(9, 2.7 * len(results)), dpi=90)
    canvas = FigureCanvasAgg(figure)
    for row, result in enumerate(results):
        left, right = (figure.add_subplot(len(results), 2, 2 * row + column) for column in (1, 2))
        draw_step(left, result["ways"])
        draw_parts(right, result["ways"])
        precision = "bfloat16" if result["bf16"] else "float32"
        right.set_title(f"{result['device']}, batch {result['batch']}, {result['preset']}, {precision}", fontsize=8)
        for axis in (left, right):
            axis.tick_params(labelsize=8)
            axis.xaxis.label.set_size(8)
            axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    canvas.print_png(path)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, help="json of benchmarks/training_step.py")
    parser.add_argument("--out", type=Path, default=OUT, help="default: %(default)s")
    options = parser.parse_args(argv)
    try:
        results = [json.loads(path.read_text()) for path in options.results]
    except (OSError, ValueError) as error:
        print(f"draw_training_step.py: error: expected json of training_step.py ({error})", file=sys.stderr)
        return 2
    draw(results, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
