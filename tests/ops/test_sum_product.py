"""sum_product under the contract of op_contract.py, and by hand."""

import large_inputs as large
from op_contract import Sample, check_op
from tree_inputs import CHAIN, GRAD, OPTIONS, SAMPLES, bads, randn, springs

import pypose_ops
from pypose_ops import reference, sum_product

# Pixels that say next to nothing, beside pixels that say everything.
WIDE = (300 * randn(2, 4, 6, 5), CHAIN, springs(CHAIN, weight=30.0))


SUM_SAMPLES = [
    *SAMPLES,
    Sample("wide range", WIDE, grad=GRAD),
]


TestSumProduct = check_op(
    sum_product,
    reference.sum_product,
    SUM_SAMPLES,
    bad=bads("sum_product"),
    second_order="sum_product: double backward is not supported",
    **OPTIONS,
)

LARGE = large.tree(pypose_ops.sum_product, maps=4)
