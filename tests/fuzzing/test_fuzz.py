"""The fuzzer: its first calls on the CPU and on simt; it knows every operator and detects errors."""

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fuzzing import campaign, check, compare, registry, reliability
from fuzzing.calls import OPERATORS

import pypose_ops
from pypose_ops import reference

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "fuzz.py"


class Options:
    """What scripts/fuzz.py would have parsed."""

    def __init__(self, **options):
        defaults = dict(
            device="cpu", seed=0, first=0, calls=0, scale=1, only=None, limit=60.0, in_process=True, call=None,
            threads=2, workers=2, seconds=1.0,
        )  # fmt: skip
        self.__dict__ |= defaults | options


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("kernels, calls", (("cpu", 2000), ("simt", 200), ("cuda", 2000)), indirect=("kernels",))
def test_random_calls(kernels, calls, capfd):
    torch.set_num_threads(1)
    status = campaign.run(Options(device=kernels, calls=calls, in_process=kernels == "cuda"))
    assert status == 0, capfd.readouterr().out


# Not public, and behind codecs, metrics and integrations, whose own tests compare them with other code on random
# arguments.
PRIVATE = {
    "box_transforms", "decode_offsets", "disc_targets", "find_peaks_list", "gaussian_targets", "match_people"
}  # fmt: skip


def test_every_operator_is_drawn():
    """A new operator needs calls in tests/fuzzing: what the package exports, the reference defines and sources list."""
    assert registry.missing() == []
    public = {name for name in pypose_ops.__all__ if callable(getattr(pypose_ops, name)) and name.islower()}
    assert public - {"build_info"} == set(reference.__all__)
    stems = {path.stem.removesuffix("_backward") for path in (ROOT / "csrc").glob("*/*.cpp")} - PRIVATE
    assert PRIVATE.isdisjoint(pypose_ops.__all__)
    assert "find_peaks" in stems and stems <= OPERATORS.keys(), "csrc has operators that the fuzzer does not draw"


def test_a_call_depends_on_its_seed_and_number_alone():
    first = check.drawn(5, 17)
    check.drawn(5, 18)
    torch.manual_seed(3)
    again = check.drawn(5, 17)
    assert first.name == again.name and reliability.same_bits(again.arguments, first.arguments)
    assert len({check.drawn(5, n).name for n in range(300)}) == len(OPERATORS)


def test_a_sum_may_overflow_on_the_way():
    inf, largest = torch.tensor(math.inf), torch.finfo(torch.float32).max
    for actual, expected, same in ((inf, 2e38, True), (-inf, inf, True), (inf, 1e30, False), (inf * 0, 2e38, False)):
        expected = torch.as_tensor(expected, dtype=torch.float64)
        assert compare.close(actual.double(), expected, 1e-5, 0.0, largest).item() == same


def find(name, **wanted):
    """The first ordinary call of an operator with these arguments."""
    for number in range(5000):
        call = check.drawn(0, number)
        if call.name == name and call.valid and all(call.arguments[k] == v for k, v in wanted.items()):
            if check.evaluate(call.reference, call.arguments, ())[0][0].numel() > 3:
                return call
    raise AssertionError(f"no call of {name}")


@pytest.mark.parametrize(
    "name, wanted",
    (
        ("gaussian_heatmaps", {}),
        ("decode_heatmaps", {"refine": "dark", "compat": None}),
        ("decode_heatmaps", {"refine": "dark_udp", "max_offset": None}),
        ("decode_simcc", {"refine": "dark", "compat": None}),
        ("oks", {}),
        ("box_vote", {}),
    ),
)
def test_a_wrong_value_is_noticed(monkeypatch, name, wanted):
    call = find(name, **wanted)
    assert check.Check(call).failure() is None
    right = getattr(pypose_ops, name)

    def wrong(**arguments):
        result = right(**arguments)
        first = result[0] if isinstance(result, tuple) else result
        first.view(-1)[-1] += 0.5
        return result

    monkeypatch.setattr(pypose_ops, name, wrong)
    assert "the reference" in check.Check(call).failure()


def test_nan_a_changed_input_and_a_refusal_are_noticed(monkeypatch):
    call = find("offset_heatmaps")
    right = pypose_ops.offset_heatmaps
    monkeypatch.setattr(pypose_ops, "offset_heatmaps", lambda **a: right(**a) * torch.nan)
    assert "is nan" in check.Check(call).failure()

    def writes(**arguments):
        arguments["keypoints"].detach()[:1].add_(1)  # a repeated row is written once
        return right(**arguments)

    monkeypatch.setattr(pypose_ops, "offset_heatmaps", writes)
    assert check.Check(call).failure() == "an input tensor was changed"
    monkeypatch.setattr(pypose_ops, "offset_heatmaps", lambda **a: 1 / 0)
    assert "refused a valid call" in check.Check(find("offset_heatmaps")).failure()


def test_a_crash_is_reported_with_the_command_that_repeats_it(monkeypatch, capfd):
    monkeypatch.setattr(pypose_ops, "oks", lambda *a, **k: os.kill(os.getpid(), signal.SIGBUS))
    call = next(n for n in range(300) if check.drawn(0, n).name == "oks")
    assert campaign.run(Options(first=call, calls=1, in_process=False)) == 1
    out = capfd.readouterr().out
    assert f"FAILED call {call}, oks" in out and "died of SIGBUS" in out
    assert f"python scripts/fuzz.py --device cpu --seed 0 --call {call}" in out


def test_a_terminated_campaign_sums_up_what_it_has_made(monkeypatch, capfd):
    def terminates(*args, **options):
        os.kill(os.getppid(), signal.SIGTERM)
        signal.pause()

    monkeypatch.setattr(pypose_ops, "oks", terminates)
    call = next(n for n in range(300) if check.drawn(0, n).name == "oks")
    # Not from 0 on: a child of a process that has differentiated, as this one may have, cannot do so.
    assert campaign.run(Options(first=call, calls=10**6, in_process=False)) == 0
    assert f"0 calls on cpu, seed 0, numbers {call} to {call - 1}: 0 failures" in capfd.readouterr().out
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_the_same_bits_with_two_threads_from_threads_and_in_workers(capfd):
    assert reliability.bits(Options(calls=60, scale=4)) == 0
    assert reliability.threads(Options(threads=4, seconds=1.0)) == 0
    assert reliability.workers(Options(calls=100)) == 0
    assert capfd.readouterr().out.count("0 failures") == 3


def test_the_command():
    done = subprocess.run([sys.executable, SCRIPT, "--call", "3"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("passed\n"), done.stdout + done.stderr
    done = subprocess.run([sys.executable, SCRIPT, "--only", "nonsense"], capture_output=True, text=True)
    assert done.returncode == 2 and "--only must be one of box_vote" in done.stderr
