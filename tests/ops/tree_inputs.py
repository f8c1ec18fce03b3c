"""Trees for the contracts of max_product and sum_product."""

import math

import torch
from op_contract import Bad, Sample

NAN, INF = math.nan, math.inf


generator = torch.Generator().manual_seed(6)


GRAD = ("unary", "deformation")


def randn(*shape):
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def springs(edges, spread=1.5, weight=0.3):
    mean = spread * randn(len(edges), 2)
    return torch.cat([mean, weight * (randn(len(edges), 2).abs() + 0.5)], 1)


def case(size, edges, batch=2, **options):
    joints = 1 + max((max(e) for e in edges), default=0)
    return randn(batch, joints, *size), edges, springs(edges, **options)


# Edges in any order and direction.
TREE = [(3, 1), (0, 1), (1, 2), (4, 3), (3, 5)]


STAR = [(2, 0), (2, 1), (2, 3), (4, 2)]


CHAIN = [(0, 1), (1, 2), (2, 3)]


LOOP = [(0, 1), (1, 2), (2, 0)]


PLAIN = case((6, 5), TREE)


U, E, D = PLAIN


HOLED = U.clone()


HOLED[0, 0, 2, :3] = torch.tensor([NAN, INF, -INF])


HOLED[1, 2, 1:] = -INF


HOLED[1, 4, 3] = NAN


NOTHING = U.clone()


NOTHING[0, 1] = torch.tensor([NAN, INF, -INF, INF, NAN])


STRANGE = D.clone()


STRANGE[0, :2] = torch.tensor([NAN, INF])


STRANGE[1, 2:] = torch.tensor([-1.0, NAN])


STRANGE[2, 2:] = torch.tensor([INF, 0.0])


SAMPLES = [
    Sample("plain", PLAIN, grad=GRAD, traced=True),
    Sample("another root", PLAIN, {"root": 3}, grad=GRAD, traced=True),
    Sample("star", case((5, 6), STAR), {"root": 1}, grad=GRAD),
    Sample("chain", case((4, 7), CHAIN), {"root": 3}, grad=GRAD),
    Sample("one image", case((6, 5), TREE, batch=1), grad=GRAD),
    Sample("strong springs", case((6, 5), CHAIN, weight=40.0), grad=GRAD),
    Sample("weak springs", case((6, 5), CHAIN, weight=1e-4), grad=GRAD),
    Sample("means beyond the map", case((6, 5), CHAIN, spread=20.0), grad=GRAD),
    Sample("one joint", case((6, 5), []), grad=("unary",), traced=True),
    Sample("one pixel", case((1, 1), TREE), grad=GRAD),
    Sample("one row", case((1, 40), CHAIN), grad=GRAD),
    Sample("one column", case((40, 1), CHAIN), grad=GRAD),
    Sample("larger than a block of threads", case((17, 39), STAR), grad=("unary",)),
    Sample("not finite", (HOLED, E, D)),
    Sample("nothing possible", (NOTHING, E, D), equal_nan=True),
    Sample("no springs", (U, E, torch.cat([D[:, :2], 0 * D[:, 2:]], 1)), grad=("unary",)),
    Sample("strange springs", (U, E, STRANGE), grad=("unary",)),
    Sample("no items", (U[:0], E, D), grad=GRAD, traced=True),
]


def bads(op):
    def bad(name, match, *args, error=ValueError, **kwargs):
        defaults = (U.float(), E, D.float())
        return Bad(name, args + defaults[len(args) :], kwargs, error, f"{op}: " + match)

    F, S, pair = U.float(), D.float(), U[:, :2].float()
    return [
        bad("unary of rank 3", r"unary must be \(B, K, H, W\)", F[0]),
        bad("integer unary", "unary must be float16", F.long()),
        bad("no joints", "unary must have joints and pixels", F[:, :0], [], S[:0]),
        bad("no pixels", "unary must have joints and pixels", F[..., :0]),
        bad("half springs", "deformation must be float32 or float64", F, E, S.half()),
        bad("springs of rank 3", r"deformation must be \(E, 4\)", F, E, S[None]),
        bad("too few springs", "deformation must have size 5 in dimension 0", F, E, S[:4]),
        bad("springs of three", "deformation must have size 4 in dimension 1", F, E, S[:, :3]),
        bad("too few edges", "edges must be a tree, 5 edges for 6 joints, got 4", F, E[:4], S[:4]),
        bad("too many edges", "edges must be a tree, 1 edges for 2 joints, got 5", pair),
        bad("edge to nowhere", r"edges must join joints from 0 to 1, got \(0, 2\)", pair, [(0, 2)], S[:1]),
        bad("edge from -1", r"edges must join joints from 0 to 1, got \(-1, 0\)", pair, [(-1, 0)], S[:1]),
        bad("self-edge", r"edges must be a tree, but \(0, 0\) joins a joint with itself", pair, [(0, 0)], S[:1]),
        bad("repeated edge", r"edges must be a tree, but \(0, 1\) closes a cycle", F[:, :3], [(0, 1), (0, 1)], S[:2]),
        bad("edge and back", r"edges must be a tree, but \(1, 0\) closes a cycle", F[:, :3], [(0, 1), (1, 0)], S[:2]),
        bad("cycle", r"edges must be a tree, but \(\d, \d\) closes a cycle", F[:, :4], LOOP, S[:3]),
        bad("cycle elsewhere", "edges must be a tree, but none leads from root 3", F[:, :4], LOOP, S[:3], root=3),
        bad("edges of three", "edges must be pairs", F, [(0, 1, 2)], error=ValueError),
        bad("edges not integer", "edges must be integers", F, [(0.5, 1)], error=ValueError),
        bad("root out of range", "root must be a joint from 0 to 5, got 6", root=6),
        bad("negative root", "root must be a joint from 0 to 5, got -1", root=-1),
    ]


OPTIONS = dict(maps=("unary",), batched=("unary",))
