"""Exports of functions of tensors, and the runtimes that run the files."""

import numpy as np
import onnxruntime
import openvino
import torch

import pypose_ops.onnx

DYNAMIC = torch.export.Dim.DYNAMIC


class Function(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *tensors):
        return tuple(leaves(self.function(*tensors)))


def leaves(outputs):
    return [leaf for leaf in torch.utils._pytree.tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]


def exported(function, tensors, path, *dynamic):
    """``dynamic``: for each tensor the axes whose sizes are symbolic in the file."""
    names = [f"x{i}" for i in range(len(tensors))]
    sizes = tuple({axis: DYNAMIC for axis in axes} or None for axes in dynamic) or None
    sizes = None if sizes is None else (sizes,)  # of *tensors
    return pypose_ops.onnx.export(Function(function), tensors, path, input_names=names, dynamic_shapes=sizes)


def onnxruntime_of(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(*tensors):
        return session.run(None, {f"x{i}": t.numpy() for i, t in enumerate(tensors)})

    return run


def openvino_of(path, precision="f32"):
    core = openvino.Core()
    model = core.compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": precision})

    def run(*tensors):
        found = model([t.numpy() for t in tensors])
        return [np.array(found[i]) for i in range(len(model.outputs))]

    run.model = model
    return run


RUNTIMES = {"onnxruntime": onnxruntime_of, "openvino": openvino_of}


def compare(found, wanted, tolerance):
    """Shapes, dtypes, finiteness and values; ``tolerance`` for each output or for all."""
    wanted = leaves(wanted)
    assert len(found) == len(wanted)
    for number, (a, b) in enumerate(zip(found, wanted, strict=True)):
        limit = tolerance[number] if isinstance(tolerance, tuple) else tolerance
        b = b.numpy()
        assert a.shape == b.shape and a.dtype == b.dtype, (number, a.shape, b.shape, a.dtype, b.dtype)
        if b.dtype.kind not in "f":
            assert (a == b).all(), number
            continue
        finite = np.isfinite(b)
        assert (np.isfinite(a) == finite).all() and (np.isnan(a) == np.isnan(b)).all(), number
        distance = np.abs(a[finite].astype(np.float64) - b[finite].astype(np.float64))
        assert distance.max(initial=0) <= limit, (number, distance.max())
