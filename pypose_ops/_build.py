"""What this binary was built with, and what it runs on."""

import torch

from . import _C


def build_info():
    """Version, torch headers, CUDA toolkit and architectures of this build, and what is present at run time.

    Returns:
        dict: ``version``; ``torch_headers`` (of the build); ``torch`` (running); ``cuda_toolkit`` and
        ``cuda_architectures`` (None in a build without CUDA); ``gpus`` (names of the GPUs torch sees).
    """
    info = dict(_C.build_info())
    architectures = info["cuda_architectures"]
    info["cuda_toolkit"] = info["cuda_toolkit"] or None
    info["cuda_architectures"] = architectures.split(";") if info["cuda_toolkit"] and architectures else None
    info["torch"] = torch.__version__
    info["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return info
