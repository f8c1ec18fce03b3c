"""mrf_message_passing under the contract of op_contract.py."""

import importlib
import math

import large_inputs as large
import pytest
import torch
from contract_tools import only_on
from op_contract import Bad, Sample, check_op
from torch.fx.experimental.proxy_tensor import make_fx

import pypose_ops
from pypose_ops import mrf_message_passing, reference

NAN, INF = math.nan, math.inf
generator = torch.Generator().manual_seed(4)


def rand(*shape):
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def sparse(*shape, share=0.15):
    """Unaries whose other pixels are 0; the active ones are far from the floor."""
    return torch.where(rand(*shape) < share, rand(*shape) + 0.1, 0.0)


EDGES = [(0, 0), (0, 1), (2, 1), (1, 0)]


def case(batch, size, kernel, share=0.15, bias=(), edges=EDGES):
    count, joints = len(edges), 1 + max(map(max, edges))
    prior = rand(count, *kernel) + 0.01
    return sparse(batch, joints, *size, share=share), prior, rand(count, *bias) * 0.1 + 0.01, edges


PLAIN = case(2, (6, 5), (5, 3))
U, P, B, E = PLAIN
PAIR = [(0, 1), (1, 0)]
GRAD = ("unary", "prior", "bias")

STRANGE = U.clone()
STRANGE[0, 0, 2, :3] = torch.tensor([NAN, INF, -INF])
STRANGE[1, 1] = -5.0
WEIGHTS = P.clone()
WEIGHTS[0, 1:3, :2] = torch.tensor([[NAN, INF], [-INF, -2.0]])
WEIGHTS[3] = 0.0
LIMITS = [torch.tensor(v) for v in ([0.0, -1.0, NAN, 0.0], [INF, 0.1, -INF, 0.1])]
SPOT = torch.zeros(2, 1, 6, 5)
SPOT[:, :, 4, 3] = 0.75

SAMPLES = [
    Sample("plain", PLAIN, grad=GRAD, traced=True),
    Sample("messages kept", PLAIN, {"keep_messages": True}, grad=GRAD, traced=True),
    Sample("messages computed again", PLAIN, {"keep_messages": False}, grad=GRAD),
    Sample("bias maps", case(2, (6, 5), (5, 3), bias=(6, 5)), grad=GRAD, traced=True),
    Sample("full displacement", case(2, (4, 5), (7, 9), edges=PAIR), grad=GRAD),
    Sample("past full displacement", case(1, (4, 3), (13, 11), edges=PAIR), grad=GRAD),
    Sample("one direction past", case(1, (4, 21), (3, 63), edges=[(0, 0)]), grad=GRAD),
    Sample("1x1 priors", case(2, (5, 6), (1, 1)), grad=GRAD),
    Sample("every pixel active", case(1, (5, 20), (9, 39), share=2, edges=[(0, 0)]), grad=GRAD),
    Sample("no pixel active", case(2, (6, 5), (5, 3), share=-1), grad=GRAD),
    Sample("one active pixel", (SPOT, P[:1], B[:1], [(0, 0)]), grad=GRAD),
    Sample("some edges", (U, P[:2], B[:2], [(2, 0), (0, 1)]), grad=GRAD, traced=True),
    Sample("more targets", (U, P[:3], B[:3], [(2, 0), (0, 4), (1, 0)]), {"num_targets": 5}, grad=GRAD),
    Sample("fewer targets", (U, P[:2], B[:2], [(2, 0), (1, 1)]), {"num_targets": 2}, grad=GRAD),
    Sample("shared priors", (U, P[:2], B, E), {"prior_index": [0, 1, 0, 0]}, grad=GRAD, traced=True),
    Sample("an unused prior", (U, P, B[:2], E[:2]), {"prior_index": [3, 3]}, grad=GRAD),
    Sample("high floor", PLAIN, {"floor": 0.4}, grad=GRAD),
    Sample("low floor", PLAIN, {"floor": 1e-6}, grad=GRAD),
    Sample("strange unaries", (STRANGE, P, B, E), grad=GRAD),
    Sample("strange priors and biases", (U, WEIGHTS, LIMITS[0], E)),
    Sample("stranger biases", (STRANGE, WEIGHTS, LIMITS[1], E)),
    Sample("messages of 0", (U, P * 0, B * 0, E)),
    Sample("tiny and huge priors", (U, P * 10.0 ** torch.linspace(-30, 30, 4)[:, None, None], B, E)),
    Sample("no edges", (U, P[:0], B[:0], [])),
    Sample("one pixel", case(2, (1, 1), (3, 5), share=2), grad=GRAD),
    Sample("one row", case(2, (1, 40), (1, 79), edges=PAIR), grad=GRAD),
    Sample("one column", case(2, (40, 1), (79, 1), edges=PAIR), grad=GRAD),
    Sample("several tiles", case(1, (19, 70), (37, 139), share=0.03, edges=PAIR)),
    Sample("several tiles, small priors", case(1, (35, 131), (9, 11), share=0.02, edges=PAIR)),
    Sample("images that share the work on a prior", case(9, (6, 5), (5, 5))),
    Sample("no items", (U[:0], P, B, E), grad=GRAD, traced=True),
    Sample("no sources", (U[:, :0], P[:0], B[:0], [])),
]


def bad(name, match, *args, error=ValueError, **kwargs):
    defaults = (U.float(), P.float(), B.float(), E)
    return Bad(name, args + defaults[len(args) :], kwargs, error, "mrf_message_passing: " + match)


F, Q, C = U.float(), P.float(), B.float()
BAD = [
    bad("unary of rank 3", r"unary must be \(B, V, H, W\)", F[0]),
    bad("integer unary", "unary must be float16", F.long()),
    bad("no pixels", "unary must have pixels", F[..., :0]),
    bad("prior of rank 4", r"prior must be \(E, kh, kw\)", F, Q[None]),
    bad("half priors", "prior must be float32 or float64", F, Q.half()),
    bad("even height", "prior must have an odd height and width", F, Q[:, 1:]),
    bad("even width", "prior must have an odd height and width", F, Q[:, :, 1:]),
    bad("too few priors", "prior must have one kernel per edge .*got 3 for 4", F, Q[:3]),
    bad("integer bias", "bias must be float32 or float64", F, Q, C.long()),
    bad("bias of rank 2", r"bias must be \(E,\) or \(E, H, W\)", F, Q, C[:, None]),
    bad("too few biases", "bias must have size 4 in dimension 0", F, Q, C[:3]),
    bad("bias maps of another size", "bias must have size 6 in dimension 1", F, Q, torch.ones(4, 5, 6)),
    bad("edge from nowhere", r"edges must start at a source from 0 to 2, got \(3, 0\)", F, Q[:1], C[:1], [(3, 0)]),
    bad("edge from -1", r"edges must start at a source", F, Q[:1], C[:1], [(-1, 0)]),
    bad("edge to nowhere", r"edges must end at a target from 0 to 2, got \(0, 3\)", F, Q[:1], C[:1], [(0, 3)]),
    bad("edge to few targets", r"edges must end at a target", F, Q[:1], C[:1], [(0, 1)], num_targets=1),
    bad("repeated edge", r"edges must be different, got \(1, 2\) twice", F, Q[:2], C[:2], [(1, 2), (1, 2)]),
    bad("edges of three", "edges must be pairs", F, Q, C, [(0, 1, 2)], error=ValueError),
    bad("edges not integer", "edges must be integers", F, Q, C, [(0.5, 1)], error=ValueError),
    bad("negative targets", "num_targets must not be negative", F, Q[:0], C[:0], [], num_targets=-1),
    bad("floor 0", "floor must be positive", floor=0.0),
    bad("negative floor", "floor must be positive", floor=-1.0),
    bad("floor NaN", "floor must be positive", floor=NAN),
    bad("infinite floor", "floor must be positive", floor=INF),
    bad("short prior_index", "prior_index must have one number per edge, got 2", prior_index=[0, 1]),
    bad("prior_index out of range", "prior_index must be from 0 to 3, got 4", prior_index=[4] * 4),
    bad("unknown method", "method must be one of sparse, fft, auto", method="dense", error=ValueError),
    bad(
        "keep_messages of another type",
        "keep_messages must be a bool or str, got int",
        error=TypeError,
        keep_messages=2,
    ),
    bad("unknown keep_messages", 'keep_messages must be True, False or "auto", got .never', keep_messages="never"),
    bad("fft checks too", "floor must be positive", floor=0.0, method="fft"),
]

TestMrfMessagePassing = check_op(
    mrf_message_passing,
    reference.mrf_message_passing,
    SAMPLES,
    bad=BAD,
    maps=("unary",),
    batched=("unary",),
    second_order="mrf_message_passing: double backward is not supported",
)


@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.grad and "keep_messages" not in s.kwargs], ids=str)
def test_kept_messages_change_no_bit(device, sample):
    """Of output and gradients, in a dtype of the kernels and in half."""
    for dtype in (torch.float32, torch.bfloat16):
        found = []
        for keep in (True, False):
            unary, prior, bias, edges = sample.args
            tensors = (unary.to(device, dtype), prior.to(device).float(), bias.to(device).float())
            leaves = [tensor.clone().requires_grad_() for tensor in tensors]
            out = mrf_message_passing(*leaves, edges, **sample.kwargs, keep_messages=keep)
            weight = torch.linspace(-1, 1, out.numel(), device=device).view(out.shape)
            found.append((out, *torch.autograd.grad(out, leaves, weight)))
        for kept, again in zip(*found, strict=True):
            torch.testing.assert_close(kept, again, rtol=0, atol=0, equal_nan=True)


@only_on("cpu")
def test_messages_are_kept_where_memory_allows_and_a_gradient_is_asked_for(device, monkeypatch):
    prior = Q.clone().requires_grad_()

    def kept(prior, **options):
        shapes = []
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.append(t.shape) or t, lambda t: t)
        with hooks:
            mrf_message_passing(F, prior, C, E, **options)
        return (2, 4, 6, 5) in shapes

    assert kept(prior) and kept(prior, keep_messages=True) and not kept(prior, keep_messages=False)
    assert not kept(prior.detach(), keep_messages=True)
    with torch.no_grad():
        assert not kept(prior, keep_messages=True)
    module = importlib.import_module("pypose_ops.ops.mrf_message_passing")
    monkeypatch.setattr(module, "_KEPT_BYTES", 2 * 4 * 6 * 5 * 4)
    assert kept(prior)
    monkeypatch.setattr(module, "_KEPT_BYTES", 2 * 4 * 6 * 5 * 4 - 1)
    assert not kept(prior) and kept(prior, keep_messages=True)


def test_traced_sizes_stay_symbols():
    def gradients(*inputs):
        return torch.autograd.grad(mrf_message_passing(*inputs, E).sum(), inputs)

    def inputs(batch, height):
        maps = torch.rand(batch, F.shape[1], height, 6)
        return tuple(t.requires_grad_() for t in (maps, Q.clone(), C.clone()))

    traced = make_fx(gradients, tracing_mode="symbolic")(*inputs(2, 7))
    other = inputs(5, 9)
    torch.testing.assert_close(traced(*other), gradients(*other))


@only_on("cuda")
def test_tensors_on_two_devices_are_refused(device):
    with pytest.raises(ValueError, match="mrf_message_passing: prior must be on the same device as unary"):
        mrf_message_passing(F.to(device), Q, C, E)


def messages_of_large(unary):
    prior, bias = torch.ones(2, 3, 3, device=unary.device) / 9, torch.full((2,), 1e-3, device=unary.device)
    return pypose_ops.mrf_message_passing(unary, prior, bias, [(0, 1), (1, 0)], floor=0.9)


LARGE = large.Case(messages_of_large, (large.rows(2, large.H, large.W, dtype=large.HALF),), 2 * large.H * large.W, True)
