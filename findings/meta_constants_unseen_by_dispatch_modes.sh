#!/usr/bin/env bash
# A TorchDispatchMode does not see torch.tensor, as_tensor and new_tensor with device="meta", nor an index that is a list.
#
# torch 2.13.0 (CPU). Tensors on meta are a usual stand-in for a GPU in tests that count the copies from the host, since
# nothing else is needed to run them. Of a device with memory such a call is two operations for a mode, aten.lift_fresh and
# aten._to_copy; on meta there is none, and a test that relies on the mode passes while every call copies. Moving a tensor
# with .to("meta") is seen, and so is an index that is a tensor of the host. FakeTensorMode sees constants on a device that
# is not there, but cannot move tensors to it: .to("cuda") raises.
#
# Seen:
#   torch.tensor: meta [], fake cuda ['aten.lift_fresh.default', 'aten._to_copy.default']
#   as_tensor: meta [], fake cuda ['aten.lift_fresh.default', 'aten._to_copy.default']
#   x[[0, 1]]: meta ['aten.index.Tensor'] with indices on ['meta']
#   .to: meta ['aten._to_copy.default'], fake cuda RuntimeError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.0
cat > "$folder/show.py" <<'PYTHON'
import sys

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Log(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "device" not in str(function):
            self.seen.append(str(function))
            self.inputs = [t.device.type for t in tree_leaves(args) if isinstance(t, torch.Tensor)]
        return function(*args, **(kwargs or {}))


def seen(call):
    log = Log()
    log.seen = []
    with log:
        try:
            call()
        except RuntimeError:
            return "RuntimeError"
    return log.seen


meta = {}
meta["torch.tensor"] = seen(lambda: torch.tensor([1.0, 2.0], device="meta"))
meta["as_tensor"] = seen(lambda: torch.as_tensor(2.0, device="meta"))
host = torch.ones(2)
meta[".to"] = seen(lambda: host.to("meta"))
x, log = torch.ones(3, device="meta"), Log()
log.seen = []
with log:
    x[[0, 1]]
fake = {}
with FakeTensorMode(allow_non_fake_inputs=True):
    fake["torch.tensor"] = seen(lambda: torch.tensor([1.0, 2.0], device="cuda"))
    fake["as_tensor"] = seen(lambda: torch.as_tensor(2.0, device="cuda"))
    fake[".to"] = seen(lambda: torch.ones(2).to("cuda"))
for name in ("torch.tensor", "as_tensor"):
    print(f"{name}: meta {meta[name]}, fake cuda {fake[name]}")
print(f"x[[0, 1]]: meta {log.seen} with indices on {log.inputs[1:]}")
print(f".to: meta {meta['.to']}, fake cuda {fake['.to']}")
copies = ["aten.lift_fresh.default", "aten._to_copy.default"]
right = meta["torch.tensor"] == meta["as_tensor"] == [] and fake["torch.tensor"] == fake["as_tensor"] == copies
right = right and log.seen == ["aten.index.Tensor"] and log.inputs[1:] == ["meta"]
sys.exit(not (right and meta[".to"] == ["aten._to_copy.default"] and fake[".to"] == "RuntimeError"))
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/show.py"
