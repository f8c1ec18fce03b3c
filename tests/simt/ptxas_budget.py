#!/usr/bin/env python3
"""What every CUDA kernel takes, as ptxas and its machine code say, against tests/simt/kernel_registers.csv.

    python tests/simt/ptxas_budget.py            # compiles every .cu for sm_80 and sm_90 and compares
    python tests/simt/ptxas_budget.py --update   # writes the table
    python tests/simt/ptxas_budget.py mrf        # of the files whose path contains one of these words

Columns: registers a thread, bytes of stack and of spills, bytes of static shared memory, theoretical occupancy in
percent (at the largest block that the kernel is compiled for, without dynamic shared memory), and bits of the widest
load from and store to global memory. The last three need cuobjdump and nvdisasm: those of the toolkit, or ``pip install
nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm``.

A kernel may not spill registers nor keep a stack in local memory, and one that moves maps moves 128 bits at once, but
where the table's last column gives the reason. The table holds for the nvcc that its first line names; another one may
need other registers, and is held to the rest.
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
from dataclasses import dataclass, replace

TESTS = pathlib.Path(__file__).resolve().parent
ROOT = TESTS.parents[1]
TABLE = TESTS / "kernel_registers.csv"
ARCHITECTURES = (80, 90)
MEASURES = ("registers", "stack", "spilled", "shared", "occupancy", "load", "store")
COLUMNS = ("kernel", "architecture", *MEASURES, "reason")

ENTRY = re.compile(r"Compiling entry function '(\S+)' for 'sm_(\d+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
FUNCTION = re.compile(r"Function : (\S+)")
ACCESS = re.compile(r"\b(LDG|STG)((?:\.[A-Z0-9_]+)*)\b")
MAX_THREADS = re.compile(r"EIATTR_MAX_THREADS.*?Value:\s+0x([0-9a-f]+)", re.DOTALL)

# Of a multiprocessor: threads, registers, shared memory of blocks (each takes 1 KB more), blocks.
LIMITS = {80: (2048, 65536, 164 * 1024, 32), 90: (2048, 65536, 228 * 1024, 32)}
WARP = 32


@dataclass(frozen=True)
class Usage:
    """What one kernel takes on one architecture."""

    registers: int
    stack: int
    spilled: int
    shared: int = 0
    occupancy: int = 0
    load: int = 0
    store: int = 0

    def clean(self):
        return self.stack == 0 and self.spilled == 0


def occupancy(architecture, threads, registers, shared):
    """Percent of a multiprocessor's warps that blocks of so many threads fill."""
    most, file, memory, blocks = LIMITS[architecture]
    warps = -(-threads // WARP)
    # Registers are handed out 8 a thread, to whole warps.
    by_registers = file // (-(-registers // 8) * 8 * WARP) // warps
    resident = min(blocks, most // (warps * WARP), by_registers, memory // (shared + 1024))
    return 100 * resident * warps // (most // WARP)


def tool(name):
    """A program of the toolkit, of pip's packages beside this Python's, or None."""
    folders = [pathlib.Path(entry) / "nvidia" / "cu13" / "bin" for entry in sys.path]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(map(str, folders)))


def nvcc():
    """The compiler: $CUDACXX, that of the PATH, or None."""
    return os.environ.get("CUDACXX") or shutil.which("nvcc")


def version():
    found = re.search(r"release (\S+),", subprocess.check_output([nvcc(), "--version"], text=True))
    return found.group(1) if found else "unknown"


def sources(words=()):
    """The .cu files of the operators whose family and name contain one of the words."""
    found = sorted((ROOT / "csrc").glob("*/*.cu"))
    return [path for path in found if not words or any(word in stem(path) for word in words)]


def stem(path):
    return f"{path.parent.name}/{path.stem}"


def include_folders():
    found = subprocess.check_output([sys.executable, ROOT / "cmake" / "torch_dir.py"], text=True).strip()
    return [ROOT / "csrc", pathlib.Path(found) / "include"]


def report(source, folder, includes):
    """What ptxas and cuobjdump say of one file, as the build compiles it, but for debug lines, which change no code."""
    output = pathlib.Path(folder) / f"{source.parent.name}-{source.stem}.fatbin"
    command = [nvcc(), "-std=c++17", "--fatbin", "--expt-relaxed-constexpr", "-Xptxas=-v", "-w", str(source)]
    command += [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    command += ["-DTORCH_TARGET_VERSION=0x020a000000000000", "-o", str(output)]
    command += [f"-isystem={path}" if path != ROOT / "csrc" else f"-I{path}" for path in includes]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}")
    return done.stdout, *(dump(flag, output) for flag in ("-sass", "-elf"))


def dump(flag, path):
    """cuobjdump's view of a file; empty where the tool is missing."""
    if tool("cuobjdump") is None:
        return ""
    environment = dict(os.environ, PATH=f"{pathlib.Path(tool('cuobjdump')).parent}{os.pathsep}{os.environ['PATH']}")
    return subprocess.run([tool("cuobjdump"), flag, path], env=environment, stdout=subprocess.PIPE, text=True).stdout


def widest(sass):
    """{(kernel, architecture): (bits of the widest global load, bits of the widest global store)}."""
    found, kernel, architecture = {}, None, None
    for line in sass.splitlines():
        if match := re.match(r"arch = sm_(\d+)", line.strip()):
            architecture = int(match.group(1))
        elif match := FUNCTION.search(line):
            kernel = match.group(1), architecture
            found[kernel] = (0, 0)
        elif kernel and (match := ACCESS.search(line)):
            sizes = [int(re.sub(r"\D", "", part)) for part in match.group(2).split(".") if part in SIZES]
            bits = max(sizes, default=32)
            load, store = found[kernel]
            found[kernel] = (max(load, bits), store) if match.group(1) == "LDG" else (load, max(store, bits))
    return found


SIZES = ("U8", "S8", "U16", "S16", "64", "128")


def block_sizes(elf):
    """{kernel: threads of the largest block it is compiled for}."""
    found = {}
    for section in re.split(r"(?=\.nv\.info\.\S+\s*\n)", elf):
        name = re.match(r"\.nv\.info\.(\S+)", section)
        threads = MAX_THREADS.search(section)
        if name and threads:
            found[name.group(1)] = int(threads.group(1), 16)
    return found


def parse(reports, source):
    """{(kernel, architecture): Usage} of one file's reports; a kernel is named by its file and its mangled name."""
    text, sass, elf = reports
    widths, threads = widest(sass), block_sizes(elf)
    found, current, frame = {}, None, (0, 0, 0)
    for line in text.splitlines():
        if match := ENTRY.search(line):
            current, frame = (match.group(1), int(match.group(2))), (0, 0, 0)
        elif match := STACK.search(line):
            frame = tuple(map(int, match.groups()))
        elif (match := USED.search(line)) and current:
            registers, smem = int(match.group(1)), SHARED.search(line)
            shared = int(smem.group(1)) if smem else 0
            share = occupancy(current[1], threads[current[0]], registers, shared) if current[0] in threads else 0
            usage = Usage(registers, frame[0], frame[1] + frame[2], shared, share, *widths.get(current, (0, 0)))
            found[f"{stem(source)}: {current[0]}", current[1]] = usage
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


def measure(jobs=None, words=()):
    """{(kernel, architecture): Usage} of every kernel of these files."""
    includes = include_folders()
    found = {}
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        tasks = {source: pool.submit(report, source, folder, includes) for source in sources(words)}
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
        (row["kernel"], int(row["architecture"])): Usage(*(int(row[measure]) for measure in MEASURES)) for row in rows
    }
    return toolkit, usage, {(r["kernel"], int(r["architecture"])): r["reason"] for r in rows if r["reason"]}


def write_table(found, reasons):
    with open(TABLE, "w", newline="") as file:
        file.write(f"# nvcc {version()}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for (kernel, architecture), usage in sorted(found.items()):
            reason = reasons.get((kernel, architecture), "") if needs_reason(kernel, usage) else ""
            writer.writerow((kernel, architecture, *(getattr(usage, measure) for measure in MEASURES), reason))


READS_MAPS = re.compile(r": (decode_heatmaps|decode_simcc|find_peaks|find_plateaus|soft_argmax)_kernel<")


def narrow(kernel, usage):
    """Whether a kernel that moves maps does it in less than 16 bytes at once.

    Those that read maps in loads, those compiled for packs of that size (their last template argument) in stores.
    """
    if READS_MAPS.search(kernel) and 0 < usage.load < 128:
        return True
    match = re.search(r"<(\w+)(?:, \d+)*, (\d+)>$", kernel)
    bits = {"double": 64, "float": 32, "Half": 16, "BFloat16": 16}.get(match.group(1) if match else "", 0)
    width = bits * int(match.group(2)) if match else 0
    return width == 128 and 0 < usage.store < 128 and "loss_kernel" not in kernel


def needs_reason(kernel, usage):
    return not usage.clean() or narrow(kernel, usage)


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
        elif same_toolkit and usage != (wanted if tool("cuobjdump") else without_dump(wanted)):
            lines.append(f"{place}: {usage}, in the table {wanted}")
        if usage and not usage.clean() and key not in reasons:
            lines.append(
                f"{place}: {usage.stack} bytes of stack and {usage.spilled} spilled, without a reason in the table"
            )
        if usage and narrow(key[0], usage) and key not in reasons:
            lines.append(
                f"{place}: loads of {usage.load} and stores of {usage.store} bits, without a reason in the table"
            )
    return lines


def without_dump(usage):
    return replace(usage, occupancy=0, load=0, store=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="WORD", help="which files (default: all)")
    parser.add_argument("--update", action="store_true", help="write the table instead of comparing with it")
    parser.add_argument("--jobs", type=int, help="compilers at once (default: one per core)")
    options = parser.parse_args()
    if nvcc() is None:
        sys.exit("ptxas_budget.py: no nvcc on the PATH, nor in $CUDACXX")
    toolkit, table, reasons = read_table() if TABLE.exists() else ("", {}, {})
    chosen = {stem(path) for path in sources(options.words)}
    found = measure(options.jobs, options.words)
    found |= {key: usage for key, usage in table.items() if key[0].split(":")[0] not in chosen}
    if options.update:
        if tool("cuobjdump") is None:
            sys.exit("ptxas_budget.py: no cuobjdump: pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm")
        write_table(found, reasons)
        table = found
    lines = differences(found, table, reasons, same_toolkit=toolkit == version())
    print("\n".join(lines) or f"{len(found)} kernels as in {TABLE.name}")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
