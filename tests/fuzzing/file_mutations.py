"""Files broken on purpose: fields dropped, doubled, retyped and reordered; arrays of other kinds; damaged bytes."""

import copy
import gzip
import math

import numpy as np

NUMBERS = (
    0, 1, 2, 3, -1, 16, 17, 139, 0.93, 139.0, -0.0, 1e-320, 1e9, -1e9, 1e20, 1e308, -1e308, 2**31, 2**63, -(2**63),
    10**400, math.nan, math.inf, -math.inf,
)  # fmt: skip
OTHERS = (
    None, True, False, "", "0", "1", "139", "16.jpg", "a.png", "../a.png", "sub\\a.png", "no\0name", "a\nb", "é" * 300,
    "person", [], {}, [[]], [None], [1], {"": 0}, [math.nan] * 4, [0, 0, 0, 0], [10, 10, -5, -5], [1, 2, 3],
)  # fmt: skip
DTYPES = ("f2", "f4", "f8", ">f8", "<i2", "u1", "i8", "c16", "?", "U4", "O", "S3")


def strange(draw):
    """Any value that json can hold; a copy, so that later mutations do not change it here."""
    return copy.deepcopy(draw.pick(NUMBERS if draw.chance(0.5) else OTHERS))


def mutated(draw, tree):
    """A copy of lists, dicts, arrays and values with one to four changes."""
    root = [copy.deepcopy(tree)]
    for _ in range(draw.pick((1, 1, 1, 2, 3, 4))):
        _change(draw, *_place(draw, root))
    return root[0] if root else None


def _place(draw, root):
    """A container and a key in it: any level is as likely, however many values there are further down."""
    parent, key = root, 0
    while not draw.chance(0.2):
        if key >= len(root) if parent is root else False:
            break
        value = parent[key]
        if isinstance(value, dict) and value:
            parent, key = value, draw.pick(list(value))
        elif isinstance(value, list) and value:
            parent, key = value, draw.integer(0, len(value) - 1)
        else:
            break
    return parent, key


def _change(draw, parent, key):
    value = parent[key]
    if isinstance(value, np.ndarray) and draw.chance(0.8):
        parent[key] = array(draw, value)
        return
    kind = draw.pick(("drop", "double", "retype", "retype", "number", "text", "nest", "order", "cut", "grow", "swap"))
    if kind == "drop" and isinstance(parent, dict):
        del parent[key]
    elif kind == "drop" and len(parent) > 1:
        parent.pop(key)
    elif kind == "double" and isinstance(parent, dict):
        parent[draw.pick((str(key).upper(), f"{key}s", f" {key}"))] = parent.pop(key)
    elif kind == "double":
        parent.insert(key, copy.deepcopy(value))
    elif kind == "number" and type(value) in (int, float) and abs(value) < 1e300:
        parent[key] = draw.pick((-value, value * 1000, value + 0.5, float(value), str(value), [value]))
    elif kind == "text":
        parent[key] = str(value)[:200]
    elif kind == "nest":
        parent[key] = draw.pick(([value], {"value": value}, [[value]], [value, value]))
    elif kind == "order" and isinstance(value, list):
        parent[key] = [value[i] for i in draw.random.permutation(len(value))]
    elif kind == "order" and isinstance(value, dict):
        parent[key] = dict(reversed(value.items()))
    elif kind == "cut" and isinstance(value, list):
        parent[key] = value[: draw.integer(0, len(value))]
    elif kind == "grow" and isinstance(value, list):
        parent[key] = value + copy.deepcopy(value)
    elif kind == "swap" and len(parent) > 1:
        other = draw.pick([k for k in (parent if isinstance(parent, dict) else range(len(parent)))])
        parent[key], parent[other] = parent[other], parent[key]
    else:
        parent[key] = strange(draw)


def array(draw, values):
    """An array of another shape or dtype, or with strange numbers in it."""
    kind = draw.pick(("dtype", "flat", "axis", "drop", "cut", "turn", "empty", "spoil", "spoil", "value"))
    if kind == "dtype":
        try:
            return values.astype(draw.pick(DTYPES))
        except (TypeError, ValueError):
            return values.astype(object)
    if kind == "spoil" and values.size and values.dtype.kind == "f":
        out = values.copy()
        where = draw.random.random(out.shape) < draw.pick((0.02, 0.3, 1.0))
        out[where] = draw.pick((math.nan, math.inf, -math.inf, 1e30, -1e30, 0.0, -1.0))
        return out
    if kind == "value":
        return np.array(draw.pick((0, 1.5, math.nan, "text", b"bytes", True)))
    if kind == "axis":
        return values[None] if draw.chance(0.5) else values[..., None]
    if values.ndim == 0 or kind == "flat":
        return values.ravel()
    if kind == "drop" and values.shape[0]:
        return values[0]
    if kind == "turn":
        return values.T
    axis = draw.integer(0, values.ndim - 1)
    return values.take(range(0 if kind == "empty" else draw.integer(0, values.shape[axis])), axis)


def damaged(draw, data):
    """Bytes that were cut off, changed, added, or put into another wrapping."""
    kind = draw.pick(
        ("cut", "flip", "flip", "flip", "insert", "remove", "twice", "gzip", "cut gzip", "nothing", "tail")
    )
    at = draw.integer(0, max(len(data) - 1, 0))
    if kind == "cut":
        return data[:at]
    if kind == "flip" and data:
        out = bytearray(data)
        for _ in range(draw.pick((1, 1, 4, 30))):
            out[draw.integer(0, len(out) - 1)] = draw.pick((0, 255, 48, 57, 123, draw.integer(0, 255)))
        return bytes(out)
    if kind == "insert":
        return data[:at] + draw.random.bytes(draw.integer(1, 40)) + data[at:]
    if kind == "remove":
        return data[:at] + data[at + draw.integer(1, 40) :]
    if kind == "twice":
        return data + data
    if kind == "gzip":
        return gzip.compress(data)
    if kind == "cut gzip":
        return gzip.compress(data)[: draw.integer(1, 200)]
    return b"" if kind == "nothing" else data + draw.random.bytes(draw.integer(1, 300))


def wrapped(draw, text):
    """The bytes of a json text: encodings and wrappings that programs write; some damaged."""
    if draw.chance(0.02):
        return b"[" * 100_000
    if draw.chance(0.02):  # a value nested deep
        text = text.replace("1", "[" * 20_000 + "]" * 20_000, 1)
    data = text.encode(draw.pick(("utf-8",) * 8 + ("utf-8-sig", "utf-16", "latin-1")), "replace")
    if draw.chance(0.1):
        data = gzip.compress(data)
    return damaged(draw, data) if draw.chance(0.12) else data
