#!/usr/bin/env python3
"""Calls the operators with random arguments and compares what they return with the reference.

    python scripts/fuzz.py --calls 100000                        # the CPU kernels
    python scripts/fuzz.py --calls 10000 --device simt           # the CUDA kernels, executed on the CPU
    python scripts/fuzz.py --seed 3 --call 1234                  # one call again, shown in full
    python scripts/fuzz.py --bits --scale 8 --calls 2000         # the same bits with one and two threads
    python scripts/fuzz.py --threads 8 --seconds 60              # calls from eight threads at once
    python scripts/fuzz.py --workers 2 --calls 2000              # calls in forked workers of a data loader
    python scripts/fuzz.py --memory --calls 100000               # growth of the process

Every call is drawn from the seed and its number alone. What fails is printed with the command that repeats it; the exit
status is 1 then, and 2 for arguments that make no sense. Sanitized kernels: tests/cpu_sanitized.py and
tests/simt/sanitized.py.
"""

import argparse
import contextlib
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests"))

import torch  # noqa: E402
from fuzzing import campaign, registry, reliability  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000, help="how many calls (default 2000)")
    parser.add_argument("--device", choices=("cpu", "simt", "cuda"), default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first call")
    parser.add_argument("--call", type=int, help="only this call, shown in full")
    parser.add_argument("--only", metavar="OPERATOR", help="skip the calls of other operators")
    parser.add_argument("--scale", type=int, default=1, help="factor of the sizes (default 1)")
    parser.add_argument("--limit", type=float, default=60, help="seconds after which a call counts as hanging")
    parser.add_argument("--in-process", action="store_true", help="no process of its own for the calls")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--bits", action="store_true", help="compare one thread with two, and with a second run")
    mode.add_argument("--threads", type=int, help="call from that many threads at once for --seconds")
    mode.add_argument("--workers", type=int, help="call in that many forked data-loader workers")
    mode.add_argument("--memory", action="store_true", help="measure the growth of the process over the calls")
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    if options.seed < 0 or options.first < 0 or options.calls < 0 or options.scale < 1:
        parser.error("--seed, --first and --calls must not be negative, --scale must be positive")
    if options.only is not None and options.only not in registry.OPERATORS:
        parser.error(f"--only must be one of {', '.join(sorted(registry.OPERATORS))}, got {options.only}")
    return options


def kernels(device):
    """The context in which the operators run the kernels of a device."""
    if device != "simt":
        return contextlib.nullcontext()
    import simt_device

    return simt_device.simt_kernels()


def main():
    options = arguments()
    torch.set_num_threads(1)
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("fuzz.py: --device cuda, and torch sees no GPU")
    lacking = registry.missing()
    if lacking:
        sys.exit(f"fuzz.py: no calls are drawn of {', '.join(lacking)}: add them to tests/fuzzing")
    with kernels(options.device):
        if options.call is not None:
            return campaign.show(options)
        if options.bits:
            return reliability.bits(options)
        if options.threads:
            return reliability.threads(options)
        if options.workers:
            return reliability.workers(options)
        if options.memory:
            return reliability.memory(options)
        return campaign.run(options)


if __name__ == "__main__":
    sys.exit(main())
