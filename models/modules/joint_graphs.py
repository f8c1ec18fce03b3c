"""Edge lists ``[(source, target), ...]`` between joints, for SpatialModel and mrf_message_passing."""

from collections.abc import Iterable, Sequence

import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree

from pypose_ops.skeletons import Skeleton


def full_edges(
    joints: Iterable[int], sources: Iterable[int] = (), *, self_edges: bool = False
) -> list[tuple[int, int]]:
    """Connects every joint with every other one.

    Args:
        joints (iterable[int]): indices, such as ``range(num_joints)``.
        sources (iterable[int]): channels that only send messages, such as a torso or centre map.
        self_edges (bool): also connect each joint with itself, as in the paper's sum.
    """
    joints, sources = list(joints), list(sources)
    if both := sorted(set(joints) & set(sources)):
        raise ValueError(f"full_edges: a channel must be a joint or a source, got {both} as both")
    return [(v, j) for v in joints + sources for j in joints if v != j or self_edges]


def limb_edges(skeleton: Skeleton, joints: Iterable[int] | None = None) -> list[tuple[int, int]]:
    """The limbs of a skeleton, in both directions.

    Args:
        skeleton (Skeleton): of ``pypose_ops.skeletons``; or any object with ``edges``.
        joints (iterable[int], optional): only limbs between these joints.
    """
    wanted = None if joints is None else set(joints)
    limbs = [(a, b) for a, b in skeleton.edges if wanted is None or {a, b} <= wanted]
    return [edge for a, b in limbs for edge in _both(a, b)]


def tree_edges(edges: Sequence[tuple[int, int]], information: torch.Tensor) -> list[tuple[int, int]]:
    """The most informative tree, in both directions: a maximum spanning tree (Chow and Liu, 1968).

    Args:
        edges (list[tuple[int, int]]): directed candidates; a pair's information is the larger one of its directions.
        information (Tensor): one positive value per edge, such as :meth:`SpatialModel.information`.

    Returns:
        list[tuple[int, int]]: two edges per limb; one tree per connected part of the graph.
    """
    best = {}
    for (v, j), value in zip(edges, [float(value) for value in information], strict=True):
        if not value > 0:
            raise ValueError(f"tree_edges: information must be positive, got {value} for the edge {(v, j)}")
        if v != j:
            pair = (min(v, j), max(v, j))
            best[pair] = max(value, best.get(pair, value))
    if not best:
        return []
    first, second = zip(*best, strict=True)
    joints = 1 + max(second)
    tree = minimum_spanning_tree(coo_array(([-value for value in best.values()], (first, second)), (joints, joints)))
    return [edge for a, b in zip(*tree.nonzero(), strict=True) for edge in _both(int(a), int(b))]


def _both(a: int, b: int) -> tuple[tuple[int, int], tuple[int, int]]:
    return (a, b), (b, a)
