"""XAttnRes on nnU-Net's own networks, on the paper's U-Net and on EMCAD.

``_paper`` and ``_paperPictures``: EMCAD's recipes, which the paper says it follows strictly; see
``nnunet_attn.trainers.emcad``, also for what differs from the released training.

Table 4's positions are without skip connections (its "None" is Table 3's "no skip"), so ours are, too; Table 5's
initialisations are with them.
"""

from nnunet_attn.paper_tables import TABLES
from nnunet_attn.trainers.emcad import nnUNetTrainerEMCAD
from nnunet_attn.training.base import NetworkTrainer, PlanDrivenTrainer


class nnUNetTrainerXAttnRes(PlanDrivenTrainer):
    """XAttnRes on the network that the plans name, PlainConvUNet or ResidualEncoderUNet, 2D and 3D."""

    network = "nnunet_attn.architectures.xattnres.XAttnResPlainConvUNet"
    networks = {
        "PlainConvUNet": "nnunet_attn.architectures.xattnres.XAttnResPlainConvUNet",
        "ResidualEncoderUNet": "nnunet_attn.architectures.xattnres.XAttnResResidualEncoderUNet",
    }
    paper_recipes, ablations = TABLES["nnUNetTrainerXAttnRes"]


class nnUNetTrainerXAttnResUNet(NetworkTrainer):
    """The paper's U-Net with XAttnRes (arXiv:2604.03297)."""

    network = "nnunet_attn.architectures.xattnres.XAttnResUNet"
    paper_recipes, ablations = TABLES["nnUNetTrainerXAttnResUNet"]


class nnUNetTrainerXAttnResEMCAD(nnUNetTrainerEMCAD):
    """EMCAD with XAttnRes in its decoder (arXiv:2604.03297)."""

    network = "nnunet_attn.architectures.xattnres_emcad.XAttnResEMCAD"
    paper_recipes, ablations = TABLES["nnUNetTrainerXAttnResEMCAD"]
