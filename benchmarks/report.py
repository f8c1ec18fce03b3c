"""Turns pytest-benchmark's json into a Markdown table, the targets met or missed, and a bar chart.

python benchmarks/report.py results.json [--out DIR] [--stat min|median]
"""

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

HEADLINE = "64x17x64x48"
LARGE = "512x17x64x48"
CROPS = "64x3x256x192"
TINY = "1x17x64x48"
BUSY = 0.3  # load per core before the run; two threads that wait for each other time the scheduler instead
STAT = "of the rounds on the CPU: other work on the machine only adds time, so the default is the least disturbed one"
BLUE, GREY, SAND = "#1f77b4", "#999999", "#ddb27c"


@dataclass(frozen=True)
class Row:
    group: str
    name: str
    seconds: float
    bytes_moved: int
    copy: float  # bytes per second
    device: str
    info: dict


@dataclass(frozen=True)
class Target:
    """time(row) against time(other); without another row, microseconds or a share of the copy bandwidth."""

    what: str
    op: str
    shape: str
    row: str
    other: str | None
    limit: float
    sense: str  # "<=": time(row) / time(other) at most; ">=": time(other) / time(row), or the share, at least
    direction: str = "forward"
    devices: tuple = ("cpu",)


RENDER, DECODE, LOSS = "gaussian_heatmaps", "decode_heatmaps", "heatmap_mse_loss"
MESSAGES = "mrf_message_passing"
BOTH = "forward+backward"
FIELD = "16x38x56x56"
CROWD = "16x18x21x10x56"
PEOPLE = "100000x17"
METRICS = ("pck", "pcp", "pdj", "auc", "nme", "coco_ap", "aic_score")
# How many times as fast as the numpy port each codec must be, in newly allocated memory.
CODECS = {
    "MSRAHeatmap": 100,
    "MSRAHeatmap-unbiased": 50,
    "UDPHeatmap": 50,
    "UDPHeatmap-combined": 30,
    "MegviiHeatmap": 80,
    "SimCCLabel": 50,
}
COMPATIBLE = ("msra", "msra, sigma 1.5", "dark", "udp", "combined", "megvii", "regression", "integral", "simcc")
# Other libraries' functions: the benchmark, its shape, and how many times as fast pypose_ops must be.
PEERS = (
    *(("sleap-nn global peaks, " + r, "8x13x192x192", 40) for r in ("None", "integral")),
    *(("sleap-nn local peaks, " + r, f"4x{n}x13x192x192", 100) for r in ("None", "integral") for n in (30, 100)),
    ("sleap-nn confidence maps", "10x13x192x192", 50),
    *(("sleap-nn grouping", f"4x{n}x13", 10) for n in (3, 10, 30)),
    *((f"DeepLabCut {kind} targets", f"8x{n}x12x64x64", 30) for kind in ("gaussian", "plateau") for n in (1, 3)),
    ("transformers ViTPose poses", "64x17x64x48", 100),
    ("transformers Sapiens2 poses", "4x308x256x192", 150),
    ("transformers ViTPose crops", "16x3x256x192", 15),
    *(("rtmlib SimCC decoding", f"16x{k}", 5) for k in (17, 133)),
    *((f"torchvision heatmaps_to_keypoints, {kind}", "50x17x56x56", 50) for kind in ("peaks", "noise")),
)
TARGETS = (
    Target("render / fill_", RENDER, HEADLINE, "op", "floor", 1.5, "<="),
    Target("render with out= / fill_", RENDER, HEADLINE, "op, out=", "floor", 1.2, "<="),
    Target("separable torch / render", RENDER, HEADLINE, "op", "separable torch", 3.5, ">="),
    Target("MMPose unbiased / render", RENDER, HEADLINE, "op", "mmpose unbiased (numpy port)", 100, ">="),
    Target("MMPose msra / render msra", RENDER, HEADLINE, "op, msra", "mmpose msra (numpy port)", 100, ">="),
    Target("decode none / amax", DECODE, HEADLINE, "op, none", "floor", 1.5, "<="),
    Target("decode dark / amax", DECODE, HEADLINE, "op, dark", "floor", 3, "<="),
    Target("MMPose DARK / decode dark", DECODE, HEADLINE, "op, dark", "mmpose dark (numpy port)", 100, ">="),
    Target("decode dark_udp / amax", DECODE, HEADLINE, "op, dark_udp", "floor", 3, "<="),
    Target("MMPose UDP-DARK / decode", DECODE, HEADLINE, "op, dark_udp", "mmpose dark_udp (numpy port)", 100, ">="),
    Target("decode dark in ONNX Runtime / decode dark", DECODE, HEADLINE, "onnx, dark", "op, dark", 4, "<="),
    Target("reference exported / decode exported", DECODE, HEADLINE, "onnx, dark", "onnx, reference, dark", 8, ">="),
    Target("find_peaks / amax", "find_peaks", HEADLINE, "op", "floor", 2.5, "<="),
    Target("kornia / soft_argmax", "soft_argmax", HEADLINE, "op", "kornia", 5, ">="),
    Target("kornia / soft_argmax, both ways", "soft_argmax", HEADLINE, "op", "kornia", 5, ">=", BOTH),
    Target("maps to people, us", "parse", CROWD, "op", None, 3800, "<="),
    Target("oks_nms of 300 people, us", "oks_nms", "300x17", "op", None, 4000, "<="),
    Target("oks_nms of 20,000 people, us", "oks_nms", "20000x17", "op", None, 300_000, "<="),
    *(Target(f"{m} of 100,000 people, us", "metrics", PEOPLE, m, None, 1e6, "<=") for m in METRICS),
    *(Target(f"hotcoco / coco_ap of {n}", "coco_ap", n, "op", "hotcoco", 1, ">=") for n in ("33000x17", "20000x17")),
    Target("tiny render, us", RENDER, TINY, "op", None, 6, "<=", devices=("cpu", "cuda")),
    Target("tiny decode dark, us", DECODE, TINY, "op, dark", None, 6, "<=", devices=("cpu", "cuda")),
    Target("render, share of copy bandwidth", RENDER, LARGE, "op", None, 0.85, ">=", devices=("cuda",)),
    Target("decode dark, share of copy bandwidth", DECODE, LARGE, "op, dark", None, 0.85, ">=", devices=("cuda",)),
    Target("separable torch + mse_loss / fused loss", LOSS, HEADLINE, "op", "separable torch", 3, ">=", BOTH),
    Target("fused loss / floor", LOSS, LARGE, "op", "floor", 1.2, "<=", BOTH, devices=("cuda",)),
    Target("part affinity fields, us", "part_affinity_fields", FIELD, "op", None, 3000, "<="),
    Target("OpenCV loop + normalise / crops", "crop_patches", CROPS, "op", "opencv + normalise", 5, ">="),
    Target(
        "OpenCV loop in kept memory / crops with out=", "crop_patches", CROPS, "op, out", "opencv, in place", 5, ">="
    ),
    *(
        Target(f"crops that shrink by 8 / {peer}", "crop_patches", "8x3x256x192xshrink 8", "op", peer, 1.5, "<=")
        for peer in ("opencv, area", "interpolate")
    ),
    Target("grid_sample + normalise / crops", "crop_patches", CROPS, "op", "grid_sample + normalise", 6, ">="),
    Target("grid_sample / bicubic crops", "crop_patches", CROPS, "op, bicubic", "grid_sample, bicubic", 5, ">="),
    Target(
        "grid_sample + normalise / crops",
        "crop_patches",
        CROPS,
        "op",
        "grid_sample + normalise",
        10,
        ">=",
        devices=("cuda",),
    ),
    *(Target(f"MMPose / {c}.encode", f"{c}.encode", HEADLINE, "op", "mmpose", 50, ">=") for c in list(CODECS)[:3]),
    Target("FFT in torch / messages", MESSAGES, "8x17x64x64xreal", "op", "FFT in torch", 20, ">="),
    Target("FFT in torch / messages, both ways", MESSAGES, "8x17x64x64xreal", "op", "FFT in torch", 14, ">=", BOTH),
    Target("grouped conv / messages", MESSAGES, "1x17x64x64xreal", "op", "grouped conv2d (reference)", 100, ">="),
    *(Target(f"numpy / {c}.encode", f"{c}.encode", HEADLINE, "op", "numpy port", n, ">=") for c, n in CODECS.items()),
    *(Target(f"MMPose / {c}, 1", f"mmpose {c}.encode", "1x17", "op", "mmpose", 1, ">=") for c in COMPATIBLE),
    *(Target(f"MMPose / {c}, 64", f"mmpose {c}.encode", "64x17", "op", "mmpose", 20, ">=") for c in COMPATIBLE),
    *(Target(f"{op}, {shape}", op, shape, "op", "peer", limit, ">=") for op, shape, limit in PEERS),
)


def load(path, stat):
    """Rows by group. On CUDA the time is the device's, by events; a tiny call is timed from Python as well."""
    groups = defaultdict(dict)
    for entry in json.loads(Path(path).read_text())["benchmarks"]:
        info = entry["extra_info"]
        if "row" not in info:
            continue
        seconds = info.get("device_seconds") or entry["stats"][stat]
        row = Row(
            entry["group"],
            info["row"],
            seconds,
            info["bytes_moved"],
            info.get("copy_bytes_per_second", 0),
            info["device"],
            info | {"python_seconds": entry["stats"][stat]},
        )
        groups[row.group][row.name] = row
    return groups


def duration(seconds):
    return f"{seconds * 1e6:.1f} us" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def share_of_copy(row):
    return row.bytes_moved / row.seconds / row.copy if row.copy and row.bytes_moved else None


def ratio(row, other):
    return f"{row.seconds / other.seconds:.2f}" if other else ""


def group_table(name, rows):
    op = rows.get("op") or rows.get("op, dark")
    floor = rows.get("floor")
    reference = next((r for n, r in rows.items() if n.startswith("reference") and "none" not in n), None)
    lines = [
        f"### {name}",
        "",
        "| row | time | x floor | reference / row | x op | GB/s | of copy |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows.values():
        share = share_of_copy(row)
        cells = [
            row.name,
            duration(row.seconds),
            ratio(row, floor),
            ratio(reference, row) if reference else "",
            ratio(row, op),
            f"{row.bytes_moved / row.seconds / 1e9:.2f}",
            f"{share:.0%}" if share else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines + [""]


def judge(target, groups):
    """(measured, met) per device that has the rows."""
    for device in target.devices:
        rows = groups.get(f"{target.op} {target.shape} {target.direction} {device}", {})
        row = rows.get(target.row)
        if row is None or (target.other and target.other not in rows):
            continue
        if target.other:
            value = rows[target.other].seconds / row.seconds
            value = 1 / value if target.sense == "<=" else value
        else:
            value = row.info["python_seconds"] * 1e6 if target.sense == "<=" else share_of_copy(row)
        if value is not None:
            yield device, value, value <= target.limit if target.sense == "<=" else value >= target.limit


def targets_table(groups):
    lines = ["| what | device | target | measured | |", "|---|---|--:|--:|---|"]
    for target in TARGETS:
        for device, value, met in judge(target, groups):
            verdict = "met" if met else "missed"
            lines.append(f"| {target.what} | {device} | {target.sense} {target.limit:g} | {value:.2f} | {verdict} |")
    return lines


def report(groups):
    rows = [row for group in groups.values() for row in group.values()]
    lines = ["# Benchmarks", ""]
    for device in sorted({row.device for row in rows}):
        row = next(r for r in rows if r.device == device)
        copy = f", copy {row.copy / 1e9:.1f} GB/s read + written" if row.copy else ""
        lines.append(f"- {device}: torch {row.info['torch']}, {row.info['threads']} threads{copy}")
    load = max((row.info.get("load_before", 0) for row in rows), default=0)
    if load > BUSY:
        lines.append(f"- **The machine was busy before the run (load {load:.1f} per core): do not trust CPU figures.**")
    lines += ["", "## Targets", "", *targets_table(groups), "", "## All rows", ""]
    for name, group in groups.items():
        lines += group_table(name, group)
    return "\n".join(lines)


def chart(groups, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = {name: rows for name, rows in groups.items() if f" {HEADLINE} " in name}
    if not shown:
        return False
    heights = [len(rows) + 1.5 for rows in shown.values()]
    figure, axes = plt.subplots(
        len(shown), figsize=(9, 0.32 * sum(heights)), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for axis, (name, rows) in zip(axes[:, 0], shown.items(), strict=True):
        ordered = sorted(rows.values(), key=lambda row: -row.seconds)
        colors = [BLUE if r.name.startswith("op") else GREY if r.name.startswith("floor") else SAND for r in ordered]
        bars = axis.barh([r.name for r in ordered], [r.seconds * 1e3 for r in ordered], color=colors)
        axis.bar_label(bars, [duration(r.seconds) for r in ordered], padding=3, fontsize=8)
        axis.set_xscale("log")
        axis.margins(x=0.2)
        axis.set_title(name, fontsize=9, loc="left")
        axis.tick_params(labelsize=8)
    axes[-1, 0].set_xlabel("ms", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the table and the chart (default: beside the results)")
    parser.add_argument("--stat", choices=("min", "median"), default="min", help=STAT)
    arguments = parser.parse_args()
    out = arguments.out or arguments.results.parent
    out.mkdir(parents=True, exist_ok=True)
    groups = load(arguments.results, arguments.stat)
    text = report(groups)
    (out / "benchmarks.md").write_text(text + "\n")
    drawn = chart(groups, out / "benchmarks.png")
    print(text)
    print(f"written: {out / 'benchmarks.md'}" + (f", {out / 'benchmarks.png'}" if drawn else ""))


if __name__ == "__main__":
    main()
