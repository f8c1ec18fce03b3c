"""Modules with the package's operators as ONNX files of standard operators only, that any runtime reads.

:func:`export` is ``torch.onnx.export`` with what these operators need, and checks; or pass :func:`translations` to it::

    torch.onnx.export(module, args, dynamo=True, custom_translation_table=pypose_ops.onnx.translations())

Needs the packages of ``pypose_ops[onnx]``. docs/deployment.md says which runtime takes what.
"""

import importlib
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

try:
    import onnx  # noqa: F401
    import onnxscript  # noqa: F401
except ImportError as error:
    raise ImportError(f"pypose_ops.onnx needs onnx and onnxscript, pip install pypose_ops[onnx] ({error})") from None

from .. import ops  # noqa: E402
from ._graph import MINIMUM_OPSET, ExportError  # noqa: E402

__all__ = ["MINIMUM_OPSET", "ExportError", "export", "translations"]

# Those that infer have a module here; the others draw training targets, measure losses, or run on the host.
OPERATORS = tuple(name for name in ops.__all__ if (Path(__file__).parent / f"{name}.py").is_file())


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What ``torch.onnx.export(custom_translation_table=...)`` takes: an ONNX graph for each operator that infers, and
    an :class:`ExportError` for the others.

    Float16 and bfloat16 inputs are computed in float32, float64 is refused: some runtimes narrow it in silence.
    """
    table = {}
    for name in OPERATORS:
        module = importlib.import_module(f"{__name__}.{name}")
        table[getattr(torch.ops.pypose_ops, name).default] = getattr(module, name)
    for name in ops.__all__:
        operator = getattr(torch.ops.pypose_ops, name, None)
        if name not in OPERATORS and operator is not None:
            table[operator.default] = _refusal(name)
    decoders = importlib.import_module(f"{__name__}.decode_heatmaps")
    table[torch.ops.pypose_ops._decode_offsets.default] = decoders.decode_offsets
    return table


def _refusal(name):
    def refused(*args: Any) -> None:
        raise ExportError(
            f"{name}: labels, losses and operators on the host have no ONNX form; leave it out of the export"
        )

    return refused


def export(
    module: torch.nn.Module,
    args: Sequence[Any],
    path: str | os.PathLike[str],
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_shapes: Any = None,
    opset_version: int = MINIMUM_OPSET,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Writes a module as an ONNX file, checked by onnx.checker; every operator in it is of the standard set.

    Args:
        module (Module): in evaluation mode.
        args (tuple): an example of its inputs. A size that is dynamic should be at least 2 in it.
        path (path): of the file; weights of 2 GB and more go into ``path.data`` beside it.
        input_names, output_names (list[str], optional): of the graph.
        dynamic_shapes: as of ``torch.export.export``; the sizes named there are symbolic in the file, or this raises.
        opset_version (int): at least 18.
        metadata (dict[str, str], optional): what the file says about itself.

    Returns:
        Path: the file.

    Raises:
        ExportError: an option, a dtype or a size that ONNX cannot hold; the message names operator and option. Also an
            opset below 18, and a dynamic size that the export made fixed.

    Example:
        >>> class Decoded(torch.nn.Module):
        ...     def forward(self, maps):
        ...         return pypose_ops.decode_heatmaps(maps)
        >>> batch = torch.export.Dim.DYNAMIC
        >>> maps = torch.rand(2, 17, 64, 48)
        >>> export(Decoded(), (maps,), "decoded.onnx", dynamic_shapes=({0: batch},))  # doctest: +SKIP
    """
    if opset_version < MINIMUM_OPSET:
        raise ExportError(f"export: opset_version must be at least {MINIMUM_OPSET}, got {opset_version}")
    path = Path(path)
    module = module.eval()
    with _quiet():
        try:
            program = torch.onnx.export(
                module, tuple(args), dynamo=True, verbose=False, custom_translation_table=translations(),
                input_names=input_names, output_names=output_names, dynamic_shapes=dynamic_shapes,
                opset_version=opset_version,
            )  # fmt: skip
        except Exception as error:
            cause = error
            while cause is not None and not isinstance(cause, ExportError):
                cause = cause.__cause__ or cause.__context__
            if cause is None:
                raise
            raise cause from None
    _check_dynamic(program, dynamic_shapes)
    for key, value in (metadata or {}).items():
        program.model.metadata_props[key] = value
    _check_and_save(program, path)
    return path


@contextmanager
def _quiet():
    """Without what the exporter says of other packages, and of its own deprecations."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            yield
    finally:
        logging.disable(before)


def _check_dynamic(program, dynamic_shapes):
    """A dynamic size that the export fixed would be that of the example, for all inputs."""
    wanted = torch.utils._pytree.tree_leaves(dynamic_shapes, is_leaf=lambda spec: spec is None or _is_sizes(spec))
    for spec, value in zip(wanted, program.model.graph.inputs, strict=False):
        for axis, size in (spec or {}).items():
            if size is not None and isinstance(value.shape[axis], int):
                raise ExportError(
                    f"export: {value.name} has size {value.shape[axis]} in axis {axis}, which should be dynamic; "
                    "the example's must be 2 or more, and the module must not fix it"
                )


def _is_sizes(spec):
    return isinstance(spec, dict) and all(isinstance(axis, int) for axis in spec)


def _check_and_save(program, path):
    domains = {node.domain for node in program.model.graph.all_nodes()} - {""}
    if domains:
        raise ExportError(f"export: nodes of {', '.join(sorted(domains))} remain, which no runtime knows")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        draft = Path(folder) / path.name
        program.save(draft)
        onnx.checker.check_model(str(draft), full_check=True)
        for written in Path(folder).iterdir():
            written.replace(path.parent / written.name)
