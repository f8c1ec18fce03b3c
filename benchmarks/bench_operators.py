"""Every operator against its definition, at the sizes of docs/roofline.md.  pytest benchmarks/bench_operators.py"""

import pytest
import torch
from bench_tools import with_gradient
from roofline import BATCH, rows

import pypose_ops
from pypose_ops import reference

pytestmark = pytest.mark.benchmark(max_time=0.3, min_rounds=3, warmup=False)
SMALL = 4  # people: the definitions of some operators take seconds for a whole batch


@pytest.mark.parametrize("row", ("op", "reference"))
@pytest.mark.parametrize("number", range(len(rows())), ids=[row.op for row in rows()])
def test_operator(measure, device, number, row):
    torch.manual_seed(0)
    case = rows(SMALL if row == "reference" else BATCH)[number]
    call = with_gradient(case.call) if case.backward else case.call
    arguments, module = case.inputs(device), {"op": pypose_ops, "reference": reference}[row]
    direction = "forward+backward" if case.backward else "forward"
    people = SMALL if row == "reference" else BATCH
    measure(lambda: call(module, *arguments), case.op, (people,), direction, row, device, case.bytes)
