"""When two results are the same: against the reference in float64, in the working dtype, and on nearby inputs.

A result is right when it is within the contract's tolerance of the reference in float64. Where it is not, the inputs
may be ill-conditioned: a near-tie, a pixel on the edge of a box, a difference of large numbers. Then, and only then,
the reference is asked again, in the working dtype and on inputs moved by a few units in the last place (in float64,
which shows what the inputs' rounding does, and in float32, which shows what that of the steps between does), and the
result must be one that the reference gives for such inputs, up to the spread between them. A wrong kernel is not
excused: its result differs from all of those wherever the reference is well-conditioned.
"""

import math

import torch
from op_contract import TOLERANCES
from torch.utils._pytree import tree_leaves, tree_map

ROUNDING = {torch.float64: 2.0**-53}  # of the arithmetic; all other dtypes compute in float32
# Arguments that are only added up: which of their values are equal decides nothing.
FREE = ("pred", "weights", "unary", "prior", "bias", "images", "pafs", "transform", "transforms", "deformation")
NEARBY = 10  # references on moved inputs
# An entry of a Hessian of logarithms adds up some with weights of 4 in all (dark_udp's differences), and each of them
# has an error of up to 4 units: those of the blur's sum, which the logarithm makes absolute, and its own.
HESSIAN_ULPS = 16
ULPS = 16  # how far the inputs are moved: about what a kernel's dozen operations add up to


def is_floating(value):
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def upcast(arguments):
    """The same numbers in float64, contiguous; the dtype of the output too."""
    up = {
        n: tree_map(lambda v: v.double().contiguous() if is_floating(v) else v, value) for n, value in arguments.items()
    }
    if up.get("dtype") is not None and up["dtype"] != torch.uint8:
        up["dtype"] = torch.float64
    return up


def moved(tensor, step, scale, salt, ties=True):
    """A float64 tensor moved by up to ``step`` of its values plus ``scale``; equal ones stay so, and infinite ones."""
    bits = tensor.contiguous().view(torch.int64)
    if not ties:  # sums of equal values must not cancel as exactly
        bits = bits + torch.arange(bits.numel()).view_as(bits) * 0x9E3779B97F4A7
    hashed = bits * 6364136223846793005 + (2 * salt + 1) * 1442695040888963407 % 2**62
    hashed = (hashed ^ (hashed >> 29)) * 2862933555777941757
    noise = (hashed >> 11).double() / 2.0**52
    # What is exactly 0 stays so, but for coordinates: 0 is a pixel there.
    return torch.where(tensor.isfinite(), tensor + step * noise * (tensor.abs() + scale), tensor)


def moved_arguments(call, arguments, salt):
    """The float64 arguments of a call on slightly different inputs; every second in float32."""
    step = ULPS * ROUNDING.get(call.dtype, 2.0**-24)
    out = dict(arguments)
    for name, scale in call.perturbed.items():
        if name in out:
            out[name] = tree_map(
                lambda v, s=scale, n=name: moved(v, step, s, salt, n not in FREE) if is_floating(v) else v, out[name]
            )
    if salt % 2 and call.dtype != torch.float64:
        out = {n: tree_map(lambda v: v.float() if is_floating(v) else v, value) for n, value in out.items()}
        out |= {"dtype": torch.float32} if out.get("dtype") == torch.float64 else {}
    return out


def tolerance(call, output, truth):
    """(rtol, atol, largest number of the arithmetic) of an output: the contract's, or a narrower output dtype's."""
    rtol, atol = TOLERANCES[call.dtype]
    if output.is_floating_point() and output.dtype in TOLERANCES and output.dtype != torch.float64:
        rtol, atol = max(rtol, TOLERANCES[output.dtype][0]), max(atol, TOLERANCES[output.dtype][1])
    if call.arguments.get("return_covariance") and output.dim() == 4:
        atol = atol + covariance_rounding(truth, ROUNDING.get(call.dtype, 2.0**-24))
    largest = torch.finfo(torch.float64 if call.dtype == torch.float64 else torch.float32).max
    return rtol, atol + call.lost, largest


def covariance_rounding(covariance, rounding):
    """What the rounding of H costs the covariance C = -H^-1: to first order dC = C dH C, (..., 2, 2)."""
    rows = covariance_rows(covariance)
    return HESSIAN_ULPS * rounding * rows[..., :, None] * rows[..., None, :]


def covariance_rows(covariance):
    """The sums of its rows' absolute values, (..., 2), 0 where there is no covariance."""
    return covariance.double().abs().sum(-1).nan_to_num(0.0, 0.0, 0.0)


def close(actual, expected, rtol, atol, largest, spread=0.0):
    """Element by element; NaN equals NaN. What is infinite, or too large for the dtype, may be NaN: inf minus inf.

    ``largest``: of the arithmetic's dtype; sums a little smaller may have overflowed on the way.
    """
    within = (actual - expected).abs() <= atol + rtol * expected.abs() + spread
    overflowed = (expected.isinf() & ~actual.isfinite()) | (actual.isinf() & (expected.abs() > largest / 16))
    return within | (actual == expected) | (actual.isnan() & expected.isnan()) | overflowed


class Comparison:
    """Compares what a call returned with ``truth`` and, where that fails, with ``others()``, a list of more results.

    Args:
        call: the :class:`Call`.
        whole: see :class:`Operator`.
        actual, truth: lists of tensors, of the same shapes; ``truth`` in float64.
        others: function that returns the results of the reference in the working dtype and on nearby inputs.
        conditioned: function that returns more absolute error for output 0, or None.
    """

    def __init__(self, call, whole, actual, truth, others, conditioned=lambda: None):
        self.call, self.whole, self.others, self.conditioned = call, whole, others, conditioned
        self.actual = [a.double() for a in actual]
        self.limits = [tolerance(call, a, t) for a, t in zip(actual, truth, strict=True)]
        self.dtypes = [a.dtype for a in actual]
        self.truth = [self.rounded(t, d) for t, d in zip(truth, self.dtypes, strict=True)]

    def rounded(self, expected, dtype):
        """What overflows in the output's dtype is infinite there, and what does in the arithmetic's too."""
        expected = expected.double()
        if dtype == torch.float64 and self.call.dtype != torch.float64:
            dtype = torch.float32  # a gradient of float64 keypoints, computed in float32
        if dtype.is_floating_point and dtype != torch.float64:
            largest = torch.finfo(dtype).max
            expected = torch.where(expected.abs() > largest, expected.sign() * math.inf, expected)
        return expected

    def failure(self):
        """None, or the difference in one line."""
        for number, (a, t) in enumerate(zip(self.actual, self.truth, strict=True)):
            if a.shape != t.shape:
                return f"output {number} has shape {tuple(a.shape)}, the reference {tuple(t.shape)}"
        if all(close(a, t, *limit).all() for a, t, limit in zip(self.actual, self.truth, self.limits, strict=True)):
            return None
        more = self.conditioned()
        if more is not None:
            rtol, atol, largest = self.limits[0]
            self.limits[0] = rtol, atol + more, largest
        others = [[self.rounded(o, d) for o, d in zip(other, self.dtypes, strict=True)] for other in self.others()]
        results = [self.truth, *(o for o in others if [x.shape for x in o] == [x.shape for x in self.truth])]
        wrong = self.grouped(results) if self.whole else self.elementwise(results)
        return wrong and self.describe(*wrong)

    def elementwise(self, results):
        """The first output with a wrong element, and where; None when all are right."""
        for number, (a, limit) in enumerate(zip(self.actual, self.limits, strict=True)):
            stack = torch.stack([r[number] for r in results])
            finite = torch.where(stack.isfinite(), stack, stack[:1])
            spread = 2 * (finite - finite[:1]).abs().amax(0)
            good = close(a, stack[0], *limit, spread=spread.nan_to_num(0.0, 0.0, 0.0))
            for r in stack[1:]:
                good |= close(a, r, *limit)
            # NaN is right nowhere but where the reference is NaN, or too large for the dtype.
            good &= ~(a.isnan() & stack[0].isfinite())
            if not good.all():
                return number, (~good).nonzero()[0]
        return None

    def grouped(self, results):
        """The same, with all numbers of a group from one of the results."""
        dims = 0 if self.whole == "all" else self.whole
        groups = math.prod(self.actual[0].shape[:dims])
        fine = torch.zeros(groups, dtype=torch.bool)
        for result in results:
            here = torch.ones(groups, dtype=torch.bool)
            for number, (a, limit) in enumerate(zip(self.actual, self.limits, strict=True)):
                if a.numel() == 0:
                    continue
                apart = torch.stack([(r[number] - result[number]).abs() for r in results])
                # How far the next results with the same decisions are; the smallest distance is its own, 0.
                spread = 2 * apart.nan_to_num(0.0, 0.0, 0.0).sort(0).values[min(3, len(results) - 1)]
                spread = torch.where(spread.isfinite(), spread, 0.0)
                here &= (
                    close(a, result[number], *limit, spread=self.bounded(spread, number)).reshape(groups, -1).all(-1)
                )
            fine |= here
        if fine.all():
            return None
        group = int((~fine).nonzero()[0])
        for number, (a, t, limit) in enumerate(zip(self.actual, self.truth, self.limits, strict=True)):
            bad = (~close(a, t, *limit)).reshape(groups, -1)[group] if a.numel() else torch.zeros(0)
            if bad.any():
                place = torch.zeros_like(a, dtype=torch.bool).reshape(groups, -1)
                place[group] = bad
                return number, place.reshape(a.shape).nonzero()[0]
        return 0, torch.zeros(0, dtype=torch.int64)

    def bounded(self, spread, number):
        """Integers and flags have no spread."""
        return spread if self.dtypes[number].is_floating_point else torch.zeros_like(spread)

    def describe(self, number, place):
        at = tuple(place.tolist())
        a, t = self.actual[number][at], self.truth[number][at]
        return f"output {number} at {at} is {a.tolist()!r}, the reference {t.tolist()!r}"


def same_bits(now, before):
    """Whether two trees of tensors hold the same bits, NaN included."""
    for a, b in zip(tree_leaves(now), tree_leaves(before), strict=True):
        if isinstance(a, torch.Tensor):
            if a.shape != b.shape or a.dtype != b.dtype:
                return False
            if not torch.equal(a, b):
                width = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
                if not torch.equal(a.contiguous().view(width), b.contiguous().view(width)):
                    return False
    return True
