"""Which calls copy host constants to the device, found without a GPU: tensors on ``meta`` represent those of a device.

A copy of unpinned memory is not allowed while a CUDA graph is captured, and waits for the device outside of one.
Reading values back raises on ``meta`` by itself.
"""

import traceback
from pathlib import Path

import torch
from contract_tools import captured_graph
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

HERE = Path(__file__).resolve()
FACTORIES = {torch.tensor, torch.as_tensor, torch.from_numpy}
INDEXING = {torch.Tensor.__getitem__, torch.Tensor.__setitem__}


def assert_no_copies(where, call):
    """Calls after the first copy nothing and read nothing back: counted on ``meta``, captured on ``cuda``."""
    if where.type == "cuda":
        graph, _ = captured_graph(call)
        graph.replay()
        torch.cuda.synchronize()
        return
    call()
    with DeviceCopies() as copies:
        call()
    assert not copies.found, "\n".join(sorted(set(copies.found)))


class DeviceCopies:
    """``with DeviceCopies() as copies: ...``; then ``copies.found`` has a line for each copy, with its place."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def __enter__(self):
        self.modes = (_Calls(self.found), _Kernels(self.found))
        for mode in self.modes:
            mode.__enter__()
        return self

    def __exit__(self, *exception):
        for mode in reversed(self.modes):
            mode.__exit__(*exception)


def on(value, *kinds):
    return any(t.device.type in kinds for t in tree_leaves(value) if isinstance(t, torch.Tensor))


def place():
    frames = [f for f in traceback.extract_stack() if "torch" not in Path(f.filename).parts and f.filename != str(HERE)]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"


class _Calls(TorchFunctionMode):
    """Tensors from Python's numbers and indices in lists, which never reach the dispatcher on ``meta``."""

    def __init__(self, found):
        super().__init__()
        self.found = found

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        made = function in FACTORIES and not isinstance(args[0], torch.Tensor) and on(result, "meta")
        made = made or (function is torch.Tensor.new_tensor and on(args[0], "meta"))
        listed = function in INDEXING and on(args[0], "meta") and _has_list(args[1])
        if made or listed:
            self.found.append(f"{function.__name__} at {place()}")
        return result


class _Kernels(TorchDispatchMode):
    """Copies from the host, and host tensors such as masks among a kernel's arguments; host scalars are free."""

    def __init__(self, found):
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        host = any(t.device.type == "cpu" and (t.dim() or "copy" in function.__name__) for t in tensors)
        if host and (on(result, "meta") or on(tensors, "meta")):
            self.found.append(f"{function} at {place()}")
        return result


def _has_list(index):
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, list) for part in parts)
