"""Kernels for 2D human pose estimation as torch operators.

Coordinates are ``(x, y)`` in pixels with pixel centres at integers, sizes are ``(height, width)``, maps are
``(B, K, H, W)``.
Every operator exists for CPU and CUDA; :mod:`pypose_ops.reference` holds its definition in plain torch.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from . import _build, geometry, ops
from ._build import build_info
from .ops import *  # noqa: F403

if TYPE_CHECKING:
    from . import reference

__version__ = _build.binary_info()["version"]

__all__ = ["build_info", "geometry", "reference"]
__all__ += ops.__all__


def __getattr__(name: str) -> ModuleType:
    """Imports the definitions in plain torch on first use; the kernels do not need them."""
    if name == "reference":
        return importlib.import_module(".reference", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
