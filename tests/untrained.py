"""Models' folders as a training leaves them, with random weights."""

from pathlib import Path

import torch

from nnunet_attn.training.in_process import make_trainer, nnunet_in_process


def untrained(data, trainer: str, folds=(0,)) -> Path:
    """A model's folder with checkpoints of random weights; BatchNorm's statistics and zero starts are filled, too."""
    with nnunet_in_process(data.root):
        for fold in folds:
            run = make_trainer(data.dataset_id, data.configuration, trainer, fold=fold)
            run.initialize()
            run.on_train_start = None
            torch.manual_seed(fold)
            with torch.no_grad():
                for name, tensor in run.network.state_dict().items():
                    if tensor.is_floating_point():
                        noise = 0.02 * torch.randn_like(tensor)
                        tensor.add_(noise.abs() if name.endswith("running_var") else noise)
            run.save_checkpoint(str(Path(run.output_folder) / "checkpoint_final.pth"))
    folder = data.root / "nnUNet_results" / data.name / f"{trainer}__nnUNetPlans__{data.configuration}"
    for name in ("plans.json", "dataset.json"):
        source = data.preprocessed / ("nnUNetPlans.json" if name == "plans.json" else name)
        (folder / name).write_text(source.read_text())
    return folder
