"""XAttnRes on nnU-Net's own networks, on the paper's U-Net and on EMCAD.

``_paper`` and ``_paperPictures``: EMCAD's recipes, which the paper says it follows strictly; see
``nnunet_attn.trainers.emcad``, also for what differs from the released training.

Table 4's positions are without skip connections (its "None" is Table 3's "no skip"), so ours are, too; Table 5's
initialisations are with them.
"""

from collections.abc import Mapping
from typing import Any

from nnunet_attn.trainers.emcad import PAPER, PICTURES, nnUNetTrainerEMCAD
from nnunet_attn.training.base import NetworkTrainer, PlanDrivenTrainer

SKIPS: dict[str, Mapping[str, Any]] = {
    "replace": {"mode": "replace"},
    "noSkip": {"mode": "none"},
    "skipOnly": {"mode": "skip"},
}
POSITIONS: dict[str, Mapping[str, Any]] = {
    "encoderOnly": {"mode": "replace", "position": "encoder"},
    "decoderOnly": {"mode": "replace", "position": "decoder"},
}
QUERIES: dict[str, Mapping[str, Any]] = {
    "randomQuery": {"query_init": "random"},
    "kaimingQuery": {"query_init": "kaiming"},
    "xavierQuery": {"query_init": "xavier"},
}


class nnUNetTrainerXAttnRes(PlanDrivenTrainer):
    """XAttnRes on the network that the plans name, PlainConvUNet or ResidualEncoderUNet, 2D and 3D."""

    network = "nnunet_attn.architectures.xattnres.XAttnResPlainConvUNet"
    networks = {
        "PlainConvUNet": "nnunet_attn.architectures.xattnres.XAttnResPlainConvUNet",
        "ResidualEncoderUNet": "nnunet_attn.architectures.xattnres.XAttnResResidualEncoderUNet",
    }
    paper_recipes = {"paper": PAPER, "paperPictures": PICTURES}
    ablations = SKIPS | POSITIONS | QUERIES


class nnUNetTrainerXAttnResUNet(NetworkTrainer):
    """The paper's U-Net with XAttnRes (arXiv:2604.03297)."""

    network = "nnunet_attn.architectures.xattnres.XAttnResUNet"
    paper_recipes = {"paper": PAPER, "paperPictures": PICTURES}
    ablations = SKIPS | POSITIONS | QUERIES | {"concatSite": {"site": "concat"}}


class nnUNetTrainerXAttnResEMCAD(nnUNetTrainerEMCAD):
    """EMCAD with XAttnRes in its decoder (arXiv:2604.03297)."""

    network = "nnunet_attn.architectures.xattnres_emcad.XAttnResEMCAD"
    ablations = SKIPS | QUERIES
