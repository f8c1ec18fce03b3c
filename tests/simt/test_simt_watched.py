"""The test device with every access to memory reported, and under the sanitizers."""

import pathlib
import re
import subprocess
import sys

import pytest
from simt.build import SELFTEST, build

SIMT = pathlib.Path(__file__).resolve().parent

# ---- with every access to memory reported ----


@pytest.fixture(scope="module")
def traced():
    """Calls an operator of the self-test in a process of its own, on the traced build: its error, or None."""
    path = str(build(trace=True, target=SELFTEST))

    def call(code):
        script = f"""
import ctypes, torch
torch.ops.load_library({path!r})
ops, x = torch.ops.pypose_ops_simt_selftest, torch.arange(4096.0)
library, read, written = ctypes.CDLL({path!r}), ctypes.c_uint64(), ctypes.c_uint64()
try:
    library.simt_trace_sectors(ctypes.c_bool(True))
    {code}
    library.simt_traced_bytes(ctypes.byref(read), ctypes.byref(written))
    print("moved", read.value, written.value)
except RuntimeError as error:
    print(error)
"""
        done = subprocess.run(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return done.stdout.strip()

    return call


@pytest.mark.parametrize(
    "call, message",
    (
        ("ops.reverse(x, False)", r"a thread (reads|writes) byte \d+ of the static memory, and thread \d+ before it"),
        ("ops.race(x, 0)", r"a thread (reads|writes) byte \d+ of the static memory, and thread \d+ before it"),
        ("ops.race(x, 2)", r"a thread writes byte \d+ of the static memory, and thread \d+ before it"),
        ("ops.race(x, 4)", r"a thread (reads|writes) byte \d+ of the static memory, and thread \d+ before it"),
        ("ops.race(x, 5)", r"a thread (reads|writes) byte \d+ of the static memory, and thread \d+ before it"),
    ),
    ids=("no barrier", "no barrier of the warp", "two writes", "plain beside atomic", "second round"),
)
def test_races_are_reported(traced, call, message):
    assert re.match("simt: race on shared memory: " + message, traced(call)), traced(call)


@pytest.mark.parametrize(
    "call", ("ops.reverse(x, True)", "ops.race(x, 1)", "ops.race(x, 3)", "ops.argmax(x[None, None])")
)
def test_no_race_is_none(traced, call):
    assert traced(call).startswith("moved ")


@pytest.mark.parametrize("kind, read, written", ((0, 1, 1), (1, 8, 8), (2, 1, 1), (3, 1, 4)))
def test_sectors_are_counted(traced, kind, read, written):
    """Of 4096 floats: coalesced, each in a sector of its own, in vectors, and four neighbours one by one."""
    assert traced(f"ops.copied(x, {kind})") == f"moved {read * 4096 * 4} {written * 4096 * 4}"


# ---- under the sanitizers ----


def run_sanitized(*command):
    """Runs a program on the sanitized build; returns its exit code and its output."""
    command = [sys.executable, SIMT / "sanitized.py", *command]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def call_sanitized(call):
    """Runs Python code on the sanitized self-test, as `ops`."""
    path = str(build(sanitize=True, target=SELFTEST))
    return run_sanitized(
        "python",
        "-c",
        f"import torch; torch.ops.load_library({path!r}); ops = torch.ops.pypose_ops_simt_selftest; "
        f"x = torch.arange(256.0); i = x.int()\n{call}",
    )


@pytest.mark.parametrize(
    "call, finding",
    (
        ("ops.neighbour_sum(x, False)", "AddressSanitizer: heap-buffer-overflow.*\nREAD of size 4"),
        ("ops.overrun(x, 0)", "AddressSanitizer: heap-buffer-overflow.*\nWRITE of size 4"),
        ("ops.overrun(x, 1)", "AddressSanitizer: global-buffer-overflow.*\nWRITE of size 4"),
        ("ops.overrun(x, 2)", "AddressSanitizer: stack-buffer-overflow.*\nWRITE of size 4"),
        ("ops.misaligned(x, 0)", "misaligned address .* for type 'const struct uint4'"),
    ),
    ids=("read", "dynamic", "static", "stack", "misaligned"),
)
def test_sanitizer_finds(call, finding):
    code, output = call_sanitized(call)
    assert code != 0
    # ccache compiles with paths that are relative to the build folder.
    assert re.search(r"_kernel (\.\./)*tests/simt/planted/faults\.cu:", output), output
    assert re.search(finding, output), output


def test_sanitizer_passes_clean_kernels():
    code, output = call_sanitized(
        "ops.neighbour_sum(x, True); ops.reverse(x, True); ops.barriers(i[:100]); ops.fresh_shared(i); "
        "ops.shuffle(x, 2, 1, 32); ops.divergent(i); ops.ballot(i[:32], 255); "
        "maps = torch.randn(50, 64, 48); assert torch.equal(ops.argmax(maps), maps.flatten(1).argmax(1)); "
        "print('clean')"
    )
    assert (code, output) == (0, "clean\n")


def test_sanitizer_survives_abandoned_threads():
    code, output = call_sanitized(
        "for kind in (0, 1, 3, 6):\n try: ops.misuse(i, kind)\n except RuntimeError: ops.misuse(i, 7)\n"
        " else: raise SystemExit('not reported')"
    )
    assert (code, output) == (0, "")


def test_sanitized_operators():
    """Every operator under its contract, its CUDA kernels watched by the sanitizers."""
    files = sorted((SIMT.parent / "ops").glob("test_*.py"))
    # float16 has the widest vectors; the other dtypes take the same paths.
    checks = "(matches_reference or gradients_match_reference) and (float32 or float16)"
    code, output = run_sanitized("pytest", "-q", "-x", "-p", "no:cacheprovider", *files, "-k", f"simt and {checks}")
    assert code == 0, output
