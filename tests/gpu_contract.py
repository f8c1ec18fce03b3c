"""What a GPU asks of every operator: its own stream and device, no word from the host, capture as a graph.

A part of the contract of op_contract.py. All but the first check need a GPU; the first shows without one that no data
are read back.
"""

import pytest
import torch
from contract_tools import captured_graph, is_floating, is_tensor, only_on, same_bits, weighted
from torch.utils._pytree import tree_leaves, tree_map_only

# Names of what an operator of the host cannot do; check_op leaves them out there.
OFF_HOST = ("test_reads_no_data", "test_no_host_sync", "test_cuda_graph", "test_compile_cuda_graphs")


def flipped(arguments):
    """Other arguments of the same shapes."""
    return tree_map_only(torch.Tensor, lambda v: v.flip(0) if v.dim() else v.clone(), arguments)


def overwrite(arguments, values):
    """Copies the values into the arguments' memory."""
    for now, new in zip(tree_leaves(arguments), tree_leaves(values), strict=True):
        if is_tensor(now):
            now.copy_(new)


class GpuContract:
    def step(self, arguments, names):
        """The operator and its gradients as a function without arguments: its inputs are already on the device."""
        leaves = {n: arguments[n].detach().requires_grad_() for n in names}  # in the arguments' memory
        weights = weighted(self.op(**(arguments | leaves)))[1] if names else ()

        def call():
            result = tree_leaves(self.op(**(arguments | leaves)))
            outputs = [o for o in result if is_floating(o) and o.requires_grad]
            gradients = torch.autograd.grad(outputs, list(leaves.values()), weights) if names else ()
            return [o.detach() for o in result], gradients

        return call

    @only_on("cpu")
    def test_reads_no_data(self, device, sample):
        """On tensors that have shapes and no data: what waits for a GPU elsewhere is an error here."""
        arguments = self.arguments(sample, "meta")
        for value in tree_leaves(self.run(arguments, sample.grad)):
            assert value.is_meta, "a result is on another device than the arguments"

    @only_on("cuda")
    def test_no_host_sync(self, device, sample):
        call = self.step(self.arguments(sample, device), sample.grad)
        call()  # module load and first allocations may wait
        try:
            torch.cuda.set_sync_debug_mode("error")
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")

    @only_on("cuda")
    def test_cuda_graph(self, device, sample):
        """Captured with its gradients, replayed on other values."""
        arguments = self.arguments(sample, device)
        other = flipped(arguments)
        call = self.step(arguments, sample.grad)
        graph, captured = captured_graph(call)
        overwrite(arguments, other)
        for _ in range(2):
            graph.replay()
            same_bits(captured, self.step(other, sample.grad)())

    @only_on("cuda")
    def test_two_streams(self, device, sample):
        """Each stream waits, then gets its values, then runs: a kernel on another stream would find the old values."""
        values = [self.arguments(sample, device)]
        values.append(flipped(values[0]))
        expected = [self.step(v, sample.grad)() for v in values]
        buffers = [flipped(v) for v in values]
        calls = [self.step(b, sample.grad) for b in buffers]
        torch.cuda.synchronize()
        results = []
        for buffer, value, call in zip(buffers, values, calls, strict=True):
            with torch.cuda.stream(torch.cuda.Stream()):
                torch.cuda._sleep(2_000_000)  # cycles: a millisecond
                overwrite(buffer, value)
                results.append(call())
        torch.cuda.synchronize()
        same_bits(results, expected)

    @only_on("cuda")
    def test_other_device(self, device, sample):
        """On the last GPU, while the first is the current one."""
        last = torch.device("cuda", torch.cuda.device_count() - 1)
        if last.index == 0:
            pytest.skip("one GPU")
        actual = self.step(self.arguments(sample, last), sample.grad)()
        assert {value.device for value in tree_leaves(actual)} == {last}
        expected = self.step(self.arguments(sample, "cuda:0"), sample.grad)()
        same_bits([v.cpu() for v in tree_leaves(actual)], [v.cpu() for v in tree_leaves(expected)])

    @only_on("cuda")
    def test_compile_cuda_graphs(self, device):
        """torch.compile's own CUDA graphs: warm-up, capture, replays."""
        sample = next(s for s in self.samples if s.traced)
        values = [self.arguments(sample, device)]
        values.append(flipped(values[0]))
        torch._dynamo.reset()
        compiled = torch.compile(self.op, fullgraph=True, dynamic=False, mode="reduce-overhead")
        for turn in range(4):
            torch.compiler.cudagraph_mark_step_begin()
            actual = self.run(values[turn % 2], sample.grad, compiled)
            same_bits(actual, self.run(values[turn % 2], sample.grad))
