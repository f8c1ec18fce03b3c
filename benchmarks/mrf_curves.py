"""Message passing over the active share and the number of joints.  python benchmarks/mrf_curves.py --out FILE.png

Draws the time of a forward pass of one image, 64 x 64, all joints connected, priors of every displacement, floor 1e-2,
against that of the same sums by torch.fft; prints the figures as tables. One thread, and its processor time, the least
of several calls: a busy machine moves the figures little. Takes a minute.
"""

import argparse
import time

import torch
from bench_mrf import FLOOR, ROWS, full, inputs
from bench_tools import device_name
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pypose_ops import mrf_message_passing

SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
SHARE_JOINTS = 9
JOINTS = (3, 5, 9, 13, 17, 25)
JOINTS_SHARE = 0.05
CURVES = ("op", "op, method fft", "FFT in torch")
STYLES = dict(zip(CURVES, ("o-", "s--", "^:"), strict=True))


def seconds(call, budget):
    """Least processor time of calls that fit into ``budget`` seconds, at least three, after one that is dropped."""
    call()
    times = []
    while sum(times) < budget or len(times) < 3:
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def measured(joints, share, budget):
    """Milliseconds by name of the curve; the results are compared first."""
    torch.manual_seed(0)
    data, edges = inputs(1, joints, torch.device("cpu"), share), full(joints)
    expected = mrf_message_passing(*data, edges, floor=FLOOR)
    out = {}
    for name in CURVES:
        torch.testing.assert_close(ROWS[name](*data, edges, floor=FLOOR), expected, rtol=1e-3, atol=1e-2)
        out[name] = 1e3 * seconds(lambda name=name: ROWS[name](*data, edges, floor=FLOOR), budget)
    return out


def table(head, values, rows):
    print(f"\n| {head} | " + " | ".join(values) + " |\n" + "|---" * (1 + len(values)) + "|")
    for name in CURVES:
        print(f"| {name} | " + " | ".join(f"{row[name]:.2f}" for row in rows) + " |")


def draw(path, by_share, by_joints):
    figure = Figure(figsize=(9, 3.6), dpi=100)
    canvas = FigureCanvasAgg(figure)
    panels = (
        (f"{SHARE_JOINTS} joints", "active pixels, %", [100 * share for share in SHARES], by_share),
        (f"{JOINTS_SHARE:.0%} active pixels", "joints", JOINTS, by_joints),
    )
    for n, (title, label, places, rows) in enumerate(panels):
        axis = figure.add_subplot(1, 2, n + 1)
        for name in CURVES:
            axis.loglog(places, [row[name] for row in rows], STYLES[name], label=name, markersize=4)
        axis.set(title=title, xlabel=label, ylabel="ms per image, forward", xticks=places)
        axis.set_xticklabels([f"{place:g}" if place != 75 else "" for place in places])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.tight_layout()
    canvas.print_png(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", help="a PNG")
    parser.add_argument("--budget", type=float, default=0.3, help="seconds per point (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    by_share = [measured(SHARE_JOINTS, share, args.budget) for share in SHARES]
    by_joints = [measured(joints, JOINTS_SHARE, args.budget) for joints in JOINTS]
    print(f"One thread of {device_name(torch.device('cpu'))}, torch {torch.__version__}; ms per image, forward")
    table(f"{SHARE_JOINTS} joints, active pixels", [f"{share:.0%}" for share in SHARES], by_share)
    table(f"{JOINTS_SHARE:.0%} active pixels, joints", [str(joints) for joints in JOINTS], by_joints)
    if args.out:
        draw(args.out, by_share, by_joints)


if __name__ == "__main__":
    main()
