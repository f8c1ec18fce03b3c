#!/usr/bin/env python3
"""Every operator from one person to a thousand, in three dtypes, forward and with its gradient: json and an image.

    python benchmarks/sweep.py                                      # the GPU, or the CPU without one
    python benchmarks/sweep.py --ops find_peaks --batches 1 64      # a part
    python benchmarks/sweep.py --device cpu --batches 1 8 --seconds 60
    python benchmarks/sweep.py --device cpu --growth                # 1 to 100,000 people on one thread, with exponents

Sizes, bytes and operations are those of roofline.py. On a GPU every row is timed by events over calls that follow one
another, and once more as the replay of a CUDA graph, over buffers that together are larger than its cache; beside them
the reference at the batch of the roofline page, as it is and compiled (in float32), and the bandwidth of a large copy
in the same run. Rows that are left when --seconds are over are not measured, and are named.
"""

import argparse
import itertools
import json
import math
import sys
import time
from pathlib import Path

import bench_tools
import roofline
import torch

import pypose_ops
from pypose_ops import reference

GROWTH = tuple(10**n for n in range(6))
LONGEST = 0.3  # seconds of a call after which --growth takes no larger batch
BATCHES = (1, 4, 16, 64, 256, 1024)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
FLOAT32_ONLY = ("oks", "oks_nms")  # no maps
# Bytes of a call with its gradient by the first argument, over those of the call alone: docs/roofline.md. That of
# heatmap_mse_loss is in its row.
WITH_GRADIENT = {
    "gaussian_heatmaps": 2, "part_affinity_fields": 2, "offset_heatmaps": 2, "soft_argmax": 3, "mrf_message_passing": 4,
    "max_product": 2, "sum_product": 2,
}  # fmt: skip


def directions(row):
    """(direction, bytes) of a row's calls."""
    if not row.backward:
        yield "forward", row.bytes
    if row.backward or row.op in WITH_GRADIENT:
        yield "forward+backward", row.bytes * WITH_GRADIENT.get(row.op, 1)


def implementations(row, batch, dtype):
    """(name, call, its operators, whether it can be captured) of everything timed at this size."""
    yield "op", row.call, pypose_ops, True
    if batch == roofline.BATCH:
        yield "reference", row.call, reference, False
        if dtype == "float32":
            torch._dynamo.reset()
            yield "compile(reference)", torch.compile(row.call, dynamic=False), reference, False


def timed(call, ops, row, moved, device, graph):
    """Seconds by events and, where asked for, by the replay of a graph."""
    rotating = bench_tools.Rotating(lambda *args: call(ops, *args), lambda: row.inputs(device), device, moved)
    if device.type != "cuda":
        return {"seconds": bench_tools.host_seconds(rotating, 0.1)}
    times = {"seconds": bench_tools.device_seconds(rotating)}
    if graph:
        times["graph_seconds"] = bench_tools.graph_seconds(rotating, len(rotating.inputs))
    return times


def cases(options):
    """(row of the roofline, batch, dtype) in the order in which they are timed."""
    for batch in options.batches:
        for dtype in options.dtypes:
            for row in roofline.rows(batch, DTYPES[dtype]):
                if row.op in options.ops and (row.op not in FLOAT32_ONLY or dtype == "float32"):
                    yield row, batch, dtype


def measure(options, device):
    """Rows as dictionaries; those that time did not reach have no seconds."""
    until = time.monotonic() + options.seconds
    for row, batch, dtype in cases(options):
        for direction, moved in directions(row):
            for name, call, ops, graph in implementations(row, batch, dtype):
                out = dict(op=row.op, work=row.work, batch=batch, dtype=dtype, direction=direction, row=name)
                out |= dict(bytes=moved, operations=row.operations)
                if direction != "forward":
                    call = bench_tools.with_gradient(call)
                if time.monotonic() < until:
                    out |= timed_or_error(call, ops, row, moved, device, graph)
                yield out


def timed_or_error(*args):
    """A row that does not fit in memory, or that torch cannot compile, does not end the run."""
    try:
        return timed(*args)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}


def share(row, copy):
    """Of the copy bandwidth, by the best of the two times."""
    times = [row[key] for key in ("seconds", "graph_seconds") if key in row]
    return row["bytes"] / min(times) / copy if times else None


def chart(result, path):
    """A panel for each operator: share of the copy bandwidth against the batch, a line for each dtype and direction."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in result["rows"] if row["row"] == "op" and share(row, 1)]
    if not rows:
        return
    names = list(dict.fromkeys(row["op"] for row in rows))
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(3 * columns, 2.3 * lines), squeeze=False, sharex=True)
    colours = dict(zip(DTYPES, ("#1f77b4", "#d1662b", "#4d9a4d"), strict=True))
    for axis in axes.flat[len(names) :]:
        axis.remove()
    for axis, name in zip(axes.flat, names, strict=False):
        for dtype, colour in colours.items():
            for direction, style in (("forward", "-"), ("forward+backward", "--")):
                one = [r for r in rows if (r["op"], r["dtype"], r["direction"]) == (name, dtype, direction)]
                values = [100 * share(r, result["copy_bytes_per_second"]) for r in one]
                label = f"{dtype}, {direction}"
                axis.plot([r["batch"] for r in one], values, style, color=colour, marker=".", label=label)
        axis.set_title(name, fontsize=9)
        axis.set_xscale("log", base=2)
        axis.set_ylim(bottom=0)
        axis.tick_params(labelsize=7)
    figure.supxlabel("people in a batch", fontsize=9)
    figure.supylabel("% of the copy bandwidth", fontsize=9)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=7, ncol=3, loc="upper center")
    figure.suptitle(" \n ", fontsize=12)  # room for the legend
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def growth(op, memory):
    """Seconds of a forward call in float32 by batch, as far as memory (bytes that a call moves) and patience reach."""
    times = {}
    for batch in GROWTH:
        row = next(row for row in roofline.rows(batch, torch.float32) if row.op == op)
        if row.bytes > memory or max(times.values(), default=0.0) > LONGEST:
            break
        args = row.inputs(torch.device("cpu"))
        times[batch] = bench_tools.host_seconds(lambda args=args, row=row: row.call(pypose_ops, *args), 0.1, 3)
    return times


def exponents(times):
    """Between neighbouring batches: how the logarithm of the time grows over that of the batch."""
    batches = list(times)
    return [math.log(times[b] / times[a]) / math.log(b / a) for a, b in itertools.pairwise(batches)]


def growth_row(op, times):
    cells = [roofline.unit(times[batch]) if batch in times else "" for batch in GROWTH]
    return f"| {op} | {' | '.join(cells)} | {', '.join(f'{e:.2f}' for e in exponents(times))} |"


def growth_chart(times, path):
    """A line for each operator on logarithmic axes, beside one of exponent 1."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 5.5))
    for number, (op, of) in enumerate(times.items()):
        style = ("-", "--", ":")[number // 10 % 3]
        axis.plot(list(of), [1e3 * seconds for seconds in of.values()], style, marker=".", label=op, linewidth=1)
    axis.plot([1, GROWTH[-1]], [1e-3, 1e-3 * GROWTH[-1]], color="0.7", linewidth=3, zorder=0, label="exponent 1")
    axis.set(xscale="log", yscale="log", xlabel="batch", ylabel="ms, one thread")
    axis.legend(fontsize=7, ncol=2)
    figure.tight_layout()
    figure.savefig(path, dpi=75)
    plt.close(figure)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [row.op for row in roofline.rows(1)]
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--ops", nargs="+", choices=names, default=names, metavar="OP")
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES, metavar="N", help="default: 1 to 1024")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES), metavar="DTYPE")
    parser.add_argument("--seconds", type=float, default=500, help="for all rows (default %(default)g)")
    parser.add_argument("--growth", action="store_true", help="the table of 1 to 100,000 people on one thread")
    parser.add_argument(
        "--memory", type=float, default=6.5, help="GB that a call of --growth may move (default %(default)g)"
    )
    parser.add_argument("--out", type=Path, default=Path("out/sweep"), help="folder of sweep.json and sweep.png")
    return parser.parse_args()


def main():
    options = arguments()
    device = torch.device(options.device)
    torch.manual_seed(0)
    bench_tools.settle_allocator()
    if options.growth:
        torch.set_num_threads(1)
        times = {}
        print("| operator | " + " | ".join(f"{batch:,}" for batch in GROWTH) + " | exponents |")
        print("|---|" + "--:|" * len(GROWTH) + "---|")
        for op in options.ops:
            times[op] = growth(op, 1e9 * options.memory)
            print(growth_row(op, times[op]), flush=True)
        options.out.mkdir(parents=True, exist_ok=True)
        growth_chart(times, options.out / "growth.png")
        return 0
    copy = bench_tools.copy_bandwidth(device)
    result = dict(device=bench_tools.device_name(device), torch=torch.__version__, threads=torch.get_num_threads())
    result |= dict(copy_bytes_per_second=copy, rows=[])
    print(f"{result['device']}, torch {torch.__version__}: copies {copy / 1e9:.1f} GB/s, read plus written", flush=True)
    for row in measure(options, device):
        result["rows"].append(row)
        times = [roofline.unit(row[key]) for key in ("seconds", "graph_seconds") if key in row]
        found = f"{', '.join(times)}, {share(row, copy):.0%} of copy" if times else row.get("error", "not measured")
        print(f"{row['op']} {row['work']} {row['dtype']} {row['direction']}, {row['row']}: {found}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "sweep.json").write_text(json.dumps(result, indent=1) + "\n")
    chart(result, options.out / "sweep.png")
    failed = [row for row in result["rows"] if row["row"] == "op" and "seconds" not in row]
    print(f"written: {options.out / 'sweep.json'}, sweep.png; {len(failed)} rows of operators without a time")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
