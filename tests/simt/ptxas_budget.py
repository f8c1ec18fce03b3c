#!/usr/bin/env python3
"""Registers, stack and spills of every CUDA kernel, as ptxas reports them, against tests/simt/kernel_registers.csv.

    python tests/simt/ptxas_budget.py            # compiles every .cu for sm_80 and sm_90 and compares
    python tests/simt/ptxas_budget.py --update   # writes the table

A kernel may not spill registers nor keep a stack in local memory, but where the table's last column gives the reason.
The table holds for the nvcc that its first line names; another one may need other registers, and is held to the rest.
"""

import argparse
import concurrent.futures
import csv
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass

TESTS = pathlib.Path(__file__).resolve().parent
ROOT = TESTS.parents[1]
TABLE = TESTS / "kernel_registers.csv"
ARCHITECTURES = (80, 90)
COLUMNS = ("kernel", "architecture", "registers", "stack", "spilled", "reason")

ENTRY = re.compile(r"Compiling entry function '(\S+)' for 'sm_(\d+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")


@dataclass(frozen=True)
class Usage:
    """What one kernel takes on one architecture: registers a thread, bytes of stack and of spills."""

    registers: int
    stack: int
    spilled: int

    def clean(self):
        return self.stack == 0 and self.spilled == 0


def nvcc():
    """The compiler: $CUDACXX, that of the PATH, or None."""
    return os.environ.get("CUDACXX") or shutil.which("nvcc")


def version():
    found = re.search(r"release (\S+),", subprocess.check_output([nvcc(), "--version"], text=True))
    return found.group(1) if found else "unknown"


def sources():
    """The .cu files of the operators."""
    return sorted((ROOT / "csrc").glob("*/*.cu"))


def include_folders():
    found = subprocess.check_output([sys.executable, ROOT / "cmake" / "torch_dir.py"], text=True).strip()
    return [ROOT / "csrc", pathlib.Path(found) / "include"]


def report(source, folder, includes):
    """What ptxas says of one file, as the build compiles it (without debug lines, which change no code)."""
    output = pathlib.Path(folder) / f"{source.stem}.fatbin"
    command = [nvcc(), "-std=c++17", "--fatbin", "--expt-relaxed-constexpr", "-Xptxas=-v", "-w", str(source)]
    command += [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    command += ["-DTORCH_TARGET_VERSION=0x020a000000000000", "-o", str(output)]
    command += [f"-isystem={path}" if path != ROOT / "csrc" else f"-I{path}" for path in includes]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}")
    return done.stdout


def parse(text, source):
    """{(kernel, architecture): Usage} of one report; a kernel is named by its file and what c++filt makes of it."""
    found, current, frame = {}, None, (0, 0, 0)
    for line in text.splitlines():
        if match := ENTRY.search(line):
            current, frame = match.groups(), (0, 0, 0)
        elif match := STACK.search(line):
            frame = tuple(map(int, match.groups()))
        elif (match := USED.search(line)) and current:
            usage = Usage(int(match.group(1)), frame[0], frame[1] + frame[2])
            found[f"{source.parent.name}/{source.stem}: {current[0]}", int(current[1])] = usage
            current = None
    return found


def readable(names):
    """Mangled names -> short ones: templates kept, parameters, namespaces and the compiler's hashes gone."""
    out = subprocess.run(
        ["c++filt"], input="\n".join(n.split(": ")[1] for n in names), stdout=subprocess.PIPE, text=True
    )
    short = {}
    for name, full in zip(names, out.stdout.splitlines(), strict=True):
        text = re.sub(
            r"\(anonymous namespace\)::|\bpypose_ops::|\bc10::|\b(heatmaps|mrf|patches|peaks|grouping)::", "", full
        )
        text = re.sub(r"^void ", "", text)
        text = text[: parameters(text)]
        short[name] = f"{name.split(': ')[0]}: {text}"
    return short


def parameters(text):
    """Where a function's parameter list begins: the first bracket outside of its template arguments."""
    depth = 0
    for i, character in enumerate(text):
        depth += (character == "<") - (character == ">")
        if character == "(" and depth == 0:
            return i
    return len(text)


def measure(jobs=None):
    """{(kernel, architecture): Usage} of every kernel."""
    includes = include_folders()
    found = {}
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        tasks = {source: pool.submit(report, source, folder, includes) for source in sources()}
        for source, task in tasks.items():
            found |= parse(task.result(), source)
    names = readable(sorted({kernel for kernel, _ in found}))
    return {(names[kernel], architecture): usage for (kernel, architecture), usage in found.items()}


def read_table():
    """(nvcc's version, {(kernel, architecture): Usage}, {(kernel, architecture): reason}) of the committed table."""
    with open(TABLE, newline="") as file:
        toolkit = file.readline().strip().removeprefix("# nvcc ")
        rows = list(csv.DictReader(file))
    usage = {
        (row["kernel"], int(row["architecture"])): Usage(*(int(row[c]) for c in ("registers", "stack", "spilled")))
        for row in rows
    }
    return toolkit, usage, {(r["kernel"], int(r["architecture"])): r["reason"] for r in rows if r["reason"]}


def write_table(found, reasons):
    with open(TABLE, "w", newline="") as file:
        file.write(f"# nvcc {version()}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for (kernel, architecture), usage in sorted(found.items()):
            reason = "" if usage.clean() else reasons.get((kernel, architecture), "")
            writer.writerow((kernel, architecture, usage.registers, usage.stack, usage.spilled, reason))


def differences(found, table, reasons, same_toolkit=True):
    """What is wrong, one line each."""
    lines = []
    for key in sorted(found.keys() | table.keys()):
        place = f"{key[0]}, sm_{key[1]}"
        usage, wanted = found.get(key), table.get(key)
        if usage is None:
            lines.append(f"{place}: in the table, and no longer there")
        elif wanted is None:
            lines.append(f"{place}: not in the table ({usage})")
        elif same_toolkit and usage != wanted:
            lines.append(f"{place}: {usage}, in the table {wanted}")
        if usage and not usage.clean() and key not in reasons:
            lines.append(
                f"{place}: {usage.stack} bytes of stack and {usage.spilled} spilled, without a reason in the table"
            )
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write the table instead of comparing with it")
    parser.add_argument("--jobs", type=int, help="compilers at once (default: one per core)")
    options = parser.parse_args()
    if nvcc() is None:
        sys.exit("ptxas_budget.py: no nvcc on the PATH, nor in $CUDACXX")
    found = measure(options.jobs)
    toolkit, table, reasons = read_table() if TABLE.exists() else ("", {}, {})
    if options.update:
        write_table(found, reasons)
        table = found
    lines = differences(found, table, reasons, same_toolkit=toolkit == version())
    print("\n".join(lines) or f"{len(found)} kernels as in {TABLE.name}")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
