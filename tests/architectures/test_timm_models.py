"""Pre-training with timm's own loader, optimiser and scheduler, on a tiny made-up ImageFolder."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_dataset, create_loader, resolve_data_config
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2

import nnunet_attn.architectures.timm_models  # registers
from nnunet_attn.architectures.dcau_net import DCAUNet
from nnunet_attn.training.pretrained import load_encoder

SCRIPT = Path(__file__).parents[2] / "scripts" / "encoder_from_timm.py"


@pytest.mark.slow
def test_trains_and_its_encoder_loads(tmp_path):
    rng = np.random.default_rng(0)
    for name, grey in (("bright", 200), ("dark", 40)):
        (tmp_path / "data" / "train" / name).mkdir(parents=True)
        for i in range(4):
            pixels = np.clip(rng.normal(grey, 20, (40, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / "train" / name / f"{i}.png")
    torch.manual_seed(0)
    model = timm.create_model("dcaunet_encoder", num_classes=2)
    config = resolve_data_config({"input_size": (3, 64, 64)}, model=model)
    dataset = create_dataset("", root=str(tmp_path / "data"), split="train", is_training=True, batch_size=4)
    loader = create_loader(
        dataset, config["input_size"], 4, is_training=True, num_workers=0, use_prefetcher=False,
        persistent_workers=False, mean=config["mean"], std=config["std"],
    )  # fmt: skip
    optimizer = create_optimizer_v2(model, opt="adamw", lr=3e-4, weight_decay=0.05)
    scheduler, _ = create_scheduler_v2(optimizer, sched="cosine", num_epochs=4)
    losses = []
    for epoch in range(4):
        for images, target in loader:
            loss = torch.nn.functional.cross_entropy(model(images), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss))
        scheduler.step(epoch + 1)
    assert np.mean(losses[-2:]) < np.mean(losses[:2])
    arguments = argparse.Namespace(data_dir="data", epochs=4)
    state = {"arch": "dcaunet_encoder", "state_dict": model.state_dict(), "epoch": 3, "args": arguments, "metric": 50.0}
    torch.save(state, tmp_path / "last.pth.tar")
    output = tmp_path / "encoder.pth"
    subprocess.run([sys.executable, SCRIPT, tmp_path / "last.pth.tar", output], check=True)
    facts = json.loads(output.with_suffix(".json").read_text())
    assert (facts["epochs"], facts["data"], facts["top1"]) == (4, "data", 50.0)
    network = DCAUNet(3, 9)
    load_encoder(network.encoder, output)
    for key, value in network.encoder.state_dict().items():
        torch.testing.assert_close(value, model.encoder.state_dict()[key])


def test_there_are_no_weights_to_download():
    assert nnunet_attn.architectures.timm_models.dcaunet_encoder
    with pytest.raises(ValueError, match="no published weights"):
        nnunet_attn.architectures.timm_models.dcaunet_encoder(pretrained=True)
