"""Small constant tensors that live on the device."""

import functools
from collections.abc import Callable
from typing import Any

import torch


def constant(values: Any, *, device: torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
    """``torch.tensor(values)``, kept per device and never written to: only the first call copies from the host.

    A copy of unpinned memory cannot be captured in a CUDA graph.

    Args:
        values (tuple): numbers, or tuples of them.
        device (torch.device): where it is kept.
        dtype (torch.dtype, optional): as ``torch.tensor`` chooses by default.
    """
    if _passing(device):
        return torch.tensor(values, device=device, dtype=dtype)
    return _kept(values, device, dtype)


def computed(make: Callable[..., Any], *args: Any, device: torch.device) -> Any:
    """``make(*args, device)``, tensors, kept per arguments and device and never written to."""
    return make(*args, device) if _passing(device) else _made(make, args, device)


def _passing(device: torch.device) -> bool:
    """Compilers, exporters and their fake tensors make constants of their own, which must not outlive them."""
    return torch.compiler.is_compiling() or type(torch.empty(0, device=device)) is not torch.Tensor


@functools.lru_cache(maxsize=1024)
def _kept(values: Any, device: torch.device, dtype: torch.dtype | None) -> torch.Tensor:
    with torch.inference_mode(False):  # autograd refuses to save inference tensors
        return torch.tensor(values, device=device, dtype=dtype)


@functools.lru_cache(maxsize=256)
def _made(make: Callable[..., Any], args: tuple[Any, ...], device: torch.device) -> Any:
    with torch.inference_mode(False):
        return make(*args, device)
