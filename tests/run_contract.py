"""The contract's values, gradients and refusals of every operator on the CPU, without pytest.

    python tests/run_contract.py [OPERATOR...] [--dtypes float32 float16]

For emulators and fresh environments: collecting tests/ops takes longer than these checks, and needs more packages.
Prints a line per operator, and fails where a check does.
"""

import argparse
import importlib
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS), str(TESTS / "ops")]

import torch  # noqa: E402
from _pytest.outcomes import Skipped  # noqa: E402
from op_contract import OpContract  # noqa: E402


def contracts() -> Iterator[OpContract]:
    for path in sorted((TESTS / "ops").glob("test_*.py")):
        if "check_op(" not in path.read_text() or path.stem == "test_op_contract":  # whose are wrong on purpose
            continue
        for value in list(vars(importlib.import_module(path.stem)).values()):
            if isinstance(value, type) and issubclass(value, OpContract) and value.op is not None:
                yield value()


def checks(contract: OpContract, dtypes: list[torch.dtype]) -> Iterator[tuple[str, str, Callable[[], None]]]:
    """(kind, name, check)."""
    cpu = torch.device("cpu")
    for sample in contract.samples:
        for dtype in dtypes:
            yield (
                "values",
                f"{sample.name} {dtype}",
                lambda s=sample, d=dtype: contract.test_matches_reference(cpu, d, s),
            )
            if sample.grad:
                check = lambda s=sample, d=dtype: contract.test_gradients_match_reference(cpu, d, s)  # noqa: E731
                yield "gradients", f"{sample.name} {dtype}", check
    for bad in contract.bad:
        yield "refusals", bad.name, lambda b=bad: contract.test_bad_call(cpu, b)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operators", nargs="*", metavar="OPERATOR", help="default: all")
    parser.add_argument("--dtypes", nargs="+", default=["float64", "float32", "float16", "bfloat16"])
    options = parser.parse_args()
    dtypes = [getattr(torch, name) for name in options.dtypes]
    failures = 0
    total = Counter()
    for contract in contracts():
        name = contract.op.__name__
        if options.operators and name not in options.operators:
            continue
        counts = Counter()
        for kind, case, check in checks(contract, dtypes):
            torch.manual_seed(0)
            try:
                check()
                counts[kind] += 1
            except Skipped:
                counts["skipped"] += 1
            except Exception:
                counts["FAILED"] += 1
                print(f"{name}: {kind}: {case}\n{traceback.format_exc()}", flush=True)
        failures += counts["FAILED"]
        total += counts
        print(f"{name}: {', '.join(f'{count} {kind}' for kind, count in counts.items())}", flush=True)
    print("all:", ", ".join(f"{count} {kind}" for kind, count in total.items()))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
