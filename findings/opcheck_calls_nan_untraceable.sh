#!/usr/bin/env bash
# torch.library.opcheck reports a correct custom operator as wrong under torch.compile when its result holds a NaN.
#
# torch 2.13.0 (CPU). The check compares eager and traced results by values in which NaN differs from NaN. Its message
# speaks of tracing, not of NaN: "Outputs of the operator are different in eager-mode PyTorch vs AOTDispatcher tracing".
# An operator that answers NaN for "not found" has to be checked with inputs where everything is found, or told to answer
# another value.
#
# Seen:
#   finite result: SUCCESS
#   NaN in the result: Outputs of the operator are different in eager-mode PyTorch vs AOTDispatcher tracing.
#   compiled result equals eager result, NaN for NaN: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.0
cat > "$folder/show.py" <<'PYTHON'
import sys

import torch


@torch.library.custom_op("demo::ratio", mutates_args=())
def ratio(x: torch.Tensor) -> torch.Tensor:
    return x / x


@ratio.register_fake
def _(x):
    return torch.empty_like(x)


def checked(x):
    result = torch.library.opcheck(ratio, (x,), raise_exception=False)["test_aot_dispatch_dynamic"]
    return result if result == "SUCCESS" else f"{str(result).split('. ')[0]}."


finite, with_nan = checked(torch.tensor([1.0, 2.0])), checked(torch.tensor([0.0, 2.0]))
x = torch.tensor([0.0, 2.0])
same = torch.equal(torch.compile(ratio, fullgraph=True)(x).nan_to_num(7.0), ratio(x).nan_to_num(7.0))
print("finite result:", finite)
print("NaN in the result:", with_nan)
print("compiled result equals eager result, NaN for NaN:", same)
sys.exit(not (finite == "SUCCESS" and "different in eager-mode" in with_nan and same))
PYTHON
TORCHINDUCTOR_CACHE_DIR="$folder/cache" "$folder/venv/bin/python" -W ignore "$folder/show.py" 2> /dev/null
