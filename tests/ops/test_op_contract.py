"""The contract can fail: an operator with one planted fault passes every other check and fails the one for it."""

from functools import partial

import pytest
import torch
from op_contract import Bad, Sample, check_op
from torch.testing._internal.optests.generate_tests import OpCheckError

CPU = torch.device("cpu")


def scaled_reference(x, factor=2.0):
    """x * factor, or an error for a factor of zero."""
    if factor == 0:
        raise RuntimeError("scaled: factor must not be 0")
    return x * factor


def define(name, forward, backward=None, fake=torch.empty_like):
    """Defines toy::name(x, factor) from the given functions; returns a wrapper like those of the operators."""

    @torch.library.custom_op(f"toy::{name}", mutates_args=())
    def op(x: torch.Tensor, factor: float) -> torch.Tensor:
        return forward(x, factor)

    if fake:
        op.register_fake(lambda x, factor: fake(x))

    def setup(ctx, inputs, output):
        ctx.factor = inputs[1]

    op.register_autograd(
        lambda ctx, grad: ((backward or forward)(grad.contiguous(), ctx.factor), None), setup_context=setup
    )

    def wrapper(x, factor=2.0):
        if factor == 0:
            raise RuntimeError("scaled: factor must not be 0")
        return op(x, factor)

    wrapper.__name__ = name
    return wrapper


def contiguous_scale(x, factor):
    return (x * factor).contiguous()


def contract(op, reference=scaled_reference, **options):
    x = torch.arange(24.0).reshape(2, 3, 4) - 7
    sample = Sample("plain", (x,), {"factor": 3.0}, grad=("x",), traced=True)
    bad = [Bad("zero", (x,), {"factor": 0.0}, RuntimeError, "scaled: factor must not be 0")]
    options = {"namespace": "toy", "maps": ("x",), "batched": ("x",)} | options
    return check_op(op, reference, [sample], bad=bad, **options)


fake_contiguous = partial(torch.empty_like, memory_format=torch.contiguous_format)
good = define("good", contiguous_scale, fake=fake_contiguous)
TestGoodToy = contract(good)


def fails(op, check, *args, error=AssertionError, match=None, **options):
    instance = contract(op, **options)()
    sample = instance.samples[0]
    with pytest.raises(error, match=match):
        getattr(instance, check)(CPU, *args, sample)
    control = contract(good, **options)()
    if not options:
        getattr(control, check)(CPU, *args, sample)


def test_wrong_value_is_caught():
    wrong = define("wrong_value", lambda x, factor: contiguous_scale(x, factor) + 1e-3)
    fails(wrong, "test_matches_reference", torch.float32, match="not close")


def test_wrong_dtype_is_caught():
    wrong = define("wrong_dtype", lambda x, factor: contiguous_scale(x, factor).float())
    fails(wrong, "test_matches_reference", torch.float16, match="another dtype")


def test_wrong_gradient_is_caught():
    wrong = define("wrong_gradient", contiguous_scale, backward=lambda grad, factor: grad * factor * 1.01)
    fails(wrong, "test_gradcheck", error=RuntimeError, match="Jacobian mismatch")
    fails(wrong, "test_gradients_match_reference", torch.float32, match="not close")


def test_second_order_that_is_not_refused_is_caught():
    def forward(x, factor=2.0):
        return x**3 * factor

    check = "test_second_order_is_refused"
    fails(forward, check, error=pytest.fail.Exception, match="DID NOT RAISE", second_order="never")


def test_write_to_an_input_is_caught():
    def forward(x, factor=2.0):
        x.detach().mul_(factor)
        return x * 1

    fails(forward, "test_inputs_unchanged")


def test_wrong_strides_are_caught():
    def forward(x, factor):  # reads the storage as if it were contiguous
        return x.as_strided(x.shape, torch.empty(x.shape).stride()) * factor

    wrong = define("wrong_strides", forward)
    fails(wrong, "test_any_strides", "transposed")
    fails(wrong, "test_any_strides", "sliced")
    fails(wrong, "test_any_strides", "expanded")


def test_wrong_strides_of_the_gradient_are_caught():
    @torch.library.custom_op("toy::wrong_gradient_strides", mutates_args=())
    def op(x: torch.Tensor, factor: float) -> torch.Tensor:
        return x * factor

    def backward(ctx, grad):
        return grad.as_strided(grad.shape, torch.empty(grad.shape).stride()) * 3, None

    op.register_autograd(backward)
    fails(lambda x, factor=2.0: op(x, factor), "test_any_strides_of_the_gradient", "transposed")


def test_refused_empty_batch_is_caught():
    def forward(x, factor=2.0):
        return x / x.abs().amax() * x.abs().amax() * factor

    fails(forward, "test_empty_batch", error=(RuntimeError, IndexError))


def test_items_that_see_each_other_are_caught():
    fails(lambda x, factor=2.0: x * factor + x.sum(), "test_batch_items_are_independent")


def test_accepted_bad_call_is_caught():
    instance = contract(lambda x, factor=2.0: x * factor)()
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        instance.test_bad_call(CPU, instance.bad[0])


def test_changing_bits_are_caught():
    wrong = define("changing_bits", lambda x, factor: x * factor + torch.rand_like(x) * 1e-6)
    fails(wrong, "test_same_bits_every_run")
    fails(wrong, "test_two_threads_at_once")


def test_bits_that_depend_on_the_threads_are_caught():
    wrong = define("thread_bits", lambda x, factor: x * factor + 1e-6 * torch.get_num_threads())
    fails(wrong, "test_same_bits_for_any_thread_count")


def test_wrong_answer_in_a_forked_worker_is_caught():
    def forward(x, factor=2.0):
        return x * factor + (torch.utils.data.get_worker_info() is not None)

    with pytest.raises(AssertionError):
        contract(forward)().test_forked_workers(CPU)


def test_op_that_autocast_changes_is_caught():
    def forward(x, factor=2.0):
        return (x.reshape(-1, 1) @ torch.ones(1, 1)).reshape(x.shape) * 1.001 * factor

    fails(forward, "test_autocast", torch.bfloat16)


def test_data_read_on_the_host_are_caught():
    def forward(x, factor=2.0):
        return x * factor if x.flatten()[0].item() != 0 else x * factor

    fails(forward, "test_reads_no_data", error=(RuntimeError, NotImplementedError))


def test_result_on_another_device_is_caught():
    fails(lambda x, factor=2.0: torch.zeros(x.shape), "test_reads_no_data", error=(AssertionError, RuntimeError))


def test_missing_fake_is_caught():
    wrong = define("missing_fake", contiguous_scale, fake=None)
    fails(wrong, "test_opcheck", "test_faketensor", error=OpCheckError)


def test_wrong_fake_is_caught():
    wrong = define("wrong_fake", contiguous_scale, fake=lambda x: x.new_empty(x.shape[:-1]))
    fails(wrong, "test_opcheck", "test_faketensor", error=OpCheckError)


def test_op_that_is_never_called_is_caught():
    fails(scaled_reference, "test_opcheck", "test_schema", match="no toy operator was called")


def test_graph_break_is_caught():
    def forward(x, factor=2.0):
        torch._dynamo.graph_break()
        return good(x, factor)

    fails(forward, "test_compile", False, error=torch._dynamo.exc.Unsupported)


def test_untraceable_op_is_caught():
    fails(lambda x, factor=2.0: x * float(x.abs().amax() > 0) * factor, "test_export", error=Exception)


def test_contract_without_a_traced_sample_is_refused():
    with pytest.raises(AssertionError, match="no sample is traced"):
        check_op(good, scaled_reference, [Sample("plain", (torch.ones(2),))])
