"""Draws the images of docs/mrf_real_data.md: heatmaps, synthetic and real, before and after, and the priors.

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
import mrf_people  # noqa: E402

NATS = 6
SHOWN = ("left_shoulder", "left_elbow", "left_wrist", "left_hip", "left_knee", "left_ankle")


def panel(figure, grid, number, values, truth, found, title, **limits):
    axis = figure.add_subplot(*grid, number)
    axis.imshow(values.numpy(), cmap="magma", interpolation="nearest", **limits)
    axis.plot(*truth.tolist(), "o", markersize=11, markerfacecolor="none", color="#7bdc5a", markeredgewidth=1.5)
    axis.plot(*found, "x", markersize=8, color="#1fa2ff", markeredgewidth=2)
    axis.set_title(title, fontsize=8)
    axis.axis("off")


def highest(values):
    y, x = divmod(values.flatten().argmax().item(), values.shape[-1])
    return x, y


def before_after(pairs, path, columns=6):
    """(title, map, energy, truth): the heatmaps above, below each the best NATS of its log-energy."""
    blocks = -(-len(pairs) // columns)
    figure = Figure(figsize=(1.6 * columns, 3.5 * blocks), dpi=80)
    canvas = FigureCanvasAgg(figure)
    for n, (title, heat, energy, truth) in enumerate(pairs):
        cell = 2 * columns * (n // columns) + n % columns + 1
        panel(figure, (2 * blocks, columns), cell, heat, truth, highest(heat), title, vmin=0)
        limits = dict(vmin=energy.max().item() - NATS, vmax=energy.max().item())
        panel(figure, (2 * blocks, columns), cell + columns, energy, truth, highest(energy), "after", **limits)
    figure.tight_layout()
    canvas.print_png(path)


def label(name):
    return name.replace("_", " ")


def synthetic(train, test, settings):
    """The first crop in which at least two joints are put right and none of the shown ones wrong."""
    model = experiment.model_of(train, settings)
    maps, truth, count = mrf_people.rendered(test[:200], torch.Generator().manual_seed(5))
    energy = model(maps)
    hits = [experiment.right(v, truth, mrf_people.RIGHT * mrf_people.LONGER) & count for v in (maps, energy)]
    joints = [train.names.index(name) for name in SHOWN]
    fixed, broken = ((a & ~b)[:, joints] for a, b in (hits[::-1], hits))
    good = (fixed.sum(1) >= 2) & (broken.sum(1) == 0) & count[:, joints].all(1)
    person = int(good.nonzero()[0])
    return [(label(train.names[j]), maps[person, j], energy[person, j], truth[person, j]) for j in joints]


def real(train, settings, folder, columns=6, each=2):
    """Joints that the messages put right, then those that they put wrong; at most ``each`` of a person."""
    maps, truth, count, tolerance, dataset = mrf_people.read_real(folder, train.names)
    energy = experiment.model_of(train, settings)(maps)
    before, after = (experiment.right(values, truth, tolerance) & count for values in (maps, energy))
    shown = []
    for kind, changed in (("put right", after & ~before), ("put wrong", before & ~after)):
        print(f"{kind}: {int(changed.sum())}")
        some = torch.where(changed.cumsum(1) <= each, changed, False).nonzero().tolist()[:columns]
        shown += [(f"{label(train.names[j])}, {dataset[n]}\n{kind}", n, j) for n, j in some]
    return [(title, maps[n, j], energy[n, j], truth[n, j]) for title, n, j in shown]


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="results.json of benchmarks/mrf_distractors.py")
    parser.add_argument("--data", type=Path, default=experiment.default_data())
    args = parser.parse_args()
    chosen = next(iter(json.loads(args.results.read_text(encoding="utf-8")).values()))["settings"]
    settings = experiment.Settings(**chosen)
    train, test = mrf_people.read_mpii(args.data)
    before_after(synthetic(train, test, settings), DOCS / "mrf_synthetic.png")
    before_after(real(train, settings, args.data), DOCS / "mrf_real_maps.png")
    names = [label(name).replace("left", "l.").replace("right", "r.") for name in train.names]
    image = experiment.model_of(train, settings).draw(names, columns=8)
    image.quantize(128).save(DOCS / "mrf_priors.png", optimize=True)


if __name__ == "__main__":
    main()
