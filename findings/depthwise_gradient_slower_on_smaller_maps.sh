#!/usr/bin/env bash
# The gradient of a depthwise 5 x 5 convolution's weights takes longer on maps of 4 x 4 pixels than on those of 5 x 5 and 6 x 6.
#
# torch 2.13.0 on an x86-64 CPU with AVX2, float32, channels last, one thread; oneDNN is kept to AVX2, so that a processor with
# AVX-512 does the same. Between 4 and 5 pixels another kernel takes over. On the small maps the same gradient as 25 products and
# sums of whole tensors takes a fifth to a tenth of the time, where one kernel in place of 75 should be ahead. These are
# the last stages of MobileNet-like networks on images of 64 to 128 pixels.
#
# Seen, ms for 16 x 1152 channels (gradient, 25 products and sums; an AMD EPYC of the first kind):
#   2 x 2: 21.1 2.2
#   3 x 3: 25.5 3.6
#   4 x 4: 27.8 5.4
#   5 x 5: 12.9 9.9
#   6 x 6: 18.9 21.4
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.0
ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 "$folder/venv/bin/python" - <<'PYTHON'
import time

import torch
from torch.nn import functional as F

torch.set_num_threads(1)


def least(call):
    call()
    times = []
    for _ in range(9):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def gradient(grad, x, weight):
    wanted = [False, True, False]
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, [1, 1], [2, 2], [1, 1], False, [0, 0], x.shape[1], wanted
    )[1]


def sums(grad, x):
    size = grad.shape[-1]
    padded, grad = F.pad(x, (2, 2, 2, 2)).permute(0, 2, 3, 1), grad.permute(0, 2, 3, 1)
    taps = [(i, j) for i in range(5) for j in range(5)]
    return torch.stack([(padded[:, i : i + size, j : j + size] * grad).sum((0, 1, 2)) for i, j in taps], 1)


times = {}
for size in range(2, 7):
    x, grad = (torch.randn(16, 1152, size, size).to(memory_format=torch.channels_last) for _ in range(2))
    weight = torch.randn(1152, 1, 5, 5)
    torch.testing.assert_close(sums(grad, x), gradient(grad, x, weight).flatten(1), rtol=1e-3, atol=1e-3)
    times[size] = least(lambda: gradient(grad, x, weight)), least(lambda: sums(grad, x))
    print(f"{size} x {size}: {times[size][0]:.1f} {times[size][1]:.1f}")
assert times[4][0] > 1.3 * times[5][0] and times[4][0] > 1.2 * times[6][0]
assert times[2][0] > 4 * times[2][1] and times[4][0] > 2 * times[4][1]
PYTHON
