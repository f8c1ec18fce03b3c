"""The CUDA kernels' registers, stack and spills against tests/simt/kernel_registers.csv, where there is an nvcc."""

import re

import ptxas_budget
import pytest
from ptxas_budget import Usage

REPORT = """
ptxas info    : Compiling entry function '_ZN10pypose_ops6kernelIfLi4EEEvPT_' for 'sm_80'
ptxas info    : Function properties for _ZN10pypose_ops6kernelIfLi4EEEvPT_
    24 bytes stack frame, 20 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 24 bytes cumulative stack size
ptxas info    : Compiling entry function '_ZN10pypose_ops6kernelIfLi4EEEvPT_' for 'sm_90'
ptxas info    : Function properties for _ZN10pypose_ops6kernelIfLi4EEEvPT_
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 61 registers, used 1 barriers, 2048 bytes smem
"""


SASS = """
\tarch = sm_80
\t\tFunction : _ZN10pypose_ops6kernelIfLi4EEEvPT_
        /*0070*/                   LDG.E.U8 R4, [R4.64] ;
        /*0080*/                   LDG.E.64.CONSTANT R2, [R2.64] ;
        /*0090*/                   STG.E [R6.64], R2 ;
\tarch = sm_90
\t\tFunction : _ZN10pypose_ops6kernelIfLi4EEEvPT_
        /*0080*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0090*/                   STG.E.128.STRONG.GPU desc[UR4][R6.64], R4 ;
"""
ELF = """
.nv.info._ZN10pypose_ops6kernelIfLi4EEEvPT_
\t<0x13>
\tAttribute:\tEIATTR_MAX_THREADS
\tFormat:\tEIFMT_SVAL
\tValue:\t0x100 0x1 0x1
"""


def test_a_report_is_read():
    source = ptxas_budget.ROOT / "csrc" / "peaks" / "some.cu"
    found = ptxas_budget.parse((REPORT, "", ""), source)
    name = "peaks/some: _ZN10pypose_ops6kernelIfLi4EEEvPT_"
    assert found == {(name, 80): Usage(64, 24, 32), (name, 90): Usage(61, 0, 0, shared=2048)}
    found = ptxas_budget.parse((REPORT, SASS, ELF), source)
    assert found[name, 80] == Usage(64, 24, 32, 0, occupancy=50, load=64, store=32)
    assert found[name, 90] == Usage(61, 0, 0, 2048, occupancy=50, load=128, store=128)
    assert ptxas_budget.readable([name]) == {name: "peaks/some: kernel<float, 4>"}


def test_occupancy():
    assert ptxas_budget.occupancy(90, 256, 32, 0) == 100  # 8 blocks of 8 warps
    assert ptxas_budget.occupancy(90, 256, 33, 0) == 75  # registers: 40 a thread
    assert ptxas_budget.occupancy(90, 128, 32, 0) == 100
    assert ptxas_budget.occupancy(90, 32, 32, 0) == 50  # 32 blocks
    assert ptxas_budget.occupancy(80, 256, 32, 40 * 1024) == 50  # 4 blocks of 41 KB


def test_narrow_stores_need_a_reason(monkeypatch):
    monkeypatch.setattr(ptxas_budget, "tool", lambda name: name)  # as if there were a cuobjdump: widths are compared
    found = {
        ("a: draw_kernel<float, 4>", 90): Usage(32, 0, 0, store=32),
        ("a: draw_kernel<Half, 4>", 90): Usage(32, 0, 0, store=64),
        ("b: soft_argmax_kernel<float>", 90): Usage(32, 0, 0, load=32),
        ("c: soft_argmax_kernel<float>", 90): Usage(32, 0, 0, load=128),
    }
    lines = ptxas_budget.differences(found, found, {})
    assert ["stores of 32 bits, without a reason" in line for line in lines] == [True, False]
    assert "loads of 32 and" in lines[1]
    assert ptxas_budget.differences(found, found, {key: "why" for key in list(found)[::2]}) == []


def test_every_difference_is_named():
    found = {("a", 90): Usage(40, 0, 0), ("b", 90): Usage(32, 8, 12), ("c", 90): Usage(32, 0, 0)}
    table = {("a", 90): Usage(38, 0, 0), ("b", 90): Usage(32, 8, 12), ("d", 90): Usage(32, 0, 0)}
    lines = ptxas_budget.differences(found, table, {})
    assert [re.match(r"\w", line).group() for line in lines] == ["a", "b", "c", "d"]
    assert "registers=40" in lines[0] and "registers=38" in lines[0] and "without a reason" in lines[1]
    assert ptxas_budget.differences(found, found, {("b", 90): "why"}) == []
    assert ptxas_budget.differences(found, table, {("b", 90): "why"}, same_toolkit=False)[0].startswith("c")


def test_the_table_is_complete():
    """Also without an nvcc: every .cu has kernels in it, on both architectures, and no spill lacks its reason."""
    _, table, reasons = ptxas_budget.read_table()
    stems = {f"{source.parent.name}/{source.stem}" for source in ptxas_budget.sources()}
    for architecture in ptxas_budget.ARCHITECTURES:
        assert {kernel.split(":")[0] for kernel, arch in table if arch == architecture} == stems
    assert all(usage.clean() or key in reasons for key, usage in table.items())
    assert not [key for key, usage in table.items() if ptxas_budget.narrow(key[0], usage) and key not in reasons]
    assert all(usage.load or usage.store for usage in table.values())  # measured with a cuobjdump


@pytest.mark.skipif(ptxas_budget.nvcc() is None, reason="no nvcc")
def test_registers_stack_and_spills():
    """Compiles every .cu: a minute. After a change of a kernel: python tests/simt/ptxas_budget.py --update."""
    toolkit, table, reasons = ptxas_budget.read_table()
    found = ptxas_budget.measure()
    lines = ptxas_budget.differences(found, table, reasons, same_toolkit=toolkit == ptxas_budget.version())
    assert not lines, "\n".join(lines) + "\nIf that is meant: python tests/simt/ptxas_budget.py --update"
