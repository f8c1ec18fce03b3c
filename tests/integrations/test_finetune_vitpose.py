"""The example that trains a ViTPose: the loss falls on real images."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("transformers.models.vitpose.image_processing_vitpose", exc_type=ImportError)
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "finetune_vitpose.py"


def test_the_loss_falls(shared_data, capsys):
    spec = importlib.util.spec_from_file_location("finetune_vitpose", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    losses = example.train(shared_data / "people", None, 12, 1e-3, "cpu")
    assert losses[-1] < 0.9 * losses[0]
    assert "median error on these images" in capsys.readouterr().out
