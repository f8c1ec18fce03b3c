"""Labels of regression: a batch on a CPU in numpy, all else in torch."""

import pytest
import torch

from pypose_ops import codecs


@pytest.mark.parametrize("compat", (None, "mmpose"))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
@pytest.mark.parametrize("seen", (None, torch.bool, torch.int64, torch.float32, torch.float16))
def test_the_same_numbers(monkeypatch, compat, dtype, seen):
    codec = codecs.RegressionLabel((192, 256), compat)
    generator = torch.Generator().manual_seed(0)
    keypoints = (torch.rand(2, 3, 40, 2, generator=generator, dtype=dtype) * 300 - 30).transpose(0, 1)
    edges = [[0, 0], [191, 255], [191.5, 0], [-0.0, -1e-9], [torch.nan, 3], [3, torch.inf]]
    keypoints[0, 0, :6] = torch.tensor(edges, dtype=dtype)
    visible = None if seen is None else (torch.rand(3, 2, 40, generator=generator) * 3).round().div(2).to(seen)
    found = codec.encode(keypoints, visible)
    monkeypatch.setattr(codecs.RegressionLabel, "_is_small", staticmethod(lambda *_: False))
    expected = codec.encode(keypoints, visible)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    # A loss times a weight of 0 is 0 only for finite labels.
    assert found[0].isfinite().all() and (found[1][0, 0, 4:6] == 0).all()


def test_views_with_another_sign():
    codec = codecs.RegressionLabel((192, 256))
    keypoints = torch.rand(1, 3, 2) * 100
    turned = torch._neg_view(-keypoints)
    torch.testing.assert_close(codec.encode(turned), codec.encode(keypoints), rtol=0, atol=0)


def test_gradients_and_graphs():
    codec = codecs.RegressionLabel((192, 256))
    keypoints = torch.tensor([[[96.0, 64.0]]], requires_grad=True)
    (gradient,) = torch.autograd.grad(codec.encode(keypoints)[0].sum(), keypoints)
    torch.testing.assert_close(gradient, torch.tensor([[[1 / 192, 1 / 256]]]))
    with torch.no_grad():
        assert torch.equal(codec.encode(keypoints)[0], torch.tensor([[[0.5, 0.25]]]))
    traced = torch.fx.experimental.proxy_tensor.make_fx(lambda k: codec.encode(k)[0])(keypoints.detach())
    assert torch.equal(traced(2 * keypoints.detach()), torch.tensor([[[1.0, 0.5]]]))
