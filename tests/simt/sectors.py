#!/usr/bin/env python3
"""Bytes that the CUDA kernels move by sectors of memory, over the bytes that they must move: predictions without a GPU.

    python tests/simt/sectors.py                       # every operator, as the table of docs/performance.md
    python tests/simt/sectors.py crop --dtype bfloat16 # rows whose operator contains one of these words

The kernels run on the CPU with every access to memory traced (tests/simt/trace.cpp). The n-th access of every lane of
a warp from one place in the code is one instruction, which moves each 32-byte sector that its lanes touch; what a block
has read once stays in its multiprocessor's cache. The bytes that must move are those of benchmarks/roofline.py, at its
sizes but for the batch.
"""

import argparse
import ctypes
import os
import pathlib
import sys

import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

import bench_tools  # noqa: E402  beside the operators' formulas, which are no package
import roofline  # noqa: E402

import pypose_ops  # noqa: E402

# Reads and writes each map once: more than TARGET times the bytes is a fault of the kernel.
TARGET = 1.1
MAP_MOVING = (
    "gaussian_heatmaps", "heatmap_mse_loss", "part_affinity_fields", "limb_masks", "offset_heatmaps", "simcc_labels",
    "decode_heatmaps", "find_peaks", "soft_argmax", "decode_simcc",
)  # fmt: skip
BATCH = 8


def traced():
    """The traced kernels' module and library; the first call in the process decides which build is loaded."""
    os.environ["PYPOSE_OPS_SIMT_TRACE"] = "1"
    import simt_device

    return simt_device, ctypes.CDLL(str(simt_device.load()))


def moved(row):
    """(bytes read, bytes written) by sectors, in one call with its gradient where the row has one."""
    device, library = traced()
    inputs = row.inputs(torch.device("cpu"))
    call = bench_tools.with_gradient(row.call) if row.backward else row.call
    read, written = ctypes.c_uint64(), ctypes.c_uint64()
    with device.simt_kernels():
        library.simt_trace_sectors(ctypes.c_bool(True))
        call(pypose_ops, *inputs)
        library.simt_traced_bytes(ctypes.byref(read), ctypes.byref(written))
        library.simt_trace_sectors(ctypes.c_bool(False))
    return read.value, written.value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="WORD", help="parts of operators' names (default: all)")
    parser.add_argument("--batch", type=int, default=BATCH, help=f"people (default {BATCH})")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32", help="of the maps")
    options = parser.parse_args()
    torch.manual_seed(0)
    print("| operator | work | MB | MB by sectors, read | written | ratio |\n|---|---|--:|--:|--:|--:|")
    for row in roofline.rows(options.batch, getattr(torch, options.dtype)):
        if options.words and not any(word in row.op for word in options.words):
            continue
        read, written = moved(row)
        sizes = (row.bytes, read, written)
        cells = [row.op, row.work, *(f"{size / 1e6:.2f}" for size in sizes), f"{(read + written) / row.bytes:.2f}"]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
