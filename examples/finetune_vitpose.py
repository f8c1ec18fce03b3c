"""Trains a ViTPose of Hugging Face transformers with the crops, loss and decoding of pypose_ops.

    pip install transformers torchvision pillow
    python examples/finetune_vitpose.py PEOPLE --model usyd-community/vitpose-base-simple
    python examples/finetune_vitpose.py PEOPLE     # a tiny network with random weights, to see the loop work

PEOPLE is a folder with ``persons.json``: a list of
``{"image": path, "bbox_xywh": [...], "coco17_xyv": [[x, y, v], ...]}``.
Targets are not drawn: the loss compares the maps with the keypoints on the device.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation, VitPoseImageProcessor

from pypose_ops.integrations.transformers import fast_processor, pose_loss


def tiny_model(size: tuple[int, int]) -> VitPoseForPoseEstimation:
    backbone = VitPoseBackboneConfig(
        image_size=list(size), hidden_size=64, num_hidden_layers=2, num_attention_heads=4, out_indices=[2]
    )
    labels = {joint: str(joint) for joint in range(17)}
    return VitPoseForPoseEstimation(VitPoseConfig(backbone_config=backbone, id2label=labels))


def read_people(folder: Path) -> tuple[list[np.ndarray], list[list[list[float]]], torch.Tensor]:
    """Images, one box per image, and keypoints with visibility ``(N, 17, 3)``."""
    people = [p for p in json.loads((folder / "persons.json").read_text()) if p.get("coco17_xyv")]
    images = [np.array(Image.open(folder / person["image"]).convert("RGB")) for person in people]
    boxes = [[[float(v) for v in person["bbox_xywh"]]] for person in people]
    return images, boxes, torch.tensor([person["coco17_xyv"] for person in people], dtype=torch.float32)


def train(folder: Path, model: str | None, steps: int, rate: float, device: str) -> list[float]:
    """Trains on all people at once; returns the loss of every step."""
    torch.manual_seed(0)
    images, boxes, keypoints = read_people(folder)
    if model is None:
        size = (128, 96)
        network = tiny_model(size)
        processor = fast_processor(VitPoseImageProcessor(size={"height": size[0], "width": size[1]}))
    else:
        network = VitPoseForPoseEstimation.from_pretrained(model)
        processor = fast_processor(VitPoseImageProcessor.from_pretrained(model))
        size = (processor.size["height"], processor.size["width"])
    network.to(device).train()
    pixels = processor(images, boxes=boxes, return_tensors="pt").pixel_values.to(device)
    flat_boxes = torch.tensor(boxes, device=device)[:, 0]
    at, visible = keypoints[..., :2].to(device), (keypoints[..., 2] > 0).float().to(device)
    optimizer = torch.optim.AdamW(network.parameters(), rate)
    losses = []
    for step in range(steps):
        loss = pose_loss(network(pixels).heatmaps, at, flat_boxes, size, visible)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if step % 10 == 0 or step == steps - 1:
            print(f"step {step}: loss {losses[-1]:.6f}")
    with torch.inference_mode():
        poses = processor.post_process_pose_estimation(network.eval()(pixels), boxes)
    found = torch.stack([of_image[0]["keypoints"] for of_image in poses])
    error = torch.linalg.vector_norm(found - at, dim=-1)[(visible > 0) & found.isfinite().all(-1)]
    print(f"median error on these images: {float(error.median()):.1f} pixels")
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("people", type=Path, help="folder with persons.json")
    parser.add_argument("--model", help="name or folder of a ViTPose (default: a tiny one with random weights)")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    train(arguments.people, arguments.model, arguments.steps, arguments.rate, arguments.device)
