"""DCAU-Net. Arguments of the ablations are in ``nnunet_attn.paper_tables``, what each tests in the catalogue."""

from nnunet_attn.paper_tables import TABLES
from nnunet_attn.training.base import NetworkTrainer, PlanDrivenTrainer


class nnUNetTrainerDCAUNet(NetworkTrainer):
    """DCAU-Net (arXiv:2603.09530).

    ``_paper`` (rate for Synapse) and ``_paperACDC``: AdamW, decay 1e-4, 400 epochs, 0.4 cross-entropy + 0.6 Dice,
    rotations and flips. The paper is silent on the poly schedule, the betas (torch's), the angle (20 degrees) and the
    probabilities (1/2); these are our choice, as is nnU-Net's clip at 12. Dice loss and choice of patches are
    nnU-Net's, see ``nnunet_attn.trainers.emcad``. On plans of ``nnunet-attn plan --input-size`` an epoch is a pass
    over the slices, as in the paper. On other plans it is nnU-Net's 250 iterations: the 100,000 steps are 2.7 times
    the paper's on Synapse (2211 slices, batch 24: 92 steps an epoch) and 4.6 times its steps on ACDC (70 patients,
    about 1300 slices: 54 steps an epoch). Patch and batch come from the plans; the paper resizes to 224 x 224 and
    takes batches of 24.
    """

    network = "nnunet_attn.architectures.dcau_net.DCAUNet"
    paper_recipes, ablations = TABLES["nnUNetTrainerDCAUNet"]


class nnUNetTrainerDiffCA(PlanDrivenTrainer):
    """Differential cross attention and channel-spatial fusion on the network that the plans name, 2D and 3D.

    Our design; see ``DiffCAOnPlans``.
    """

    network = "nnunet_attn.architectures.diff_ca.DiffCAPlainConvUNet"
    networks = {
        "PlainConvUNet": "nnunet_attn.architectures.diff_ca.DiffCAPlainConvUNet",
        "ResidualEncoderUNet": "nnunet_attn.architectures.diff_ca.DiffCAResidualEncoderUNet",
    }
    paper_recipes, ablations = TABLES["nnUNetTrainerDiffCA"]
