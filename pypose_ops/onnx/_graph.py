"""Python operators over ONNX's standard set, so that translations read like the definitions.

Values are float32, int64 or bool; a size is an int where it is known and a scalar value where it is not.
"""

import contextlib
import itertools

import numpy as np
import onnx_ir as ir
from onnxscript import evaluator

MINIMUM_OPSET = 18
_DTYPES = {"f": ir.DataType.FLOAT, "i": ir.DataType.INT64, "b": ir.DataType.BOOL}
_NUMPY = {"f": np.float32, "i": np.int64, "b": np.bool_}
_LARGEST = float(np.finfo(np.float32).max)
_recorders = []  # node lists of the subgraphs under construction
_names = itertools.count()


class ExportError(ValueError):
    """An option, dtype or unknown size that standard ONNX cannot represent. The message names operator and option."""


def _record(node):
    if _recorders:
        _recorders[-1].append(node)
    else:
        evaluator.default().nodes.append(node)


def _version():
    return evaluator.default().opset.version


class Value:
    """A tensor of the graph: ``value`` in ONNX IR and ``kind``, "f", "i" or "b"."""

    def __init__(self, value, kind):
        self.value, self.kind = value, kind
        if value.dtype is None and kind is not None:
            value.dtype = _DTYPES[kind]

    def __add__(self, other):
        return 0 + self if _is_number(other, 0) else _binary("Add", self, other)

    def __radd__(self, other):
        return self if _is_number(other, 0) else _binary("Add", other, self)

    def __sub__(self, other):
        return self if _is_number(other, 0) else _binary("Sub", self, other)

    def __rsub__(self, other):
        return _binary("Sub", other, self)

    def __mul__(self, other):
        return self if _is_number(other, 1) else _binary("Mul", self, other)

    __rmul__ = __mul__

    def __truediv__(self, other):
        return self if _is_number(other, 1) else _binary("Div", self, other)

    def __rtruediv__(self, other):
        return _binary("Div", other, self)

    def __floordiv__(self, other):
        """The remainder, of non-negative integers."""
        return self if _is_number(other, 1) else _binary("Div", self, other)

    def __mod__(self, other):
        return _binary("Mod", self, other)

    def __neg__(self):
        return op("Neg", self)

    def __lt__(self, other):
        return _binary("Less", self, other, "b")

    def __le__(self, other):
        return _binary("LessOrEqual", self, other, "b")

    def __gt__(self, other):
        return _binary("Greater", self, other, "b")

    def __ge__(self, other):
        return _binary("GreaterOrEqual", self, other, "b")

    def equals(self, other):
        return _binary("Equal", self, other, "b")

    def __and__(self, other):
        return self if other is True else _binary("And", self, other, "b")

    def __rand__(self, other):
        return self & other

    def __or__(self, other):
        return self if other is False else _binary("Or", self, other, "b")

    def __ror__(self, other):
        return self | other

    def __invert__(self):
        return op("Not", self)


def _is_number(value, number):
    return isinstance(value, int | float) and not isinstance(value, bool) and value == number


def constant(array, kind=None):
    """A constant from a number, a list or an array."""
    if kind is None:
        kind = {"f": "f", "i": "i", "b": "b"}[np.asarray(array).dtype.kind]
    array = np.asarray(array, _NUMPY[kind])
    node = ir.Node("", "Constant", [], [ir.AttrTensor("value", ir.tensor(array))], version=_version())
    _record(node)
    node.outputs[0].shape = ir.Shape(array.shape)
    return Value(node.outputs[0], kind)


def value(x, kind=None):
    return x if isinstance(x, Value) else constant(x, kind)


def op(name, *inputs, kind=None, outputs=1, **attributes):
    """A node; its first input's kind unless ``kind`` says otherwise. Several kinds with ``outputs``."""
    kind = kind or next(i.kind for i in inputs if isinstance(i, Value))
    node = ir.Node(
        "", name, [None if i is None else value(i).value for i in inputs],
        ir.convenience.convert_attributes(attributes), num_outputs=outputs, version=_version(),
    )  # fmt: skip
    _record(node)
    found = tuple(Value(v, k) for v, k in zip(node.outputs, kind if outputs > 1 else (kind,), strict=True))
    return found if outputs > 1 else found[0]


def _binary(name, a, b, kind=None):
    of = a if isinstance(a, Value) else b
    a, b = value(a, of.kind), value(b, of.kind)
    if a.kind != b.kind:
        raise TypeError(f"{name} of {a.kind} and {b.kind}")
    return op(name, a, b, kind=kind or of.kind)


def cast(x, kind):
    return x if x.kind == kind else op("Cast", x, kind=kind, to=_DTYPES[kind].value)


def real(x):
    """A size or an index as float32."""
    return cast(x, "f") if isinstance(x, Value) else float(x)


def minimum(a, b):
    return min(a, b) if not isinstance(a, Value) and not isinstance(b, Value) else _binary("Min", a, b)


def maximum(a, b):
    return max(a, b) if not isinstance(a, Value) and not isinstance(b, Value) else _binary("Max", a, b)


def clamp(x, low, high):
    return minimum(maximum(x, low), high)


def where(condition, a, b):
    if isinstance(condition, bool | np.bool_):
        return a if condition else b
    of = a if isinstance(a, Value) else b
    kind = of.kind if isinstance(of, Value) else None
    a, b = value(a, kind), value(b, kind)
    return op("Where", condition, a, b, kind=a.kind)


def is_finite(x):
    return absolute(x) <= _LARGEST


def absolute(x):
    return op("Abs", x)


def floor(x):
    return op("Floor", x)


def log(x):
    return op("Log", x)


def exp(x):
    return op("Exp", x)


def sqrt(x):
    return op("Sqrt", x)


def matmul(a, b):
    return op("MatMul", a, b)


def reduce(name, x, axes, keepdims=False):
    """``Sum``, ``Max`` or ``Min`` over axes."""
    return op(f"Reduce{name}", x, constant(axes, "i"), keepdims=int(keepdims))


def some(x, axes=None, keepdims=False):
    """Whether any is true, over axes or all of them."""
    axes = [] if axes is None else [constant(axes, "i")]
    return op("ReduceSum", cast(x, "f"), *axes, keepdims=int(keepdims)) > 0.5


def arg_max(x, axis=-1, keepdims=False):
    """The index of the maximum; the first among equals."""
    return op("ArgMax", x, kind="i", axis=axis, keepdims=int(keepdims), select_last_index=0)


def nonzero(x):
    """The places of what is true in a vector."""
    return squeeze(op("NonZero", cast(x, "f"), kind="i"), 0)


def gather(x, index, axis=0):
    return op("Gather", x, value(index, "i"), axis=axis)


def gather_elements(x, index, axis=-1):
    return op("GatherElements", x, index, axis=axis)


def unsqueeze(x, *axes):
    return op("Unsqueeze", x, constant(axes, "i"))


def squeeze(x, *axes):
    return op("Squeeze", x, constant(axes, "i"))


def concat(values, axis=-1):
    return op("Concat", *values, axis=axis)


def stack(values, axis=-1):
    return concat([unsqueeze(v, axis) for v in values], axis)


def transpose(x, *order):
    return op("Transpose", x, perm=list(order))


def pick(x, index, axis=-1):
    """``x[..., index]``, without the axis."""
    return gather(x, constant(index, "i"), axis)


def slices(x, start, stop, axis=-1, step=1):
    return op("Slice", x, *(constant([n], "i") for n in (start, stop, axis, step)))


def shape_of(sizes):
    """A list of ints and scalar values as one vector."""
    if not any(isinstance(n, Value) for n in sizes):
        return constant(list(sizes), "i")
    return concat([unsqueeze(n, 0) if isinstance(n, Value) else constant([n], "i") for n in sizes], 0)


def reshape(x, sizes):
    return op("Reshape", x, shape_of(sizes))


def expand(x, sizes):
    return op("Expand", x, shape_of(sizes))


def sizes_of(x):
    """The sizes of an exported value: an int where known, a scalar where dynamic."""
    shape = x.value.shape
    return [n if isinstance(n, int) else pick(op("Shape", x, kind="i"), axis, 0) for axis, n in enumerate(shape)]


def arange(n):
    """``0 ... n - 1``, int64."""
    if not isinstance(n, Value):
        return constant(np.arange(n), "i")
    return op("Range", constant(0, "i"), n, constant(1, "i"))


@contextlib.contextmanager
def _subgraph():
    nodes = []
    _recorders.append(nodes)
    try:
        yield nodes
    finally:
        _recorders.pop()


def _graph(inputs, build):
    """``build()`` as a subgraph, which may read outer values; and the kinds of its outputs."""
    with _subgraph() as nodes:
        # The output of a subgraph must come from one of its own nodes.
        found = [op("Identity", v) for v in build()]
    number = next(_names)
    for position, node in enumerate(nodes):
        for i, output in enumerate(node.outputs):
            output.name = f"pypose_sub{number}_{position}_{i}"
    return ir.Graph(inputs, [v.value for v in found], nodes=nodes, name=f"pypose_sub{number}"), [v.kind for v in found]


def loop(body, state, *, times=None, condition=None):
    """``Loop``: ``state = body(number, *state)[1:]`` while ``body(...)[0]`` is true and at most ``times``."""
    number = next(_names)
    kinds = [v.kind for v in state]
    inputs = [
        ir.Value(name=f"pypose_loop{number}_{i}", type=ir.TensorType(_DTYPES[kind]), shape=shape)
        for i, (kind, shape) in enumerate([("i", ir.Shape([])), ("b", ir.Shape([])), *((k, None) for k in kinds)])
    ]
    carried = [Value(v, k) for v, k in zip(inputs[2:], kinds, strict=True)]
    graph, _ = _graph(inputs, lambda: body(Value(inputs[0], "i"), *carried))
    times = times if times is None else value(times, "i")
    found = op(
        "Loop", times, condition, *state, kind=kinds if len(kinds) > 1 else kinds[0], outputs=len(kinds), body=graph
    )
    return found if len(kinds) > 1 else (found,)


def floating(operator, name, x):
    """An input as float32; float64 is refused, because some runtimes silently narrow it."""
    if x is None:
        return None
    dtype = x.dtype
    if dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
        raise ExportError(
            f"{operator}: {name} must be float16, bfloat16 or float32 for ONNX, got {dtype}; runtimes have no or no "
            "exact float64"
        )
    return as_float(x)


def as_float(x):
    """Any numbers as float32."""
    if x.dtype == ir.DataType.FLOAT:
        return Value(x, "f")
    return _cast_input(x, "f")


def as_integer(x):
    """Any integers as int64."""
    return Value(x, "i") if x.dtype == ir.DataType.INT64 else _cast_input(x, "i")


def _cast_input(x, kind):
    found = op("Cast", Value(x, None), kind=kind, to=_DTYPES[kind].value)
    found.value.shape = x.shape
    return found


def as_bool(x):
    return Value(x, "b")


def written_as(x, dtype):
    """An output cast to a dtype, given as its ONNX number."""
    if dtype == ir.DataType.FLOAT:
        return op("Identity", x).value
    node = ir.Node("", "Cast", [x.value], ir.convenience.convert_attributes({"to": int(dtype)}), version=_version())
    _record(node)
    return node.outputs[0]


def static(operator, name, number):
    """An option that must be known at export."""
    if isinstance(number, ir.Value | Value):
        raise ExportError(f"{operator}: {name} must be a fixed number for ONNX, it is dynamic in this export")
    return number


def bound(threshold, lowest):
    """A threshold in float32's range, ``lowest`` for None."""
    return lowest if threshold is None else min(max(float(threshold), lowest), _LARGEST)


def linear(transform, lead=1):
    """The linear part of ``(2, 3)`` or ``(B, 2, 3)``, to broadcast with ``lead`` more axes after the batch's."""
    part = slices(transform, 0, 2)
    return unsqueeze(part, *range(1, lead)) if len(transform.value.shape) == 3 and lead > 1 else part


def affine(x, y, transform):
    """``(B, P)`` each through an affine ``(2, 3)`` or ``(B, 2, 3)``.

    Multiplied and summed: as matrix products some runtimes would round the coordinates.
    """
    if len(transform.value.shape) == 3:
        entries = transpose(reshape(transform, [-1, 6]), 1, 0)
        entries = [unsqueeze(pick(entries, i, 0), -1) for i in range(6)]
    else:
        entries = [pick(reshape(transform, [6]), i, 0) for i in range(6)]
    a, b, c, d, e, f = entries
    return x * a + y * b + c, x * d + y * e + f
