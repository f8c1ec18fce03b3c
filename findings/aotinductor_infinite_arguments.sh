#!/usr/bin/env bash
# A float argument of a custom operator that is infinite or NaN makes an AOTInductor package that cannot be loaded.
#
# torch 2.13.0 (CPU), g++. torch.export keeps such an argument, and the exported program runs. aoti_compile_and_package
# succeeds too: it writes the argument into the package's JSON as the string "Infinity" or "NaN", because JSON has no such
# numbers, and the loader then asks for a number: "type must be number, but is string", without the operator's name.
# Default arguments like threshold=-inf or fill=nan are enough. A schema with `float? value=None` avoids it.
#
# Seen:
#   1.5 exported [1.5, 1.5] package holds 1.5 loaded [1.5, 1.5]
#   inf exported [inf, inf] package holds 'Infinity' RuntimeError: [json.exception.type_error.302] type must be number, but is string
#   nan exported [nan, nan] package holds 'NaN' RuntimeError: [json.exception.type_error.302] type must be number, but is string
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.0
cat > "$folder/show.py" <<'PYTHON'
import json
import math
import sys
import zipfile

import torch


@torch.library.custom_op("demo::fill", mutates_args=())
def fill(x: torch.Tensor, value: float) -> torch.Tensor:
    return torch.full_like(x, value)


@fill.register_fake
def _(x, value):
    return torch.empty_like(x)


class Fill(torch.nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return fill(x, self.value)


def written(path):
    """The argument as the package's JSON has it."""
    with zipfile.ZipFile(path) as package:
        for name in package.namelist():
            if name.endswith(".json") and b"demo::fill" in package.read(name):
                (node,) = json.loads(package.read(name))["nodes"]
                return node["node"]["inputs"][1]["arg"]["as_float"]


example = torch.ones(2)
results = []
for value in (1.5, math.inf, math.nan):
    program = torch.export.export(Fill(value), (example,))
    path = torch._inductor.aoti_compile_and_package(program, package_path=f"{sys.argv[1]}/{value}.pt2")
    try:
        end = f"loaded {torch._inductor.aoti_load_package(path)(example).tolist()}"
    except RuntimeError as error:
        end = f"RuntimeError: {str(error).splitlines()[0]}"
    print(value, "exported", program.module()(example).tolist(), "package holds", repr(written(path)), end)
    results.append((written(path), end.startswith("loaded")))
sys.exit(results != [(1.5, True), ("Infinity", False), ("NaN", False)])
PYTHON
TORCHINDUCTOR_CACHE_DIR="$folder/cache" "$folder/venv/bin/python" -W ignore "$folder/show.py" "$folder" 2> /dev/null
