"""Write a trained model as ONNX files with a script to predict with them, and check that they agree with it."""

import importlib.util
import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from nnunet_attn.errors import UserError
from nnunet_attn.export.description import check_exportable, describe, requirements
from nnunet_attn.files import complete_folder
from nnunet_attn.training.trained_model import TrainedModel

OPSET = 18
TOLERANCE = 1e-4  # accepted difference, relative to the largest logit
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def check_packages() -> None:
    """Raise UserError unless the packages of the extra ``export`` are installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{', '.join(missing)} not installed; run: pip install 'nnunet-attn[export]'")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporter's messages about retries and decomposed operators."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def write_onnx(network: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    """Export a network at a patch of ``shape`` (channels, *patch), any batch size; float32, with weights inside.

    Raises:
        UserError: the exporter fails.
    """
    image = torch.zeros(2, *shape)  # a batch size of 1 would become a constant
    batch = torch.export.Dim("batch", min=1, max=4096)
    try:
        with quiet(), torch.inference_mode(False), torch.no_grad():
            program = torch.onnx.export(
                network,
                (image,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["image"],
                output_names=["logits"],
                dynamic_shapes=({0: batch},),
                verbose=False,
            )
            assert program is not None  # None only with the old exporter
            program.save(path, external_data=False)
    except Exception as error:  # each step of the exporter has its own exceptions
        raise UserError(f"{type(network).__name__} cannot be exported: {' '.join(str(error).split())[:300]}") from error


def disagreement(network: nn.Module, path: Path, shape: tuple[int, ...], seed: int = 0) -> float:
    """Largest difference between logits of ONNX file and network on two random patches, over the largest logit."""
    import onnxruntime

    image = np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(image)).numpy()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = np.concatenate([session.run(None, {"image": image[:1]})[0], session.run(None, {"image": image})[0][1:]])
    if found.shape != expected.shape:
        raise UserError(f"the exported network gives logits of shape {found.shape}, the model {expected.shape}")
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def export_model(model: TrainedModel, output: Path, *, overwrite: bool = False) -> dict[str, float]:
    """Export all folds of ``model`` into the folder ``output``, which appears once all of them agree with the model.

    Returns:
        The disagreement of each fold, see ``disagreement``.

    Raises:
        UserError: the model cannot be exported, or its ONNX file does not agree with it.
    """
    check_packages()
    check_exportable(model)
    shape = (model.input_channels, *(int(n) for n in model.configuration_manager.patch_size))
    differences = {}
    with complete_folder(output, overwrite=overwrite, inputs=[model.folder]) as folder:
        files = {fold: folder / f"fold_{fold}.onnx" for fold in model.folds}
        for fold, file in tqdm(files.items(), desc="folds", disable=None):
            network = model.network(fold)
            write_onnx(network, shape, file)
            differences[fold] = disagreement(network, file, shape)
            if not differences[fold] < TOLERANCE:  # also True for NaN
                raise UserError(
                    f"fold {fold}: the logits of the ONNX file differ by {differences[fold]:.2g} of the largest from "
                    f"the model's, more than {TOLERANCE:g}; nothing was written"
                )
        content = describe(model, files, OPSET) | {"self_check": differences}
        (folder / "model.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        (folder / "requirements.txt").write_text("\n".join(requirements(model)) + "\n", encoding="utf-8")
        shutil.copyfile(Path(__file__).with_name("predict.py"), folder / "predict.py")
    return differences
