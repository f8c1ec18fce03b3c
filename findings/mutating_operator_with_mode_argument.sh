#!/usr/bin/env bash
# torch.compile cannot trace an operator that writes into an argument and has another argument called `mode`.
#
# torch 2.13.0 (CPU). Eager calls work, and so do operators that return their result: interpolation operators have a `mode`
# everywhere. Where the schema says Tensor(a!), the operator is wrapped to be functional for the compiler, and its arguments
# are handed on by name to a function that has a parameter `mode` itself. The schema is accepted without a warning; renaming
# the argument helps.
#
# Seen:
#   by_factor: eager [2.0, 2.0], compiled [2.0, 2.0]
#   by_mode: eager [2.0, 2.0], compiled: multiple values for argument 'mode'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.0
cat > "$folder/show.py" <<'PYTHON'
import torch


def write(out, x, factor):
    out.copy_(x * factor)


library = torch.library.Library("lab", "FRAGMENT")
for name, argument in (("by_factor", "factor"), ("by_mode", "mode")):
    library.define(f"{name}(Tensor(a!) out, Tensor x, float {argument}) -> ()")
    library.impl(name, write, "CPU")
    library.impl(name, lambda out, x, factor: None, "Meta")

    def call(x, op=getattr(torch.ops.lab, name)):
        out = torch.empty_like(x)
        op(out, x, 2.0)
        return out

    x = torch.ones(2)
    try:
        compiled = f" {torch.compile(call, backend='aot_eager', fullgraph=True)(x).tolist()}"
    except Exception as error:
        clash = "multiple values for argument 'mode'"
        compiled = f": {clash if clash in str(error) else error}"
    print(f"{name}: eager {call(x).tolist()}, compiled{compiled}")
PYTHON
seen=$("$folder/venv/bin/python" -W ignore "$folder/show.py" 2>/dev/null)
wanted=$(sed -n 's/^#   //p' "$0")
echo "$seen"
[ "$seen" = "$wanted" ] || { echo "this has changed; it was:"; echo "$wanted"; exit 1; }
