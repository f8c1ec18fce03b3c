"""Turns a run of the benchmarks into a machine's file, as benchmarks/results/ collects them, and those into a table.

python benchmarks/machine.py out/benchmarks.json [--name NAME] [--out benchmarks/results]

The file says what was measured, on which processor, with which torch: no names of hosts, users or folders.
docs/machines.md describes its format.
"""

import argparse
import json
import os
import platform
import re
import sys
from pathlib import Path

FORMAT = 1
MACHINE = ("processor", "architecture", "cores", "memory_gb", "system", "gpu")
SOFTWARE = ("pypose_ops", "revision", "python", "torch")
RUN = ("date", "threads", "load_before", "copy_gb_per_s")
ROW = ("op", "shape", "direction", "device", "row", "min_us", "median_us", "rounds")
# The columns of the table: heading, and op, shape, direction and row of what it shows.
SHOWN = (
    ("render, us", ("gaussian_heatmaps", "64x17x64x48", "forward", "op")),
    ("decode dark, us", ("decode_heatmaps", "64x17x64x48", "forward", "op, dark")),
    ("crops, us", ("crop_patches", "64x3x256x192", "forward", "op")),
    ("messages, us", ("mrf_message_passing", "8x17x64x64xreal", "forward", "op")),
    ("people, us", ("parse", "16x18x21x10x56", "forward", "op")),
)
FLOOR = ("decode_heatmaps", "64x17x64x48", "forward", "floor")


def rows_of(entries):
    """What was measured: microseconds, by the device's own clock on a GPU."""
    for entry in entries:
        info, stats = entry["extra_info"], entry["stats"]
        least, median = (info.get("device_seconds") or stats[name] for name in ("min", "median"))
        row = {name: info[name] for name in ("op", "shape", "direction", "row")} | {"device": kind_of(entry)}
        row |= {"min_us": round(1e6 * least, 3), "median_us": round(1e6 * median, 3), "rounds": stats["rounds"]}
        yield {name: row[name] for name in ROW}


def kind_of(entry):
    """``cpu`` or ``cuda``: the last word of the group."""
    return entry["group"].rsplit(" ", 1)[-1]


def processor_of(machine):
    return " ".join(str(machine.get("cpu", {}).get("brand_raw") or platform.processor() or "unknown").split())


def memory_gb():
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (AttributeError, ValueError, OSError):
        return None


def describe(results):
    """The file's content from pytest-benchmark's."""
    import pypose_ops

    entries = [entry for entry in results["benchmarks"] if "row" in entry["extra_info"]]
    if not entries:
        raise ValueError("holds no rows")
    infos = [entry["extra_info"] for entry in entries]
    gpus = sorted({entry["extra_info"]["device"] for entry in entries if kind_of(entry) == "cuda"})
    copies = {kind_of(entry): entry["extra_info"].get("copy_bytes_per_second") for entry in entries}
    machine = {
        "processor": processor_of(results["machine_info"]),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": memory_gb(),
        "system": platform.system(),
        "gpu": gpus[0] if gpus else None,
    }
    software = {
        "pypose_ops": pypose_ops.__version__,
        "revision": results.get("commit_info", {}).get("id"),
        "python": platform.python_version(),
        "torch": infos[0]["torch"],
    }
    run = {
        "date": results["datetime"][:10],
        "threads": infos[0]["threads"],
        "load_before": round(max(info.get("load_before", 0) for info in infos), 2),
        "copy_gb_per_s": {kind: round(value / 1e9, 1) for kind, value in copies.items() if value},
    }
    return {"format": FORMAT, "machine": machine, "software": software, "run": run, "rows": list(rows_of(entries))}


def check(content, path):
    """A file of the folder: what is wrong with it is a ValueError of one line."""
    for part, fields in (("machine", MACHINE), ("software", SOFTWARE), ("run", RUN)):
        if not isinstance(content.get(part), dict) or set(content[part]) != set(fields):
            raise ValueError(f"{path}: {part} must have {', '.join(fields)}")
    if content.get("format") != FORMAT:
        raise ValueError(f"{path}: format must be {FORMAT}, got {content.get('format')}")
    rows = content.get("rows")
    if not rows or any(set(row) != set(ROW) or not row["min_us"] > 0 for row in rows):
        raise ValueError(f"{path}: rows must have {', '.join(ROW)}, with times above 0")
    return content


def read(folder):
    """The files of a folder, by name."""
    paths = sorted(Path(folder).glob("*.json"))
    return {path.stem: check(json.loads(path.read_text(encoding="utf-8")), path) for path in paths}


def table(files):
    """The table of docs/machines.md; a line for every device of every file, and one for a kind that nobody measured."""
    heads = [
        "machine",
        "torch",
        "threads",
        "copy, GB/s",
        *(head for head, _ in SHOWN),
        "decode dark / amax of the maps",
    ]
    lines, kinds = [], set()
    for content in files.values():
        for kind in dict.fromkeys(row["device"] for row in content["rows"]):
            kinds.add(kind)
            lines.append(line(content, kind))
    for kind, name in (("cpu", "any CPU"), ("cuda", "any NVIDIA GPU")):
        if kind not in kinds:
            lines.append([name, "not measured", *[""] * (len(heads) - 2)])
    rows = [heads, ["---", "---", *["--:"] * (len(heads) - 2)], *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def line(content, kind):
    machine, run = content["machine"], content["run"]
    rows = [row for row in content["rows"] if row["device"] == kind]
    times = {(row["op"], row["shape"], row["direction"], row["row"]): row["min_us"] for row in rows}
    dark, floor = times.get(SHOWN[1][1]), times.get(FLOOR)
    name = machine["gpu"] if kind == "cuda" else f"{machine['processor']}, {machine['cores']} cores"
    shown = [f"{times[key]:.0f}" if key in times else "" for _, key in SHOWN]
    copy = str(run["copy_gb_per_s"].get(kind, ""))
    ratio = f"{dark / floor:.2f}" if dark and floor else ""
    return [name, content["software"]["torch"], str(run["threads"]), copy, *shown, ratio]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="of pytest benchmarks --benchmark-json")
    parser.add_argument("--name", help="of the file; default: GPU or processor, and torch")
    parser.add_argument("--out", type=Path, help="folder; default: that of the results")
    args = parser.parse_args()
    try:
        content = describe(json.loads(args.results.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"machine.py: {args.results}: no results of pytest-benchmark ({error})", file=sys.stderr)
        return 2
    given = (
        args.name
        or f"{content['machine']['gpu'] or content['machine']['processor']} torch {content['software']['torch']}"
    )
    name = re.sub(r"[^a-z0-9.]+", "-", given.lower().replace("(r)", "").replace("(tm)", "")).strip("-")
    path = (args.out or args.results.parent) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    head = json.dumps({key: content[key] for key in content if key != "rows"}, indent=1)
    rows = ",\n  ".join(map(json.dumps, content["rows"]))  # a row a line
    path.write_text(f'{head[:-2]},\n "rows": [\n  {rows}\n ]\n}}\n', encoding="utf-8")
    print(f"written: {path}: {len(content['rows'])} rows; docs/machines.md says how to contribute it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
