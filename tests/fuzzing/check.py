"""Runs one call and reports errors."""

import torch
from contract_tools import strided
from torch.utils._pytree import tree_leaves, tree_map_only

from .broken import broken
from .calls import OPERATORS
from .compare import NEARBY, Comparison, moved, moved_arguments, same_bits, upcast
from .draws import Draw

REFUSALS = (RuntimeError, ValueError, TypeError, NotImplementedError)
GRADIENT_LAYOUTS = ("plain", "plain", "transposed", "sliced", "channels_last")


def drawn(seed, number, scale=1):
    """The call of that number: the same on every machine, whatever was called before."""
    draw = Draw(seed, number, scale)
    names = sorted(OPERATORS)
    call = OPERATORS[names[int(draw.random.integers(len(names)))]].draw(draw)
    return broken(draw, call) if draw.chance(0.1) else call


class Outcome:
    """What a function made of a call: its tensors (results, then gradients), or the error."""

    def __init__(self, tensors=None, error=None):
        self.tensors, self.error = tensors, error


def evaluate(function, arguments, grad, weights=None, layout="plain"):
    """The tensors of a result and the gradients of a weighted sum of it, and the weights, made where none are given."""
    leaves = {n: arguments[n].detach().requires_grad_() for n in grad}
    result = [v for v in tree_leaves(function(**(arguments | leaves))) if isinstance(v, torch.Tensor)]
    if not grad:
        return result, []
    if weights is None:
        generator = torch.Generator().manual_seed(1)
        weights = [torch.randn(o.shape, generator=generator).bfloat16() if o.requires_grad else None for o in result]
    outputs = [(o, w) for o, w in zip(result, weights, strict=True) if o.requires_grad and w is not None]
    gradients = [torch.zeros_like(v) for v in leaves.values()]
    if outputs:
        placed = [place(w.to(o.device, o.dtype), layout) for o, w in outputs]
        found = torch.autograd.grad([o for o, _ in outputs], list(leaves.values()), placed, allow_unused=True)
        gradients = [z if g is None else g for g, z in zip(found, gradients, strict=True)]
    return [o.detach() for o in result] + gradients, weights


def place(tensor, layout):
    return tensor if layout == "plain" else strided(tensor, layout)


def outcome(*arguments, **options):
    try:
        return Outcome(*evaluate(*arguments, **options)[:1])
    except Exception as error:  # anything: the caller judges it
        return Outcome(error=error)


class Check:
    """One call on one device."""

    def __init__(self, call, device="cpu", layout="plain"):
        self.call, self.layout = call, layout
        self.device = torch.device("cuda" if device == "cuda" else "cpu")  # the simt kernels take tensors of the CPU

    def failure(self):
        """None, or the error of the call in one line."""
        call = self.call
        before = tree_map_only(torch.Tensor, bits, call.arguments)
        arguments = tree_map_only(torch.Tensor, lambda v: v.to(self.device), call.arguments)
        try:
            tensors, weights = evaluate(call.op, arguments, call.grad, layout=self.layout)
        except Exception as error:
            return self.refused(error)
        if not same_bits(tree_map_only(torch.Tensor, bits, call.arguments), before):
            return "an input tensor was changed"
        tensors = [t.cpu() for t in tensors]
        truth = upcast(call.arguments)
        expected = outcome(call.reference, truth, call.grad, weights)
        if expected.error is not None:
            return f"returned, and the reference raised {one_line(expected.error)}"
        if len(tensors) != len(expected.tensors):
            return f"{len(tensors)} tensors, the reference {len(expected.tensors)}"
        whole = OPERATORS[call.name].whole
        return Comparison(
            call,
            whole,
            tensors,
            expected.tensors,
            others=lambda: self.others(truth, weights),
            conditioned=lambda: call.conditioned and call.conditioned(call, truth),
        ).failure()

    def refused(self, error):
        """What is wrong with an error: nothing, where a call is not valid and the operator says so by name."""
        if self.call.valid:
            return f"refused a valid call: {one_line(error)}"
        if not isinstance(error, REFUSALS):
            return f"an error that is none of the documented: {one_line(error)}"
        if self.call.name not in str(error) and "allocate" not in str(error):
            return f"an error that does not name the operator: {one_line(error)}"
        return None

    def others(self, truth, weights):
        """The reference in the working dtype, and on inputs moved by a few units in the last place."""
        call = self.call
        found = [outcome(call.reference, tree_map_only(torch.Tensor, torch.clone, call.arguments), call.grad, weights)]
        for salt in range(NEARBY):
            near = [w if w is None else moved(w.double(), 2.0**-24, 0.0, salt, ties=False) for w in weights]
            found.append(outcome(call.reference, moved_arguments(call, truth, salt), call.grad, near))
        return [f.tensors for f in found if f.tensors is not None]


def bits(tensor):
    """A copy of a tensor and of what lies around it in memory."""
    base = tensor if tensor._base is None else tensor._base
    return base.detach().clone()


def one_line(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def check(seed, number, device="cpu", scale=1):
    """(call, None or its error)."""
    call = drawn(seed, number, scale)
    layout = GRADIENT_LAYOUTS[number % len(GRADIENT_LAYOUTS)]
    return call, Check(call, device, layout).failure()
