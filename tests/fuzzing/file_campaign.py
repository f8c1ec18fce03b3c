"""Many broken files, in processes of their own: one that crashes, hangs or takes too much memory is reported."""

import importlib
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from pypose_ops.cli.main import COMMANDS
from pypose_ops.models.weights.files import load_weights

from .file_calls import one_file, prepare

MEMORY = 1 << 30  # bytes that the whole process may hold, torch included
CHUNK = 5000  # files of one process
SECONDS = 20.0  # of computing for one file


class Hang(BaseException):
    """A file takes too long."""


def run(options):
    """Makes the files [first, first + files); prints failures and a summary; 1 when there were any."""
    start, failures, refused, made, most = time.monotonic(), 0, 0, 0, 0
    for command in COMMANDS:  # so that the children need not, each
        importlib.import_module(f"pypose_ops.cli.{command}")
    with tempfile.TemporaryDirectory() as folder:
        prepare(folder)
        load_weights(Path(folder) / "tiny.safetensors")
    for first in range(options.first, options.first + options.files, CHUNK):
        last = min(first + CHUNK, options.first + options.files)
        while first < last:
            done = chunk(options, first, last)
            failures, refused, made = failures + done["failures"], refused + done["refused"], made + done["made"]
            most, first = max(most, done["memory"]), done["next"]
        print(f"{made} files, {failures} failures, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    print(
        f"{made} files, seed {options.seed}, numbers {options.first} to {options.first + options.files - 1}: "
        f"{failures} failures, {refused} refused, at most {most >> 20} MiB, {time.monotonic() - start:.0f} s"
    )
    return 1 if failures else 0


def chunk(options, first, last):
    """A child process reads the files and reports after each through a pipe."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        status = 3
        try:
            with tempfile.TemporaryDirectory() as folder:
                files(options, first, last, folder, writer)
            status = 0
        finally:
            sys.stdout.flush()
            os._exit(status)
    os.close(writer)
    done = {"failures": 0, "refused": 0, "made": 0, "memory": 0, "next": first}
    with os.fdopen(reader) as lines:
        for line in lines:
            number, outcome, memory = line.split()
            done["next"], done["memory"] = int(number) + 1, max(done["memory"], int(memory))
            done["made"] += outcome != "other"
            done["refused"] += outcome == "refused"
            done["failures"] += outcome == "failed"
    _, status = os.waitpid(child, 0)
    if status:
        number = done["next"]
        print(f"FAILED file {number}: the process ended with status {status}\n    {again(options, number)}", flush=True)
        done["failures"], done["next"] = done["failures"] + 1, number + 1
    return done


def files(options, first, last, folder, writer=None):
    """Reads files one after the other; returns the failures."""
    prepare(folder)
    limit = memory() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    signal.signal(signal.SIGPROF, hang)
    failures = 0
    for number in range(first, last):
        outcome = attempt(options, number, folder)
        failures += outcome == "failed"
        if writer is not None:
            os.write(writer, f"{number} {outcome} {peak()}\n".encode())
    return failures


def attempt(options, number, folder):
    """``read``, ``refused``, ``failed`` or ``other`` of one file."""
    before = peak()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        _, refused = one_file(options.seed, number, folder, options.only)
        outcome = "other" if refused is None else "refused" if refused else "read"
    except (Exception, SystemExit, Hang) as error:
        outcome = "failed"
        frames = traceback.extract_tb(error.__traceback__)[-4:]
        where = " <- ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames))
        text = " ".join(str(error).split())[:300]
        print(
            f"FAILED file {number}: {type(error).__name__}: {text} [{where}]\n    {again(options, number)}", flush=True
        )
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if outcome != "failed" and peak() > max(MEMORY, before):
        outcome = "failed"
        print(f"FAILED file {number}: took {peak() >> 20} MiB\n    {again(options, number)}", flush=True)
    return outcome


def hang(number, frame):
    raise Hang(f"{SECONDS:g} s of computing")


def again(options, number):
    return f"python scripts/fuzz_files.py --seed {options.seed} --file {number}"


def memory():
    """Bytes of address space of this process."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def peak():
    """The most bytes that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
