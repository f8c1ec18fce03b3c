"""Draws docs/pixel_centres.png: where 8 pixels lie on a grid of 2 under each rule.  python docs/draw_conventions.py"""

from pathlib import Path

import matplotlib
import torch

from pypose_ops.geometry import scale_coordinates

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

FINE, COARSE = 8, 2


def in_fine_pixels(values, align):
    pairs = torch.stack((values, values), -1)
    return scale_coordinates(pairs, (COARSE, COARSE), (FINE, FINE), align=align)[:, 0]


def draw(axis, align):
    """The fine grid below, the coarse one above it, in coordinates of the fine one."""
    axis.set_title(f'align="{align}"', fontsize=10, loc="left")
    for y, n, colour in ((0, FINE, "#1f77b4"), (1, COARSE, "#d2691e")):
        edges = torch.arange(n + 1.0) - 0.5
        centres = torch.arange(float(n))
        if n == COARSE:
            edges, centres = (in_fine_pixels(v, align) for v in (edges, centres))
        axis.vlines(edges, y - 0.3, y + 0.3, colors=colour, linewidth=1)
        axis.hlines([y - 0.3, y + 0.3], edges[0], edges[-1], colors=colour, linewidth=1)
        axis.plot(centres, torch.full((n,), float(y)), "o", color=colour, markersize=4)
        for i, x in enumerate(centres.tolist()):
            axis.text(x, y + 0.09, str(i), ha="center", fontsize=7, color=colour)
    axis.set_xlim(-4.3, 11.4)
    axis.set_ylim(-0.5, 1.5)
    axis.axis("off")


def main():
    figure, axes = plt.subplots(3, figsize=(6.4, 3.9))
    for axis, align in zip(axes, ("index", "center", "corners"), strict=True):
        draw(axis, align)
    figure.tight_layout()
    figure.savefig(Path(__file__).with_name("pixel_centres.png"), dpi=110)


if __name__ == "__main__":
    main()
