"""The definition of every operator in plain torch: same names, same signatures, float64-safe, any device.

Readable first: these are what the kernels are tested against and what the benchmarks compare with. The definition of an
operator is the function of its name in the module of its name.
"""

import importlib
from typing import TYPE_CHECKING

from .. import ops

if TYPE_CHECKING:  # the signatures are those of the operators
    from ..ops import *  # noqa: F403
else:
    __all__ = [name for name in ops.__all__ if name.islower()]
    for _name in __all__:
        globals()[_name] = getattr(importlib.import_module(f"{__name__}.{_name}"), _name)
