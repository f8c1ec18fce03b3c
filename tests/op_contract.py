"""What every operator must satisfy, checked the same way for each.

    TestMyOp = check_op(my_op, reference.my_op, [Sample("plain", (x,)), ...], bad=[Bad(...), ...], maps=("x",))

gives pytest one test per check, kernels (cpu, simt, cuda), dtype and sample. A check is a method that can be called by
hand: ``TestMyOp().test_inputs_unchanged(device, sample)``.
"""

import importlib
import inspect
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import pytest
import torch
from contract_tools import (
    LAYOUTS,
    ForkedCalls,
    RecordOps,
    is_floating,
    is_tensor,
    one_by_one,
    only_on,
    same_bits,
    strided,
    weighted,
)
from gpu_contract import OFF_HOST, GpuContract
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only
from torch.utils.checkpoint import checkpoint

import pypose_ops

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

# (rtol, atol) against the float64 reference. The one table; a sample that needs another line says why.
TOLERANCES = {
    torch.float64: (1e-10, 1e-10),
    torch.float32: (1e-4, 1e-5),
    torch.float16: (3e-3, 5e-3),
    torch.bfloat16: (1e-2, 5e-2),
}
OPCHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


@dataclass(frozen=True)
class Sample:
    """One call of the operator. Floating tensors are given in any dtype and cast to the one under test."""

    name: str
    args: tuple
    kwargs: dict = field(default_factory=dict)
    grad: tuple = ()  # names of the arguments with a derivative here: smooth at this sample
    traced: bool = False  # also through opcheck, torch.compile and torch.export, which take seconds
    exact: bool = False  # equal to the reference bit for bit once both are in the output's dtype
    equal_nan: bool = False  # NaN is a documented result here
    tolerances: dict = field(default_factory=dict)  # dtype -> (rtol, atol), with the reason beside it


@dataclass(frozen=True)
class Bad:
    """One call that must be refused."""

    name: str
    args: tuple
    kwargs: dict
    error: type | tuple
    match: str


class OpContract(GpuContract):
    """The checks. Subclasses made by :func:`check_op` fill in the operator."""

    op = reference = None
    samples = bad = ()
    maps = ()  # arguments that take the dtype under test; all other floating tensors stay float32 or better
    batched = ()  # tensor arguments whose first dimension is the batch, where it has the batch's size
    dtype_argument = None  # the argument that names the output's dtype
    second_order = None  # the message of a refused second derivative; None where there is one
    namespace = "pypose_ops"

    def pytest_generate_tests(self, metafunc):
        choices = {
            "sample": self.samples,
            "grad_sample": [s for s in self.samples if s.grad],
            "traced_sample": [s for s in self.samples if s.traced],
            "bad_call": self.bad,
        }
        for name, values in choices.items():
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, values, ids=[v.name for v in values])
        if "dtype" in metafunc.fixturenames:
            metafunc.parametrize("dtype", DTYPES, ids=[str(d).removeprefix("torch.") for d in DTYPES])

    # Calls ------------------------------------------------------------------------------------------------------------

    def arguments(self, sample, device="cpu", dtype=torch.float32):
        """The sample's arguments by name, on the device, in the dtype under test."""
        bound = inspect.signature(self.op).bind(*sample.args, **sample.kwargs).arguments
        coordinates = torch.float64 if dtype == torch.float64 else torch.float32

        def place(name):
            to = dtype if name in self.maps else coordinates
            return lambda v: v.detach().to(device, to if v.is_floating_point() else v.dtype, copy=True)

        out = {name: tree_map_only(torch.Tensor, place(name), value) for name, value in bound.items()}
        if self.dtype_argument:
            out.setdefault(self.dtype_argument, dtype)
        return out

    def truth(self, arguments):
        """The reference on the same numbers, in float64 on the CPU. Keeps autograd's graph."""
        up = {
            name: tree_map(lambda v: v.cpu().double() if is_floating(v) else v.cpu() if is_tensor(v) else v, value)
            for name, value in arguments.items()
        }
        if self.dtype_argument:
            up[self.dtype_argument] = torch.float64
        return self.reference(**up)

    def run(self, arguments, names=(), call=None):
        """The outputs and, where names are given, the gradients of a fixed random combination of them."""
        arguments = arguments | {n: arguments[n].detach().requires_grad_() for n in names}
        result = (call or self.op)(**arguments)
        if not names:
            return result, ()
        outputs, weights = weighted(result)
        gradients = torch.autograd.grad(outputs, [arguments[n] for n in names], weights)
        return tree_map_only(torch.Tensor, torch.Tensor.detach, result), gradients

    def compare(self, actual, expected, sample, dtype):
        rtol, atol = sample.tolerances.get(dtype, TOLERANCES[dtype])
        for a, e in zip(tree_leaves(actual), tree_leaves(expected), strict=True):
            if sample.exact or not a.is_floating_point():
                torch.testing.assert_close(a.cpu(), e.to(a.dtype), rtol=0, atol=0, equal_nan=sample.equal_nan)
            else:
                torch.testing.assert_close(a.cpu().double(), e, rtol=rtol, atol=atol, equal_nan=sample.equal_nan)

    # Values -----------------------------------------------------------------------------------------------------------

    def test_matches_reference(self, device, dtype, sample):
        arguments = self.arguments(sample, device, dtype)
        actual = self.op(**arguments)
        self.compare(actual, self.truth(arguments), sample, dtype)
        twin = self.reference(**arguments)
        assert type(twin).__name__ == type(actual).__name__
        for a, t in zip(tree_leaves(actual), tree_leaves(twin), strict=True):
            assert (a.dtype, a.device) == (t.dtype, t.device), "the reference returns another dtype or device"

    # Thousands of backward calls: too slow on simt, whose gradients are compared with the reference's in float64 below.
    @only_on("cpu", "cuda")
    def test_gradcheck(self, device, grad_sample):
        arguments = self.arguments(grad_sample, device, torch.float64)
        names = grad_sample.grad

        def call(*values):
            result = self.op(**(arguments | dict(zip(names, values, strict=True))))
            return tuple(o for o in tree_leaves(result) if is_floating(o) and o.requires_grad)

        assert torch.autograd.gradcheck(call, [arguments[n].requires_grad_() for n in names])

    def test_gradients_match_reference(self, device, dtype, grad_sample):
        arguments = self.arguments(grad_sample, device, dtype)
        _, actual = self.run(arguments, grad_sample.grad)
        leaves = {n: arguments[n].cpu().double().requires_grad_() for n in grad_sample.grad}
        outputs, weights = weighted(self.truth(arguments | leaves))
        expected = torch.autograd.grad(outputs, list(leaves.values()), weights)
        self.compare(actual, expected, grad_sample, dtype)
        for name, gradient in zip(grad_sample.grad, actual, strict=True):
            assert gradient.dtype == arguments[name].dtype, f"the gradient of {name} is {gradient.dtype}"

    def test_checkpoint(self, device, grad_sample):
        """Under checkpoints what backward saved is unpacked once."""
        arguments = self.arguments(grad_sample, device)
        _, expected = self.run(arguments, grad_sample.grad)
        again = partial(checkpoint, self.op, use_reentrant=False, preserve_rng_state=False)
        _, actual = self.run(arguments, grad_sample.grad, again)
        for a, e in zip(actual, expected, strict=True):
            torch.testing.assert_close(a, e, rtol=0, atol=0, equal_nan=True)

    def test_second_order_is_refused(self, device, grad_sample):
        arguments = self.arguments(grad_sample, device)
        leaves = [arguments[n].requires_grad_() for n in grad_sample.grad]
        with pytest.raises(RuntimeError, match=self.second_order):
            outputs, weights = weighted(self.op(**arguments))
            first = torch.autograd.grad(outputs, leaves, weights, create_graph=True)
            torch.autograd.grad(sum(g.sum() for g in first), leaves)

    # Inputs -----------------------------------------------------------------------------------------------------------

    def test_inputs_unchanged(self, device, sample):
        before, arguments = self.arguments(sample, device), self.arguments(sample, device)
        for name in sample.grad:
            arguments[name].requires_grad_()
        result = self.op(**arguments)
        if sample.grad:
            outputs, weights = weighted(result)
            torch.autograd.grad(outputs, [arguments[n] for n in sample.grad], weights)
        for now, then in zip(tree_leaves(arguments), tree_leaves(before), strict=True):
            if is_tensor(now):
                same_bits(now.detach(), then)
                assert now._version == then._version, "an input was written to"

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_any_strides(self, device, layout, sample):
        arguments = self.arguments(sample, device)
        odd = tree_map_only(torch.Tensor, lambda v: strided(v, layout), arguments)
        plain = tree_map_only(torch.Tensor, torch.Tensor.contiguous, odd)
        names = () if layout == "expanded" else sample.grad  # a repeated row can tie where the sample did not
        rtol, atol = TOLERANCES[torch.float32]
        for a, e in zip(tree_leaves(self.run(odd, names)), tree_leaves(self.run(plain, names)), strict=True):
            torch.testing.assert_close(a, e, rtol=rtol, atol=atol, equal_nan=True)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_any_strides_of_the_gradient(self, device, layout, grad_sample):
        arguments = self.arguments(grad_sample, device)
        leaves = [arguments[n].requires_grad_() for n in grad_sample.grad]
        outputs, weights = weighted(self.op(**arguments))
        odd = [strided(w, layout) for w in weights]
        actual = torch.autograd.grad(outputs, leaves, odd, retain_graph=True)
        expected = torch.autograd.grad(outputs, leaves, [w.contiguous() for w in odd])
        rtol, atol = TOLERANCES[torch.float32]
        torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)

    def part(self, arguments, stop):
        """The first items of the batch."""
        size = arguments[self.batched[0]].shape[0]
        cut = {n: arguments.get(n) for n in self.batched}
        return arguments | {n: v[:stop] for n, v in cut.items() if is_tensor(v) and v.shape[:1] == (size,)}

    def test_empty_batch(self, device, sample):
        arguments = self.part(self.arguments(sample, device), 0)
        actual, gradients = self.run(arguments, sample.grad)
        for a, e in zip(tree_leaves(actual), tree_leaves(self.reference(**arguments)), strict=True):
            assert (a.shape, a.dtype) == (e.shape, e.dtype)
        for gradient in gradients:
            assert not gradient.any()

    def test_batch_items_are_independent(self, device, sample):
        arguments = self.arguments(sample, device)
        whole = self.op(**arguments)
        alone = self.op(**self.part(arguments, 1))
        for a, w in zip(tree_leaves(alone), tree_leaves(whole), strict=True):
            same_bits(a, w[:1])

    def test_bad_call(self, device, bad_call):
        arguments = {
            n: tree_map_only(torch.Tensor, lambda v: v.to(device), v)
            for n, v in inspect.signature(self.op).bind(*bad_call.args, **bad_call.kwargs).arguments.items()
        }
        with pytest.raises(bad_call.error, match=bad_call.match):
            self.op(**arguments)

    # Same bits --------------------------------------------------------------------------------------------------------

    def test_same_bits_every_run(self, device, sample):
        first = self.run(self.arguments(sample, device), sample.grad)
        for _ in range(3):
            same_bits(self.run(self.arguments(sample, device), sample.grad), first)

    @only_on("cpu")
    def test_same_bits_for_any_thread_count(self, device, sample):
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(self.run(self.arguments(sample, device), sample.grad))
        same_bits(*results)

    @only_on("cpu", "cuda")
    def test_two_threads_at_once(self, device, sample):
        expected = self.run(self.arguments(sample, device), sample.grad)
        with ThreadPoolExecutor(2) as pool:
            calls = [pool.submit(self.run, self.arguments(sample, device), sample.grad) for _ in range(8)]
            for call in calls:
                same_bits(call.result(), expected)

    @only_on("cpu")
    def test_forked_workers(self, device):
        arguments = self.arguments(self.samples[0], device)
        expected = self.op(**arguments)  # the parent's thread pool is running when it forks
        loader = torch.utils.data.DataLoader(
            ForkedCalls(lambda: tree_leaves(self.op(**arguments))),
            num_workers=2,
            multiprocessing_context="fork",
            collate_fn=one_by_one,
            timeout=60,
        )
        for actual in loader:
            same_bits(actual, tree_leaves(expected))

    # What torch does with an operator ---------------------------------------------------------------------------------

    @pytest.mark.parametrize("autocast", (torch.float16, torch.bfloat16), ids=str)
    def test_autocast(self, device, autocast, sample):
        expected = self.run(self.arguments(sample, device), sample.grad)
        with torch.autocast(device.type, autocast):
            same_bits(self.run(self.arguments(sample, device), sample.grad), expected)

    @only_on("cpu", "cuda")
    @pytest.mark.parametrize("utility", OPCHECKS)
    def test_opcheck(self, device, utility, traced_sample):
        with RecordOps(self.namespace) as record:
            self.run(self.arguments(traced_sample, device), traced_sample.grad)
        assert record.calls, f"no {self.namespace} operator was called"
        for func, args, kwargs in record.calls:
            if self.second_order and func._opname.endswith("_backward"):
                args, kwargs = tree_map_only(torch.Tensor, torch.Tensor.detach, (args, kwargs))
            torch.library.opcheck(func, args, kwargs, test_utils=utility)

    @only_on("cpu", "cuda")
    @pytest.mark.parametrize("dynamic", (False, True), ids=("static", "dynamic"))
    def test_compile(self, device, dynamic, traced_sample, backend="aot_eager"):
        arguments = self.arguments(traced_sample, device)
        torch._dynamo.reset()
        compiled = torch.compile(self.op, fullgraph=True, dynamic=dynamic, backend=backend)
        actual = self.run(arguments, traced_sample.grad, compiled)
        same_bits(actual, self.run(arguments, traced_sample.grad))

    @only_on("cpu", "cuda")
    def test_compile_inductor(self, device):
        traced = next(s for s in self.samples if s.traced)
        self.test_compile(device, True, traced, backend="inductor")

    @only_on("cpu", "cuda")
    def test_export(self, device, traced_sample):
        arguments = self.arguments(traced_sample, device)
        tensors = {n: v for n, v in arguments.items() if is_tensor(v)}
        constants = {n: v for n, v in arguments.items() if not is_tensor(v)}

        class Module(torch.nn.Module):
            def forward(module, tensors):
                return tree_leaves(self.op(**tensors, **constants))

        exported = torch.export.export(Module(), (tensors,)).module()
        same_bits(exported(tensors), tree_leaves(self.op(**arguments)))


GRADIENT_TESTS = (
    "test_gradcheck",
    "test_gradients_match_reference",
    "test_second_order_is_refused",
    "test_any_strides_of_the_gradient",
)


def contract_of(name):
    """The contract of an operator in tests/ops/test_<name>.py."""
    module = importlib.import_module(f"test_{name}")
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, OpContract)]
    return next(kind for kind in kinds if kind.op is getattr(pypose_ops, name))()


def check_op(op, reference, samples, *, bad=(), on_host=False, **options):
    """A test class that checks the operator against its reference on the samples.

    Args:
        op, reference: two callables with the same signature.
        samples: :class:`Sample` list; at least one ``traced``.
        bad: :class:`Bad` list, the calls that must be refused.
        on_host: an operator that works on the host wherever its tensors are: it waits for them.
        options: ``maps``, ``batched``, ``dtype_argument``, ``second_order``, ``namespace`` of :class:`OpContract`.
    """
    assert any(s.traced for s in samples), "no sample is traced: opcheck and torch.compile would check nothing"
    assert options.keys() <= {"maps", "batched", "dtype_argument", "second_order", "namespace"}, options
    members = dict(op=staticmethod(op), reference=staticmethod(reference), samples=tuple(samples), bad=tuple(bad))
    if not any(s.grad for s in samples):
        members |= dict.fromkeys(GRADIENT_TESTS)  # nothing to collect
    if on_host:
        members |= dict.fromkeys(OFF_HOST)
    if options.get("second_order") is None:
        members["test_second_order_is_refused"] = None
    return type("Test_" + op.__name__, (OpContract,), members | options)
