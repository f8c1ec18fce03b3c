"""Draws the pictures of docs/mrf_real_data.md: heatmaps, synthetic and real, before and after, and the priors.

    python benchmarks/mrf_distractors.py --out out/mrf && python docs/draw_mrf.py out/mrf/results.json

The data is that of benchmarks/mrf_distractors.py. Heatmaps and joints only: the photographs are not shown.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / "benchmarks"))

import mrf_distractors as experiment  # noqa: E402

SHOWN = ("left_shoulder", "left_elbow", "left_wrist", "left_hip", "left_knee", "left_ankle")


def panel(figure, grid, number, values, truth, found, title, **limits):
    axis = figure.add_subplot(*grid, number)
    axis.imshow(values.numpy(), cmap="magma", **limits)
    axis.plot(*truth.tolist(), "o", markersize=11, markerfacecolor="none", color="#7bdc5a", markeredgewidth=1.5)
    axis.plot(*found, "x", markersize=8, color="#1fa2ff", markeredgewidth=2)
    axis.set_title(title, fontsize=8)
    axis.axis("off")


def highest(values):
    y, x = divmod(values.flatten().argmax().item(), values.shape[-1])
    return x, y


def before_after(pairs, path):
    """Columns of (title, map, energy, truth): the heatmap above, the log-energy's best 12 nats below."""
    figure = Figure(figsize=(1.75 * len(pairs), 4), dpi=100)
    canvas = FigureCanvasAgg(figure)
    for n, (title, heat, energy, truth) in enumerate(pairs):
        panel(figure, (2, len(pairs)), n + 1, heat, truth, highest(heat), title, vmin=0)
        top = energy.max().item()
        cell = n + 1 + len(pairs)
        panel(figure, (2, len(pairs)), cell, energy, truth, highest(energy), "after", vmin=top - 12, vmax=top)
    figure.tight_layout()
    canvas.print_png(path)


def label(name):
    return name.replace("_", " ")


def synthetic(train, test, settings):
    """The first crop in which at least two joints are put right and none of the shown ones wrong."""
    model = experiment.model_of(train, settings)
    maps, truth, count = experiment.rendered(test[:200], torch.Generator().manual_seed(5))
    energy = model(maps)
    hits = [experiment.right(v, truth, experiment.RIGHT * experiment.LONGER) & count for v in (maps, energy)]
    joints = [train.names.index(name) for name in SHOWN]
    fixed, broken = ((a & ~b)[:, joints] for a, b in (hits[::-1], hits))
    good = (fixed.sum(1) >= 2) & (broken.sum(1) == 0) & count[:, joints].all(1)
    person = int(good.nonzero()[0])
    return [(label(train.names[j]), maps[person, j], energy[person, j], truth[person, j]) for j in joints]


def real(train, settings, folder, most=7):
    """Joints whose argmax came right, then those for which it came wrong."""
    maps, truth, count, tolerance, dataset = experiment.read_real(folder, train.names)
    energy = experiment.model_of(train, settings)(maps)
    before, after = (experiment.right(values, truth, tolerance) & count for values in (maps, energy))
    shown = []
    for kind, changed in (("right", after & ~before), ("wrong", before & ~after)):
        places = changed.nonzero().tolist()
        print(f"{kind} now: {[(dataset[n], n, train.names[j]) for n, j in places]}")
        shown += [(f"{label(train.names[j])}\n{kind} now ({dataset[n]})", n, j) for n, j in places[:most]]
    return [(title, maps[n, j], energy[n, j], truth[n, j]) for title, n, j in shown]


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="results.json of benchmarks/mrf_distractors.py")
    parser.add_argument("--data", type=Path, default=experiment.default_data())
    args = parser.parse_args()
    chosen = next(iter(json.loads(args.results.read_text(encoding="utf-8")).values()))["settings"]
    settings = experiment.Settings(**chosen)
    train, test = experiment.read_mpii(args.data)
    before_after(synthetic(train, test, settings), DOCS / "mrf_synthetic.png")
    before_after(real(train, settings, args.data), DOCS / "mrf_real_maps.png")
    names = [label(name).replace("left", "l.").replace("right", "r.") for name in train.names]
    experiment.model_of(train, settings).draw(names, columns=8).save(DOCS / "mrf_priors.png", optimize=True)


if __name__ == "__main__":
    main()
