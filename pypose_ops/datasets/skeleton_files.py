"""User-defined skeletons: from categories of COCO files, from TOML, and in the metadata of weights."""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..skeletons import COCO, SKELETONS, Skeleton, plain_name
from .files import read_bytes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MOST_JOINTS = 4096

# CrowdPose's constants, from its evaluation code: COCO's, with the shoulder's for head and neck.
_CROWDPOSE = frozenset(COCO.joints[5:]) | {"head", "neck"}


def known_skeleton(names: Sequence[str]) -> Skeleton | None:
    """The skeleton of the package with these joints in this order, or None."""
    plain = tuple(map(plain_name, names))
    return next((s for s in SKELETONS.values() if tuple(map(plain_name, s.joints)) == plain), None)


def known_sigmas(names: Sequence[str]) -> tuple[float, ...] | None:
    """OKS constants by joint name, for those of COCO in any order, or CrowdPose; else None."""
    by_name = dict(zip(COCO.joints, COCO.sigmas or (), strict=True))
    plain = tuple(map(plain_name, names))
    if frozenset(plain) == _CROWDPOSE:
        by_name |= {"head": 0.079, "neck": 0.079}
    found = tuple(by_name.get(name, 0.0) for name in plain)
    return found if all(found) else None


def mirrored_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Pairs of joints named left and right."""
    index = {plain_name(name): k for k, name in enumerate(names)}
    pairs = ((k, index.get(re.sub(r"^left_", "right_", name))) for name, k in index.items() if name.startswith("left_"))
    return tuple((a, b) for a, b in pairs if b is not None)


def skeleton_from_category(category: Mapping[str, Any], where: str = "categories") -> Skeleton | None:
    """Builds the skeleton described by a category of a COCO file.

    Args:
        category: ``{"name", "keypoints": [names], "skeleton": [[a, b], ...]}``, limbs counted from 1.
        where: the file, for messages.

    Returns:
        The package's skeleton if the names match one; None if the category names no joints.
    """
    names = category.get("keypoints")
    if not names:
        return None
    if not (isinstance(names, list) and all(isinstance(n, str) for n in names)):
        raise InputError(f"{where}: the keypoints of a category must be a list of names")
    known = known_skeleton(names)
    if known is not None:
        return known
    limbs = category.get("skeleton") or []
    edges = []
    for limb in limbs if isinstance(limbs, list) else []:
        if isinstance(limb, list) and len(limb) == 2 and all(type(k) is int and 0 < k <= len(names) for k in limb):
            edges.append((limb[0] - 1, limb[1] - 1))
    name = category.get("name")
    return make_skeleton(
        {"name": name if isinstance(name, str) and name else "own", "joints": names, "edges": edges}, where
    )


def make_skeleton(values: Mapping[str, Any], where: str) -> Skeleton:
    """Builds a skeleton from plain lists, with checks.

    Args:
        values: ``joints``; optionally ``name``, ``edges``, ``flip_pairs`` (default: by name), ``upper_body``,
            ``sigmas`` (default: COCO's, if the names match), ``weights``, ``norm``.
        where: the file, for messages.
    """
    joints = values.get("joints")
    if not (isinstance(joints, (list, tuple)) and joints and all(isinstance(n, str) and n for n in joints)):
        raise InputError(f"{where}: joints must be a list of names")
    if len(joints) > MOST_JOINTS:
        raise InputError(f"{where}: {len(joints)} joints, expected at most {MOST_JOINTS}")
    if len(set(joints)) < len(joints):
        twice = next(n for n in joints if list(joints).count(n) > 1)
        raise InputError(f"{where}: joint {twice!r} comes twice")
    pairs = values.get("flip_pairs")
    sigmas, norm = values.get("sigmas"), values.get("norm")
    made: dict[str, Any] = {
        "name": str(values.get("name") or "own"),
        "joints": tuple(joints),
        "edges": _pairs(values.get("edges") or [], joints, where, "edges"),
        "flip_pairs": mirrored_pairs(joints) if pairs is None else _pairs(pairs, joints, where, "flip_pairs"),
        "upper_body": tuple(_joint(k, joints, where, "upper_body") for k in values.get("upper_body") or []),
        "sigmas": known_sigmas(joints) if sigmas is None else _positive(sigmas, joints, where, "sigmas"),
        "weights": None if values.get("weights") is None else _positive(values["weights"], joints, where, "weights"),
        "norm": None if norm is None else (_pairs([norm], joints, where, "norm") or (None,))[0],
    }
    mirrored = [k for pair in made["flip_pairs"] for k in pair]
    if len(set(mirrored)) < len(mirrored):
        raise InputError(f"{where}: flip_pairs: a joint is in two pairs")
    return Skeleton(**made)


def _joint(value: Any, joints: Sequence[str], where: str, field: str) -> int:
    """A joint by its name or number."""
    if isinstance(value, str) and value in joints:
        return list(joints).index(value)
    if type(value) is int and 0 <= value < len(joints):
        return value
    raise InputError(f"{where}: {field}: {str(value)[:40]!r} is no joint, expected a name or 0 to {len(joints) - 1}")


def _pairs(values: Any, joints: Sequence[str], where: str, field: str) -> tuple[tuple[int, int], ...]:
    if not isinstance(values, (list, tuple)):
        raise InputError(f"{where}: {field} must be a list of pairs of joints")
    pairs = []
    for pair in values:
        if not (isinstance(pair, (list, tuple)) and len(pair) == 2):
            raise InputError(f"{where}: {field}: expected pairs of joints, got {str(pair)[:40]}")
        a, b = (_joint(k, joints, where, field) for k in pair)
        if a == b:
            raise InputError(f"{where}: {field}: a pair must be of two different joints, got {str(pair)[:40]}")
        pairs.append((a, b))
    return tuple(pairs)


def _positive(values: Any, joints: Sequence[str], where: str, field: str) -> tuple[float, ...]:
    good = isinstance(values, (list, tuple)) and len(values) == len(joints)
    if not good or not all(type(v) in (int, float) and 0 < v < 1e6 for v in values):
        raise InputError(f"{where}: {field} must be {len(joints)} positive numbers, one for each joint")
    return tuple(float(v) for v in values)


def read_skeleton(path: str | Path) -> Skeleton:
    """Reads a skeleton from a TOML file.

    .. code-block:: toml

        name = "hand"
        joints = ["wrist", "thumb_tip", "index_tip"]
        edges = [["wrist", "thumb_tip"], ["wrist", "index_tip"]]   # names, or numbers from 0
        flip_pairs = []                                            # default: by left and right in the names
        sigmas = [0.03, 0.02, 0.02]                                # of OKS
        norm = ["wrist", "index_tip"]                              # their distance normalises PCK
    """
    try:
        values = tomllib.loads(read_bytes(path).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not TOML ({error})") from None
    unknown = sorted(
        values.keys() - {"name", "joints", "edges", "flip_pairs", "upper_body", "sigmas", "weights", "norm"}
    )
    if unknown:
        raise InputError(
            f"{path}: unknown {', '.join(unknown)}; a skeleton has joints, edges, flip_pairs, sigmas, norm"
        )
    return make_skeleton({"name": Path(path).stem} | values, str(path))


def skeleton_named(text: str) -> Skeleton:
    """A skeleton of the package by name, or from a TOML file by path."""
    if text in SKELETONS:
        return SKELETONS[text]
    if text.endswith(".toml"):
        return read_skeleton(text)
    raise InputError(f"skeleton must be one of {', '.join(SKELETONS)}, or a TOML file, got {text}")


def skeleton_as_json(skeleton: Skeleton) -> str | dict[str, Any]:
    """Encodes a skeleton for metadata: the name of a skeleton of the package, or a full description."""
    if SKELETONS.get(skeleton.name) == skeleton:
        return skeleton.name
    return {f.name: getattr(skeleton, f.name) for f in fields(skeleton) if getattr(skeleton, f.name) not in ((), None)}


def skeleton_of_json(value: Any, where: str) -> Skeleton:
    """The inverse of :func:`skeleton_as_json`."""
    if isinstance(value, str) and value in SKELETONS:
        return SKELETONS[value]
    if isinstance(value, Mapping):
        return make_skeleton(value, where)
    raise InputError(f"{where}: skeleton must be one of {', '.join(SKELETONS)} or an object with joints")
