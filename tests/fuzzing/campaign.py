"""Many calls, in a process of their own: one that crashes or hangs is reported and the next are made all the same."""

import mmap
import os
import signal
import struct
import sys
import time
import traceback

import torch

from .check import check, drawn, one_line


def run(options):
    """Makes the calls [first, first + calls); prints the failures and a summary; 1 when there were any.

    Interrupted or terminated, it sums up the calls that were made until then.
    """
    torch.manual_seed(0)
    state = State()
    start = time.perf_counter()
    end = options.first + options.calls
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if options.in_process:
            calls(options, options.first, end, state)
        else:
            supervise(options, end, state)
    except KeyboardInterrupt:
        end = state.number
    finally:
        signal.signal(signal.SIGTERM, before)
    elapsed = time.perf_counter() - start
    print(
        f"{state.made} calls on {options.device}, seed {options.seed}, numbers {options.first} to {end - 1}"
        f"{f', only {options.only}' if options.only else ''}: {state.failures} failures, "
        f"{state.refused} refused, {elapsed:.0f} s"
    )
    return 1 if state.failures else 0


class State:
    """Counts that a child process and its parent share; they survive the child."""

    FIELDS = ("number", "made", "failures", "refused")

    def __init__(self):
        super().__setattr__("memory", mmap.mmap(-1, 8 * len(self.FIELDS)))

    def __getattr__(self, name):
        return struct.unpack_from("q", self.memory, 8 * self.FIELDS.index(name))[0]

    def __setattr__(self, name, value):
        struct.pack_into("q", self.memory, 8 * self.FIELDS.index(name), value)


def supervise(options, end, state):
    """Forks a child for the calls, and another one after each that dies."""
    first = options.first
    while first < end:
        sys.stdout.flush()
        state.number = first
        child = None
        try:
            child = os.fork()
            if child == 0:
                work(options, first, end, state)
            _, status = os.waitpid(child, 0)
        except KeyboardInterrupt:
            if child is not None:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            raise
        if status == 0:
            return
        if os.WIFSIGNALED(status):
            name = signal.Signals(os.WTERMSIG(status)).name
            text = f"hung for {options.limit:g} s" if name in ("SIGALRM", "SIGPROF") else f"died of {name}"
        else:
            text = f"ended the process with status {os.WEXITSTATUS(status)}"
        state.failures += 1
        report(options, state.number, text)
        first = state.number + 1


def work(options, first, end, state):
    """The child: never returns."""
    status = 3
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to see to
    try:
        calls(options, first, end, state)
        status = 0
    except BaseException:  # whatever it is, it ends here and not in the parent's code
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(status)


def calls(options, first, end, state):
    for number in range(first, end):
        state.number = number
        # Without a handler the alarms end the process: of computing, and of waiting for something that never comes.
        signal.setitimer(signal.ITIMER_PROF, options.limit)
        signal.setitimer(signal.ITIMER_REAL, 10 * options.limit)
        if options.only and drawn(options.seed, number, options.scale).name != options.only:
            continue
        call, failure = check(options.seed, number, options.device, options.scale)
        state.made += 1
        state.refused += not call.valid
        if failure:
            state.failures += 1
            report(options, number, failure, call)
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)


def report(options, number, failure, call=None):
    """One line on what went wrong, and the command that does it again."""
    try:
        call = call or drawn(options.seed, number, options.scale)
        name = f"{call.name} [{call.broken}]" if call.broken else call.name
    except Exception as error:
        name = f"drawing the call: {one_line(error)}"
    print(f"FAILED call {number}, {name}: {failure}\n    {command(options, number)}", flush=True)


def command(options, number):
    words = ["python scripts/fuzz.py", f"--device {options.device}", f"--seed {options.seed}"]
    if options.scale != 1:
        words.append(f"--scale {options.scale}")
    return " ".join([*words, f"--call {number}"])


def show(options):
    """Makes one call, and prints it in full first."""
    call = drawn(options.seed, options.call, options.scale)
    torch.set_printoptions(precision=9, linewidth=160, threshold=2000)
    print(
        f"{call.name}, gradients of {', '.join(call.grad) or 'nothing'}" + (f", {call.broken}" if call.broken else "")
    )
    for name, value in call.arguments.items():
        layout = ""
        if isinstance(value, torch.Tensor):
            layout = f"  # {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}, strides {value.stride()}"
        print(f"  {name} ={layout} {value}")
    sys.stdout.flush()
    _, failure = check(options.seed, options.call, options.device, options.scale)
    print(f"FAILED: {failure}" if failure else "passed")
    return 1 if failure else 0
