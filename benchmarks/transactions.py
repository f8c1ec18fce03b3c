#!/usr/bin/env python3
"""Bytes that every CUDA kernel moves by transactions, over the bytes of docs/roofline.md; needs no GPU.

    python benchmarks/transactions.py                # float32 and float16, two images
    python benchmarks/transactions.py --batch 8 --dtypes float32

The test device runs the kernels on the CPU, with every access to memory reported (tests/simt/trace.cpp). The n-th
access of a warp's lanes from one place in the code is one instruction, and moves each sector of 32 bytes that its lanes
touch. What a block has read once counts as cached; writes always count. A ratio of 1 is every byte once; kernels whose
lanes move four floats one by one, or columns instead of rows, show as 4 or 8.
"""

import argparse
import sys
from pathlib import Path

import roofline
import torch

import pypose_ops

TESTS = Path(__file__).resolve().parents[1] / "tests"
# Bound by the maps that they move, by docs/roofline.md.
MOVE_MAPS = (
    "gaussian_heatmaps", "heatmap_mse_loss", "part_affinity_fields", "limb_masks", "offset_heatmaps", "simcc_labels",
    "decode_heatmaps", "find_peaks", "soft_argmax", "decode_simcc", "crop_patches",
)  # fmt: skip


def measure(row, sectors):
    """(bytes read, bytes written) by the row's kernels."""
    arguments = row.inputs(torch.device("cpu"))
    if row.backward:
        arguments = (arguments[0].requires_grad_(), *arguments[1:])
    with sectors.counted() as moved:
        out = row.call(pypose_ops, *arguments)
        if row.backward:
            out.backward()
        return moved()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=2, help="images (default 2: the ratio depends little on it)")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float16"], help="of the maps")
    options = parser.parse_args()
    sys.path.insert(0, str(TESTS))
    from simt import sectors

    torch.manual_seed(0)
    print(
        "| operator | dtype | MB, formula | MB read | MB written | transactions / formula |\n|---|---|--:|--:|--:|--:|"
    )
    for name in options.dtypes:
        for row in roofline.rows(options.batch, getattr(torch, name)):
            if row.op in MOVE_MAPS:
                read, written = measure(row, sectors)
                cells = (row.op, name, f"{row.bytes / 1e6:.3f}", f"{read / 1e6:.3f}", f"{written / 1e6:.3f}")
                print("| " + " | ".join((*cells, f"{(read + written) / row.bytes:.2f}")) + " |", flush=True)


if __name__ == "__main__":
    main()
