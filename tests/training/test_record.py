import json

import torch

from nnunet_attn.architectures import DCAUNet
from nnunet_attn.training.record import NAME, RunRecord, attention_lambdas


def test_lambda_of_each_layer_is_recorded_each_epoch(tmp_path):
    network = DCAUNet(1, 2, depths=(1, 1, 1, 1))
    names = [f"encoder.stages.{stage}.0.attention" for stage in range(4)]
    assert list(attention_lambdas(network)) == names
    record = RunRecord(tmp_path, {}, 0, torch.device("cpu"))
    record.epoch_done(1.0, attention_lambdas(network))
    with torch.no_grad():
        network.get_submodule(names[2]).lambda_q1.mul_(2)
    record.epoch_done(1.0, attention_lambdas(network))
    (session,) = json.loads((tmp_path / NAME).read_text())["sessions"]
    course = session["attention_lambda"]
    assert list(course) == names
    assert [len(set(values)) for values in course.values()] == [1, 1, 2, 1]
    assert course[names[2]][1] == round(network.get_submodule(names[2]).attention_lambda().item(), 6)


def test_other_networks_have_no_lambda(tmp_path):
    record = RunRecord(tmp_path, {}, 0, torch.device("cpu"))
    record.epoch_done(1.0, attention_lambdas(torch.nn.Linear(2, 2)))
    assert "attention_lambda" not in json.loads((tmp_path / NAME).read_text())["sessions"][0]
