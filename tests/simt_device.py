"""The test device ``simt``: inside ``simt_kernels()`` every operator of pypose_ops runs its CUDA kernel on CPU tensors.

The kernels of ``tests/simt`` are registered under a second namespace, ``pypose_ops_simt``. While the context is active
they stand in for the CPU kernels of ``pypose_ops``, so that the public functions, autograd, the fake kernels and
``torch.compile`` run unmodified above them::

    with simt_device.simt_kernels():
        maps = pypose_ops.gaussian_heatmaps(keypoints, 2.0, (64, 48))

Environment:
    PYPOSE_OPS_SIMT_SANITIZE=1: the build with AddressSanitizer and UBSan; ``tests/simt/sanitized.py`` sets it, and
        preloads what it needs.
    PYPOSE_OPS_SIMT_TRACE=1: the build that reports races on shared memory.
    PYPOSE_OPS_SIMT_ORDER=ascending|descending|shuffle:<seed>: the order of blocks, warps and lanes.
"""

import contextlib
import functools
import os
import warnings

import torch
from simt import limits
from simt.build import OPERATORS, build

# They run on the host whatever the device: their wrappers copy small tables there, and no CUDA kernel exists.
HOST_OPERATORS = tuple(
    f"pypose_ops::{name}"
    for name in (
        "group_people",
        "group_by_tags",
        "_coco_ap",
        "_match_people",
        "_gaussian_targets",
        "_group_people",
        "_group_by_tags",
        "_box_transforms",
        "_box_centers",
        "_list_peaks",
        "_disc_targets",
    )
)


def operators(namespace):
    """The operators of a namespace, as ``torch._ops.OpOverload``."""
    found = []
    for qualified in sorted(torch._C._dispatch_get_all_op_names()):
        owner, name = qualified.split("::")
        if owner == namespace:
            name, _, overload = name.partition(".")
            found.append(getattr(getattr(getattr(torch.ops, namespace), name), overload or "default"))
    return found


def copy_schemas(source, target):
    """Defines every operator of the namespace ``source`` in the namespace ``target`` too; keep what it returns."""
    library = torch.library.Library(target, "FRAGMENT")
    for operator in operators(source):
        library.define(str(operator._schema).removeprefix(f"{source}::"))
    return library


def stand_in(operator, source):
    """A function that calls the operator of the same name in the namespace ``source``, or says it has no kernel."""
    name = operator._schema.name.split("::")[1]
    overload = operator._overloadname
    qualified = f"{source}::{name}" + ("" if overload == "default" else f".{overload}")
    if torch._C._dispatch_has_kernel_for_dispatch_key(qualified, "CPU"):
        replacement = getattr(getattr(getattr(torch.ops, source), name), overload)

        def call(*args, **kwargs):
            return replacement(*args, **kwargs)
    else:

        def call(*args, **kwargs):
            raise NotImplementedError(f"{qualified}: no CUDA kernel is registered for {operator}")

    return call


@contextlib.contextmanager
def kernels_from(source, target):
    """While active, the CPU kernels of the namespace ``target`` are those of ``source``; HOST_OPERATORS keep theirs."""
    library = torch.library.Library(target, "IMPL", "CPU")
    try:
        with warnings.catch_warnings():
            # The overrides that torch warns of are intended here.
            warnings.filterwarnings("ignore", "Warning only once for all operators")
            for operator in operators(target):
                if operator._schema.name in HOST_OPERATORS:
                    continue
                library.impl(operator, stand_in(operator, source), allow_override=True)
        yield
    finally:
        library._destroy()


@functools.cache
def load():
    """Builds and loads the kernels, once per process; returns the path of the library."""
    import pypose_ops  # noqa: F401  the operators that the kernels belong to

    variants = {name: os.environ.get(f"PYPOSE_OPS_SIMT_{name.upper()}") == "1" for name in ("sanitize", "trace")}
    path = build(**variants, target=OPERATORS)
    load.schemas = copy_schemas("pypose_ops", "pypose_ops_simt")
    torch.ops.load_library(path)
    limits.install(path)
    return path


@contextlib.contextmanager
def simt_kernels():
    """While active, every operator of pypose_ops runs its CUDA kernel, executed by tests/simt, on CPU tensors."""
    load()
    with kernels_from("pypose_ops_simt", "pypose_ops"):
        yield
