import argparse
import pickle

import pytest
import torch
from torch import nn

from nnunet_attn.training.pretrained import load_encoder, read_weights


def encoder(channels: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4))


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s, "args": argparse.Namespace(lr=1)},
                                  lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
                                  lambda s: {"network_weights": {f"encoder.{k}": v for k, v in s.items()} |
                                             {"decoder.x": torch.zeros(1)}}])  # fmt: skip
def test_usual_containers_load(wrap, tmp_path):
    source, target = encoder(), encoder()
    torch.save(wrap(source.state_dict()), tmp_path / "weights.pth")
    report = load_encoder(target, tmp_path / "weights.pth")
    assert report.startswith("7 tensors of Sequential loaded from weights.pth")
    assert all(
        torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_stem_is_adapted(channels, tmp_path):
    source, target = encoder(), encoder(channels)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    assert f"from 3 to {channels} channels" in load_encoder(target, tmp_path / "w.pth")
    weight = source[0].weight
    expected = weight.sum(1, keepdim=True) if channels == 1 else weight.repeat(1, 2, 1, 1)[:, :channels] * 3 / channels
    torch.testing.assert_close(target[0].weight, expected)


def test_every_mismatch_is_named(tmp_path):
    state = encoder().state_dict()
    del state["1.bias"]
    state["0.bias"] = torch.zeros(5)
    state["head.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "w.pth")
    target = encoder()
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(ValueError, match=r"0\.bias is \(5,\), expected \(4,\); missing 1\.bias; unknown head\.weight"):
        load_encoder(target, tmp_path / "w.pth")
    assert all(torch.equal(before[k], v) for k, v in target.state_dict().items())


def test_ignored_keys(tmp_path):
    torch.save(encoder().state_dict() | {"head.weight": torch.zeros(1)}, tmp_path / "w.pth")
    load_encoder(encoder(), tmp_path / "w.pth", ("head.",))


class Exploit:
    def __reduce__(self):
        return (open, ("exploited", "w"))


def test_code_in_a_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Exploit()}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="not a checkpoint that holds only tensors"):
        read_weights(tmp_path / "w.pth")
    (tmp_path / "p.pkl").write_bytes(pickle.dumps(Exploit()))
    with pytest.raises(ValueError, match="not a checkpoint"):
        read_weights(tmp_path / "p.pkl")
    assert not (tmp_path / "exploited").exists()


def test_missing_and_cut_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth: no such file"):
        read_weights(tmp_path / "none.pth")
    torch.save(encoder().state_dict(), tmp_path / "w.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "w.pth").read_bytes()[:300])
    with pytest.raises(ValueError, match="not a checkpoint"):
        read_weights(tmp_path / "cut.pth")
    torch.save({"epoch": 3}, tmp_path / "e.pth")
    with pytest.raises(ValueError, match="expected a state dict"):
        read_weights(tmp_path / "e.pth")
