"""What the kernels take, told to the test device: it then refuses launches that no multiprocessor could hold.

Registers and static shared memory come from ``kernel_registers.csv``; which row is which kernel, from the library's
symbols.
"""

import ctypes
import subprocess

from . import ptxas_budget


def kernels(path):
    """{offset in the library: name as in the table, without its file} of the kernels of a library; needs binutils."""
    out = subprocess.run(["nm", "--defined-only", path], stdout=subprocess.PIPE, text=True, check=True).stdout
    symbols = {}
    for line in out.splitlines():
        address, kind, name = line.split(maxsplit=2)
        if kind in "tTwW" and "_kernel" in name:
            symbols[int(address, 16)] = f": {name}"
    names = ptxas_budget.readable(sorted(set(symbols.values())))
    return {offset: names[name].removeprefix(": ") for offset, name in symbols.items()}


def table():
    """{kernel's name: (registers, static shared bytes)}, the most of all files and architectures."""
    most = {}
    for (kernel, _), usage in ptxas_budget.read_table()[1].items():
        name = kernel.split(": ")[1]
        registers, shared = most.get(name, (0, 0))
        most[name] = max(registers, usage.registers), max(shared, usage.shared)
    return most


def install(path, known=None):
    """Hands the table (or ``known``, of its form) to a loaded library; returns the kernels that are not in it."""
    library = ctypes.CDLL(str(path))
    known = table() if known is None else known
    start = ctypes.cast(library.simt_set_limits, ctypes.c_void_p).value - exported(path)
    missing = []
    for offset, name in kernels(path).items():
        if name in known:
            library.simt_set_limits(ctypes.c_void_p(start + offset), *map(ctypes.c_uint, known[name]))
        else:
            missing.append(name)
    return missing


def exported(path):
    out = subprocess.run(["nm", "-D", "--defined-only", path], stdout=subprocess.PIPE, text=True, check=True).stdout
    return next(int(line.split()[0], 16) for line in out.splitlines() if line.endswith(" simt_set_limits"))
