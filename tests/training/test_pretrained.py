import argparse
import pickle
import urllib.request
from contextlib import nullcontext

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from nnunet_attn.training.pretrained import load_encoder, published_weights, read_weights


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


def test_safetensors(tmp_path):
    source, target = encoder(), encoder()
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    assert "loaded from model.safetensors" in load_encoder(target, tmp_path / "model.safetensors")
    assert torch.equal(source[0].weight, target[0].weight)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:50])
    with pytest.raises(ValueError, match=r"cut\.safetensors: not a checkpoint"):
        read_weights(tmp_path / "cut.safetensors")


def test_names_of_another_release(tmp_path):
    source, target = encoder(), encoder()
    torch.save({f"old.{k}": v for k, v in source.state_dict().items()}, tmp_path / "w.pth")

    def rename(weights):
        return {k.removeprefix("old."): v for k, v in weights.items()}

    load_encoder(target, tmp_path / "w.pth", rename=rename)
    assert torch.equal(source[0].weight, target[0].weight)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with an empty cache; lists what was asked of it."""
    asked = []

    def download(repo_id, filename, local_files_only=False):
        asked.append((repo_id, filename, local_files_only))
        file = tmp_path / filename
        if local_files_only and not file.exists():
            raise huggingface_hub.errors.LocalEntryNotFoundError("not here")
        file.touch()
        return str(file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return asked


def test_published_weights_are_downloaded_once(hub, tmp_path, monkeypatch):
    tried = []

    def urlopen(request, timeout):
        tried.append((request.full_url, request.method, timeout))
        return nullcontext()

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    file = "timm/pvt_v2_b2.in1k", "model.safetensors"
    assert published_weights("pvt_v2_b2") == tmp_path / "model.safetensors"
    assert hub == [(*file, True), (*file, False)]
    ((url, method, timeout),) = tried
    assert url.endswith("/timm/pvt_v2_b2.in1k/resolve/main/model.safetensors")
    assert (method, timeout) == ("HEAD", 5.0)
    published_weights("pvt_v2_b2")
    assert hub[2:] == [(*file, True)]
    assert len(tried) == 1


def test_published_weights_out_of_reach(hub, monkeypatch):
    def urlopen(request, timeout):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    with pytest.raises(OSError, match="no route to host"):
        published_weights("pvt_v2_b2")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=r"pvt_v2_b2\.in1k is not in the cache, and HF_HUB_OFFLINE is set"):
        published_weights("pvt_v2_b2")
    assert all(local for _, _, local in hub)
