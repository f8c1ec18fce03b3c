"""Self-describing weight files: safetensors whose metadata name the system and its options."""

import json
import warnings
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

import pypose_ops
from pypose_ops.datasets.files import write_bytes
from pypose_ops.datasets.skeleton_files import skeleton_of_json
from pypose_ops.errors import InputError
from pypose_ops.skeletons import Skeleton

from .. import SYSTEMS, build
from ..systems.system import System

FORMAT = "pypose_ops.models 1"
PACKAGED = {"coco17": "pose_coco17.safetensors", "lsp14": "pose_lsp14.safetensors"}  # in pypose_ops/data


def save_weights(path: Path | str, system: System, info: dict[str, Any], dtype: torch.dtype | None = None) -> None:
    """Saves the parameters and buffers of a system.

    Args:
        path (Path or str): of the file.
        system (System): the module.
        info (dict): ``system``, ``preset``, ``skeleton`` (names) and ``options`` (of :func:`.build`), and anything
            else that JSON can hold.
        dtype (torch.dtype, optional): of floating tensors in the file, for example float16 to halve its size.
    """
    tensors = {
        name: (t.to(dtype) if dtype and t.is_floating_point() else t).detach().cpu().contiguous()
        for name, t in system.state_dict().items()
    }
    joints = len(skeleton_of(info))
    metadata = {"format": FORMAT, "joints": str(joints), **{k: json.dumps(v) for k, v in info.items()}}
    write_bytes(path, _sorted(save(_unshared(tensors), metadata)))


def _sorted(data: bytes) -> bytes:
    """Serialises a safetensors file with sorted metadata: the same bytes every time."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def skeleton_of(info: dict[str, Any], path: Path | str = "weights") -> Skeleton:
    """The skeleton named in the metadata: one of the package, or the user's own."""
    return skeleton_of_json(info.get("skeleton"), str(path))


def _unshared(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies tensors that share memory, which safetensors refuses."""
    seen = set()
    return {n: t.clone() if t.data_ptr() in seen or seen.add(t.data_ptr()) else t for n, t in tensors.items()}


def _opened(path: Path | str) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            return metadata, {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: expected a safetensors file; not one, or damaged ({error})") from None


def load_weights(path: Path | str, system: str | None = None) -> tuple[System, dict[str, Any]]:
    """Builds the system described by a weight file and loads its weights.

    Args:
        path (Path or str): written by :func:`save_weights`.
        system (str, optional): the expected name of the system.

    Returns:
        tuple[System, dict]: the system in evaluation mode, in float32; and its metadata.

    Raises:
        InputError: the file is missing, damaged, of another system, or its tensors do not fit.
    """
    metadata, tensors = _opened(path)
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path}: expected weights written by train, no format {FORMAT!r} in its metadata")
    try:
        info = {k: json.loads(v) for k, v in metadata.items() if k != "format"}
        name, skeleton = info["system"], skeleton_of(info, path)
        if system not in (None, name):
            raise InputError(f"{path}: expected weights of {system}, these are of {name}")
        if name not in SYSTEMS:
            raise InputError(f"{path}: weights of {name}, expected one of {', '.join(SYSTEMS)}")
        module = _built(path, name, len(skeleton), info, tensors)
    except InputError:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, AttributeError) as error:
        text = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: its metadata does not describe a system ({text})") from None
    load_tensors(path, module, tensors)
    return module.eval(), info


# Modules one after the other take time to build, also without memory.
_MOST = {"stacks": 64, "stages": 64, "blocks": 64, "levels": 16, "convs": 64, "banks": 64, "depth": 200}


def _numbers(value: Any) -> list[float]:
    """All numbers in a JSON value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [n for v in value for n in _numbers(v)]
    return [value] if isinstance(value, (int, float)) else []


def _built(path: Path | str, name: str, joints: int, info: dict[str, Any], tensors: dict[str, torch.Tensor]) -> System:
    """Builds the system that the metadata describe; refuses one larger than the tensors of the file."""
    options = info["options"]
    if not isinstance(options, dict) or not isinstance(info["preset"], str):
        raise ValueError("options must be an object, preset a name")
    if any(not abs(n) <= 8192 for n in _numbers(options)):
        raise ValueError(f"options of up to {max(map(abs, _numbers(options))):g}")
    for option, most in _MOST.items():
        if any(n > most for n in _numbers(options.get(option))):
            raise ValueError(f"{option} of {options[option]}, expected at most {most}")
    held = sum(t.numel() for t in tensors.values())
    with torch.device("meta"), warnings.catch_warnings():  # takes no memory
        warnings.simplefilter("ignore")  # a layer without channels
        system = build(name, joints, info["preset"], **options)
        planned = sum(p.numel() for p in system.parameters())
        if planned > held:
            raise ValueError(f"a system of {planned:,} parameters, the file has {held:,} numbers")
        if "input_size" in options:  # too small a one shows in the layers alone
            system.eval()(torch.zeros(1, 3, *system.input_size))
    return build(name, joints, info["preset"], **options)


def load_packaged(name: str = "coco17") -> tuple[System, dict[str, Any]]:
    """:func:`load_weights` of a file that comes with the package, a name of ``PACKAGED``."""
    if name not in PACKAGED:
        raise InputError(f"pretrained: name must be one of {', '.join(PACKAGED)}, got {name!r}")
    return open_weights(name)


def open_weights(spec: Path | str = "coco17", system: str | None = None) -> tuple[System, dict[str, Any]]:
    """:func:`load_weights` of a file, or of one that comes with the package: ``spec`` is a name of ``PACKAGED``."""
    if str(spec) not in PACKAGED:
        return load_weights(spec, system)
    packaged = resources.files("pypose_ops") / "data" / PACKAGED[str(spec)]
    if not packaged.is_file():
        raise InputError(
            f"{spec}: the packaged weights are not installed: pip install pypose_ops_weights=={pypose_ops.__version__}"
        )
    with resources.as_file(packaged) as path:
        return load_weights(path, system)


def load_tensors(path: Path | str, module: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Loads tensors into a module, which must have exactly these."""
    own = module.state_dict()
    missing, unexpected = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    wrong = sorted(n for n in own.keys() & tensors.keys() if own[n].shape != tensors[n].shape)
    if missing or unexpected or wrong:
        parts = (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
        text = "; ".join(f"{what}: {', '.join(n[:3])}{', ...' if len(n) > 3 else ''}" for what, n in parts if n)
        raise InputError(f"{path}: the tensors do not fit the system ({text})")
    bad = next((n for n, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()), None)
    if bad is not None:
        raise InputError(f"{path}: {bad} is not finite: the training diverged")
    with torch.no_grad():
        module.load_state_dict({name: t.to(own[name].dtype) for name, t in tensors.items()})
